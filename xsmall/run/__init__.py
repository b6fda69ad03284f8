"""Recipes and production: the same reductions over every event of every run, unattended."""
