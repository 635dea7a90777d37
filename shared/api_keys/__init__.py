"""API keys, their limits, and admin tokens."""
