"""Credentials: their sealed tokens, states and records."""
