"""Other gateways, each in its own module and configured as well as we know how for one request per account."""
