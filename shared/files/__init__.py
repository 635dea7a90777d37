"""Files of API keys: immutable parts in a store of bytes (a directory, S3), and a record of each file in Redis."""
