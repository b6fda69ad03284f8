"""Labels of droplets: members that touch get one, and what is known of each label is summed.

Labels are joined by union-find. A label that joins another keeps the sums it has so far; they are added at the end.

Whether a pixel has a member to the left or above is as good as random, so that a branch on it costs more than the rest
of the work. The code of a member therefore has none: what a new label needs is written in any case, and a choice of
numbers says which label counts. Numbers that index arrays are unsigned where they are kept, for numba takes those that
are below zero for counted from the end, and asks each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.droplet_bits import ONE, WORD, ZERO, level_at
from xsmall.kernels.jit import njit

__all__ = [
    "COLUMN", "DETAILS", "HIGHEST", "NOWHERE", "ROW", "SUMS", "TOTAL", "VARIANCES",
    "add_to_roots", "is_droplet", "label_rows", "move_together",
]  # fmt: skip

SUMS, VARIANCES, DETAILS = 3, 5, 5
TOTAL, ROW, COLUMN = range(SUMS)
"""Columns of the sums of a label: of its values, and of them times row and column."""
HIGHEST, LEVEL = range(2)
"""Columns of the peaks of a label: its highest value and its highest level."""
NOWHERE = np.iinfo(np.int32).min
"""A pixel that is no neighbour of any."""


@njit(forceinline=True)
def _root(parent: Any, label: Any) -> Any:
    above = np.int64(parent[label])
    while above != label:
        above = np.int64(parent[above])
        parent[label] = above
        label, above = above, np.int64(parent[above])
    return label


@njit
def _touches(images: Any, use: Any, top: Any, r: Any, c: Any) -> Any:
    """Whether a pixel lies at the border of the frame or beside one that is not used or not finite."""
    frame, per_noise, _ = images
    rows, columns = frame.shape
    if r == 0 or c == 0 or r == rows - 1 or c == columns - 1:
        return True
    for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = r + dr, c + dc
        used = (use[y, x // WORD] >> np.uint64(x % WORD)) & ONE
        if used == ZERO or not abs(level_at(frame, per_noise, y, x)) <= top:
            return True
    return False


@njit
def _add_variance(variance: Any, r: Any, c: Any, here: Any, sums: Any) -> None:
    """Add the variance of a pixel to the sums of a label, where there is one."""
    if variance is None:
        return
    of_pixel = np.float64(variance[r, c])
    sums[here, 0] += of_pixel
    sums[here, 1] += of_pixel * r
    sums[here, 2] += of_pixel * r * r
    sums[here, 3] += of_pixel * c
    sums[here, 4] += of_pixel * c * c


@njit(forceinline=True)
def _clear(here: Any, r: Any, c: Any, tables: Any, variance: Any, flood: Any, details: Any) -> None:
    """Make a label what it is without a pixel."""
    parent, count, sums, variances, peaks, outline = tables
    parent[here] = here
    count[here] = 0
    for i in range(SUMS):
        sums[here, i] = 0.0
    if variance is not None:
        for i in range(VARIANCES):
            variances[here, i] = 0.0
    if flood is not None:
        peaks[here, LEVEL] = 0.0
    if details is not None:
        peaks[here, HIGHEST] = -np.inf
        outline[here, 0] = outline[here, 1] = r
        outline[here, 2] = outline[here, 3] = c
        outline[here, 4] = 0


@njit
def label_rows(
    images: Any, use: Any, top: Any, how: Any, listed: Any, m: Any, last: Any, tables: Any, members: Any, n: Any
) -> Any:
    """Give every member of some rows its label and add it to the label's sums; return the number of labels so far.

    Parameters
    ----------
    images
        The frame, one over its noise or None, its variance or None.
    use
        Bits (row, word) of the pixels that are used.
    top
        Largest finite value.
    how
        (flood, diagonal, details), see :func:`xsmall.kernels.droplet.find`.
    listed
        Columns of the members row after row, rising in each; the number of each row, and where its columns end.
    m
        Number of these rows.
    last
        Of each column, with one more at either end: number of the last member in it, and its label.
    tables
        What is known of each label.
    members
        None, or lists of all members.
    n
        Number of labels so far.
    """
    frame, per_noise, variance = images
    flood, diagonal, details = how
    columns, row_of, end_of = listed
    member, label = last
    parent, count, sums, variances, peaks, outline = tables
    width, start, flat = frame.shape[1], np.int64(0), sums.reshape(-1)
    for j in range(m):
        r = row_of[j]
        first, above = r * width, (r - 1) * width
        for i in range(start, end_of[j]):
            c = np.int64(columns[i])
            value = np.float64(frame[r, c])
            beside = member[c] == first + c - 1
            up, label_up = member[c + 1] == above + c, label[c + 1]
            if diagonal is not None:  # a member above joins its two neighbours, and one to the left those above it
                beside |= member[c] == above + c - 1
                corner = member[c + 2] == above + c + 1
                label_up = label_up if up else label[c + 2]
                up |= corner
            new = np.int64(np.uint32(n))
            _clear(new, r, c, tables, variance, flood, details)
            one, other = _root(parent, np.int64(label[c])), _root(parent, np.int64(label_up))
            with_one = -np.int64(beside)  # all bits set, or none
            with_other = -np.int64(up) & ~with_one
            here = (one & with_one) | (other & with_other) | (new & ~(with_one | with_other))
            if beside & up & (one != other):
                here = min(one, other)
                parent[max(one, other)] = here
            n += 1 + with_one + with_other
            member[c + 1], label[c + 1] = first + c, here
            if members is not None:
                k = members[3][0]
                members[0][k], members[1][k] = first + c, here
                members[3][0] = k + 1
            count[here] += 1
            at = SUMS * here
            flat[at + TOTAL] += value
            flat[at + ROW] += value * r
            flat[at + COLUMN] += value * c
            if flood is not None:  # elsewhere every droplet has a seed
                peaks[here, LEVEL] = max(peaks[here, LEVEL], np.float64(level_at(frame, per_noise, r, c)))
            _add_variance(variance, r, c, here, variances)
            if details is not None:
                peaks[here, HIGHEST] = max(peaks[here, HIGHEST], value)
                outline[here, 1] = r
                outline[here, 2] = min(outline[here, 2], c)
                outline[here, 3] = max(outline[here, 3], c)
                outline[here, 4] |= _touches(images, use, top, r, c)
        start = end_of[j]
    return n


@njit
def add_to_roots(tables: Any, n: Any, variance: Any, flood: Any, details: Any) -> None:
    """Add every label that joined another to its root."""
    parent, count, sums, variances, peaks, outline = tables
    for i in range(n):
        if parent[i] == i:
            continue
        root = _root(parent, i)
        count[root] += count[i]
        for k in range(SUMS):
            sums[root, k] += sums[i, k]
        if variance is not None:
            for k in range(VARIANCES):
                variances[root, k] += variances[i, k]
        if flood is not None:
            peaks[root, LEVEL] = max(peaks[root, LEVEL], peaks[i, LEVEL])
        if details is not None:
            peaks[root, HIGHEST] = max(peaks[root, HIGHEST], peaks[i, HIGHEST])
            for k in (0, 2):
                outline[root, k] = min(outline[root, k], outline[i, k])
            for k in (1, 3):
                outline[root, k] = max(outline[root, k], outline[i, k])
            outline[root, 4] |= outline[i, 4]


@njit(forceinline=True)
def is_droplet(tables: Any, i: Any, high: Any, flood: Any) -> Any:
    """Whether a label joined no other and has a seed."""
    if flood is not None:
        return (tables[0][i] == i) & (tables[4][i, LEVEL] >= high)
    return tables[0][i] == i


@njit
def move_together(tables: Any, n: Any, high: Any, variance: Any, flood: Any, details: Any, members: Any) -> Any:
    """Move the labels that are droplets to the front, in the order of their first pixel; return how many there are."""
    parent, count, sums, variances, peaks, outline = tables
    found = np.int64(0)
    for i in range(n):
        is_one = is_droplet(tables, i, high, flood)
        if members is not None:  # a root comes before what it joins
            other = members[2][_root(parent, i)]
            members[2][i] = found if is_one else (-1 if parent[i] == i else other)
        count[found] = count[i]
        for k in range(SUMS):
            sums[found, k] = sums[i, k]
        if variance is not None:
            for k in range(VARIANCES):
                variances[found, k] = variances[i, k]
        if details is not None:
            peaks[found, HIGHEST] = peaks[i, HIGHEST]
            for k in range(DETAILS):
                outline[found, k] = outline[i, k]
        found += np.int64(is_one)
    return found
