"""Admin API: the files of all API keys."""
