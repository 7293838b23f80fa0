"""What an image and its components are made of: recipes, read and checked."""
