"""Signing in by the admin API: the resource, and the page to which a browser comes back."""
