"""The edge in a line of a time tool: where a filter that looks like it answers most.

The transmission of a sample changes at the place that X-rays and laser reach together. The line, relative to one
without X-rays, is correlated with a filter; the top of the answer, by a parabola through its three highest points, is
the place, the answer there the height of the edge (N. Hartmann et al., Nature Photonics 8 (2014) 706).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["answer", "top"]


@njit
def answer(line: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], out: npt.NDArray[np.float64]) -> None:
    """Correlate a line with a filter: ``out[i]`` for its middle at ``i``, NaN where it does not fit or see all."""
    n, m = line.shape[0], weights.shape[0]
    half = m // 2
    out[:] = np.nan
    for i in range(half, n - (m - 1 - half)):
        total = 0.0
        for j in range(m):
            total += weights[j] * line[i - half + j]
        out[i] = total if abs(total) < np.inf else np.nan


@njit
def top(values: npt.NDArray[Any], apart: int, out: npt.NDArray[np.float64]) -> None:
    """Fill (place, height, full width at half height, height of the next top that is ``apart`` away) of an answer.

    NaN where the highest value has no neighbours, that is no top inside of the line; so is a width whose flank is not
    in the line.
    """
    n = values.shape[0]
    out[:] = np.nan
    best = -1
    for i in range(n):
        if values[i] > -np.inf and (best < 0 or values[i] > values[best]):
            best = i
    if best < 1 or best > n - 2:
        return
    a, b, c = values[best - 1], values[best], values[best + 1]
    if not (abs(a) < np.inf and abs(c) < np.inf) or not b > 0.0:
        return
    bend = a - 2.0 * b + c
    shift = 0.5 * (a - c) / bend if bend < 0.0 else 0.0
    out[0] = best + shift
    out[1] = b - 0.25 * (a - c) * shift
    left, right = np.nan, np.nan
    half = 0.5 * out[1]
    for i in range(best, 0, -1):
        if values[i - 1] <= half:
            left = i - (values[i] - half) / (values[i] - values[i - 1])
            break
    for i in range(best, n - 1):
        if values[i + 1] <= half:
            right = i + (values[i] - half) / (values[i] - values[i + 1])
            break
    out[2] = right - left
    next_top = -np.inf
    for i in range(1, n - 1):
        if abs(i - best) >= apart and values[i] >= values[i - 1] and values[i] >= values[i + 1]:
            next_top = max(next_top, values[i])
    out[3] = next_top if next_top > -np.inf else np.nan
