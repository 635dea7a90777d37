"""HTTP to the upstream: one kept-alive connection per worker."""
