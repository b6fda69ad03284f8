"""Droplets: connected pixels above two thresholds, found, joined and summed.

A pixel at or above the high threshold is a seed. Its 4-neighbours at or above the low threshold join it, one ring and
no further, and members that touch (4-neighbours again) are one droplet. Pixels that are not finite or not used are
neither seed nor member.

The frame is turned into a bit per pixel that says whether it is a seed, 64 pixels at a time; nearly all words are zero
and cost a few vector comparisons. What follows (the ring, the members, the joining) walks set bits only, row by row;
rows without seeds in reach are passed over. Labels are joined by union-find, sums are kept per label and
added up by root at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import guvectorize, njit

__all__ = ["Workspace", "droplet", "find", "mask_words"]

WORD = 64
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_LAST = np.uint64(63)
_SUMS, _SUMS_OF_VARIANCE = 3, 5
_SHIFT = np.uint64(58)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # every window of six bits is another number: finds the place of a lone bit
_PLACE = np.zeros(64, np.int64)
for _i in range(64):
    _PLACE[((0x03F79D71B4CB0A89 << _i) & 0xFFFFFFFFFFFFFFFF) >> 58] = _i


def mask_words(use: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Pack a boolean mask (row, column) into words of 64 columns, lowest bit first."""
    rows, columns = use.shape
    words = -(-columns // WORD)
    padded = np.zeros((rows, words * WORD), np.bool_)
    padded[:, :columns] = use
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


class Workspace:
    """Buffers for frames of one shape: a bit per pixel, labels of two rows, and the sums of every label.

    Cost: 20 bytes per pixel, with variances 36, for a frame can hold one label in two pixels.
    """

    def __init__(self, rows: int, columns: int, *, variance: bool = False) -> None:
        words = -(-columns // WORD)
        labels = rows * columns // 2 + 2
        self.arrays = (
            np.zeros((rows + 2, words + 2), np.uint64),  # seeds, and a border without any
            np.zeros(rows + 2, np.bool_),  # whether a row has seeds
            np.zeros((2, words), np.uint64),  # members of two rows
            np.zeros((2, columns), np.int32),  # labels of two rows
            np.zeros(labels, np.int32),  # parent of each label
            np.zeros(labels, np.int32),  # pixels of each label
            # sum, times row, times column; of the variance: sum, times row, row^2, column, column^2
            np.zeros((labels, _SUMS + _SUMS_OF_VARIANCE if variance else _SUMS)),
        )


@njit
def _place(bit: Any) -> Any:
    return _PLACE[(bit * _DE_BRUIJN) >> _SHIFT]


@njit
def _mark_seeds(frame: Any, high: Any, seeds: Any) -> None:
    """Bits of the pixels that are at least ``high``; no branch inside, so that 64 pixels are a few vector steps."""
    rows, columns = frame.shape
    full = columns // WORD
    for r in range(rows):
        for w in range(full):
            pixels = frame[r, w * WORD : w * WORD + WORD]
            word = _ZERO
            for i in range(WORD):
                word |= np.uint64(pixels[i] >= high) << np.uint64(i)
            seeds[r + 1, w + 1] = word
    if full * WORD == columns:
        return
    for r in range(rows):
        word = _ZERO
        for i in range(columns - full * WORD):
            word |= np.uint64(frame[r, full * WORD + i] >= high) << np.uint64(i)
        seeds[r + 1, full + 1] = word


@njit
def _keep_fit(frame: Any, top: Any, use: Any, seeds: Any, busy: Any) -> None:
    """Clear the seeds that are not used or not finite; mark the rows that keep some as busy."""
    for r in range(use.shape[0]):
        any_bit = _ZERO
        for w in range(use.shape[1]):
            any_bit |= seeds[r + 1, w + 1]
        busy[r + 1] = False
        if any_bit == _ZERO:
            continue
        for w in range(use.shape[1]):
            todo = seeds[r + 1, w + 1] & use[r, w]
            kept = todo
            while todo != _ZERO:
                bit = todo & (~todo + _ONE)
                todo ^= bit
                if not frame[r, w * WORD + _place(bit)] <= top:
                    kept ^= bit
            seeds[r + 1, w + 1] = kept
            busy[r + 1] |= kept != _ZERO


@njit
def _members(frame: Any, r: Any, w: Any, found: Any, ring: Any, low: Any, top: Any) -> Any:
    """Bits of the word's seeds (``found``) and of the pixels in the ring that are at least ``low``."""
    while ring != _ZERO:
        bit = ring & (~ring + _ONE)
        ring ^= bit
        value = frame[r, w * WORD + _place(bit)]
        if (value >= low) & (value <= top):
            found |= bit
    return found


@njit
def _root(parent: Any, label: Any) -> Any:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@njit
def _join(parent: Any, one: Any, other: Any) -> Any:
    one, other = _root(parent, one), _root(parent, other)
    if one < other:
        parent[other] = one
        return one
    parent[one] = other
    return other


@njit
def _label_word(
    frame: Any, variance: Any, r: Any, w: Any, todo: Any, left: Any, above: Any, label: Any, tables: Any, n: Any
) -> Any:
    """Give every member of a word its label and add it to the label's sums; return the number of labels so far."""
    parent, count, sums = tables
    now, last = r & 1, 1 - (r & 1)
    while todo != _ZERO:
        bit = todo & (~todo + _ONE)
        todo ^= bit
        c = w * WORD + _place(bit)
        up = (above & bit) != _ZERO
        if (left & bit) != _ZERO:
            here = np.int64(label[now, c - 1])
            if up:
                here = _join(parent, here, np.int64(label[last, c]))
        elif up:
            here = _root(parent, np.int64(label[last, c]))
        else:
            here = n
            n += 1
            parent[here] = here
            count[here] = 0
            for i in range(sums.shape[1]):
                sums[here, i] = 0.0
        label[now, c] = here
        value = np.float64(frame[r, c])
        count[here] += 1
        sums[here, 0] += value
        sums[here, 1] += value * r
        sums[here, 2] += value * c
        if sums.shape[1] > _SUMS:
            spread = np.float64(variance[r, c])
            sums[here, 3] += spread
            sums[here, 4] += spread * r
            sums[here, 5] += spread * r * r
            sums[here, 6] += spread * c
            sums[here, 7] += spread * c * c
    return n


@njit
def _merge(parent: Any, count: Any, sums: Any, n: Any) -> Any:
    """Add every label to its root, and move the roots together; roots keep the order of their first pixel."""
    for i in range(n):
        root = _root(parent, i)
        if root != i:
            count[root] += count[i]
            for i_sum in range(sums.shape[1]):
                sums[root, i_sum] += sums[i, i_sum]
    found = 0
    for i in range(n):
        if parent[i] == i:
            count[found] = count[i]
            for i_sum in range(sums.shape[1]):
                sums[found, i_sum] = sums[i, i_sum]
            found += 1
    return found


@njit
def _find(frame: Any, level: Any, variance: Any, use: Any, high: Any, low: Any, top: Any, work: Any) -> Any:
    """Fill ``count`` and ``sums`` and return the number of droplets."""
    seeds, busy, member, label, parent, count, sums = work
    _mark_seeds(level, high, seeds)
    _keep_fit(level, top, use, seeds, busy)
    rows, words = use.shape
    n = np.int64(0)
    clear = False  # whether the row above has no member
    member[:] = _ZERO
    for r in range(rows):
        now, last = r & 1, 1 - (r & 1)
        if not (busy[r] | busy[r + 1] | busy[r + 2]):
            if not clear:
                member[:] = _ZERO
                clear = True
            continue
        clear = False
        carry = _ZERO
        for w in range(words):
            todo = seeds[r + 1, w + 1]
            ring = (todo << _ONE) | (todo >> _ONE) | seeds[r, w + 1] | seeds[r + 2, w + 1]
            ring |= (seeds[r + 1, w] >> _LAST) | (seeds[r + 1, w + 2] << _LAST)
            ring &= ~todo & use[r, w]
            if ring != _ZERO:
                todo = _members(level, r, w, todo, ring, low, top)
            member[now, w] = todo
            if todo != _ZERO:
                left = (todo << _ONE) | carry
                n = _label_word(frame, variance, r, w, todo, left, member[last, w], label, (parent, count, sums), n)
            carry = todo >> _LAST
    return _merge(parent, count, sums, n)


@njit
def find(
    frame: Any,
    level: Any,
    variance: Any,
    use: Any,
    thresholds: Any,
    work: Any,
    place: Any,
    j: Any,
    n: Any,
    out: Any,
) -> Any:
    """Append the droplets of one segment of event ``j`` to the event's list.

    Parameters
    ----------
    frame
        (row, column) what is summed.
    level
        (row, column) what the thresholds are compared with: the frame itself, or its values in units of their noise.
    variance
        (row, column); anything of this shape where the workspace has no room for variances.
    use
        Mask of the segment in words, see :func:`mask_words`.
    thresholds
        (high, low, top): both thresholds and the largest finite value, of the dtype of the frame.
    work
        The arrays of a :class:`Workspace`.
    place
        (segment, row, column, row step, column step): labels of the first pixel and from one pixel to the next.
    n
        (k,) droplets so far, counted on even where the list is full.
    out
        (sum, n_pixels, row, column, segment, variances of sum, row and column), each (k, droplet): the lists; the
        last three (1, 0) where nobody asks for variances.
    """
    high, low, top = thresholds
    found = _find(frame, level, variance, use, high, low, top, work)
    count, sums = work[5], work[6]
    total, size, row, column, segment, of_total, of_row, of_column = out
    first = n[j]
    for i in range(min(found, max(total.shape[1] - first, 0))):
        k = first + i
        center_row, center_column = sums[i, 1] / sums[i, 0], sums[i, 2] / sums[i, 0]
        total[j, k] = sums[i, 0]
        size[j, k] = count[i]
        row[j, k] = place[1] + place[3] * center_row
        column[j, k] = place[2] + place[4] * center_column
        segment[j, k] = place[0]
        if sums.shape[1] > _SUMS:  # first order: sum(v (i - center)^2) / sum(I)^2
            of_total[j, k] = sums[i, 3]
            along = sums[i, 5] - 2.0 * center_row * sums[i, 4] + center_row**2 * sums[i, 3]
            across = sums[i, 7] - 2.0 * center_column * sums[i, 6] + center_column**2 * sums[i, 3]
            of_row[j, k] = (0.0 if along < 0.0 else along) * (place[3] / sums[i, 0]) ** 2
            of_column[j, k] = (0.0 if across < 0.0 else across) * (place[4] / sums[i, 0]) ** 2
    n[j] += found


def _signature(pixel: str) -> str:
    lists = f"{pixel}[:], int32[:], float64[:], float64[:]"
    return f"void({pixel}[:,:], bool_[:,:], {pixel}, {pixel}, int64[:], int64[:], {lists})"


@njit
def _pack(use: Any) -> Any:
    words = np.zeros((use.shape[0], (use.shape[1] + 63) // 64), np.uint64)
    for r in range(use.shape[0]):
        for c in range(use.shape[1]):
            words[r, c // 64] |= np.uint64(use[r, c]) << np.uint64(c % 64)
    return words


@guvectorize([_signature("float32"), _signature("float64")], "(r,c),(r,c),(),(),(d)->(),(d),(d),(d),(d)")
def droplet(
    frame: Any, use: Any, high: Any, low: Any, slots: Any, n: Any, total: Any, size: Any, row: Any, column: Any
) -> None:
    """Find the droplets of a frame.

    Parameters
    ----------
    frame
        (row, column) pixels, NaN where not valid.
    use
        (row, column) boolean, True where a pixel may be used.
    high, low
        Thresholds in the unit of the frame: seeds, and the neighbours that join them.
    slots
        (droplet,) int64 of any content: its length says how many droplets are returned at most.

    Returns
    -------
    n, total, size, row, column
        Number of droplets found, then per slot the sum, the number of pixels and the centroid weighted by the pixels'
        values, in pixel positions; NaN (0 for the number of pixels) in slots that are not used.
    """
    rows, columns = frame.shape
    words = (columns + 63) // 64
    labels = rows * columns // 2 + 2
    sums = np.zeros((labels, _SUMS))
    count = np.zeros(labels, np.int32)
    work = (
        np.zeros((rows + 2, words + 2), np.uint64), np.zeros(rows + 2, np.bool_), np.zeros((2, words), np.uint64),
        np.zeros((2, columns), np.int32), np.zeros(labels, np.int32), count, sums,
    )  # fmt: skip
    found = _find(frame, frame, frame, _pack(use), high, low, np.finfo(frame.dtype).max, work)
    n[0] = found
    for i in range(slots.size):
        filled = i < found
        total[i] = sums[i, 0] if filled else np.nan
        size[i] = count[i] if filled else 0
        row[i] = sums[i, 1] / sums[i, 0] if filled else np.nan
        column[i] = sums[i, 2] / sums[i, 0] if filled else np.nan
