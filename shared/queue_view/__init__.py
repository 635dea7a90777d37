"""What operators see of the queue: who waits in which order, what runs, when it will be empty, what a load needs."""
