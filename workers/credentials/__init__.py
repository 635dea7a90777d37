"""What makes a credential usable: its lease, its tokens, its cooldown, the pool's circuit breaker."""
