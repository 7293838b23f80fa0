"""The only users of doit: each module names tasks and hands them to build or host."""
