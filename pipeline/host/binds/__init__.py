"""What of this host an instance sees read-only: what it may be, and what drop-ins are given."""
