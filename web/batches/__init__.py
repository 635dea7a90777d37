"""Runs batches: validates their input, asks each line as a relay request of its API key, and keeps the results."""
