"""Add frames, and their variances, to the moments of pixels of :mod:`xsmall.kernels.moments`.

Compiled without any freedom to reorder, as these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit
from xsmall.kernels.moments import merge_into
from xsmall.kernels.sum_frames import choose_shift, first_valid, sum_as_finite, sum_from_first, sum_group

_Array = npt.NDArray[Any]

_PIXELS = 2048
"""Pixels that go through all frames of a bin together: their sums stay in cache, and memory is read in long strokes."""

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
                if goes_on and sum_as_finite(values, at_start, size, mean_so_far, total, square) == 0:
                    _add_full(places.shape[0], total, square, n_so_far, mean_so_far, m2_so_far)
                    continue
                choose_shift(values, at_start, n_so_far, mean_so_far, shift)
                full[block] = sum_group(values, at_start, size, shift, total, square, valid)
                _close_group(shift, total, square, valid, n_so_far, mean_so_far, m2_so_far)
                continue
            if full[block] and sum_from_first(values, at_start, size, total, square) == 0:
                one, k = values[at_start[0] : at_start[0] + size], places.shape[0]
                if how[g] == BEGIN:
                    _begin_full(one, k, total, square, n_so_far, mean_so_far, m2_so_far)
                elif _all_the_same(n_so_far):
                    _merge_full(one, k, total, square, n_so_far, mean_so_far, m2_so_far)
                else:
                    _begin_full(one, k, total, square, n, m, s)
                    merge_into(n_so_far, mean_so_far, m2_so_far, n, m, s)
                continue
            first_valid(values, at_start, shift[:size])
            full[block] = sum_group(values, at_start, size, shift, total, square, valid)
            if how[g] == BEGIN:
                _close_first(shift, total, square, valid, n_so_far, mean_so_far, m2_so_far)
            else:
                _close_first(shift, total, square, valid, n, m, s)
                merge_into(n_so_far, mean_so_far, m2_so_far, n, m, s)


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
