"""Twin of :mod:`xsmall.kernels.azint_rings`, one ring at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def median(values: Floats, weight: Floats) -> tuple[float, int]:
    """Median of the finite values over their weights, and their number."""
    good = np.isfinite(values)
    return (float(np.median(values[good] / weight[good])) if good.any() else np.nan), int(good.sum())


def clipped_mean(values: Floats, weight: Floats, cutoff: float, most: int) -> tuple[float, int]:
    """Mean without outliers, and the number of values that stay."""
    keep = np.isfinite(values)
    for _ in range(most):
        if keep.sum() < 2:
            break
        mean = values[keep].sum() / weight[keep].sum()
        off = values / weight - mean
        spread = np.sqrt(((weight * off)[keep] ** 2).sum() / (weight[keep] ** 2).sum())
        near = np.abs(off) <= cutoff * spread
        if (near | ~keep).all():
            break
        keep &= near
    mean = values[keep].sum() / weight[keep].sum() if keep.any() else np.nan
    return float(mean), int(keep.sum())
