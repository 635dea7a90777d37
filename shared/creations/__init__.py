"""What was created under idempotency keys, so that a retry creates nothing a second time."""
