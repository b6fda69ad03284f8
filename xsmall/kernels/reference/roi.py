"""Twin of :mod:`xsmall.kernels.roi`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def roi(frame: npt.NDArray[Any], use: npt.NDArray[np.bool_]) -> tuple[float, float, float, float, int]:
    """Sum, maximum, centre of mass (row, column) and number of valid pixels of a frame (row, column)."""
    valid = np.isfinite(frame) & use
    if not valid.any():
        return np.nan, np.nan, np.nan, np.nan, 0
    rows, columns = np.nonzero(valid)
    values = frame[valid].astype(np.float64)
    total = values.sum()
    if total == 0:
        return 0.0, float(values.max()), np.nan, np.nan, values.size
    return (
        float(total),
        float(values.max()),
        float((values * rows).sum() / total),
        float((values * columns).sum() / total),
        values.size,
    )


def box_variance(
    frame: npt.NDArray[Any], variance: npt.NDArray[Any], use: npt.NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """Variance of the sum, of the maximum, and sums of variance times squared distance from the centre of mass."""
    valid = np.isfinite(frame) & use
    rows, columns = np.nonzero(valid)
    values, variances = frame[valid].astype(np.float64), variance[valid].astype(np.float64)
    row, column = (values * rows).sum() / values.sum(), (values * columns).sum() / values.sum()
    along, across = (variances * (rows - row) ** 2).sum(), (variances * (columns - column) ** 2).sum()
    return float(variances.sum()), float(variances[values.argmax()]), float(along), float(across)


def moments(
    frame: npt.NDArray[Any],
    values: npt.NDArray[Any],
    use: npt.NDArray[np.bool_],
    p: npt.NDArray[np.float64],
    q: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Sums of v, v p, v q, v p p, v p q, v q q over the valid pixels of a frame."""
    valid = np.isfinite(frame) & use
    v, a, b = values[valid].astype(np.float64), p[valid], q[valid]
    return np.array([(v * weight).sum() for weight in (np.ones_like(a), a, b, a * a, a * b, b * b)])


def extremes(frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], level: float) -> tuple[float, int]:
    """Lowest valid pixel, infinity where none is, and how many are at or above ``level``."""
    values = frame[np.isfinite(frame) & use].astype(np.float64)
    return float(values.min(initial=np.inf)), int((values >= level).sum())
