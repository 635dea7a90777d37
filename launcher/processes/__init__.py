"""Starts, supervises and stops the processes of one farm, and records them in its data dir."""
