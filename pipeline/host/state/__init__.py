"""What is recorded of instances: the files below PREFIX/.nifty, their formats, the lock."""
