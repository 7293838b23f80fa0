"""The host's half as one file for a Python: pinned wheels as they are, and modules of ours."""
