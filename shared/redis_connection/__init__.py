"""Connections to Redis: client, multiplexer, implicit pipelining, retry."""
