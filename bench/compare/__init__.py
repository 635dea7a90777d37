"""The farm beside its peers: the same load on each, in one run."""
