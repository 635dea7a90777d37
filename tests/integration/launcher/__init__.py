"""Commands that change what is in Redis."""
