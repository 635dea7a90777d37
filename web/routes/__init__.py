"""The HTTP routes for callers and for monitoring."""
