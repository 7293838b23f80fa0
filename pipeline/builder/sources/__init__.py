"""Sources: fetched, verified, kept and unpacked."""
