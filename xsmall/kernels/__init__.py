"""Kernels: numpy and numba, arrays in, arrays out. Each has a slow, obvious twin in :mod:`xsmall.kernels.reference`."""
