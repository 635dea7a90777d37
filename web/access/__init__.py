"""Authenticates callers by API key or by their own refresh token."""
