"""Statistics of rings that need all their pixels at once: medians, and means without outliers."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["clipped_means", "medians"]


@njit
def medians(frame: Any, start: Any, pixel: Any, weight: Any, scratch: Any, out: Any, n_valid: Any) -> Any:
    """Median of the valid pixels of each bin, each divided by its weight.

    Parameters
    ----------
    frame
        (pixel,) values; those that are not finite are skipped.
    start, pixel
        Pixels of each bin in compressed rows.
    weight
        (pixel,) what each pixel counts for, or empty: 1.
    scratch
        float64 (most pixels of a bin,), buffer.
    out, n_valid
        (bin,) float64 and int64, filled; NaN and 0 where no pixel is valid.
    """
    for b in range(start.size - 1):
        n = 0
        for k in range(start[b], start[b + 1]):
            value = frame[pixel[k]]
            if abs(value) < np.inf:
                scratch[n] = value / weight[pixel[k]] if weight.size else value
                n += 1
        n_valid[b] = n
        out[b] = np.median(scratch[:n]) if n else np.nan


@njit
def clipped_means(
    frame: Any,
    start: Any,
    pixel: Any,
    weight: Any,
    cutoff: Any,
    most: Any,
    out: Any,
    n_valid: Any,
    norm: Any,
    keep: Any,
) -> Any:
    """Mean of each bin without the pixels that lie more than ``cutoff`` standard deviations from it, repeatedly.

    Parameters
    ----------
    frame, start, pixel, weight
        As in :func:`medians`.
    cutoff
        In standard deviations of the pixels of the bin.
    most
        How often pixels are taken out.
    out, n_valid, norm
        (bin,) float64, int64 and float64, filled: sum of values / sum of weights of the pixels that stay, their number,
        and the sum of their weights.
    keep
        (pixel,) boolean, filled: the pixels that stay.
    """
    for b in range(start.size - 1):
        for k in range(start[b], start[b + 1]):
            keep[pixel[k]] = abs(frame[pixel[k]]) < np.inf
        n, mean, total_weight = 0, np.nan, 0.0
        for turn in range(most + 1):
            total, total_weight, now = 0.0, 0.0, 0
            for k in range(start[b], start[b + 1]):
                if keep[pixel[k]]:
                    total += frame[pixel[k]]
                    total_weight += weight[pixel[k]] if weight.size else 1.0
                    now += 1
            mean = total / total_weight if now else np.nan
            stays = turn > 0 and now == n
            n = now
            if stays or turn == most or n < 2:
                break
            deviations, squares = 0.0, 0.0
            for k in range(start[b], start[b + 1]):
                if keep[pixel[k]]:
                    w = np.float64(weight[pixel[k]]) if weight.size else 1.0
                    away = frame[pixel[k]] / w - mean
                    deviations += w * w * away * away
                    squares += w * w
            limit = cutoff * np.sqrt(deviations / squares)
            for k in range(start[b], start[b + 1]):
                w = np.float64(weight[pixel[k]]) if weight.size else 1.0
                if keep[pixel[k]] and abs(frame[pixel[k]] / w - mean) > limit:
                    keep[pixel[k]] = False
        out[b], n_valid[b], norm[b] = mean, n, total_weight
