"""What is read from the network: bounded in size, time and tries."""
