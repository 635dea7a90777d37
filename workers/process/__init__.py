"""One worker process: claims its share of the credentials, runs a worker for each slot, and does periodic chores."""
