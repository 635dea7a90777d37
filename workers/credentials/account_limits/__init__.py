"""Limits that an upstream sets its accounts: per account or per model."""
