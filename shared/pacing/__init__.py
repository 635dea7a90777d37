"""Limits of accounts: how many requests and tokens per minute and day, and the gap between two requests."""
