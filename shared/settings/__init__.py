"""The settings: fields, parsers, loading."""
