"""Turns a stream into one object, and one object into a stream, for callers who asked for the other form."""
