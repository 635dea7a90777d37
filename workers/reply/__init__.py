"""Sends reply frames to the front: numbered, retained until acknowledged, published in batches."""
