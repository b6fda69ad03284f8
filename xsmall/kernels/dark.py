"""Sums of dark frames: count, sum, sum of squares, extremes and outliers of every pixel, gain code by gain code.

Raw words are integers, so the sums are kept in 64-bit integers and are exact: no order, chunking or merge changes a
bit of them. 16-bit values leave room for 2**31 events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["add_dark_words", "codes_in", "moments_of_sums"]

_PIXELS = 1024  # pixels that go through all frames of a batch together: their sums stay in the cache


@njit
def codes_in(words: Any, step: Any, k: Any, n: Any, code_shift: Any, code_mask: Any) -> Any:
    """Return one bit for each gain code that occurs in ``k`` frames of ``n`` words."""
    shift, mask = np.int32(code_shift), np.int32(code_mask)
    seen = np.int64(0)
    for j in range(k):
        frame = words[j * step : j * step + n]
        common, union = np.int32(-1), np.int32(0)
        for i in range(n):
            common &= np.int32(frame[i])
            union |= np.int32(frame[i])
        if ((common ^ union) >> shift) & mask == 0:  # all alike, as a rule
            seen |= np.int64(1) << np.int64((union >> shift) & mask)
        else:
            for i in range(n):
                seen |= np.int64(1) << np.int64((np.int32(frame[i]) >> shift) & mask)
    return seen


@njit(inline="always")
def _add_uniform(
    words: Any, data_shift: Any, data_mask: Any, low: Any, high: Any,
    count: Any, total: Any, square: Any, least: Any, most: Any, below: Any, above: Any,
) -> Any:  # fmt: skip
    """Add pixels that all carry the same code; return the sum of their values."""
    level = np.int64(0)
    for i in range(words.size):
        v = np.int32((np.int32(words[i]) >> data_shift) & data_mask)
        level += v
        count[i] += np.uint32(1)
        total[i] += np.int64(v)
        square[i] += np.int64(v) * np.int64(v)
        least[i] = min(least[i], v)
        most[i] = max(most[i], v)
        below[i] += np.uint32(v < low)
        above[i] += np.uint32(v > high)
    return level


@njit(inline="always")
def _add_mixed(
    words: Any, code_shift: Any, code_mask: Any, data_shift: Any, data_mask: Any, low: Any, high: Any, slot: Any,
    start: Any, count: Any, total: Any, square: Any, least: Any, most: Any, below: Any, above: Any,
) -> Any:  # fmt: skip
    """Add pixels one by one, each to the sums of its own code; return the sum of their values."""
    level = np.int64(0)
    for i in range(words.size):
        word = np.int32(words[i])
        p = slot[(word >> code_shift) & code_mask]
        v = np.int32((word >> data_shift) & data_mask)
        x = start + i
        level += v
        count[p, x] += np.uint32(1)
        total[p, x] += np.int64(v)
        square[p, x] += np.int64(v) * np.int64(v)
        least[p, x] = min(least[p, x], v)
        most[p, x] = max(most[p, x], v)
        below[p, x] += np.uint32(v < low)
        above[p, x] += np.uint32(v > high)
    return level


@njit
def add_dark_words(
    words: Any, step: Any, k: Any, code_shift: Any, code_mask: Any, data_shift: Any, data_mask: Any,
    low: Any, high: Any, slot: Any,
    count: Any, total: Any, square: Any, least: Any, most: Any, below: Any, above: Any, level: Any,
) -> None:  # fmt: skip
    """Add ``k`` frames of a segment to its sums.

    Parameters
    ----------
    words, step
        Raw words, flat; frame j starts at ``j * step``.
    code_shift, code_mask
        ``(word >> code_shift) & code_mask`` is the gain code.
    data_shift, data_mask
        ``(word >> data_shift) & data_mask`` is the ADC value.
    low, high
        Values below ``low`` and above ``high`` are counted in ``below`` and ``above``; they are added all the same.
    slot
        int64 (code): which row of the sums belongs to a code.
    count, total, square, least, most, below, above
        (slot, pixel): uint32, int64, int64, int32, int32, uint32, uint32; changed in place.
    level
        int64 (k): filled with the sum of each frame.
    """
    n = count.shape[1]
    shift, mask = np.int32(code_shift), np.int32(code_mask)
    data_shift, data_mask = np.int32(data_shift), np.int32(data_mask)
    low, high = np.int32(low), np.int32(high)
    level[:] = 0
    for start in range(0, n, _PIXELS):
        stop = min(start + _PIXELS, n)
        for j in range(k):
            part = words[j * step + start : j * step + stop]
            common, union = np.int32(-1), np.int32(0)
            for i in range(part.size):
                common &= np.int32(part[i])
                union |= np.int32(part[i])
            if ((common ^ union) >> shift) & mask == 0:
                p = slot[(union >> shift) & mask]
                level[j] += _add_uniform(
                    part, data_shift, data_mask, low, high, count[p, start:stop], total[p, start:stop],
                    square[p, start:stop], least[p, start:stop], most[p, start:stop], below[p, start:stop],
                    above[p, start:stop],
                )  # fmt: skip
            else:
                level[j] += _add_mixed(
                    part, shift, mask, data_shift, data_mask, low, high, slot, start,
                    count, total, square, least, most, below, above,
                )  # fmt: skip


@njit(fastmath=False)
def moments_of_sums(count: Any, total: Any, square: Any, mean: Any, variance: Any) -> None:
    """Turn exact sums into mean and variance (of the sample, divided by n - 1), all flat.

    The mean is NaN without events, the variance with fewer than two. The squares are taken about the whole part of the
    mean in integers, so that nothing cancels.
    """
    for i in range(count.size):
        n = np.int64(count[i])
        mean[i] = variance[i] = np.nan
        if n > 0:
            whole = total[i] // n
            rest = total[i] - n * whole
            mean[i] = np.float64(whole) + np.float64(rest) / np.float64(n)
            if n > 1:
                about = square[i] - 2 * whole * total[i] + n * whole * whole
                variance[i] = (np.float64(about) - np.float64(rest) * np.float64(rest) / np.float64(n)) / (n - 1)
