"""Alerts as both sides see them: what is wrong now, who is told of it, and how far that has come."""
