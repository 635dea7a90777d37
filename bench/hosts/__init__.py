"""A farm over several hosts: network namespaces, joined by a router with delay, loss and partitions."""
