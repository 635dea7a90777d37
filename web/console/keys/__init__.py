"""The API keys: their list, one key, and its form."""
