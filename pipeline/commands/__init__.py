"""One module for each command: `doit X` is `run` of X.py."""
