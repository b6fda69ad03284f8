"""LCLS-II raw files (XTC2): bytes, index of a file, lazy arrays, xarray backend. Needs no psana."""
