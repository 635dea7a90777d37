"""API keys with their limits, and admin tokens."""
