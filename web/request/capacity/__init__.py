"""Whether and when a pool can serve a request."""
