"""Operators' login and the admin API."""
