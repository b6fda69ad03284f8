"""Kernels: numpy and numba, arrays in, arrays out. Each has a slow, obvious twin in :mod:`xsmall.kernels.reference`."""

from xsmall.kernels.compiling import say_once

say_once()
