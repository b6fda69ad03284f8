"""Sparse frames: the pixels of an event that are not zero, by their number and value, and runs of those it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.bins import find_bin
from xsmall.kernels.jit import njit

__all__ = ["add_to_bins", "box_of_entries", "histogram_of_entries", "lost_runs"]


@njit
def add_to_bins(pixel: Any, value: Any, index: Any, sums: Any) -> Any:
    """Add the values of pixels to the sums of their bins.

    Parameters
    ----------
    pixel, value
        (entry,) number of the pixel, counted over the whole frame, and its value.
    index
        (pixel,) bin of each pixel of the frame; what lies beyond the sums is left out.
    sums
        (bin,) float64, added to.
    """
    for i in range(pixel.size):
        b = index[pixel[i]]
        if 0 <= b < sums.size:
            sums[b] += value[i]


@njit
def box_of_entries(
    pixel: Any, value: Any, width: Any, top: Any, left: Any, use: Any, row: Any, column: Any, out: Any
) -> Any:
    """What :func:`xsmall.kernels.roi.box` finds in a box, of the pixels that are not zero.

    Parameters
    ----------
    pixel, value
        (entry,) number of the pixel in its segment, and its value.
    width
        Columns of the segment.
    top, left, use, row, column
        As in :func:`xsmall.kernels.roi.box`.
    out
        (5,) float64, filled: sum, maximum (NaN without an entry), sum times row, sum times column, number of entries.
    """
    total = moment_row = moment_column = 0.0
    most, n = np.nan, 0
    for i in range(pixel.size):
        r, c = pixel[i] // width - top, pixel[i] % width - left
        if 0 <= r < use.shape[0] and 0 <= c < use.shape[1] and use[r, c]:
            v = np.float64(value[i])
            total += v
            moment_row += v * row[r]
            moment_column += v * column[c]
            n += 1
            if not most >= v:
                most = v
    out[0], out[1], out[2], out[3], out[4] = total, most, moment_row, moment_column, n


@njit
def histogram_of_entries(pixel: Any, value: Any, inside: Any, edges: Any, first: Any, counts: Any, beyond: Any) -> Any:
    """Count the pixels that are not zero by their value.

    Parameters
    ----------
    pixel, value
        As in :func:`add_to_bins`.
    inside
        (pixel,) boolean: what is counted.
    edges, first, counts
        As in :func:`xsmall.kernels.histogram.histogram`.
    beyond
        (3,) int64, added to: pixels below the lowest edge, at or above the highest, and all of them.
    """
    low, high = edges[0], edges[edges.size - 1]
    for i in range(pixel.size):
        if inside[pixel[i]]:
            v = np.float64(value[i])
            beyond[2] += 1
            if v < low:
                beyond[0] += 1
            elif v >= high:
                beyond[1] += 1
            else:
                counts[find_bin(v, edges, first)] += 1


@njit
def lost_runs(frame: Any, top: Any, use: Any, offset: Any, out: Any) -> Any:
    """Find runs of pixels that might be used and are not finite.

    Parameters
    ----------
    frame, use
        (pixel,) values, and boolean.
    top
        Largest finite value.
    offset
        Number of the first pixel.
    out
        int32, filled with the first pixel of a run and the one behind it, run after run; long enough for all.

    Returns
    -------
    How many borders were found.
    """
    n, lost = 0, False
    for i in range(frame.size):
        bad = use[i] and not abs(frame[i]) <= top
        if bad != lost:
            out[n] = offset + i
            n += 1
            lost = bad
    if lost:
        out[n] = offset + frame.size
        n += 1
    return n
