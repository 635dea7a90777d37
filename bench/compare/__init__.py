"""Compares the farm with its peers: the same load on each, in one run."""
