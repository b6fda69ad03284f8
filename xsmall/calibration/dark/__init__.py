"""Constants from dark runs."""
