"""What the time of accounts went into, and how many requests they had at once."""
