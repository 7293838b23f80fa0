"""What is on the disk: roots of instances, and the images that they are made of."""
