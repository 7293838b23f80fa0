"""Instances in a file: written on one host, read on another."""
