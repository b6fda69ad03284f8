"""Fletcher's checksum as HDF5 takes it, of the bytes of a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["fletcher32"]

_BLOCK = 256
"""Words of a block: the weighted sum of so many fits 32 bits."""
_MODULUS = np.uint64(65535)


@njit
def fletcher32(words: Any) -> Any:
    """Checksum of an even number of bytes, given as words of 16 bits in the order of a small-endian machine.

    HDF5 adds words of the other order. That is the same sum times 256: its modulus is 65535, and 256 times 256 is 1.
    """
    first, second = np.uint64(0), np.uint64(0)
    empty = True
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]  # a slice of its own, or the loop stays without vectors
        m = block.size
        total, weighted = np.uint32(0), np.uint32(0)
        for k in range(m):
            word = np.uint32(block[k])
            total = np.uint32(total + word)
            weighted = np.uint32(weighted + np.uint32(word * np.uint32(m - k)))
        empty = empty and total == 0
        second = (second + np.uint64(m) * first + np.uint64(weighted)) % _MODULUS
        first = (first + np.uint64(total)) % _MODULUS
    if empty:
        return np.uint64(0)
    first, second = first * np.uint64(256) % _MODULUS, second * np.uint64(256) % _MODULUS
    first = first if first else _MODULUS  # sums with carries end at 65535, where nothing but zeros ends at 0
    second = second if second else _MODULUS
    return (second << np.uint64(16)) | first
