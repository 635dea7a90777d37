"""One line of a batch: read, parsed, asked as a relay request, rendered as a result. It knows nothing of its batch."""
