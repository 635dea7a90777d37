"""How commands show records to people."""
