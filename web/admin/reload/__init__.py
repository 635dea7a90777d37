"""Admin API: what a reload of the settings would change, and the reload."""
