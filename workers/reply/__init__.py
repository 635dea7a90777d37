"""Frames back to the front: numbered, kept until acknowledged, published in batches."""
