"""Frames from the workers: one subscription per front, one mailbox per request."""
