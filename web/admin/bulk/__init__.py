"""Admin API: one operation on many credentials, with its progress."""
