"""The farm as a browser uses it: a page of another origin, many streams at once."""
