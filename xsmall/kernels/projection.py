"""Sums of a frame along its rows or columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["along_columns", "along_rows"]


@njit
def along_columns(frame: Any, top: Any, left: Any, use: Any, total: Any, n: Any) -> Any:
    """Sum every row of a box over its columns.

    Parameters
    ----------
    frame
        (row, column) the pixels of a segment.
    top, left
        Where the box begins.
    use
        (row, column) boolean of the size of the box, True where a pixel may be used.
    total, n
        (row,) float64 and int64, filled.
    """
    for r in range(use.shape[0]):
        values, good = frame[top + r, left : left + use.shape[1]], use[r]
        row_total = 0.0
        row_n = np.int32(0)
        for c in range(good.size):
            ok = (abs(values[c]) < np.inf) & good[c]
            row_total += np.float64(values[c]) if ok else 0.0
            row_n += np.int32(ok)
        total[r], n[r] = row_total, row_n


@njit
def along_rows(frame: Any, top: Any, left: Any, use: Any, total: Any, n: Any) -> Any:
    """Sum every column of a box over its rows; as :func:`along_columns`, with (column,) results."""
    total[:] = 0
    n[:] = 0
    for r in range(use.shape[0]):
        values, good = frame[top + r, left : left + use.shape[1]], use[r]
        for c in range(good.size):
            ok = (abs(values[c]) < np.inf) & good[c]
            total[c] += np.float64(values[c]) if ok else 0.0
            n[c] += np.int64(ok)
