"""Which bin each event of small data is in, and which events are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.binning import Assignment, Binning
from xsmall.cube.bins import as_binning
from xsmall.cube.room import check_names_of_bins
from xsmall.engine.parameters import short_repr
from xsmall.errors import DataError, ParameterError
from xsmall.events.shots import one_per_event, shots_are_dropped
from xsmall.events.unknown import unknown_events
from xsmall.vocabulary import (
    BIN_EDGE,
    BOUNDS,
    BOUNDS_SUFFIX,
    DIMENSIONLESS,
    EVENT,
    LONG_NAME,
    N_BAD_WEIGHTS,
    N_DROPPED_SHOTS,
    N_OUTSIDE,
    TOLERANCE,
    UNITS,
    WEIGHTS,
    XRAY_ON,
)

Bound = tuple[tuple[str, ...], tuple[int, ...], npt.NDArray[np.int64]]
"""Names and sizes of the dims of the bins, and the bin of each event counted over all of them."""


class Sorted(NamedTuple):
    """Events of small data in bins, and those that are in none on purpose."""

    coords: dict[str, xr.Variable]
    bound: Bound
    weight: npt.NDArray[np.float64] | None
    dropped: npt.NDArray[np.bool_] | None
    """Shots without X-rays; None where nobody knows, or they are wanted."""
    bad: npt.NDArray[np.bool_] | None
    """Events whose weight is none."""

    @property
    def left(self) -> npt.NDArray[np.bool_] | None:
        """All that are left out on purpose."""
        there = [m for m in (self.dropped, self.bad) if m is not None]
        return np.logical_or.reduce(there) if there else None

    def attrs(self, weights: str | None) -> dict[str, Any]:
        """How many events are in no bin, and why."""
        left, index = self.left, self.bound[2]
        outside = (index < 0) if left is None else (index < 0) & ~left
        return {
            N_OUTSIDE: int(outside.sum()),
            **({} if self.dropped is None else {N_DROPPED_SHOTS: int(self.dropped.sum())}),
            **({} if self.bad is None else {WEIGHTS: weights, N_BAD_WEIGHTS: int(self.bad.sum())}),
        }


def sort_events(small: xr.Dataset, bins: Mapping[str, Any], weights: str | None, *, dropped_shots: bool) -> Sorted:
    """Give each event its bin and its weight; the variables for it are computed, nothing else."""
    check_small(small)
    if not isinstance(bins, Mapping) or not bins:  # type: ignore[redundant-expr] # users are not typed
        raise ParameterError("a cube needs bins by variable", found=repr(bins), fix='{"delay": xs.bins(-2, 5, n=70)}')
    for name in bins:
        one_per_event(small, name)
    check_names_of_bins(bins)
    dropped = None if dropped_shots or XRAY_ON in bins else shots_are_dropped(small)
    weight, bad = (None, None) if weights is None else weight_of(small, weights, dropped)
    left = Sorted({}, ((), (), np.empty(0, np.int64)), weight, dropped, bad).left
    coords, bound = bind(small, bins, left)
    return Sorted(coords, bound, weight, dropped, bad)


def bins_of_events(
    small: xr.Dataset, bins: Mapping[str, Any], *, weights: str | None = None
) -> tuple[tuple[str, ...], tuple[int, ...], npt.NDArray[np.int64]]:
    """Say which bin each event is in before anything is averaged: names and sizes of the bins, and their index.

    Parameters
    ----------
    small, bins, weights
        As for :func:`xsmall.cube.cube.cube`, which takes the same events.

    Returns
    -------
    Names and sizes of the dims, and for each event its bin counted over all of them, -1 where it is in none.
    """
    return sort_events(small, bins, weights, dropped_shots=False).bound


def events_per_bin(bound: Bound) -> xr.Variable:
    """Count the events of each bin."""
    names, sizes, index = bound
    count = np.bincount(index[index >= 0], minlength=int(np.prod(sizes))).reshape(sizes)
    return xr.Variable(names, count, {UNITS: DIMENSIONLESS, LONG_NAME: "events"})


def said(bins: Mapping[str, Any]) -> dict[str, str]:
    """The bins as they are written down."""
    return {name: short_repr(as_binning(given, name)) for name, given in bins.items()}


def check_small(small: xr.Dataset) -> None:
    """Refuse what is no small data."""
    if not isinstance(small, xr.Dataset):
        raise DataError("a cube is made of a Dataset", found=type(small).__name__, fix=".to_dataset()")
    if EVENT not in small.sizes:
        raise DataError("a cube is made of variables per event", found=f"dims {dict(small.sizes)}", expected=EVENT)


def bind(
    small: xr.Dataset, bins: Mapping[str, Any], dropped: npt.NDArray[np.bool_] | None
) -> tuple[dict[str, xr.Variable], Bound]:
    """Give each event its bin in all dims; the bins' coordinates say how many events were left out, and why.

    Dropped shots are in none, and in none of these numbers.
    """
    kinds = {name: as_binning(given, name) for name, given in bins.items()}
    given = {name: one_per_event(small, name) for name in kinds}
    told = {name: flags for name in kinds if (flags := unknown_events(small, name)) is not None}
    values, unknown = dask.compute(
        {name: x.data for name, x in given.items()}, {name: x.data for name, x in told.items()}
    )
    coords: dict[str, xr.Variable] = {}
    lit = slice(None) if dropped is None else ~dropped
    index = np.zeros(small.sizes[EVENT] if dropped is None else int((~dropped).sum()), np.int64)
    sizes = []
    for name, kind in kinds.items():
        found = _assigned(kind, name, np.asarray(values[name])[lit], unknown[name][lit] if name in unknown else None)
        coords.update(_bin_coords(name, found, small[name].attrs))
        missed = (found.index < 0) | (index < 0)
        index = np.where(missed, -1, index * len(found.labels) + found.index)
        sizes.append(len(found.labels))
    of_all = np.full(small.sizes[EVENT], -1, np.int64)
    of_all[lit] = index
    return coords, (tuple(kinds), tuple(sizes), of_all)


def _assigned(kind: Binning, name: str, values: npt.NDArray[Any], unknown: npt.NDArray[np.bool_] | None) -> Assignment:
    """The bins of events, none where the value is not known: that is not the 0 that stands there."""
    if unknown is None or not unknown.any():
        return kind.assign(values, name)
    found = kind.assign(values[~unknown], name)
    index = np.full(values.size, -1, np.int64)
    index[~unknown] = found.index
    return replace(found, index=index, n_missing=found.n_missing + int(unknown.sum()))


def _bin_coords(name: str, found: Assignment, attrs: Mapping[str, Any]) -> dict[str, xr.Variable]:
    attributes = {k: v for k, v in attrs.items() if k in (UNITS, LONG_NAME)} | found.report()
    if found.tolerance is not None:
        attributes[TOLERANCE] = found.tolerance
    if found.bounds is None:
        return {name: xr.Variable((name,), found.labels, attributes)}
    bounds = f"{name}{BOUNDS_SUFFIX}"
    return {
        name: xr.Variable((name,), found.labels, attributes | {BOUNDS: bounds}),
        bounds: xr.Variable((name, BIN_EDGE), found.bounds),
    }


def weight_of(
    small: xr.Dataset, name: str, dropped: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The weight of each event, and which of those with X-rays have none."""
    values = one_per_event(small, name).values
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} is no weight", found=str(values.dtype), expected="a number per event")
    weight = values.astype(np.float64)
    good = np.isfinite(weight) & (weight > 0)
    lit = np.ones(good.shape, bool) if dropped is None else ~dropped
    if lit.any() and not (good & lit).any():
        raise DataError(
            f"not one event has a weight {name!r}",
            found=f"{int(lit.sum())} events, none with a finite weight above zero",
            expected="an intensity, positive where there were X-rays",
            fix=f"small.assign({name}=-small[{name!r}]) where a diode counts downwards",
        )
    return weight, lit & ~good
