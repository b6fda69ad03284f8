"""Sums over events that do not depend on the order of the events: of values and their squares, pixel by pixel.

A sum is kept as two float64 whose sum it is: what an addition rounds off is itself a float64 (T. J. Dekker, Numerische
Mathematik 18 (1971) 224; D. E. Knuth, The Art of Computer Programming 2, 4.2.2) and goes into the second. The two hold
106 bits: sums of float32, and of their squares, are exact for any values that one detector gives, and exact sums have
no order. So events may come in any order, and sums of parts may be joined as they come.

Nothing here may be reordered by the compiler.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["add", "add_above", "add_extremes", "add_histogram", "add_values_where", "finish", "join", "mean_of"]

_PIXELS = 1024
"""Pixels that go through all events of a group together, so that their sums stay in the cache."""
_SPLIT = 134217729.0  # 2^27 + 1: cuts a float64 into two halves whose products are exact

_Array = npt.NDArray[Any]


@njit(fastmath=False, inline="always")
def _add_to(x: Any, high: _Array, low: _Array, p: Any) -> None:
    """Add a number to a sum of two parts, with what is rounded off."""
    old = high[p]
    new = old + x
    part = new - old
    low[p] += (old - (new - part)) + (x - part)
    high[p] = new


@njit(fastmath=False)
def add(
    frames: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    count: npt.NDArray[np.uint32],
    at: int,
) -> None:
    """Add values and their squares to the sums of their class.

    Parameters
    ----------
    frames
        (k, pixel); what is not finite is skipped.
    classes
        Class of each event, below 0 for none.
    sums
        (class, 4, pixel): sum and what was rounded off, sum of squares and what was rounded off; changed in place.
    count
        (class, pixel), changed in place.
    at
        Place of the first pixel of the frames in the sums.
    """
    n = frames.shape[1]
    for start in range(0, n, _PIXELS):
        stop = min(start + _PIXELS, n)
        for j in range(frames.shape[0]):
            c = classes[j]
            if c < 0:
                continue
            values = frames[j, start:stop]
            high, low = sums[c, 0, at + start : at + stop], sums[c, 1, at + start : at + stop]
            high2, low2 = sums[c, 2, at + start : at + stop], sums[c, 3, at + start : at + stop]
            valid = count[c, at + start : at + stop]
            for p in range(values.shape[0]):
                v = np.float64(values[p])
                good = abs(v) < np.inf
                x = v if good else 0.0
                _add_to(x, high, low, p)
                _add_to(x * x, high2, low2, p)
                valid[p] += np.uint32(good)


@njit(fastmath=False)
def add_values_where(
    frames: npt.NDArray[Any],
    values: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    at: int,
) -> None:
    """Add ``values`` (k, pixel), such as variances, of those frames that are finite to sums (class, 2, pixel)."""
    for j in range(frames.shape[0]):
        c = classes[j]
        if c < 0:
            continue
        high, low = sums[c, 0, at : at + frames.shape[1]], sums[c, 1, at : at + frames.shape[1]]
        for p in range(frames.shape[1]):
            if abs(np.float64(frames[j, p])) < np.inf:
                _add_to(np.float64(values[j, p]), high, low, p)


@njit
def add_extremes(
    frames: npt.NDArray[Any], classes: npt.NDArray[np.int64], low: npt.NDArray[Any], high: npt.NDArray[Any], at: int
) -> None:
    """Keep the lowest and the highest finite value of each pixel, (class, pixel) each; they begin as +inf and -inf."""
    for j in range(frames.shape[0]):
        c = classes[j]
        if c < 0:
            continue
        lowest, highest = low[c, at : at + frames.shape[1]], high[c, at : at + frames.shape[1]]
        for p in range(frames.shape[1]):
            v = frames[j, p]
            if abs(v) < np.inf:
                lowest[p] = min(lowest[p], v)
                highest[p] = max(highest[p], v)


@njit
def add_above(
    frames: npt.NDArray[Any], classes: npt.NDArray[np.int64], level: float, count: npt.NDArray[np.uint32], at: int
) -> None:
    """Count in how many events each pixel is finite and at or above a level: (class, pixel)."""
    for j in range(frames.shape[0]):
        c = classes[j]
        if c < 0:
            continue
        found = count[c, at : at + frames.shape[1]]
        for p in range(frames.shape[1]):
            v = np.float64(frames[j, p])
            found[p] += np.uint32(v >= level and v < np.inf)


@njit
def add_histogram(
    frames: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    edges: npt.NDArray[np.float64],
    per_width: float,
    count: npt.NDArray[np.uint32],
    at: int,
) -> None:
    """Count the finite values of each pixel by size: (class, pixel, below + bins + above).

    Bins are closed on the left and open on the right. ``per_width`` is one over the width of even bins, 0 of others.
    """
    n = edges.shape[0] - 1
    for j in range(frames.shape[0]):
        c = classes[j]
        if c < 0:
            continue
        for p in range(frames.shape[1]):
            v = np.float64(frames[j, p])
            if not abs(v) < np.inf:
                continue
            if v < edges[0]:
                b = -1
            elif v >= edges[n]:
                b = n
            elif per_width > 0.0:
                b = min(max(int((v - edges[0]) * per_width), 0), n - 1)
                b -= v < edges[b]
                b += v >= edges[b + 1]
            else:
                b = int(np.searchsorted(edges, v, side="right")) - 1
            count[c, at + p, b + 1] += np.uint32(1)


@njit(fastmath=False)
def join(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
    """Add the sums ``b`` (class, parts, pixel) to ``a``; parts come in pairs."""
    for c in range(a.shape[0]):
        for i in range(0, a.shape[1], 2):
            high, low = a[c, i], a[c, i + 1]
            for p in range(a.shape[2]):
                _add_to(b[c, i, p], high, low, p)
                low[p] += b[c, i + 1, p]


@njit(fastmath=False, inline="always")
def _split(x: float) -> tuple[float, float]:
    big = _SPLIT * x
    high = big - (big - x)
    return high, x - high


@njit(fastmath=False, inline="always")
def _product(x: float, y: float) -> tuple[float, float]:
    """A product, and what it rounds off."""
    p = x * y
    x1, x2 = _split(x)
    y1, y2 = _split(y)
    return p, ((x1 * y1 - p) + x1 * y2 + x2 * y1) + x2 * y2


@njit(fastmath=False, inline="always")
def _clean(high: float, low: float) -> tuple[float, float]:
    """The same sum of two numbers, the second below the rounding of the first: there is one such pair only."""
    total = high + low
    part = total - high
    return total, (high - (total - part)) + (low - part)


@njit(fastmath=False)
def finish(
    sums: npt.NDArray[np.float64],
    count: npt.NDArray[np.uint32],
    total: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    std: npt.NDArray[np.float64],
) -> None:
    """Turn sums (4, pixel) and counts (pixel,) into sum, mean and standard deviation (n - 1).

    Sum and mean are NaN where nothing was counted, the deviation below two. The variance is
    (n sum(x^2) - sum(x)^2) / (n (n - 1)), in which nothing is lost, since the sums are exact.
    """
    for p in range(count.shape[0]):
        n = np.float64(count[p])
        high, low = _clean(sums[0, p], sums[1, p])
        high2, low2 = _clean(sums[2, p], sums[3, p])
        total[p] = high if n > 0.0 else np.nan
        mean[p] = high / n if n > 0.0 else np.nan
        a, a_low = _product(n, high2)
        b, b_low = _product(high, high)
        rest = (a - b) + (a_low + n * low2 - b_low - 2.0 * high * low - low * low)
        std[p] = np.sqrt(max(rest, 0.0) / (n * (n - 1.0))) if n > 1.0 else np.nan


@njit(fastmath=False)
def mean_of(
    sums: npt.NDArray[np.float64], count: npt.NDArray[np.uint32], power: int, out: npt.NDArray[np.float64]
) -> None:
    """Sums (2, pixel) over their number to a power: 2 gives the variance of a mean from those of values."""
    for p in range(count.shape[0]):
        n = np.float64(count[p])
        out[p] = (sums[0, p] + sums[1, p]) / n**power if n > 0.0 else np.nan
