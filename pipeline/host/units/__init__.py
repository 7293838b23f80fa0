"""What systemd is told, and what it says: templates, environments, starting and stopping."""
