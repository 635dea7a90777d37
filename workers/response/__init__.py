"""Reads and rewrites upstream responses: disguised errors, completeness, token usage. No I/O."""
