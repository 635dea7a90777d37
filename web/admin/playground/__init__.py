"""The playground: requests of operators, with what the farm does to serve them."""
