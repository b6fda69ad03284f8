"""Twin of :mod:`xsmall.kernels.azint`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def azint(
    frame: npt.NDArray[Any],
    value: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
    efficiency: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean of the pixels between edges of ``value``: bin by bin, sum of signal over sum of efficiency."""
    n = len(edges) - 1
    intensity, n_valid = np.full(n, np.nan), np.zeros(n, np.int64)
    efficiency = np.ones(frame.shape) if efficiency is None else efficiency
    for i in range(n):
        inside = (value >= edges[i]) & (value < edges[i + 1]) & np.isfinite(frame)
        n_valid[i] = inside.sum()
        if n_valid[i]:
            intensity[i] = frame[inside].sum(dtype=np.float64) / efficiency[inside].sum()
    return intensity, n_valid
