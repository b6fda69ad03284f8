"""The script that brings runs of LCLS-I to raw HDF5."""
