"""The benchmark: starts simulator and farm, loads them, verifies every response and records the measurements."""
