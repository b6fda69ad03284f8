"""Rebinning: pixels gathered into larger ones, those on a border shared between both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["rebin"]


@njit
def rebin(frame: Any, values: Any, row: Any, row_share: Any, column: Any, column_share: Any, out: Any) -> Any:
    """Add the valid pixels of a segment to the larger pixels that they lie in.

    Parameters
    ----------
    frame
        (row, column) the pixels, which say what is valid.
    values
        (row, column) what is added; or empty: 1, which gives the valid area.
    row, column
        (row,) and (column,) the larger pixel that each begins in.
    row_share, column_share
        (row, 2) and (column, 2) what it gives to that one and to the next.
    out
        float64 (larger row, larger column), added to.
    """
    for r in range(frame.shape[0]):
        top, a, b = row[r], row_share[r, 0], row_share[r, 1]
        for c in range(frame.shape[1]):
            if abs(frame[r, c]) < np.inf:
                v = np.float64(values[r, c]) if values.size else 1.0
                left, p, q = column[c], column_share[c, 0], column_share[c, 1]
                out[top, left] += v * a * p
                if q > 0:
                    out[top, left + 1] += v * a * q
                if b > 0:
                    out[top + 1, left] += v * b * p
                    if q > 0:
                        out[top + 1, left + 1] += v * b * q
