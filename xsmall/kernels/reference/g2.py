"""Twin of :mod:`xsmall.kernels.g2`: dense frames, one pair of events after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pair_sums(
    values: npt.NDArray[np.float64], times: npt.NDArray[np.int64], edges: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sums of products (pixel, bin) of values (event, pixel), by the lag between two events."""
    out = np.zeros((values.shape[1], edges.size - 1))
    for i in range(len(times)):
        for j in range(i + 1, len(times)):
            b = int(np.searchsorted(edges, times[j] - times[i], side="right")) - 1
            if 0 <= b < edges.size - 1:
                out[:, b] += values[i] * values[j]
    return out
