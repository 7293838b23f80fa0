"""Builds a tiny root filesystem image and runs a thousand copies of it on one host."""
