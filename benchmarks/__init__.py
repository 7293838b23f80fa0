"""Measures what the README promises, beside peers that run in the same minutes: `doit bench`."""
