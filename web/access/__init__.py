"""Who is calling: API keys and callers' own refresh tokens."""
