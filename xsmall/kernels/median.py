"""Exact medians of many short stretches of pixels, by bisection in the cache.

A median needs no order, only counts: how many values lie at or below a trial value. Counting is one comparison per
pixel, which the compiler does for sixteen pixels at once, and with a good first guess (the median of the stretch
before) five to eight trials single out the two middle values. The values are compared as integers that order like the
floats they stand for, so that ties, infinities and tiny numbers need no care and the search ends after 32 halvings at
the latest. The answer is exact and does not depend on the guess.

Short stretches are sorted instead, 64 of them side by side, by a network of comparisons that is the same for all: that
needs no guess and no branch, and the compiler does sixteen at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["column_medians", "row_medians"]

UNUSED = np.int32(0x7FFFFFFF)
"""Key of a pixel that takes no part: above every number, in the place of NaN."""

HIGHEST = np.int32(0x7F7FFFFF)
LOWEST = np.int32(-0x7F800000)
"""Keys of the largest and the smallest finite float32."""

_LEFT = np.int32(-0x80000000)
_FLIP = np.int32(0x7FFFFFFF)
_SIGN = np.int32(31)
_GUESSES = 20  # trials by value before the plain halving of keys, which always ends
LANES = 16
"""Columns that are turned at a time: 16 x 512 keys are 32 kB."""

SHORT = 128
"""Stretches of at most so many pixels are sorted, many at a time, rather than searched."""

_SORTED = 64  # stretches that are sorted at a time: 64 x 64 keys are 16 kB


@njit
def key_of(value: float) -> Any:
    """Return the int32 that orders like the float32 ``value``."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> _SIGN) & _FLIP))


@njit
def value_of(key: Any) -> Any:
    """Return the float32 whose key is ``key``."""
    bits = np.int32(key ^ ((key >> _SIGN) & _FLIP))
    return bits.view(np.float32)


@njit
def fill_keys(bits: Any, use: Any, low: Any, high: Any, keys: Any) -> Any:
    """Write the keys of the pixels that take part, :data:`UNUSED` for the others; return count, smallest, largest.

    Parameters
    ----------
    bits, use
        A contiguous stretch of float32 pixels seen as int32, and uint8: 0 takes no part.
    low, high
        Keys of the smallest and the largest value that take part; NaN and infinities never do if these are finite.
    keys
        int32, as long as ``bits``.
    """
    n = np.int32(0)
    smallest, largest = UNUSED, _LEFT
    for j in range(bits.size):
        b = bits[j]
        k = np.int32(b ^ ((b >> _SIGN) & _FLIP))
        ok = (use[j] != 0) & (k >= low) & (k <= high)
        n += np.int32(ok)
        keys[j] = k if ok else UNUSED
        smallest = min(smallest, k if ok else UNUSED)
        largest = max(largest, k if ok else _LEFT)
    return n, smallest, largest


@njit
def _trial(step: Any, below: Any, above: Any, n_below: Any, n_above: Any, wanted: Any) -> Any:
    """Return the next key to count at: where the median would lie on a straight line, or halfway, in turn."""
    half = (below + above) // 2
    if step >= _GUESSES:
        return half
    a, b = value_of(np.int32(max(below, np.int64(LOWEST)))), value_of(np.int32(above))
    part = np.float32(wanted - n_below) / np.float32(n_above - n_below) if step & 1 else np.float32(0.5)
    k = np.int64(key_of(a * (np.float32(1.0) - part) + b * part))
    return k if below < k < above else half


@njit
def _tighten(keys: Any, below: Any, above: Any) -> Any:
    """Draw the bracket (below, above] together to the keys that lie in it: with ties it closes at once."""
    first, last = UNUSED, _LEFT
    under, upto = np.int32(below), np.int32(above)
    for j in range(keys.size):
        k = keys[j]
        first = min(first, k if k > under else UNUSED)
        last = max(last, k if k <= upto else _LEFT)
    return np.int64(first) - 1, np.int64(last)


