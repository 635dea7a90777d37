"""Batches of OpenAI's Batch API: their records, and what is known of their lines while they run."""
