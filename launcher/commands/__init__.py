"""The commands of `./farm`, one module for each group."""
