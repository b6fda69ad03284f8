"""Sums for the fit of Legendre polynomials to the pixels of a ring."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["fit_sums", "outer_sums"]


@njit
def _products(cos2: Any, weight: Any, out: Any) -> Any:
    """Add the products 00, 02, 04, 22, 24, 44 of the polynomials P0, P2, P4 of one pixel, times its weight."""
    p2, p4 = (3 * cos2 - 1) / 2, (35 * cos2 * cos2 - 30 * cos2 + 3) / 8
    out[0] += weight
    out[1] += weight * p2
    out[2] += weight * p4
    out[3] += weight * p2 * p2
    out[4] += weight * p2 * p4
    out[5] += weight * p4 * p4


@njit
def outer_sums(frame: Any, values: Any, index: Any, cos2: Any, out: Any) -> Any:
    """Add up values times the products of the polynomials, over the valid pixels of each bin.

    Parameters
    ----------
    frame
        (pixel,) values that say what is valid.
    values
        (pixel,) what is summed, such as weights or variances.
    index
        (pixel,) bin of each pixel; the last bin takes what is not used.
    cos2
        (pixel,) float64 squared cosine of the angle to the axis.
    out
        (bin + 1, 6) float64, added to.
    """
    for i in range(index.size):
        if abs(frame[i]) < np.inf:
            _products(cos2[i], np.float64(values[i]), out[index[i]])


@njit
def fit_sums(frame: Any, index: Any, weight: Any, cos2: Any, right: Any, lost: Any, squares: Any, n: Any) -> Any:
    """Add up the right side of the normal equations of each bin.

    Parameters
    ----------
    frame, index, cos2
        As in :func:`outer_sums`.
    weight
        (pixel,) float64 what a pixel counts for.
    right
        (bin + 1, 3) float64, added to: sums of value times P0, P2, P4.
    lost
        (bin + 1, 6) float64, added to: products of the pixels that are not finite, times their weight.
    squares, n
        (bin + 1,) float64 and int64, added to: value squared over weight, and the number of valid pixels.
    """
    for i in range(index.size):
        b, value = index[i], np.float64(frame[i])
        if abs(value) < np.inf:
            c = cos2[i]
            right[b, 0] += value
            right[b, 1] += value * (3 * c - 1) / 2
            right[b, 2] += value * (35 * c * c - 30 * c + 3) / 8
            squares[b] += value * value / weight[i]
            n[b] += 1
        else:
            _products(cos2[i], weight[i], lost[b])
