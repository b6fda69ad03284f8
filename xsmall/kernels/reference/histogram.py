"""Twin of :mod:`xsmall.kernels.histogram`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt


def histogram(
    values: npt.NDArray[Any], edges: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], tuple[int, int, int]]:
    """Counts of finite values by bin, closed left and open right; and how many are below, above, and in all."""
    good = values[np.isfinite(values)].astype(np.float64)
    counts = np.array([((good >= a) & (good < b)).sum() for a, b in pairwise(edges)])
    return counts, (int((good < edges[0]).sum()), int((good >= edges[-1]).sum()), good.size)
