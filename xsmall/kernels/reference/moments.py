"""NumPy twins of :mod:`xsmall.kernels.moments`: the formulas as they stand in books, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CountMeanM2 = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


def moments_of(frames: npt.NDArray[Any], index: npt.NDArray[np.int64], n_bins: int) -> CountMeanM2:
    """Count, mean and M2 of frames (k, pixel) per bin, (bin, pixel); not finite and bin -1 are skipped."""
    shape = (n_bins, frames.shape[1])
    count, mean, m2 = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
    for b in range(n_bins):
        values = np.ma.masked_invalid(frames[index == b].astype(np.float64))
        count[b] = values.count(axis=0)
        if values.shape[0]:
            mean[b] = values.mean(axis=0).filled(0.0)
            m2[b] = ((values - mean[b]) ** 2).sum(axis=0).filled(0.0)
    return count, mean, m2


def merge(a: CountMeanM2, b: CountMeanM2) -> CountMeanM2:
    """Merge two accumulators."""
    n = a[0] + b[0]
    d = b[1] - a[1]
    share = b[0] / np.maximum(n, 1)
    return n, a[1] + d * share, a[2] + b[2] + d * d * a[0] * share


def statistics(moments: CountMeanM2) -> tuple[npt.NDArray[Any], ...]:
    """Mean, standard deviation (n - 1), standard error and count of accumulators."""
    n, mean, m2 = moments
    several = np.where(n > 1, n, np.nan)
    std = np.sqrt(m2 / (several - 1))
    return np.where(n > 0, mean, np.nan), std, std / np.sqrt(several), n


def add_variances(
    frames: npt.NDArray[Any], variances: npt.NDArray[Any], bins: npt.NDArray[np.int64], n_bins: int
) -> npt.NDArray[np.float64]:
    """Sum of the variances of the values (k, pixel) of each bin that are finite: (bin, pixel)."""
    counted = np.where(np.isfinite(frames), variances.astype(np.float64), 0.0)
    return np.stack([counted[bins == b].sum(axis=0) for b in range(n_bins)])
