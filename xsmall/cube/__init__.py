"""Cubes: bins, moments, merging."""
