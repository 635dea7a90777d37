"""Admin API: what goes on in the farm now, and went on a moment ago."""
