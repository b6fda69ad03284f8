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
    per_width = _per_width(edges)
    # Sum and count of a bin lie side by side, even and odd pixels apart: neighbours do not wait for each other.
    found = np.zeros((sums.size, 2, 2))
    for i in range(frame.size):
        place = position[i] * scale
        value = frame[i]
        if place >= low and place < high and abs(value) < np.inf:
            if per_width > 0.0:
                b = min(int((place - low) * per_width), n - 1)
                b += np.int64(place >= edges[b + 1]) - np.int64(place < edges[b])
            else:
                b = find_bin(place, edges, first)
            turn = sector[i] if sector.size else 0
            if turn >= 0:
                q = turn * n + b
                found[q, i & 1, 0] += value
                found[q, i & 1, 1] += 1.0
                if weight.size:
                    weights[q] += weight[i]
    for q in range(sums.size):
        count = found[q, 0, 1] + found[q, 1, 1]
        sums[q] += found[q, 0, 0] + found[q, 1, 0]
        counts[q] += np.int64(count)
        if not weight.size:
            weights[q] += count


@njit
def _per_width(edges: Any) -> Any:
    """One over the width of bins that are even to a quarter of it, else 0."""
    n = edges.size - 1
    width = (edges[n] - edges[0]) / n
    for b in range(n + 1):
        if abs(edges[b] - (edges[0] + b * width)) > 0.25 * width:
            return 0.0
    return 1.0 / width
