"""The commands of `./farm`, one module per group."""
