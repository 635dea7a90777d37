"""The request log on pages: its search, and one request step by step."""
