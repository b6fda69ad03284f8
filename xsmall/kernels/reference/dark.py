"""The slow obvious twin of :mod:`xsmall.kernels.dark`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["dark_moments"]


def dark_moments(
    words: npt.NDArray[np.integer[Any]], code_shift: int, code_mask: int, data_shift: int, data_mask: int
) -> dict[int, tuple[npt.NDArray[Any], ...]]:
    """Return count, mean, variance (n - 1), least and most of the values (event, pixel) of each gain code."""
    code = (words.astype(np.int64) >> code_shift) & code_mask
    value = ((words.astype(np.int64) >> data_shift) & data_mask).astype(np.float64)
    out: dict[int, tuple[npt.NDArray[Any], ...]] = {}
    for c in np.unique(code):
        of_code = np.where(code == c, value, np.nan)
        count = (code == c).sum(axis=0)
        columns = [v[np.isfinite(v)] for v in of_code.T]
        mean = np.array([v.mean() if v.size else np.nan for v in columns])
        variance = np.array([v.var(ddof=1) if v.size > 1 else np.nan for v in columns])
        least = np.array([v.min() if v.size else np.nan for v in columns])
        most = np.array([v.max() if v.size else np.nan for v in columns])
        out[int(c)] = count, mean, variance, least, most
    return out