@njit
def median_of_keys(keys: Any, n: Any, smallest: Any, largest: Any, guess: Any) -> Any:
    """Return the median of the ``n`` > 0 keys that are not :data:`UNUSED`, and the lower of the two middle keys.

    The median of an even number is the mean of the two middle values, as float64. ``guess`` is any key.
    """
    wanted = np.int32((n + 1) // 2)
    below, above = np.int64(smallest) - 1, np.int64(largest)
    n_below, n_above = np.int32(0), np.int32(n)
    trial = np.int64(guess) if below < guess < above else (below + above) // 2
    step = 0
    while above - below > 1 and n_above != wanted:
        count, at = np.int32(0), np.int32(trial)
        for j in range(keys.size):
            count += np.int32(keys[j] <= at)
        if count >= wanted:
            above, n_above = trial, count
        else:
            below, n_below = trial, count
        step += 1
        if step % 4 == 0:
            below, above = _tighten(keys, below, above)
        trial = _trial(step, below, above, n_below, n_above, wanted)
    lower, higher, at = _LEFT, UNUSED, np.int32(above)
    for j in range(keys.size):
        k = keys[j]
        lower = max(lower, k if k <= at else _LEFT)
        higher = min(higher, k if k > at else UNUSED)
    if n % 2 == 0 and n_above == wanted:
        return (np.float64(value_of(lower)) + np.float64(value_of(higher))) * 0.5, lower
    return np.float64(value_of(lower)), lower


@njit
def rectangle_median(
    bits: Any, use: Any, row: Any, column: Any, rows: Any, columns: Any, low: Any, high: Any, keys: Any, guess: Any
) -> Any:
    """Return median, lower middle key and count of the rectangle of ``rows`` x ``columns`` that begins at a pixel.

    ``bits`` and ``use`` are whole contiguous images (row, column), ``keys`` has room for the rectangle. Without any
    pixel that takes part the median is NaN.
    """
    n = np.int32(0)
    smallest, largest = UNUSED, _LEFT
    for r in range(rows):
        m, a, b = fill_keys(
            bits[row + r, column : column + columns], use[row + r, column : column + columns], low, high,
            keys[r * columns : (r + 1) * columns],
        )  # fmt: skip
        n += m
        smallest, largest = min(smallest, a), max(largest, b)
    if n == 0:
        return np.nan, guess, n
    value, key = median_of_keys(keys[: rows * columns], n, smallest, largest, guess)
    return value, key, n


@njit
def strip_medians(
    bits: Any, use: Any, row: Any, column: Any, rows: Any, columns: Any, low: Any, high: Any,
    turned: Any, turned_use: Any, keys: Any, medians: Any, lower: Any, counts: Any,
) -> None:  # fmt: skip
    """Find the median of each column of a strip of at most :data:`LANES` columns, turned so that columns are stretches.

    ``turned`` (int32) and ``turned_use`` (uint8) are room for (LANES, rows), ``keys`` for a column. Filled are
    ``medians``, ``counts`` and the lower middle keys ``lower``, whose first serves as the first guess.
    """
    for r in range(rows):
        for c in range(columns):
            turned[c, r] = bits[row + r, column + c]
            turned_use[c, r] = use[row + r, column + c]
    guess = lower[0]
    for c in range(columns):
        n, smallest, largest = fill_keys(turned[c], turned_use[c], low, high, keys)
        counts[c] = n
        medians[c] = np.nan
        if n > 0:
            medians[c], guess = median_of_keys(keys, n, smallest, largest, guess)
        lower[c] = guess


@njit
def _keys_and_count(bits: Any, use: Any, low: Any, high: Any, keys: Any) -> Any:
    """Do what :func:`fill_keys` does without looking for the smallest and the largest key."""
    n = np.int32(0)
    for j in range(bits.size):
        b = bits[j]
        k = np.int32(b ^ ((b >> _SIGN) & _FLIP))
        ok = (use[j] != 0) & (k >= low) & (k <= high)
        n += np.int32(ok)
        keys[j] = k if ok else UNUSED
    return n


@njit
def _order(a: Any, b: Any) -> None:
    """Put the smaller of each pair into ``a``."""
    for lane in range(a.size):
        x, y = a[lane], b[lane]
        smaller, larger = (x if x < y else y), (y if x < y else x)
        a[lane], b[lane] = smaller, larger


@njit
def _sort_lanes(keys: Any) -> None:
    """Sort each column of keys (key, lane): merge exchange, D. E. Knuth, The Art of Computer Programming 3, 5.2.2 M."""
    n, top = keys.shape[0], 1
    while top * 2 < n:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            for i in range(n - d):
                if (i & p) == r:
                    _order(keys[i], keys[i + d])
            d, q, r = q - p, q >> 1, p
        p >>= 1


@njit
def short_medians(
    bits: Any, use: Any, rows: Any, pitch: Any, first: Any, width: Any, low: Any, high: Any,
    medians: Any, lower: Any, counts: Any,
) -> None:  # fmt: skip
    """Find the medians of all units of an image that have at most :data:`SHORT` pixels.

    Units are ``rows`` x ``pitch`` pixels, of which the columns from ``first`` on, ``width`` of them, take part. Filled
    are ``medians`` (NaN without pixels), the lower middle keys and the counts, (unit), row by row.
    """
    per_row, pixels = bits.shape[1] // pitch, rows * width
    keys, one = np.full((pixels, _SORTED), UNUSED), np.empty(pixels, np.int32)
    for start in range(0, medians.size, _SORTED):
        stop = min(start + _SORTED, medians.size)
        r, c = start // per_row * rows, start % per_row * pitch + first
        for u in range(start, stop):
            n = np.int32(0)
            for i in range(rows):
                part = one[i * width : (i + 1) * width]
                n += _keys_and_count(bits[r + i, c : c + width], use[r + i, c : c + width], low, high, part)
            for j in range(pixels):
                keys[j, u - start] = one[j]
            counts[u] = n
            c += pitch
            if c + width > bits.shape[1]:
                r, c = r + rows, first
        _sort_lanes(keys)
        for u in range(start, stop):
            count, lane = int(counts[u]), u - start
            a, b = keys[(count - 1) // 2 if count > 0 else 0, lane], keys[count // 2, lane]
            medians[u] = (np.float64(value_of(a)) + np.float64(value_of(b))) * 0.5 if count > 0 else np.nan
            lower[u] = a


@njit
def _row_medians(image: Any, use: Any, width: Any, medians: Any, counts: Any) -> None:
    bits = image.view(np.int32)
    if width <= SHORT:
        lower = np.empty(medians.size, np.int32)
        short_medians(bits, use, 1, width, 0, width, LOWEST, HIGHEST, medians.reshape(-1), lower, counts.reshape(-1))
        return
    keys = np.empty(width, np.int32)
    guess = np.int32(0)
    for r in range(image.shape[0]):
        for u in range(medians.shape[1]):
            value, guess, n = rectangle_median(bits, use, r, u * width, 1, width, LOWEST, HIGHEST, keys, guess)
            medians[r, u], counts[r, u] = value, n


@njit
def _column_medians(image: Any, use: Any, height: Any, medians: Any, counts: Any) -> None:
    bits = image.view(np.int32)
    turned, turned_use = np.empty((LANES, height), np.int32), np.empty((LANES, height), np.uint8)
    keys, lower = np.empty(height, np.int32), np.zeros(LANES, np.int32)
    for u in range(medians.shape[0]):
        for c in range(0, image.shape[1], LANES):
            width = min(LANES, image.shape[1] - c)
            strip_medians(
                bits, use, u * height, c, height, width, LOWEST, HIGHEST, turned, turned_use, keys,
                medians[u, c : c + width], lower, counts[u, c : c + width],
            )  # fmt: skip


def row_medians(
    image: npt.NDArray[np.float32], use: npt.NDArray[np.uint8] | None = None, width: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the exact median of each row, or of each stretch of ``width`` pixels of it, and how many pixels it has.

    Parameters
    ----------
    image
        float32 (row, column), contiguous.
    use
        uint8 (row, column), 0 takes no part; NaN and infinities never do.
    width
        Pixels of a stretch, a divisor of the number of columns; None takes whole rows.

    Returns
    -------
    Medians, float64 (row, stretch), NaN where no pixel takes part, and counts, int32.

    Examples
    --------
    >>> import numpy as np
    >>> medians, counts = row_medians(np.array([[1, 9, 2, np.nan]], np.float32))
    >>> medians.item(), counts.item()
    (2.0, 3)
    """
    shape = image.shape[0], image.shape[1] // (width or image.shape[1])
    medians, counts = np.empty(shape), np.empty(shape, np.int32)
    taking = np.ones(image.shape, np.uint8) if use is None else use
    _row_medians(np.ascontiguousarray(image, np.float32), taking, width or image.shape[1], medians, counts)
    return medians, counts


def column_medians(
    image: npt.NDArray[np.float32], use: npt.NDArray[np.uint8] | None = None, height: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the exact median of each column, or of each stretch of ``height`` pixels of it, and how many it has.

    Parameters
    ----------
    image, use
        As in :func:`row_medians`.
    height
        Pixels of a stretch, a divisor of the number of rows; None takes whole columns.

    Returns
    -------
    Medians, float64 (stretch, column), NaN where no pixel takes part, and counts, int32.

    Examples
    --------
    >>> import numpy as np
    >>> column_medians(np.array([[1, 4], [2, 5]], np.float32))[0]
    array([[1.5, 4.5]])
    """
    shape = image.shape[0] // (height or image.shape[0]), image.shape[1]
    medians, counts = np.empty(shape), np.empty(shape, np.int32)
    taking = np.ones(image.shape, np.uint8) if use is None else use
    _column_medians(np.ascontiguousarray(image, np.float32), taking, height or image.shape[0], medians, counts)
    return medians, counts
