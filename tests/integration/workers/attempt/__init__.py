"""Attempts at upstreams of scripted bytes."""
