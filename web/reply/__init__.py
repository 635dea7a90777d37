"""Receives reply frames: one subscription per front, one mailbox per request."""
