"""One worker process: claims its share of the credentials and runs their workers."""
