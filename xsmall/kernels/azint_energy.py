"""Azimuthal integration where the photon energy differs between events: q of a pixel scales with it.

The table holds q of each pixel at one energy; the kernel scales it by that of the event and looks up the bin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.bins import find_bin
from xsmall.kernels.jit import njit

__all__ = ["scatter_scaled"]


@njit
def scatter_scaled(
    frame: Any,
    position: Any,
    scale: Any,
    sector: Any,
    weight: Any,
    edges: Any,
    first: Any,
    sums: Any,
    counts: Any,
    weights: Any,
) -> Any:
    """Add the pixels of one event to the sums of the bins that ``position * scale`` falls into.

    Parameters
    ----------
    frame
        (pixel,) values; those that are not finite are skipped.
    position
        (pixel,) float64 place of each pixel at scale 1, NaN where it is not used.
    scale
        What the event multiplies it by; NaN leaves all pixels out.
    sector
        (pixel,) azimuthal bin, -1 outside; empty where there is one.
    weight
        (pixel,) what a pixel counts for in ``weights``, or empty: 1.
    edges, first
        (bin + 1,) borders that rise, closed left and open right; and :func:`xsmall.kernels.bins.first_bins` of them.
    sums, counts, weights
        (sector * bin,) float64, int64 and float64, added to.
    """
    n = edges.size - 1
    low, high = edges[0], edges[n]
    for i in range(frame.size):
        place = position[i] * scale
        value = frame[i]
        if place >= low and place < high and abs(value) < np.inf:
            b = find_bin(place, edges, first)
            turn = sector[i] if sector.size else 0
            if turn >= 0:
                q = turn * n + b
                sums[q] += value
                counts[q] += 1
                weights[q] += weight[i] if weight.size else 1.0
