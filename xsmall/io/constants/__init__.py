"""Constants from files, folders and databases."""
