"""Moments of pairs per bin: a value and the weight of its event, with their covariance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import Index

__all__ = ["Pairs", "finish_pairs", "merge_pairs", "pairs_of_lane"]

Floats = npt.NDArray[np.float64]


class Pairs(NamedTuple):
    """Number of pairs, means, squared deviations of the weight and products of deviations, each (bin, pixel)."""

    n: npt.NDArray[np.int64]
    value: Floats
    weight: Floats
    square: Floats
    product: Floats


def pairs_of_lane(data: npt.NDArray[Any], weight: Floats, index: Index, n_bins: int) -> Pairs:
    """Moments of one lane: two passes over the events of each bin."""
    values = data.reshape(len(data), int(np.prod(data.shape[1:], dtype=np.int64))).astype(np.float64)
    out = Pairs(np.zeros((n_bins, values.shape[1]), np.int64), *(np.zeros((n_bins, values.shape[1])) for _ in range(4)))
    for b in np.unique(index[index >= 0]):
        here = index == b
        x, w = values[here], np.broadcast_to(weight[here, None], (int(here.sum()), values.shape[1]))
        known = np.isfinite(x)
        n = known.sum(axis=0)
        some = np.maximum(n, 1)
        mean, mean_w = np.where(known, x, 0.0).sum(axis=0) / some, np.where(known, w, 0.0).sum(axis=0) / some
        away, away_w = np.where(known, x - mean, 0.0), np.where(known, w - mean_w, 0.0)
        out.n[b], out.value[b], out.weight[b] = n, mean, mean_w
        out.square[b], out.product[b] = (away_w**2).sum(axis=0), (away * away_w).sum(axis=0)
    return out


def merge_pairs(a: Pairs, b: Pairs) -> Pairs:
    """Merge the moments of two sets of pairs (Chan, Golub and LeVeque 1983)."""
    n = a.n + b.n
    part = b.n / np.maximum(n, 1)
    shift, shift_w = b.value - a.value, b.weight - a.weight
    both = a.n * part
    return Pairs(
        n,
        a.value + shift * part,
        a.weight + shift_w * part,
        a.square + b.square + shift_w**2 * both,
        a.product + b.product + shift * shift_w * both,
    )


def finish_pairs(pairs: Pairs, shape: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    """Mean and standard deviation of the weight, and covariance of value and weight, for n - 1, in a shape."""
    some, several = np.where(pairs.n > 0, 1.0, np.nan), np.where(pairs.n > 1, pairs.n - 1, np.nan)
    found = (pairs.weight * some, np.sqrt(pairs.square / several), pairs.product / several)
    mean, std, covariance = (x.reshape(shape) for x in found)
    return mean, std, covariance
