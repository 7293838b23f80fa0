"""What is so on this host, whether it is enough, and what mends it."""
