"""Sum, maximum and moments of a box of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["box", "box_variance", "extremes", "moments"]


@njit
def box(frame: Any, top: Any, left: Any, use: Any, row: Any, column: Any, line: Any, out: Any) -> Any:
    """Reduce one box of one frame.

    Parameters
    ----------
    frame
        (row, column) the pixels of a segment.
    top, left
        Where the box begins.
    use
        (row, column) boolean of the size of the box, True where a pixel may be used.
    row, column
        Float64 positions that the moments are taken with.
    line
        (column,) buffer of the dtype of the frame.
    out
        float64, the first five filled: sum, maximum, sum times row, sum times column, number of valid
        pixels. The maximum is NaN where no pixel is valid.
    """
    total = moment_row = moment_column = 0.0
    n = np.int64(0)
    lowest = np.finfo(frame.dtype).min
    line[:] = lowest  # the maximum goes down the columns, which is a vector step; across them it would not be
    for r in range(use.shape[0]):
        values, good = frame[top + r, left : left + use.shape[1]], use[r]
        row_total = row_moment = 0.0
        row_n = np.int32(0)
        for c in range(values.size):
            ok = (abs(values[c]) < np.inf) & good[c]
            taken = np.float64(values[c]) if ok else 0.0
            row_total += taken
            row_moment += taken * column[c]
            row_n += np.int32(ok)
            candidate = values[c] if ok else lowest
            line[c] = candidate if candidate > line[c] else line[c]
        total += row_total
        moment_row += row_total * row[r]
        moment_column += row_moment
        n += row_n
    most = lowest
    for c in range(line.size):
        most = max(most, line[c])
    out[0] = total
    out[1] = most if n else np.nan
    out[2] = moment_row
    out[3] = moment_column
    out[4] = n


@njit
def box_variance(
    frame: Any, variance: Any, top: Any, left: Any, use: Any, row: Any, column: Any, found: Any, out: Any
) -> Any:
    """Propagate the variances of the pixels of a box, to first order in the values.

    Parameters
    ----------
    frame, variance
        (row, column) the pixels of a segment, and the variance of each.
    top, left, use, row, column
        As in :func:`box`.
    found
        What :func:`box` has filled for this box.
    out
        float64 (4,), filled: variance of the sum, of the maximum (that of the very pixel, the first one), and the sums
        of variance times squared distance from the centre of mass, along row and column.
    """
    center_row, center_column = found[2] / found[0], found[3] / found[0]
    total = of_most = along_row = along_column = 0.0
    looking = True
    for r in range(use.shape[0]):
        values = frame[top + r, left : left + use.shape[1]]
        variances = variance[top + r, left : left + use.shape[1]]
        row_total = row_moment = 0.0
        for c in range(use.shape[1]):
            ok = (abs(values[c]) < np.inf) & use[r, c]
            taken = np.float64(variances[c]) if ok else 0.0
            row_total += taken
            row_moment += taken * (column[c] - center_column) ** 2
        total += row_total
        along_row += row_total * (row[r] - center_row) ** 2
        along_column += row_moment
        if looking:
            for c in range(use.shape[1]):
                if looking and use[r, c] and values[c] == found[1]:
                    of_most = np.float64(variances[c])
                    looking = False
    out[0], out[1], out[2], out[3] = total, of_most, along_row, along_column


@njit
def moments(frame: Any, values: Any, top: Any, left: Any, use: Any, p: Any, q: Any, out: Any) -> Any:
    """Add up what first and second moments of a box are made of.

    Parameters
    ----------
    frame
        (row, column) the pixels of a segment, which say what is valid.
    values
        (row, column) what is summed: the pixels themselves, or the variance of each.
    top, left, use
        As in :func:`box`.
    p, q
        (row, column) float64 place of each pixel of the box.
    out
        float64 (6,), added to: sums of v, v p, v q, v p p, v p q, v q q.
    """
    for r in range(use.shape[0]):
        seen, taken = frame[top + r, left : left + use.shape[1]], values[top + r, left : left + use.shape[1]]
        for c in range(use.shape[1]):
            if use[r, c] and abs(seen[c]) < np.inf:
                v, a, b = np.float64(taken[c]), p[r, c], q[r, c]
                out[0] += v
                out[1] += v * a
                out[2] += v * b
                out[3] += v * a * a
                out[4] += v * a * b
                out[5] += v * b * b


@njit
def extremes(frame: Any, top: Any, left: Any, use: Any, level: Any, out: Any) -> Any:
    """Find the lowest pixel of a box, and count those at or above ``level``.

    Parameters
    ----------
    frame, top, left, use
        As in :func:`box`.
    level
        In the unit of the frame.
    out
        float64 (2,): lowered to the lowest valid pixel (it begins at infinity), and added to.
    """
    for r in range(use.shape[0]):
        seen = frame[top + r, left : left + use.shape[1]]
        for c in range(use.shape[1]):
            if use[r, c] and abs(seen[c]) < np.inf:
                out[0] = min(out[0], seen[c])
                out[1] += seen[c] >= level
