"""Geometries as other programs write them."""
