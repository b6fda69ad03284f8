"""Twin of :mod:`xsmall.kernels.autocorrelation`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def autocorrelation(
    frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], max_lag: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Mean product of pairs of valid pixels over the means of their two sides, lag by lag."""
    valid = np.isfinite(frame) & use
    rows, columns = frame.shape
    out = np.full((2 * max_lag[0] + 1, 2 * max_lag[1] + 1), np.nan)
    for i, down in enumerate(range(-max_lag[0], max_lag[0] + 1)):
        for j, right in enumerate(range(-max_lag[1], max_lag[1] + 1)):
            here = slice(max(0, -down), rows - max(0, down)), slice(max(0, -right), columns - max(0, right))
            there = slice(max(0, down), rows - max(0, -down)), slice(max(0, right), columns - max(0, -right))
            pairs = valid[here] & valid[there]
            if pairs.any():
                a, b = frame[here][pairs].astype(np.float64), frame[there][pairs].astype(np.float64)
                if a.mean() != 0 and b.mean() != 0:
                    out[i, j] = (a * b).mean() / (a.mean() * b.mean())
    return out


def variance(
    frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], variances: npt.NDArray[Any], max_lag: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Sum of the variances of all valid pixels times the squared derivatives, taken by differences."""
    total = np.zeros((2 * max_lag[0] + 1, 2 * max_lag[1] + 1))
    for place in zip(*np.nonzero(np.isfinite(frame) & use), strict=True):
        sides = []
        for step in (1e-4, -1e-4):
            moved = frame.astype(np.float64)
            moved[place] += step
            sides.append(autocorrelation(moved, use, max_lag))
        total += variances[place] * ((sides[0] - sides[1]) / 2e-4) ** 2
    return total
