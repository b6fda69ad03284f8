"""NumPy twins of :mod:`xsmall.kernels.pairs`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def pairs_of(
    frames: npt.NDArray[Any], weights: Floats, index: npt.NDArray[np.int64], n_bins: int
) -> tuple[Floats, Floats, Floats]:
    """Mean and M2 of the weights, and sum of products of deviations, of each bin and pixel (bin, pixel)."""
    out = np.zeros((3, n_bins, frames.shape[1]))
    for b in range(n_bins):
        values = np.ma.masked_invalid(frames[index == b].astype(np.float64))
        if values.shape[0]:
            w = np.ma.array(np.broadcast_to(weights[index == b, None], values.shape), mask=np.ma.getmaskarray(values))
            away = w - w.mean(axis=0)
            out[0, b] = w.mean(axis=0).filled(0.0)
            out[1, b] = (away**2).sum(axis=0).filled(0.0)
            out[2, b] = (away * (values - values.mean(axis=0))).sum(axis=0).filled(0.0)
    return out[0], out[1], out[2]


def ratios_of(
    frames: npt.NDArray[Any], weights: Floats, index: npt.NDArray[np.int64], n_bins: int
) -> tuple[Floats, Floats]:
    """Mean and M2 of the ratios of values and weights of each bin and pixel (bin, pixel)."""
    out = np.zeros((2, n_bins, frames.shape[1]))
    for b in range(n_bins):
        ratios = np.ma.masked_invalid(frames[index == b].astype(np.float64) / weights[index == b, None])
        if ratios.shape[0]:
            out[0, b] = ratios.mean(axis=0).filled(0.0)
            out[1, b] = ((ratios - ratios.mean(axis=0)) ** 2).sum(axis=0).filled(0.0)
    return out[0], out[1]


def extremes_of(frames: npt.NDArray[Any], index: npt.NDArray[np.int64], n_bins: int) -> tuple[Floats, Floats]:
    """Least and largest finite value of each bin and pixel (bin, pixel), infinite where there is none."""
    values = frames.astype(np.float64)
    good = np.isfinite(values)
    of = [(index == b)[:, None] & good for b in range(n_bins)]
    least = np.stack([np.where(some, values, np.inf).min(axis=0, initial=np.inf) for some in of])
    return least, np.stack([np.where(some, values, -np.inf).max(axis=0, initial=-np.inf) for some in of])
