"""Moments of pairs per bin: a value and the weight of its event, with their covariance."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import Index, lanes, merge_lanes

__all__ = ["Pairs", "pairs_of_values"]

Floats = npt.NDArray[np.float64]


class Pairs(NamedTuple):
    """Number of pairs, means, squared deviations of the weight and products of deviations, each (bin, pixel)."""

    n: npt.NDArray[np.int64]
    value: Floats
    weight: Floats
    square: Floats
    product: Floats


def pairs_of_values(
    data: npt.NDArray[Any] | da.Array, weight: Floats, index: Index, shape: tuple[int, ...], label: str
) -> tuple[Any, Any, Any]:
    """Mean and standard deviation of the weight, and covariance of value and weight, per bin and pixel.

    Parameters
    ----------
    data
        Values (event, ...); what is not finite is skipped, with its weight.
    weight
        Finite weight of each event that has a bin.
    index
        Bin of each event, counted over all dims of the bins, -1 for none.
    shape
        Numbers of bins.
    label
        First part of dask names.

    Returns
    -------
    Arrays (*bins, ...) for n - 1; NaN without events, spreads NaN with one.
    """
    n_bins = int(np.prod(shape, dtype=np.int64))
    borders = lanes(index)
    numbers = range(len(borders))
    whole = (*shape, *data.shape[1:])

    def part(i: int) -> tuple[Floats, Index]:
        a, b = borders[i]
        return weight[a:b], index[a:b]

    if not isinstance(data, da.Array):
        found = merge_lanes(numbers, lambda i: _lane(data[slice(*borders[i])], *part(i), n_bins), _merge)
        return _finish(found, whole)
    token = f"{label}-{dask.base.tokenize(data.name, weight, index, shape)}"
    cuts = {0: tuple(b - a for a, b in borders), **dict.fromkeys(range(1, data.ndim), -1)}
    blocks = data.rechunk(cuts).to_delayed(optimize_graph=False).ravel()
    tasks = [
        dask.delayed(_lane, pure=False)(block, *part(i), n_bins, dask_key_name=f"pairs-{token}-{i}")
        for i, block in enumerate(blocks)
    ]
    count = iter(range(len(tasks)))

    def merge_two(a: Any, b: Any) -> Any:
        return dask.delayed(_merge, pure=False)(a, b, dask_key_name=f"merge-pairs-{token}-{next(count)}")

    merged = merge_lanes(numbers, lambda i: tasks[i], merge_two)
    done = dask.delayed(_finish, pure=False)(merged, whole, dask_key_name=f"finish-pairs-{token}")
    pick = dask.delayed(operator.getitem, pure=False)
    mean, std, covariance = (
        da.from_delayed(pick(done, i, dask_key_name=f"pairs-{i}-{token}"), whole, dtype=np.float64) for i in range(3)
    )
    return mean, std, covariance


def _lane(data: npt.NDArray[Any], weight: Floats, index: Index, n_bins: int) -> Pairs:
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


def _merge(a: Pairs, b: Pairs) -> Pairs:
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


def _finish(pairs: Pairs, shape: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    some, several = np.where(pairs.n > 0, 1.0, np.nan), np.where(pairs.n > 1, pairs.n - 1, np.nan)
    found = (pairs.weight * some, np.sqrt(pairs.square / several), pairs.product / several)
    mean, std, covariance = (x.reshape(shape) for x in found)
    return mean, std, covariance
