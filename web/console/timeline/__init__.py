"""Pages about what has happened, and who is told of it."""
