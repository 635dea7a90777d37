"""The console's pages of batches."""
