"""The part of the admin API that shows and cancels the batches of all API keys."""
