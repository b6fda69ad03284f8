"""Azimuthal integration where the photon energy differs between events: q of a pixel scales with it.

The table holds q of each pixel at one energy; the kernel scales it by that of the event and looks up the bin. A table
of cells over the range of the bins gives the first bin to try, whatever their widths are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["first_bins", "scatter_scaled"]

_CELLS_PER_BIN = 4


def first_bins(edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Bin that holds the left border of each of equal cells over the range of the edges: where to start looking."""
    cells = np.linspace(edges[0], edges[-1], _CELLS_PER_BIN * (edges.size - 1), endpoint=False)
    return np.clip(np.searchsorted(edges, cells, side="right") - 1, 0, edges.size - 2).astype(np.int32)


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
        (bin + 1,) borders that rise, closed left and open right; and :func:`first_bins` of them.
    sums, counts, weights
        (sector * bin,) float64, int64 and float64, added to.
    """
    n = edges.size - 1
    low, high = edges[0], edges[n]
    per_cell = first.size / (high - low)
    for i in range(frame.size):
        place = position[i] * scale
        value = frame[i]
        if place >= low and place < high and abs(value) < np.inf:
            b = first[min(int((place - low) * per_cell), first.size - 1)]
            while b > 0 and place < edges[b]:
                b -= 1
            while place >= edges[b + 1]:
                b += 1
            turn = sector[i] if sector.size else 0
            if turn >= 0:
                q = turn * n + b
                sums[q] += value
                counts[q] += 1
                weights[q] += weight[i] if weight.size else 1.0
