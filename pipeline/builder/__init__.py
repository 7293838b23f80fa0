"""From recipes to an image, as an ordinary user."""
