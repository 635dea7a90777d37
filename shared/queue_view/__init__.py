"""What operators see of the queue: who waits in the order of service, and what runs."""
