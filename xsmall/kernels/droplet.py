"""Droplets: connected pixels above two thresholds, found, joined and summed.

A pixel at or above the high threshold is a seed. Its neighbours at or above the low threshold join it, one ring and no
further (or, when droplets are flooded, all that are connected), and members that touch are one droplet. Neighbours are
the four that share an edge, or all eight. Pixels that are not finite or not used are neither seed nor member.

The frame is turned into a bit per pixel that says whether it is a seed, 64 pixels at a time; nearly all words are zero
and cost a few vector comparisons. What follows (the ring, the members, the joining) walks set bits only, row by row;
rows without seeds in reach are passed over. Labels are joined by union-find, sums are kept per label and
added up by root at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.droplet_bits import LAST, ONE, WORD, ZERO, corners, keep_fit, mark_seeds, members_of, pack, place_of
from xsmall.kernels.jit import guvectorize, njit

__all__ = ["DETAILS", "Members", "Workspace", "collect", "droplet", "find", "mask_words"]

_SUMS, _SUMS_OF_VARIANCE = 3, 5
_TOTAL, _BY_ROW, _BY_COLUMN, _SPREAD = range(4)  # columns of the sums; the variances follow
_HIGHEST, _LEVEL = range(2)  # columns of the peaks
DETAILS = 5
"""Columns of what is known of a droplet's outline: first and last row, first and last column, whether it touches
pixels that are not used or the border of the frame."""


def mask_words(use: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Pack a boolean mask (row, column) into words of 64 columns, lowest bit first."""
    rows, columns = use.shape
    words = -(-columns // WORD)
    padded = np.zeros((rows, words * WORD), np.bool_)
    padded[:, :columns] = use
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


class Workspace:
    """Buffers for frames of one shape: a bit per pixel, labels of two rows, and the sums of every label.

    Cost: some 35 bytes per pixel, with variances 55, for a frame can hold one label in two pixels.
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
            np.zeros((labels, 2)),  # highest value and highest level of each label
            np.zeros((labels, DETAILS), np.int32),  # outline of each label
        )


class Members:
    """Buffers for the pixels of the droplets of a frame: each as a number ``row * columns + column`` and its label.

    Cost: 10 bytes per pixel.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.arrays = (
            np.zeros(rows * columns, np.int32),  # pixels
            np.zeros(rows * columns, np.int32),  # label of each
            np.zeros(rows * columns // 2 + 2, np.int32),  # droplet of each label, -1 for none
            np.zeros(1, np.int64),  # how many pixels
        )


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
def _touches(level: Any, use: Any, top: Any, r: Any, c: Any) -> Any:
    """Whether a pixel lies at the border of the frame or beside one that is not used or not finite."""
    rows, columns = level.shape
    if r == 0 or c == 0 or r == rows - 1 or c == columns - 1:
        return True
    for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = r + dr, c + dc
        used = (use[y, x // WORD] >> np.uint64(x % WORD)) & ONE
        if used == ZERO or not abs(level[y, x]) <= top:
            return True
    return False


@njit
def _new_label(here: Any, r: Any, c: Any, tables: Any, flood: Any, details: Any) -> None:
    parent, count, sums, peaks, outline = tables
    parent[here] = here
    count[here] = 0
    for i in range(sums.shape[1]):
        sums[here, i] = 0.0
    if flood is not None:
        peaks[here, _LEVEL] = 0.0
    if details is not None:
        peaks[here, _HIGHEST] = -np.inf
        outline[here, 0] = outline[here, 1] = r
        outline[here, 2] = outline[here, 3] = c
        outline[here, 4] = 0


@njit
def _add_pixel(value: Any, r: Any, c: Any, here: Any, count: Any, sums: Any) -> None:
    count[here] += 1
    sums[here, _TOTAL] += value
    sums[here, _BY_ROW] += value * r
    sums[here, _BY_COLUMN] += value * c


@njit
def _add_spread(spread: Any, r: Any, c: Any, here: Any, sums: Any) -> None:
    sums[here, _SPREAD] += spread
    sums[here, _SPREAD + 1] += spread * r
    sums[here, _SPREAD + 2] += spread * r * r
    sums[here, _SPREAD + 3] += spread * c
    sums[here, _SPREAD + 4] += spread * c * c


@njit
def _add_detail(value: Any, r: Any, c: Any, touches: Any, here: Any, peaks: Any, outline: Any) -> None:
    peaks[here, _HIGHEST] = max(peaks[here, _HIGHEST], value)
    outline[here, 1] = r
    outline[here, 2] = min(outline[here, 2], c)
    outline[here, 3] = max(outline[here, 3], c)
    outline[here, 4] |= touches


@njit(forceinline=True)  # a call would hand over ten arrays for each word
def _label_word(
    images: Any,
    use: Any,
    top: Any,
    r: Any,
    w: Any,
    todo: Any,
    beside: Any,
    label: Any,
    tables: Any,
    flood: Any,
    diagonal: Any,
    details: Any,
    members: Any,
    n: Any,
) -> Any:
    """Give every member of a word its label and add it to the label's sums; return the number of labels so far.

    ``images`` are the frame, its levels and its variance; ``beside`` the members to the left, above, above to the left
    and above to the right of each pixel, as bits.
    """
    frame, level, variance = images
    left, above, above_left, above_right = beside
    parent, count, sums, peaks, outline = tables
    now, last = r & 1, 1 - (r & 1)
    while todo != ZERO:
        bit = todo & (~todo + ONE)
        todo ^= bit
        c = w * WORD + place_of(bit)
        up = (above & bit) != ZERO
        if (left & bit) != ZERO:
            here = np.int64(label[now, c - 1])
            if up:
                here = _join(parent, here, np.int64(label[last, c]))
        elif up:
            here = _root(parent, np.int64(label[last, c]))
        else:
            here = np.int64(-1)
        if diagonal is not None:
            if (above_left & bit) != ZERO:
                other = np.int64(label[last, c - 1])
                here = _root(parent, other) if here < 0 else _join(parent, here, other)
            if (above_right & bit) != ZERO:
                other = np.int64(label[last, c + 1])
                here = _root(parent, other) if here < 0 else _join(parent, here, other)
        if here < 0:
            here = n
            n += 1
            _new_label(here, r, c, tables, flood, details)
        label[now, c] = here
        if members is not None:
            m = members[3][0]
            members[0][m], members[1][m] = r * frame.shape[1] + c, here
            members[3][0] = m + 1
        value = np.float64(frame[r, c])
        _add_pixel(value, r, c, here, count, sums)
        if flood is not None:  # elsewhere every droplet has a seed
            peaks[here, _LEVEL] = max(peaks[here, _LEVEL], np.float64(level[r, c]))
        if sums.shape[1] > _SUMS:
            _add_spread(np.float64(variance[r, c]), r, c, here, sums)
        if details is not None:
            _add_detail(value, r, c, _touches(level, use, top, r, c), here, peaks, outline)
    return n


@njit
def _merge(tables: Any, n: Any, high: Any, flood: Any, details: Any, members: Any) -> Any:
    """Add every label to its root, and move the roots that hold a seed together, in the order of their first pixel."""
    parent, count, sums, peaks, outline = tables
    for i in range(n):
        root = _root(parent, i)
        if root != i:
            count[root] += count[i]
            for k in range(sums.shape[1]):
                sums[root, k] += sums[i, k]
            if flood is not None:
                peaks[root, _LEVEL] = max(peaks[root, _LEVEL], peaks[i, _LEVEL])
            if details is not None:
                peaks[root, _HIGHEST] = max(peaks[root, _HIGHEST], peaks[i, _HIGHEST])
                _merge_outlines(outline, root, i)
    found = 0
    for i in range(n):
        if members is not None:  # a root comes before what it joins
            members[2][i] = -1 if parent[i] == i else members[2][_root(parent, i)]
        if parent[i] == i and (flood is None or peaks[i, _LEVEL] >= high):
            count[found] = count[i]
            for k in range(sums.shape[1]):
                sums[found, k] = sums[i, k]
            if details is not None:
                peaks[found, _HIGHEST] = peaks[i, _HIGHEST]
                outline[found] = outline[i]
            if members is not None:
                members[2][i] = found
            found += 1
    return found


@njit
def _merge_outlines(outline: Any, root: Any, i: Any) -> None:
    outline[root, 0] = min(outline[root, 0], outline[i, 0])
    outline[root, 1] = max(outline[root, 1], outline[i, 1])
    outline[root, 2] = min(outline[root, 2], outline[i, 2])
    outline[root, 3] = max(outline[root, 3], outline[i, 3])
    outline[root, 4] |= outline[i, 4]


@njit
def find(
    frame: Any, level: Any, variance: Any, use: Any, thresholds: Any, how: Any, work: Any, members: Any = None
) -> Any:
    """Find the droplets of one frame; their properties stay in the workspace, where :func:`collect` takes them.

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
    how
        (flood, diagonal, details): whether droplets grow to all connected pixels above the low threshold rather than
        by one ring, whether pixels that share a corner are neighbours, whether outlines and maxima are wanted. Each is
        True or None: what is not wanted is then not compiled.
    work
        The arrays of a :class:`Workspace`.
    members
        None, or the arrays of :class:`Members`, which then hold the pixels of every droplet.

    Returns
    -------
    Number of droplets.
    """
    high, low, top = thresholds
    flood, diagonal, details = how
    seeds, busy, member, label, parent, count, sums, peaks, outline = work
    tables = (parent, count, sums, peaks, outline)
    if members is not None:
        members[3][0] = 0
    mark_seeds(level, high if flood is None else low, seeds)
    keep_fit(level, top, use, seeds, busy)
    rows, words = use.shape
    n = np.int64(0)
    clear = False  # whether the row above has no member
    member[:] = ZERO
    for r in range(rows):
        now, last = r & 1, 1 - (r & 1)
        if not (busy[r] | busy[r + 1] | busy[r + 2]):
            if not clear:
                member[:] = ZERO
                clear = True
            continue
        clear = False
        carry = ZERO
        for w in range(words):
            todo = seeds[r + 1, w + 1]
            if flood is None:
                ring = (todo << ONE) | (todo >> ONE) | seeds[r, w + 1] | seeds[r + 2, w + 1]
                ring |= (seeds[r + 1, w] >> LAST) | (seeds[r + 1, w + 2] << LAST)
                if diagonal is not None:
                    ring |= corners(seeds, r, w) | corners(seeds, r + 2, w)
                ring &= ~todo & use[r, w]
                if ring != ZERO:
                    todo = members_of(level, r, w, todo, ring, low, top)
            member[now, w] = todo
            if todo != ZERO:
                left, above = (todo << ONE) | carry, member[last, w]
                above_left = above_right = ZERO
                if diagonal is not None:
                    above_left, above_right = above << ONE, above >> ONE
                    if w > 0:
                        above_left |= member[last, w - 1] >> LAST
                    if w + 1 < words:
                        above_right |= member[last, w + 1] << LAST
                beside = (left, above, above_left, above_right)
                images = (frame, level, variance)
                n = _label_word(
                    images, use, top, r, w, todo, beside, label, tables, flood, diagonal, details, members, n
                )
            carry = todo >> LAST
    return _merge(tables, n, high, flood, details, members)


@njit
def collect(found: Any, work: Any, place: Any, cuts: Any, start: Any, out: Any) -> Any:
    """Append the droplets in the workspace to lists.

    Parameters
    ----------
    found
        How many :func:`find` found.
    work
        The arrays of the :class:`Workspace`.
    place
        (segment, row, column, row step, column step): labels of the first pixel and from one pixel to the next.
    cuts
        (lowest sum, highest sum, fewest pixels, most pixels) of the droplets that are kept, ends included.
    start
        Length of the lists so far.
    out
        (sum, n_pixels, row, column, segment, max, outline (., 5), variances of sum, row, column): the lists, with room
        for ``found`` more; those of variances have the length 0 where nobody asks for them.

    Returns
    -------
    New length of the lists.
    """
    count, sums, peaks, outline = work[5:9]
    total, size, row, column, segment, highest, extent, of_total, of_row, of_column = out
    k = start
    for i in range(found):
        if not (cuts[0] <= sums[i, _TOTAL] <= cuts[1] and cuts[2] <= count[i] <= cuts[3]):
            continue
        whole = sums[i, _TOTAL]
        center_row, center_column = sums[i, _BY_ROW] / whole, sums[i, _BY_COLUMN] / whole
        total[k] = whole
        size[k] = count[i]
        row[k] = place[1] + place[3] * center_row
        column[k] = place[2] + place[4] * center_column
        segment[k] = place[0]
        highest[k] = peaks[i, _HIGHEST]
        for m in range(DETAILS):
            extent[k, m] = outline[i, m]
        if sums.shape[1] > _SUMS:  # first order: sum(v (i - center)^2) / sum(I)^2
            s, by_row, by_row2 = sums[i, _SPREAD], sums[i, _SPREAD + 1], sums[i, _SPREAD + 2]
            by_column, by_column2 = sums[i, _SPREAD + 3], sums[i, _SPREAD + 4]
            of_total[k] = s
            along = by_row2 - 2.0 * center_row * by_row + center_row**2 * s
            across = by_column2 - 2.0 * center_column * by_column + center_column**2 * s
            of_row[k] = (0.0 if along < 0.0 else along) * (place[3] / whole) ** 2
            of_column[k] = (0.0 if across < 0.0 else across) * (place[4] / whole) ** 2
        k += 1
    return k


def _signature(pixel: str) -> str:
    lists = f"{pixel}[:], int32[:], float64[:], float64[:]"
    return f"void({pixel}[:,:], bool_[:,:], {pixel}, {pixel}, int64[:], int64[:], {lists})"


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
        np.zeros((labels, 2)), np.zeros((labels, DETAILS), np.int32),
    )  # fmt: skip
    thresholds = (high, low, np.finfo(frame.dtype).max)
    found = find(frame, frame, frame, pack(use), thresholds, (None, None, None), work)
    n[0] = found
    for i in range(slots.size):
        filled = i < found
        total[i] = sums[i, 0] if filled else np.nan
        size[i] = count[i] if filled else 0
        row[i] = sums[i, 1] / sums[i, 0] if filled else np.nan
        column[i] = sums[i, 2] / sums[i, 0] if filled else np.nan
