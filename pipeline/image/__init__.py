"""The image as a value: entries, manifest, archive. What build makes and host deploys."""
