"""Answers that are given more than once: shared runs, the cache, and replays by idempotency key."""
