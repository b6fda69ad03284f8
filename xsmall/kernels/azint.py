"""Azimuthal integration: pixels scattered into bins that a table gives, four frames at a time.

Neighbouring pixels fall into the same bin, so that each sum waits for the one before: four events side by side, and
even and odd pixels in sums of their own, keep the processor busy meanwhile. Pixels that are never used go to a last,
surplus bin. How many pixels a bin holds is known from the table; only what an event lacks is counted, pixel by pixel,
in the blocks where something is not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import guvectorize, njit
from xsmall.kernels.vectors import add_square

__all__ = ["LANES", "azint", "scatter"]

LANES = 4
_STRIDE = 2 * LANES  # sums of a bin: even pixels, odd pixels
_BLOCK = 256


@njit
def scatter(a: Any, b: Any, c: Any, d: Any, index: Any, weight: Any, sums: Any, lost: Any, lost_weight: Any) -> Any:
    """Add the pixels of four frames to the sums of their bins.

    Parameters
    ----------
    a, b, c, d
        (pixel,) one event each, contiguous; a short group repeats its last event and ignores what comes of it, so
        that the sums of an event do not depend on its company.
    index
        (pixel,) bin of each pixel, any unsigned or signed integer; the last bin takes what is not used.
    weight
        (pixel,) what a pixel counts for in ``lost_weight``, or empty: 1.
    sums
        (bin + 1, 2, 4) float64, contiguous, added to: even pixels, odd pixels.
    lost, lost_weight
        (bin + 1, 4) int64 and float64, added to: pixels that are not finite, and their weight.
    """
    flat = sums.reshape(-1)
    for start in range(0, index.size, _BLOCK):
        stop = min(start + _BLOCK, index.size)
        pa, pb, pc, pd, bins = a[start:stop], b[start:stop], c[start:stop], d[start:stop], index[start:stop]
        together = pa[0]
        for i in range(bins.size):
            together += pa[i] + pb[i] + pc[i] + pd[i]
        if abs(together) < np.inf:  # neither NaN nor infinity in any of them
            squares = bins.size // LANES
            for square in range(squares):
                i = LANES * square
                p, q = np.int64(bins[i]) * _STRIDE, np.int64(bins[i + 1]) * _STRIDE + LANES
                r, s = np.int64(bins[i + 2]) * _STRIDE, np.int64(bins[i + 3]) * _STRIDE + LANES
                add_square(flat, p, q, r, s, pa, pb, pc, pd, i)
            for i in range(LANES * squares, bins.size):
                q = np.int64(bins[i]) * _STRIDE + LANES * (i & 1)
                flat[q] += pa[i]
                flat[q + 1] += pb[i]
                flat[q + 2] += pc[i]
                flat[q + 3] += pd[i]
        else:
            _scatter_checked((pa, pb, pc, pd), bins, weight[start:stop], sums, lost, lost_weight)


@njit
def _scatter_checked(frames: Any, bins: Any, weight: Any, sums: Any, lost: Any, lost_weight: Any) -> Any:
    a, b, c, d = frames
    for i in range(bins.size):
        q, h = bins[i], i & 1
        if abs(a[i] + b[i] + c[i] + d[i]) < np.inf:  # most pixels, even here
            sums[q, h, 0] += a[i]
            sums[q, h, 1] += b[i]
            sums[q, h, 2] += c[i]
            sums[q, h, 3] += d[i]
            continue
        share = np.float64(weight[i]) if weight.size else 1.0
        for lane in range(LANES):
            value = frames[lane][i]
            if abs(value) < np.inf:
                sums[q, h, lane] += value
            else:
                lost[q, lane] += 1
                lost_weight[q, lane] += share


_SIGNATURES = [f"void({p}[:,:], int32[:,:], int64[:], float64[:], int64[:])" for p in ("float32", "float64")]


@guvectorize(_SIGNATURES, "(r,c),(r,c),(b)->(b),(b)")
def azint(frame: Any, index: Any, counts: Any, intensity: Any, n_valid: Any) -> None:
    """Mean of a frame's pixels in each bin.

    Parameters
    ----------
    frame
        (row, column) pixels; those that are not finite are skipped.
    index
        (row, column) bin of each pixel; any number outside 0 to n - 1 leaves the pixel out.
    counts
        (bin,) number of pixels of each bin, ``np.bincount(index[use], minlength=n)``.

    Returns
    -------
    intensity, n_valid
        (bin,) mean of the pixels that are valid, NaN where none is, and their number.
    """
    n = counts.size
    total = np.zeros(n)
    n_valid[:] = counts
    for r in range(frame.shape[0]):
        for c in range(frame.shape[1]):
            q = index[r, c]
            if 0 <= q < n:
                value = frame[r, c]
                if abs(value) < np.inf:
                    total[q] += value
                else:
                    n_valid[q] -= 1
    for q in range(n):
        intensity[q] = total[q] / n_valid[q] if n_valid[q] > 0 else np.nan
