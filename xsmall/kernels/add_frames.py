"""Add frames, and their variances, to the moments of pixels of :mod:`xsmall.kernels.moments`.

Compiled without any freedom to reorder, as these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.add_whole import MOST_WHOLE, STRIP, add_whole, begin_whole, merge_whole
from xsmall.kernels.jit import njit
from xsmall.kernels.moments import merge_into
from xsmall.kernels.sum_frames import choose_shift, first_valid, sum_group

_Array = npt.NDArray[Any]

_PIXELS = 2048
"""Pixels that go through all frames of a bin together: their sums stay in cache, and memory is read in long strokes."""

_MOST_HOLES = 8
"""Strips of these pixels in which something is missing, at the most; of more, all that is left goes pass by pass."""

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
    scratch = np.empty((6, _PIXELS), np.float64)
    n_alone = np.empty(_PIXELS, np.uint32)
    n_blocks = (max(0, high - low) + _PIXELS - 1) // _PIXELS
    whole = np.ones(n_blocks, np.bool_)  # where little was missing in the last group: mostly little is in the next
    for g in range(bins.shape[0]):
        places = begin[order[first[g] : first[g + 1]]]
        into = bins[g]
        for start in range(low, high, _PIXELS):
            size = min(start + _PIXELS, high) - start
            block = (start - low) // _PIXELS
            n, m, s = (
                count[into, at + start : at + start + size],
                mean[into, at + start : at + start + size],
                m2[into, at + start : at + start + size],
            )
            done, holes = 0, 0
            while whole[block] and holes < _MOST_HOLES and 0 < places.shape[0] <= MOST_WHOLE and done < size:
                done += _add_whole(how[g], values, places + (start + done), n[done:], m[done:], s[done:])
                if done == size:
                    break
                hole = slice(done, min(done + STRIP, size))
                _add_any(how[g], values, places + (start + done), n[hole], m[hole], s[hole], scratch, n_alone)
                done, holes = hole.stop, holes + 1
            if done < size:
                at_done = places + (start + done)
                nothing_missing = _add_any(how[g], values, at_done, n[done:], m[done:], s[done:], scratch, n_alone)
                whole[block] = nothing_missing and holes < _MOST_HOLES


@njit(fastmath=False, inline="always")
def _add_whole(how: int, values: _Array, places: _Array, count: _Array, mean: _Array, m2: _Array) -> int:
    """Do the pixels from the first one on of which nothing is missing; returns how many these are."""
    k, size = places.shape[0], count.shape[0]
    if how == BEGIN:
        return int(begin_whole(values, places, k, size, count, mean, m2))
    if how == MERGE:
        return int(merge_whole(values, places, k, size, count, mean, m2))
    return int(add_whole(values, places, k, size, count, mean, m2)) if count[0] > 0 else 0


@njit(fastmath=False)
def _add_any(
    how: int,
    values: _Array,
    places: _Array,
    count: _Array,
    mean: _Array,
    m2: _Array,
    scratch: _Array,
    n_alone: _Array,
) -> bool:
    """Do pixels whatever is missing, pass by pass; returns whether nothing is."""
    size = count.shape[0]
    shift, total, square, valid = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
    if how == ADD:
        choose_shift(values, places, count, mean, shift)
        nothing_missing = sum_group(values, places, size, shift, total, square, valid)
        _close_group(shift, total, square, valid, count, mean, m2)
        return bool(nothing_missing)
    first_valid(values, places, shift)
    nothing_missing = sum_group(values, places, size, shift, total, square, valid)
    if how == BEGIN:
        _close_first(shift, total, square, valid, count, mean, m2)
    else:
        n, m, s = n_alone[:size], scratch[4, :size], scratch[5, :size]
        _close_first(shift, total, square, valid, n, m, s)
        merge_into(count, mean, m2, n, m, s)
    return bool(nothing_missing)


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
