"""Statistics of any variable per bin: lanes folded in the fixed order, at once for NumPy and as tasks for dask."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.cube.moments import (
    COVARIANCE,
    DTYPES,
    LARGEST,
    LEAST,
    MEAN_RATIO,
    RATIO_STD,
    STDERR,
    WEIGHT,
    WEIGHT_STD,
    BinnedEvents,
    Index,
    Lanes,
    Moments,
    finish,
    finish_pairs,
    lane_of_values,
    lanes,
    merge,
    merge_lanes,
    merge_pairs,
    pairs_of_values,
    standard_error,
)
from xsmall.engine.blocks import Opaque

__all__ = [
    "COVARIANCES",
    "EXTREME_VALUES",
    "MEAN_RATIOS",
    "MEDIANS",
    "MOMENTS",
    "Fold",
    "folded",
    "parts_of",
    "with_error",
]

Statistics = dict[str, Any]
"""Statistics by name: NumPy or dask arrays (*bins, ...)."""

Array = npt.NDArray[Any]


class Fold(NamedTuple):
    """How statistics come about: of a lane, of two lanes together, and what is made of the whole."""

    name: str
    lane: Callable[[Array, BinnedEvents, int], Any]
    """Of the values (event, ...) of a lane in so many bins."""
    merge: Callable[[Any, Any], Any]
    finish: Callable[[Any, tuple[int, ...]], dict[str, Array]]
    """Of the whole, in the shape (*bins, ...)."""
    types: Mapping[str, type]


def folded(data: Array | da.Array, events: BinnedEvents, shape: tuple[int, ...], label: str, fold: Fold) -> Statistics:
    """Fold any variable (event, ...) per bin.

    Parameters
    ----------
    data
        Numbers or true/false; what is not finite is skipped.
    events
        Bins of the events, and weights where the fold needs them.
    shape
        Numbers of bins.
    label
        First part of dask names.
    fold
        What is made of them.
    """
    n_bins = int(np.prod(shape, dtype=np.int64))
    borders = lanes(events.bins)
    numbers = range(len(borders))
    whole = (*shape, *data.shape[1:])
    if not isinstance(data, da.Array):

        def lane(i: int) -> Any:
            part = slice(*borders[i])
            return fold.lane(data[part], events.cut(part), n_bins)

        return fold.finish(merge_lanes(numbers, lane, fold.merge), whole)
    token = f"{fold.name}-{label}-{dask.base.tokenize(data.name, *events, shape, fold)}"
    lane_chunks = {0: tuple(b - a for a, b in borders), **dict.fromkeys(range(1, data.ndim), -1)}
    blocks = data.rechunk(lane_chunks).to_delayed(optimize_graph=False).ravel()
    tasks = [
        dask.delayed(_lane_task, pure=False)(block, part, n_bins, Opaque(fold), dask_key_name=f"lane-{token}-{i}")
        for i, (block, part) in enumerate(zip(blocks, parts_of(events, borders, token), strict=True))
    ]

    def merge_two(a: Delayed, b: Delayed) -> Delayed:
        return dask.delayed(fold.merge, pure=False)(a, b, dask_key_name=f"merge-{token}-{next(count)}")

    count = iter(range(len(tasks)))
    merged = merge_lanes(numbers, lambda i: tasks[i], merge_two)
    done = dask.delayed(fold.finish, pure=False)(merged, whole, dask_key_name=f"finish-{token}")
    return picked(done, token, whole, fold.types)


def _lane_task(values: Array, events: Opaque, n_bins: int, fold: Opaque) -> Any:
    return fold.value.lane(values, events.value, n_bins)


def parts_of(events: BinnedEvents, borders: Lanes, token: str) -> list[Delayed]:
    """Bins and weights of the events of each task, each once in the graph."""
    parts = (Opaque(events.cut(slice(a, b))) for a, b in borders)
    return [dask.delayed(part, name=f"events-{token}-{i}", traverse=False) for i, part in enumerate(parts)]


def picked(done: Delayed, token: str, shape: tuple[int, ...], types: Mapping[str, type]) -> Statistics:
    """One dask array for each statistic of a finished whole."""
    pick: Callable[..., Delayed] = dask.delayed(operator.getitem, pure=False)
    return {
        name: da.from_delayed(
            pick(done, name, dask_key_name=f"{name}-{token}"), shape, dtype=dtype, name=f"{name}s-{token}"
        )
        for name, dtype in types.items()
    }


def with_error(found: Statistics) -> Statistics:
    """Add the standard error, made of spread and count."""
    std, count = found["std"], found["count"]
    if not isinstance(std, da.Array):
        return found | {STDERR: standard_error(std, count)}
    meta = np.empty((0,) * std.ndim)
    return found | {STDERR: da.map_blocks(standard_error, std, count, dtype=np.float64, meta=meta)}


# ---- moments ----------------------------------------------------------------------------------------------------


def _moments(values: Array, events: BinnedEvents, n_bins: int) -> Moments:
    return lane_of_values(values, events.bins, n_bins)


MOMENTS: Final = Fold("moments", _moments, merge, finish, DTYPES)
"""Mean, std, count."""


# ---- pairs of value and weight --------------------------------------------------------------------------------------


_TYPES_OF_PAIRS: Final = {WEIGHT: np.float64, WEIGHT_STD: np.float64, COVARIANCE: np.float64}
COVARIANCES: Final = Fold("pairs", pairs_of_values, merge_pairs, finish_pairs, _TYPES_OF_PAIRS)
"""Mean and spread of the weights, and their covariance with the values."""


def _ratios(values: Array, events: BinnedEvents, n_bins: int) -> Moments:
    assert events.weight is not None
    weight = np.where(events.bins >= 0, events.weight, np.nan)  # finite and positive where there is a bin
    return lane_of_values(values / weight.reshape(-1, *[1] * (values.ndim - 1)), events.bins, n_bins)


def _finished_ratios(found: Moments, shape: tuple[int, ...]) -> dict[str, Array]:
    made = finish(found, shape)
    return {MEAN_RATIO: made["mean"], RATIO_STD: made["std"]}


MEAN_RATIOS: Final = Fold("ratios", _ratios, merge, _finished_ratios, {MEAN_RATIO: np.float64, RATIO_STD: np.float64})
"""Mean and spread of the ratios of value and weight."""


# ---- least and largest values, medians ------------------------------------------------------------------------------


def _extremes(values: Array, events: BinnedEvents, n_bins: int) -> tuple[Array, Array]:
    flat = _finite_or_nan(values)
    low, high = np.full((n_bins, flat.shape[1]), np.inf), np.full((n_bins, flat.shape[1]), -np.inf)
    some = events.bins >= 0
    np.minimum.at(low, events.bins[some], np.where(np.isnan(flat), np.inf, flat)[some])
    np.maximum.at(high, events.bins[some], np.where(np.isnan(flat), -np.inf, flat)[some])
    return low, high


def _merged_extremes(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])


def _finished_extremes(both: tuple[Array, Array], shape: tuple[int, ...]) -> dict[str, Array]:
    low, high = (np.where(np.isfinite(m), m, np.nan).reshape(shape) for m in both)
    return {LEAST: low, LARGEST: high}


EXTREME_VALUES: Final = Fold(
    "extremes", _extremes, _merged_extremes, _finished_extremes, {LEAST: np.float64, LARGEST: np.float64}
)
"""Least and largest value."""


def _kept_values(values: Array, events: BinnedEvents, n_bins: int) -> tuple[Array, Index]:
    del n_bins
    some = events.bins >= 0
    return _finite_or_nan(values)[some], events.bins[some]


def _values_joined(a: tuple[Array, Index], b: tuple[Array, Index]) -> tuple[Array, Index]:
    return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])


def _medians_of_bins(held: tuple[Array, Index], shape: tuple[int, ...]) -> dict[str, Array]:
    values, bins = held
    n = values.shape[1]
    out = np.full((int(np.prod(shape, dtype=np.int64)) // max(n, 1), n), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of bins without a value: NaN
        for b in np.unique(bins):
            out[b] = np.nanmedian(values[bins == b], axis=0)
    return {MEDIAN: out.reshape(shape)}


MEDIAN: Final = "median"
MEDIANS: Final = Fold("medians", _kept_values, _values_joined, _medians_of_bins, {MEDIAN: np.float64})
"""Median; it needs all values of a bin at once."""


def _finite_or_nan(values: Array) -> Array:
    """Values (event, pixel) as float64, NaN where they are not finite."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64))).astype(np.float64)
    return np.where(np.isfinite(flat), flat, np.nan)
