"""Code that the front, the workers and the launcher share."""
