"""Histograms of pixel values."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.bins import find_bin
from xsmall.kernels.jit import njit

__all__ = ["histogram"]


@njit
def histogram(frame: Any, top: Any, left: Any, use: Any, edges: Any, first: Any, counts: Any, beyond: Any) -> Any:
    """Count the pixels of a box of one frame by their value.

    Parameters
    ----------
    frame
        (row, column) the pixels of a segment; those that are not finite are skipped.
    top, left
        Where the box begins.
    use
        (row, column) boolean of the size of the box, True where a pixel may be used.
    edges, first
        (bin + 1,) borders that rise, closed left and open right; and :func:`xsmall.kernels.bins.first_bins` of them.
    counts
        (bin,) int64, added to.
    beyond
        (3,) int64, added to: pixels below the lowest edge, at or above the highest, and valid ones.
    """
    low, high = edges[0], edges[edges.size - 1]
    for r in range(use.shape[0]):
        values, good = frame[top + r, left : left + use.shape[1]], use[r]
        for c in range(values.size):
            value = values[c]
            if good[c] and abs(value) < np.inf:
                beyond[2] += 1
                if value < low:
                    beyond[0] += 1
                elif value >= high:
                    beyond[1] += 1
                else:
                    counts[find_bin(value, edges, first)] += 1
