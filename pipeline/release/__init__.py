"""What is published: keys, signed directories, and the documents that go with an image."""
