"""Droplets: connected pixels above two thresholds, found, joined and summed.

A pixel at or above the high threshold is a seed. Its neighbours at or above the low threshold join it, one ring and no
further (or, when droplets are flooded, all that are connected), and members that touch are one droplet. Neighbours are
the four that share an edge, or all eight. Pixels that are not finite or not used are neither seed nor member.

The frame is read once, row by row: a row becomes a bit per pixel that says whether it is a seed, 64 pixels at a time.
With the bits of three rows the members of the middle one are known, while its values are still in the nearest cache;
they are listed, labelled and summed at once. Rows without seeds in reach are passed over, and nothing of the size of a
frame is written or cleared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.droplet_bits import BLOCK, ONE, WORD, levels_of, list_members, mark_rows
from xsmall.kernels.droplet_labels import (
    COLUMN,
    DETAILS,
    HIGHEST,
    NOWHERE,
    ROW,
    SUMS,
    TOTAL,
    VARIANCES,
    add_to_roots,
    is_droplet,
    label_rows,
    move_together,
)
from xsmall.kernels.jit import njit

__all__ = ["DETAILS", "Members", "Workspace", "find", "find_valid", "frame_of", "list_droplets", "mask_words"]


def mask_words(use: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Pack a boolean mask (row, column) into words of 64 columns, lowest bit first."""
    rows, columns = use.shape
    words = -(-columns // WORD)
    padded = np.zeros((rows, words * WORD), np.bool_)
    padded[:, :columns] = use
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


class Workspace:
    """Buffers for frames of one shape: bits and labels of a few rows, and the sums of every label.

    Cost: some 35 bytes per pixel, with variances 55, for a frame can hold one label in two pixels. What no label ever
    needed is never touched.
    """

    def __init__(self, rows: int, columns: int, *, variance: bool = False) -> None:
        labels = rows * columns // 2 + 2
        words = -(-columns // WORD)
        self.arrays = (
            np.zeros((rows + 2, words + 2), np.uint64),  # seeds, and a border without any
            np.zeros(rows + 2, np.bool_),  # whether a row has seeds
            np.zeros(words, np.uint64),  # pixels around seeds
            np.zeros(words, np.int64),  # words that have seeds or pixels around them
            np.zeros(BLOCK * columns + 4, np.uint32),  # columns of the members of a block
            np.zeros(BLOCK, np.int64),  # the rows that they are in
            np.zeros(BLOCK, np.int64),  # where the members of each row end
            np.zeros(columns + 2, np.int32),  # last member of each column
            np.zeros(columns + 2, np.uint32),  # its label
            # what is known of a label is written when there is one
            np.empty(labels, np.uint32),  # parent of each label
            np.empty(labels, np.int32),  # pixels of each label
            np.empty((labels, SUMS)),  # sum of each label, and times row, times column
            # of the variance: sum, times row, row^2, column, column^2
            np.empty((labels if variance else 0, VARIANCES)),
            np.empty((labels, 2)),  # highest value and highest level of each label
            np.empty((labels, DETAILS), np.int32),  # outline of each label
        )

    @property
    def found(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Pixels (droplet,) and sums (droplet, 3) of what :func:`find` found, and room for more."""
        return self.arrays[10], self.arrays[11]


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
def _labels_of(
    frame: Any, per_noise: Any, variance: Any, use: Any, thresholds: Any, how: Any, work: Any, members: Any
) -> Any:
    """Label the members of one frame, see :func:`find`; return the number of labels."""
    images, seeds, busy = (frame, per_noise, variance), work[0], work[1]
    high, low, top = thresholds
    flood, diagonal, _ = how
    bits, listed, last, tables = work[:4], work[4:7], work[7:9], work[9:]
    rows, width = frame.shape
    made = levels_of(frame, per_noise)
    least = high if flood is None else low
    last[0][:] = NOWHERE
    if members is not None:
        members[3][0] = 0
    n, marked = np.int64(0), 0
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        ahead = min(stop + 1, rows)
        mark_rows(frame, per_noise, made, least, top, use, (marked, ahead), seeds, busy)
        marked, span = ahead, (start, stop)
        m = list_members(made[0], per_noise, (low, top, width), use, span, bits, flood, diagonal, listed)
        if m > 0:
            n = label_rows(images, use, top, how, listed, m, last, tables, members, n)
    add_to_roots(tables, n, variance, flood, how[2])
    return n


@njit
def find(
    frame: Any, per_noise: Any, variance: Any, use: Any, thresholds: Any, how: Any, work: Any, members: Any = None
) -> Any:
    """Find the droplets of one frame; their properties stay in the workspace.

    Parameters
    ----------
    frame
        (row, column) contiguous: what is summed.
    per_noise
        (row, column) of the frame's dtype: what it is multiplied by before it is compared with thresholds; or None.
    variance
        (row, column), or None.
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
    n = _labels_of(frame, per_noise, variance, use, thresholds, how, work, members)
    return move_together(work[9:], n, thresholds[0], variance, how[0], how[2], members)


@njit
def _collect(
    n: Any, tables: Any, place: Any, high: Any, cuts: Any, variance: Any, flood: Any, details: Any, k: Any, out: Any
) -> Any:
    """Append the droplets among ``n`` labels to lists; return their new length.

    Every label is written, and the next one over it unless it is a droplet: no branch, as in
    :mod:`xsmall.kernels.droplet_labels`.
    """
    _, count, sums, variances, peaks, outline = tables
    total, size, row, column, segment, highest, extent, of_total, of_row, of_column = out
    for i in range(n):
        whole = sums[i, TOTAL]
        center_row, center_column = sums[i, ROW] / whole, sums[i, COLUMN] / whole
        total[k] = whole
        size[k] = count[i]
        row[k] = place[1] + place[3] * center_row
        column[k] = place[2] + place[4] * center_column
        segment[k] = place[0]
        if details is not None:
            highest[k] = peaks[i, HIGHEST]
            for m in range(DETAILS):
                extent[k, m] = outline[i, m]
        if variance is not None:  # first order: sum(v (i - center)^2) / sum(I)^2
            s, by_row, by_row2 = variances[i, 0], variances[i, 1], variances[i, 2]
            by_column, by_column2 = variances[i, 3], variances[i, 4]
            of_total[k] = s
            along = by_row2 - 2.0 * center_row * by_row + center_row**2 * s
            across = by_column2 - 2.0 * center_column * by_column + center_column**2 * s
            of_row[k] = (0.0 if along < 0.0 else along) * (place[3] / whole) ** 2
            of_column[k] = (0.0 if across < 0.0 else across) * (place[4] / whole) ** 2
        kept = (cuts[0] <= whole) & (whole <= cuts[1]) & (cuts[2] <= count[i]) & (count[i] <= cuts[3])
        k += np.int64(kept & is_droplet(tables, i, high, flood))
    return k


@njit
def frame_of(stack: Any, j: Any, shape: Any) -> Any:
    """Frame ``j`` of a (flat array, step) as a contiguous (row, column)."""
    pixels, step = stack
    return pixels[j * step : j * step + shape[0] * shape[1]].reshape(shape)


@njit
def list_droplets(
    stack: Any,
    shape: Any,
    per_noise: Any,
    variance: Any,
    use: Any,
    thresholds: Any,
    how: Any,
    work: Any,
    place: Any,
    cuts: Any,
    borders: Any,
    first: Any,
    out: Any,
) -> Any:
    """Append the droplets of frames of a segment to lists.

    Parameters
    ----------
    stack
        k frames as :func:`xsmall.kernels.stack.flat_frames` gives them.
    shape
        (row, column): number of rows and columns of a frame.
    variance
        (k, row, column), or None.
    per_noise, use, thresholds, how, work
        As in :func:`find`.
    place
        (segment, row, column, row step, column step): labels of the first pixel and from one pixel to the next.
    cuts
        (lowest sum, highest sum, fewest pixels, most pixels) of the droplets that are kept, ends included.
    borders
        (k + 1,) int64: length of the lists before each frame and after the last, of which that before the first frame
        is given and the others are filled in.
    first
        The frame to begin with.
    out
        (sum, n_pixels, row, column, segment, max, outline (., 5), variances of sum, row, column): the lists; what
        nobody asks for has the length 0.

    Returns
    -------
    The frame that may not fit into the lists, and how much room it needs; the number of frames where all did.
    """
    for j in range(first, borders.size - 1):
        frame = frame_of(stack, j, shape)
        if variance is None:
            n = _labels_of(frame, per_noise, None, use, thresholds, how, work, None)
        else:
            n = _labels_of(frame, per_noise, variance[j], use, thresholds, how, work, None)
        if borders[j] + n > out[0].size:
            return j, n
        borders[j + 1] = _collect(
            n, work[9:], place, thresholds[0], cuts, variance, how[0], how[2], borders[j], out
        )  # fmt: skip
    return borders.size - 1, 0


@njit
def find_valid(stack: Any, shape: Any, use: Any, out: Any) -> None:
    """Tell of each frame whether it has a pixel that is used and finite; the first one found is enough.

    Parameters
    ----------
    stack, shape, use
        As in :func:`list_droplets`.
    out
        (k,) boolean, filled.
    """
    for j in range(out.size):
        out[j] = _has_valid(frame_of(stack, j, shape), use)


@njit
def _has_valid(frame: Any, use: Any) -> Any:
    rows, columns = frame.shape
    for r in range(rows):
        for c in range(columns):
            if (use[r, c // WORD] >> np.uint64(c % WORD)) & ONE and abs(frame[r, c]) < np.inf:
                return True
    return False
