"""Moments of pairs, a pixel and the weight of its frame, and of their ratios; least and largest values of a pixel.

What :mod:`xsmall.kernels.moments` has of the values is taken as it is there. The covariance is updated and merged as M2
is, by the formula of Chan, Golub and LeVeque with a product in place of the square.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

_PIXELS = 4096


@njit(fastmath=False)
def add_pairs(
    frames: npt.NDArray[Any],
    weights: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    weight_m2: npt.NDArray[np.float64],
    cross: npt.NDArray[np.float64],
    low: int,
    high: int,
    at: int,
) -> None:
    """Add the weights of a batch of frames, bin by bin, before the frames themselves are added.

    Parameters
    ----------
    frames
        (k, pixel), float32 or float64; what is not finite is skipped, and its weight with it.
    weights
        Weight of each frame, finite.
    order, first, bins, low, high, at
        As in :func:`xsmall.kernels.add_frames.add_frames`.
    count, mean
        Accumulator of the values (bin, pixel), before these frames are added; not changed.
    weight, weight_m2, cross
        Mean and M2 of the weights, and sum of products of deviations (bin, pixel), changed in place.
    """
    shift = np.empty(_PIXELS, np.float64)
    valid = np.empty(_PIXELS, np.float64)
    sums = np.empty((4, _PIXELS), np.float64)
    for g in range(bins.shape[0]):
        group = order[first[g] : first[g + 1]]
        for start in range(low, high, _PIXELS):
            stop = min(start + _PIXELS, high)
            n_so_far = count[bins[g], at + start : at + stop]
            mean_so_far = mean[bins[g], at + start : at + stop]
            w, w_m2 = weight[bins[g], at + start : at + stop], weight_m2[bins[g], at + start : at + stop]
            both = cross[bins[g], at + start : at + stop]
            of_x, of_w, square, product = sums[0], sums[1], sums[2], sums[3]
            sums[:] = 0.0
            valid[:] = 0.0
            for p in range(stop - start):
                shift[p] = mean_so_far[p] if n_so_far[p] > 0 else np.nan
            for i in range(group.shape[0]):
                values = frames[group[i], start:stop]
                for p in range(stop - start):
                    v = np.float64(values[p])
                    good = abs(v) < np.inf
                    shift[p] = v if good and shift[p] != shift[p] else shift[p]
                    x = v - shift[p] if good else 0.0
                    d = weights[group[i]] - (w[p] if n_so_far[p] > 0 else weights[group[0]]) if good else 0.0
                    of_x[p] += x
                    of_w[p] += d
                    square[p] += d * d
                    product[p] += x * d
                    valid[p] += 1.0 if good else 0.0
            for p in range(stop - start):
                share = 1.0 / max(np.float64(n_so_far[p]) + valid[p], 1.0)
                step = of_w[p] * share
                w[p] = (w[p] if n_so_far[p] > 0 else weights[group[0]] if valid[p] > 0 else 0.0) + step
                w_m2[p] = max(w_m2[p] + (square[p] - of_w[p] * step), 0.0)
                both[p] = both[p] + (product[p] - of_x[p] * step)


@njit(fastmath=False)
def merge_pairs(
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    weight_m2: npt.NDArray[np.float64],
    cross: npt.NDArray[np.float64],
    count_b: npt.NDArray[np.uint32],
    mean_b: npt.NDArray[np.float64],
    weight_b: npt.NDArray[np.float64],
    weight_m2_b: npt.NDArray[np.float64],
    cross_b: npt.NDArray[np.float64],
) -> None:
    """Merge what :func:`add_pairs` gathered in b, all flat (pixel,), into another; its count and mean are not changed.

    Nothing is written that is read under another name: the compiler makes vector code of it.
    """
    for p in range(count.shape[0]):
        n = np.float64(count[p])
        share = np.float64(count_b[p]) / max(n + np.float64(count_b[p]), 1.0)
        d = mean_b[p] - mean[p]
        d_w = weight_b[p] - weight[p]
        weight[p] = weight[p] + d_w * share
        weight_m2[p] = weight_m2[p] + weight_m2_b[p] + d_w * d_w * n * share
        cross[p] = cross[p] + cross_b[p] + d * d_w * n * share


@njit(fastmath=False)
def add_ratios(
    frames: npt.NDArray[Any],
    weights: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    count: npt.NDArray[np.uint32],
    ratio: npt.NDArray[np.float64],
    ratio_m2: npt.NDArray[np.float64],
    low: int,
    high: int,
    at: int,
) -> None:
    """Add the ratios of values and weights of a batch of frames, before the frames themselves are added.

    Parameters
    ----------
    frames, weights, order, first, bins, low, high, at
        As in :func:`add_pairs`; no weight is 0.
    count
        Count of the values (bin, pixel), before these frames are added; not changed.
    ratio, ratio_m2
        Mean and M2 of the ratios (bin, pixel), changed in place.
    """
    shift = np.empty(_PIXELS, np.float64)
    sums = np.empty((3, _PIXELS), np.float64)
    for g in range(bins.shape[0]):
        group = order[first[g] : first[g + 1]]
        for start in range(low, high, _PIXELS):
            stop = min(start + _PIXELS, high)
            n_so_far = count[bins[g], at + start : at + stop]
            mean, m2 = ratio[bins[g], at + start : at + stop], ratio_m2[bins[g], at + start : at + stop]
            total, square, valid = sums[0], sums[1], sums[2]
            sums[:] = 0.0
            for p in range(stop - start):
                shift[p] = mean[p] if n_so_far[p] > 0 else np.nan
            for i in range(group.shape[0]):
                values = frames[group[i], start:stop]
                for p in range(stop - start):
                    v = np.float64(values[p])
                    good = abs(v) < np.inf
                    r = v / weights[group[i]]
                    shift[p] = r if good and shift[p] != shift[p] else shift[p]
                    x = r - shift[p] if good else 0.0
                    total[p] += x
                    square[p] += x * x
                    valid[p] += 1.0 if good else 0.0
            for p in range(stop - start):
                step = total[p] / max(np.float64(n_so_far[p]) + valid[p], 1.0)
                mean[p] = (shift[p] if shift[p] == shift[p] else 0.0) + step
                m2[p] = max(m2[p] + (square[p] - total[p] * step), 0.0)


@njit(fastmath=False)
def merge_ratios(
    count: npt.NDArray[np.uint32],
    ratio: npt.NDArray[np.float64],
    ratio_m2: npt.NDArray[np.float64],
    count_b: npt.NDArray[np.uint32],
    ratio_b: npt.NDArray[np.float64],
    ratio_m2_b: npt.NDArray[np.float64],
) -> None:
    """Merge what :func:`add_ratios` gathered in b, all flat (pixel,), into another; its count is not changed."""
    for p in range(count.shape[0]):
        n = np.float64(count[p])
        share = np.float64(count_b[p]) / max(n + np.float64(count_b[p]), 1.0)
        d = ratio_b[p] - ratio[p]
        ratio[p] = ratio[p] + d * share
        ratio_m2[p] = ratio_m2[p] + ratio_m2_b[p] + d * d * n * share


@njit(fastmath=False)
def add_extremes(
    frames: npt.NDArray[Any],
    order: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    least: npt.NDArray[np.float64],
    largest: npt.NDArray[np.float64],
    low: int,
    high: int,
    at: int,
) -> None:
    """Update the least and the largest finite value (bin, pixel) with a batch of frames; infinite where is none.

    The other parameters are those of :func:`xsmall.kernels.add_frames.add_frames`.
    """
    for g in range(bins.shape[0]):
        group = order[first[g] : first[g + 1]]
        for start in range(low, high, _PIXELS):
            stop = min(start + _PIXELS, high)
            small, large = least[bins[g], at + start : at + stop], largest[bins[g], at + start : at + stop]
            for i in range(group.shape[0]):
                values = frames[group[i], start:stop]
                for p in range(stop - start):
                    v = np.float64(values[p])
                    good = abs(v) < np.inf
                    small[p] = v if good and v < small[p] else small[p]
                    large[p] = v if good and v > large[p] else large[p]
