"""The simulator's token endpoint: grants, kinds of credentials, and what it asks of a request."""
