"""From an image to running instances, as root."""
