"""The benchmark: starts simulator and farm, drives them with verified load, prints and keeps what was measured."""
