"""Settings: definitions, parsers and loading."""
