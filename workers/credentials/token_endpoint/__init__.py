"""The token endpoint of a pool: requests of all kinds of credentials, and responses in the forms that vendors use."""
