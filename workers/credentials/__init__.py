"""A credential's lease, tokens and cooldown, and the pool's circuit breaker."""
