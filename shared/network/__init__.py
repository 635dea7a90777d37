"""What the farm asks of TCP and unix sockets, and IP addresses."""
