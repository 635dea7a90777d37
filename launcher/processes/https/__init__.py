"""The HTTPS endpoint: Caddy, the reverse proxy in front of the fronts."""
