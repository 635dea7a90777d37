"""Connections to Redis: client, multiplexed connection, implicit pipelining, retry."""
