"""Images: components, settings and drop-ins put together and packed."""
