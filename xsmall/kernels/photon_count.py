"""How many pixels hold k photons, and how many are not valid, by region."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["count_invalid", "count_pixels"]

_BLOCK = 256


@njit
def count_invalid(frame: Any, top: Any, regions: Any, invalid: Any) -> None:
    """Add the pixels that are not finite to ``invalid`` (region,).

    Parameters
    ----------
    frame
        (pixel,) contiguous.
    top
        Largest finite value.
    regions
        (region, pixel) boolean.
    invalid
        (region,) int64, added to.
    """
    for start in range(0, frame.size, _BLOCK):
        stop = min(start + _BLOCK, frame.size)
        block = frame[start:stop]
        together = block[0]
        for i in range(1, block.size):
            together += block[i]
        if abs(together) <= top:  # neither NaN nor infinity
            continue
        for i in range(block.size):
            if not abs(block[i]) <= top:
                for g in range(regions.shape[0]):
                    invalid[g] += regions[g, start + i]


@njit
def count_pixels(row: Any, column: Any, regions: Any, counts: Any, keep: Any, n_k: Any, above: Any) -> None:
    """Count the pixels that hold k photons in each region.

    Parameters
    ----------
    row, column
        Positions (photon,) in the segment.
    regions
        (region, row, column) boolean.
    counts
        (row, column) int32 of zeros.
    keep
        Whether ``counts`` is to hold the photons of each pixel in the end; else it is zero again.
    n_k
        (region, k) int64: pixels with 1, 2, ... photons are added from k = 1 on; k = 0 is left alone.
    above
        (region,) int64: pixels with more photons than ``n_k`` has room for.
    """
    most, columns = n_k.shape[1] - 1, counts.shape[1]
    flat, within = counts.reshape(-1), regions.reshape(regions.shape[0], -1)
    at = np.empty(row.size, np.int32)
    for i in range(row.size):
        at[i] = np.int32(row[i] + 0.5) * columns + np.int32(column[i] + 0.5)  # places are at -0.49 or above
        flat[at[i]] += 1
    for p in at:
        k = flat[p]
        if k < 0:
            continue
        flat[p] = -k  # seen
        for g in range(within.shape[0]):
            if within[g, p]:
                if k > most:
                    above[g] += 1
                else:
                    n_k[g, k] += 1
    for p in at:
        flat[p] = abs(flat[p]) if keep else 0
