"""Add frames, and their variances, to the moments of pixels of :mod:`xsmall.kernels.moments`.

Compiled without any freedom to reorder, as these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit
from xsmall.kernels.moments import merge_into

_Array = npt.NDArray[Any]

_PIXELS = 2048
"""Pixels that go through all frames of a bin together: their sums stay in cache, and memory is read in long strokes."""

_FEW = 128
"""One pixel in so many that is missing somewhere is summed by itself; where there are more, all of them are."""

_FEW_LEFT = 8
"""One pixel in so many that has no valid value yet is followed by itself through the frames."""

ADD, BEGIN, MERGE = np.uint8(0), np.uint8(1), np.uint8(2)
"""What is done with the row of a bin: go on with it, write over what is in it, or merge new moments into it."""


def flat(frames: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Frames (k, pixel) one behind the other, as :func:`add_frames` takes them: all values, and where each begins."""
    values = frames.reshape(-1)
    values.flags.writeable = False  # as frames are that are added where they were read: one signature to compile
    return values, np.arange(len(frames), dtype=np.int64) * frames.shape[1]


def all_go_on(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Say that each group of :func:`add_frames` is added to what is there."""
    return np.full(len(bins), ADD)


@njit(fastmath=False)
def add_frames(
    values: npt.NDArray[Any],
    begin: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    how: npt.NDArray[np.uint8],
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    m2: npt.NDArray[np.float64],
    low: int,
    high: int,
    at: int,
) -> None:
    """Add a batch of frames, bin by bin, so that each bin's accumulator is read and written once.

    Parameters
    ----------
    values
        Values of all frames, wherever in memory each lies; what is not finite is skipped.
    begin
        Place of the first pixel of each frame (k,). :func:`flat` makes both of a stack of frames.
    order
        Frames in the order of their bins.
    first
        Position in ``order`` of the first frame of each group, and the end: (group + 1,).
    bins
        Bin of each group.
    how
        What is done with the accumulator of each group: ``ADD`` to what is in it; ``BEGIN``, whatever is in it; or
        ``MERGE`` the moments of the group alone into it, as :func:`xsmall.kernels.moments.merge` does.
    count, mean, m2
        The accumulator (bin, pixel), changed in place. ``mean`` and ``m2`` are 0 where ``count`` is 0.
    low, high
        The pixels of the frames that are added: threads share the work by them.
    at
        Place in the accumulator of the first pixel of the frames.

    Notes
    -----
    Sums of deviations are taken from the mean so far, or from the first valid value where there is none yet: then
    what cancels is never more than the number of frames in a group times the M2 that comes out.
    """
    shift = np.empty(_PIXELS, np.float64)
    total = np.empty(_PIXELS, np.float64)
    square = np.empty(_PIXELS, np.float64)
    valid = np.empty(_PIXELS, np.float64)
    n_alone = np.empty(_PIXELS, np.uint32)
    mean_alone = np.empty(_PIXELS, np.float64)
    m2_alone = np.empty(_PIXELS, np.float64)
    n_blocks = (max(0, high - low) + _PIXELS - 1) // _PIXELS
    full = np.ones(n_blocks, np.bool_)  # where nothing was missing in the last group: mostly nothing is in the next
    for g in range(bins.shape[0]):
        places = begin[order[first[g] : first[g + 1]]]
        into = bins[g]
        for start in range(low, high, _PIXELS):
            size = min(start + _PIXELS, high) - start
            at_start = places + start
            n_so_far = count[into, at + start : at + start + size]
            mean_so_far = mean[into, at + start : at + start + size]
            m2_so_far = m2[into, at + start : at + start + size]
            block = (start - low) // _PIXELS
            n, m, s = n_alone[:size], mean_alone[:size], m2_alone[:size]
            if how[g] == ADD:
                goes_on = full[block] and n_so_far[0] > 0 and _all_the_same(n_so_far)
                if goes_on and _sum_as_finite(values, at_start, size, mean_so_far, total, square) == 0:
                    _add_full(places.shape[0], total, square, n_so_far, mean_so_far, m2_so_far)
                    continue
                _choose_shift(values, at_start, n_so_far, mean_so_far, shift)
                full[block] = _sum_group(values, at_start, size, shift, total, square, valid)
                _close_group(shift, total, square, valid, n_so_far, mean_so_far, m2_so_far)
                continue
            if full[block] and _sum_from_first(values, at_start, size, total, square) == 0:
                one, k = values[at_start[0] : at_start[0] + size], places.shape[0]
                if how[g] == BEGIN:
                    _begin_full(one, k, total, square, n_so_far, mean_so_far, m2_so_far)
                elif _all_the_same(n_so_far):
                    _merge_full(one, k, total, square, n_so_far, mean_so_far, m2_so_far)
                else:
                    _begin_full(one, k, total, square, n, m, s)
                    merge_into(n_so_far, mean_so_far, m2_so_far, n, m, s)
                continue
            _first_valid(values, at_start, shift[:size])
            full[block] = _sum_group(values, at_start, size, shift, total, square, valid)
            if how[g] == BEGIN:
                _close_first(shift, total, square, valid, n_so_far, mean_so_far, m2_so_far)
            else:
                _close_first(shift, total, square, valid, n, m, s)
                merge_into(n_so_far, mean_so_far, m2_so_far, n, m, s)


@njit(fastmath=False)
def _sum_from_first(values: _Array, places: _Array, size: int, total: _Array, square: _Array) -> int:
    """Sum deviations from the first of some frames, whatever they are; returns in how many pixels one is not finite.

    The sums are those of :func:`_sum_as_finite`, to the bit.
    """
    n = places.shape[0]
    if n == 0:
        return size
    a = values[places[0] : places[0] + size]
    missing = 0
    if n == 1:
        total[:size] = 0.0
        square[:size] = 0.0
        for p in range(size):
            missing += not abs(np.float64(a[p])) < np.inf
        return missing
    b = values[places[1] : places[1] + size]
    last = 2
    if n < 4:
        for p in range(size):
            x = np.float64(b[p]) - np.float64(a[p])
            total[p] = x
            square[p] = x * x
    else:
        c = values[places[2] : places[2] + size]
        d = values[places[3] : places[3] + size]
        for p in range(size):
            s = np.float64(a[p])
            x = np.float64(b[p]) - s
            y = np.float64(c[p]) - s
            z = np.float64(d[p]) - s
            total[p] = x + (y + z)
            square[p] = x * x + (y * y + z * z)
        last = n - n % 4
        for i in range(4, last, 4):
            b = values[places[i] : places[i] + size]
            c = values[places[i + 1] : places[i + 1] + size]
            d = values[places[i + 2] : places[i + 2] + size]
            e = values[places[i + 3] : places[i + 3] + size]
            _add_four_finite(b, c, d, e, a, total, square)
        if n - last >= 2:
            b = values[places[last] : places[last] + size]
            c = values[places[last + 1] : places[last + 1] + size]
            _add_two_finite(b, c, a, total, square)
            last += 2
    if n > last:
        _add_one_finite(values[places[last] : places[last] + size], a, total, square)
    for p in range(size):
        missing += not square[p] < np.inf
    return missing


@njit(fastmath=False, inline="always")
def _all_the_same(count: _Array) -> bool:
    """Whether all pixels have seen the same number of values."""
    different = 0
    for p in range(count.shape[0]):
        different += count[p] != count[0]
    return different == 0


@njit(fastmath=False, inline="always")
def _begin_full(one: _Array, k: int, total: _Array, square: _Array, count: _Array, mean: _Array, m2: _Array) -> None:
    """What :func:`_close_first` does where nothing is missing in ``k`` frames, of which ``one`` is the first."""
    share = 1.0 / np.float64(k)
    for p in range(count.shape[0]):
        step = total[p] * share
        mean[p] = np.float64(one[p]) + step
        m2[p] = max(square[p] - total[p] * step, 0.0)
        count[p] = np.uint32(k)


@njit(fastmath=False, inline="always")
def _add_full(k: int, total: _Array, square: _Array, count: _Array, mean: _Array, m2: _Array) -> None:
    """What :func:`_close_group` does where nothing is missing in ``k`` frames, whose shift was the mean so far."""
    n = np.uint32(count[0] + k)
    share = 1.0 / np.float64(n)
    for p in range(count.shape[0]):
        step = total[p] * share
        mean[p] = mean[p] + step
        m2[p] = max(m2[p] + (square[p] - total[p] * step), 0.0)
        count[p] = n


@njit(fastmath=False, inline="always")
def _merge_full(one: _Array, k: int, total: _Array, square: _Array, count: _Array, mean: _Array, m2: _Array) -> None:
    """The same, merged into what all pixels have seen the same number of; to the bits of ``merge_into``."""
    n_a, n_b = np.float64(count[0]), np.float64(k)
    share, part, n = 1.0 / n_b, n_b / (n_a + n_b), np.uint32(count[0] + k)
    for p in range(count.shape[0]):
        step = total[p] * share
        d = (np.float64(one[p]) + step) - mean[p]
        mean[p] = mean[p] + d * part
        m2[p] = m2[p] + max(square[p] - total[p] * step, 0.0) + d * d * n_a * part
        count[p] = n


@njit(fastmath=False)
def _sum_group(
    values: _Array, places: _Array, size: int, shift: _Array, total: _Array, square: _Array, valid: _Array
) -> bool:
    """Sum the deviations of some frames from the shift, as if all were finite; then again where a sum is not.

    What is missing in the first frame mostly is in all of them: where that is much, nothing is tried. Returns whether
    nothing is missing.
    """
    missing = _n_missing(values, places, size)
    if missing * _FEW <= size:
        missing = _sum_as_finite(values, places, size, shift, total, square)
        valid[:size] = np.float64(places.shape[0])
    if missing * _FEW > size:
        _sum_valid(values, places, shift[:size], total[:size], square[:size], valid[:size])
    elif missing > 0:
        for p in range(size):
            if not square[p] < np.inf:
                one = slice(p, p + 1)
                _sum_valid(values, places + p, shift[one], total[one], square[one], valid[one])
    return bool(missing == 0)


@njit(fastmath=False)
def _sum_as_finite(values: _Array, places: _Array, size: int, shift: _Array, total: _Array, square: _Array) -> int:
    """Sum deviations whatever they are; returns in how many pixels the sum is not finite."""
    total[:size] = 0.0
    square[:size] = 0.0
    last = places.shape[0] - places.shape[0] % 4
    for i in range(0, last, 4):
        a = values[places[i] : places[i] + size]
        b = values[places[i + 1] : places[i + 1] + size]
        c = values[places[i + 2] : places[i + 2] + size]
        d = values[places[i + 3] : places[i + 3] + size]
        _add_four_finite(a, b, c, d, shift, total, square)
    if places.shape[0] - last >= 2:
        a = values[places[last] : places[last] + size]
        b = values[places[last + 1] : places[last + 1] + size]
        _add_two_finite(a, b, shift, total, square)
        last += 2
    if places.shape[0] > last:
        _add_one_finite(values[places[last] : places[last] + size], shift, total, square)
    missing = 0
    for p in range(size):
        missing += not square[p] < np.inf
    return missing


@njit(fastmath=False, inline="always")
def _n_missing(values: _Array, places: _Array, size: int) -> int:
    """How many pixels are missing in the first of some frames."""
    missing = 0
    if places.shape[0] > 0:
        of = values[places[0] : places[0] + size]
        for p in range(size):
            missing += not abs(np.float64(of[p])) < np.inf
    return missing


@njit(fastmath=False)
def _sum_valid(values: _Array, places: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    """Sum what is finite, in the order in which all is summed: a pixel has the same bits either way."""
    size = total.shape[0]
    total[:] = 0.0
    square[:] = 0.0
    valid[:] = 0.0
    last = places.shape[0] - places.shape[0] % 4
    for i in range(0, last, 4):
        a = values[places[i] : places[i] + size]
        b = values[places[i + 1] : places[i + 1] + size]
        c = values[places[i + 2] : places[i + 2] + size]
        d = values[places[i + 3] : places[i + 3] + size]
        _add_four(a, b, c, d, shift, total, square, valid)
    if places.shape[0] - last >= 2:
        a = values[places[last] : places[last] + size]
        b = values[places[last + 1] : places[last + 1] + size]
        _add_two(a, b, shift, total, square, valid)
        last += 2
    if places.shape[0] > last:
        _add_one(values[places[last] : places[last] + size], shift, total, square, valid)


@njit(fastmath=False)
def add_variances(
    frames: npt.NDArray[Any],
    variances: npt.NDArray[Any],
    order: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    total: npt.NDArray[np.float64],
    low: int,
    high: int,
    at: int,
) -> None:
    """Add the variances of a batch of frames, bin by bin, as :func:`add_frames` adds the values.

    Parameters
    ----------
    frames, variances
        (k, pixel), float32 or float64; the variance of a value that is not finite is skipped, a NaN of one that is
        makes the total NaN.
    order, first, bins, low, high, at
        As in :func:`add_frames`.
    total
        Sum of variances (bin, pixel), changed in place.
    """
    part = np.empty(_PIXELS, np.float64)
    for g in range(bins.shape[0]):
        group = order[first[g] : first[g + 1]]
        for start in range(low, high, _PIXELS):
            stop = min(start + _PIXELS, high)
            part[:] = 0.0
            for i in range(group.shape[0]):
                value, variance = frames[group[i], start:stop], variances[group[i], start:stop]
                for p in range(value.shape[0]):
                    part[p] += np.float64(variance[p]) if abs(value[p]) < np.inf else 0.0
            into = total[bins[g], at + start : at + stop]
            for p in range(into.shape[0]):
                into[p] += part[p]


@njit(fastmath=False, inline="always")
def _choose_shift(values: _Array, places: _Array, count: _Array, mean: _Array, shift: _Array) -> None:
    """Set ``shift`` to the mean so far, else the first valid value, else 0."""
    missing = 0
    for p in range(count.shape[0]):
        missing += count[p] == 0
    if missing == 0:
        shift[: count.shape[0]] = mean
        return
    for p in range(count.shape[0]):
        shift[p] = mean[p] if count[p] > 0 else np.nan
    _fill_shift(values, places, shift[: count.shape[0]])


@njit(fastmath=False, inline="always")
def _first_valid(values: _Array, places: _Array, shift: _Array) -> None:
    """Set ``shift`` to the first valid value, else 0."""
    shift[:] = np.nan
    _fill_shift(values, places, shift)


@njit(fastmath=False)
def _fill_shift(values: _Array, places: _Array, shift: _Array) -> None:
    """Fill what is NaN in ``shift`` with the first valid value, else 0: all pixels at once, the last few one by one."""
    size = shift.shape[0]
    seen = 0
    missing = size
    while seen < places.shape[0] and missing * _FEW_LEFT > size:
        of = values[places[seen] : places[seen] + size]
        missing = 0
        for p in range(size):
            s = shift[p]
            v = np.float64(of[p])
            s = v if s != s and abs(v) < np.inf else s
            shift[p] = s
            missing += s != s
        seen += 1
    if missing == 0:
        return
    for p in range(size):
        if shift[p] != shift[p]:
            s = 0.0
            for i in range(seen, places.shape[0]):
                v = np.float64(values[places[i] + p])
                if abs(v) < np.inf:
                    s = v
                    break
            shift[p] = s


@njit(fastmath=False, inline="always")
def _add_one_finite(a: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        x = np.float64(a[p]) - s
        total[p] += x
        square[p] += x * x


@njit(fastmath=False, inline="always")
def _add_two_finite(a: _Array, b: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        x = np.float64(a[p]) - s
        y = np.float64(b[p]) - s
        total[p] += x + y
        square[p] += x * x + y * y


@njit(fastmath=False, inline="always")
def _add_four_finite(a: _Array, b: _Array, c: _Array, d: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        w = np.float64(a[p]) - s
        x = np.float64(b[p]) - s
        y = np.float64(c[p]) - s
        z = np.float64(d[p]) - s
        total[p] += (w + x) + (y + z)
        square[p] += (w * w + x * x) + (y * y + z * z)


@njit(fastmath=False, inline="always")
def _add_one(a: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    for p in range(a.shape[0]):
        x = np.float64(a[p]) - shift[p]
        good = abs(x) < np.inf
        x = x if good else 0.0
        total[p] += x
        square[p] += x * x
        valid[p] += 1.0 if good else 0.0


@njit(fastmath=False, inline="always")
def _add_two(a: _Array, b: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    for p in range(a.shape[0]):
        s = shift[p]
        x = np.float64(a[p]) - s
        y = np.float64(b[p]) - s
        n = (1.0 if abs(x) < np.inf else 0.0) + (1.0 if abs(y) < np.inf else 0.0)
        x = x if abs(x) < np.inf else 0.0
        y = y if abs(y) < np.inf else 0.0
        total[p] += x + y
        square[p] += x * x + y * y
        valid[p] += n


@njit(fastmath=False, inline="always")
def _add_four(
    a: _Array, b: _Array, c: _Array, d: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array
) -> None:
    for p in range(a.shape[0]):
        s = shift[p]
        w = np.float64(a[p]) - s
        x = np.float64(b[p]) - s
        y = np.float64(c[p]) - s
        z = np.float64(d[p]) - s
        n = (
            (1.0 if abs(w) < np.inf else 0.0)
            + (1.0 if abs(x) < np.inf else 0.0)
            + (1.0 if abs(y) < np.inf else 0.0)
            + (1.0 if abs(z) < np.inf else 0.0)
        )
        w = w if abs(w) < np.inf else 0.0
        x = x if abs(x) < np.inf else 0.0
        y = y if abs(y) < np.inf else 0.0
        z = z if abs(z) < np.inf else 0.0
        total[p] += (w + x) + (y + z)
        square[p] += (w * w + x * x) + (y * y + z * z)
        valid[p] += n


@njit(fastmath=False, inline="always")
def _close_group(
    shift: _Array, total: _Array, square: _Array, valid: _Array, count: _Array, mean: _Array, m2: _Array
) -> None:
    """Put the sums of a group into the accumulator; one division serves all pixels where all have seen the same."""
    size = count.shape[0]
    most = np.float64(count[0]) + valid[0]
    different = 0
    for p in range(size):
        different += np.float64(count[p]) + valid[p] != most
    if different == 0:
        share = 1.0 / max(most, 1.0)
        for p in range(size):
            step = total[p] * share
            mean[p] = shift[p] + step
            m2[p] = max(m2[p] + (square[p] - total[p] * step), 0.0)
            count[p] = np.uint32(most)
    else:
        for p in range(size):
            n = np.float64(count[p]) + valid[p]
            step = total[p] * (1.0 / max(n, 1.0))
            mean[p] = shift[p] + step
            m2[p] = max(m2[p] + (square[p] - total[p] * step), 0.0)
            count[p] = np.uint32(n)


@njit(fastmath=False, inline="always")
def _close_first(
    shift: _Array, total: _Array, square: _Array, valid: _Array, count: _Array, mean: _Array, m2: _Array
) -> None:
    """Put the sums of a group into an accumulator that holds nothing, whatever is in its memory."""
    for p in range(count.shape[0]):
        step = total[p] * (1.0 / max(valid[p], 1.0))
        mean[p] = shift[p] + step
        m2[p] = max(square[p] - total[p] * step, 0.0)
        count[p] = np.uint32(valid[p])
