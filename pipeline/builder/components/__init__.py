"""Components: a verified source compiled to static programs."""
