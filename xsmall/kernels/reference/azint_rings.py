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
    mean = np.nan
    for turn in range(most + 1):
        if not keep.any():
            return np.nan, 0
        v, w = values[keep], weight[keep]
        mean = v.sum() / w.sum()
        spread = np.sqrt((w**2 * (v / w - mean) ** 2).sum() / (w**2).sum())
        near = np.abs(values / weight - mean) <= cutoff * spread
        if turn == most or keep.sum() < 2 or (near | ~keep).all():
            break
        keep = keep & near
    return float(mean), int(keep.sum())
