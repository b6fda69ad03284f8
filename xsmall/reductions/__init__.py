"""Labelled functions and records, one file each: the public API on arrays."""
