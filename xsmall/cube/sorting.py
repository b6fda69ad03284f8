"""Which bin each event of small data is in, and which events are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.binning import Assignment
from xsmall.cube.bins import as_binning
from xsmall.errors import DataError, ParameterError
from xsmall.events.shots import one_per_event, shots_are_dropped
from xsmall.vocabulary import (
    BIN_EDGE,
    BOUNDS,
    BOUNDS_SUFFIX,
    EVENT,
    LONG_NAME,
    TOLERANCE,
    UNITS,
    XRAY_ON,
)

Bound = tuple[tuple[str, ...], tuple[int, ...], npt.NDArray[np.int64]]
"""Names and sizes of the dims of the bins, and the bin of each event counted over all of them."""


def bind(
    small: xr.Dataset, bins: Mapping[str, Any], dropped: npt.NDArray[np.bool_] | None
) -> tuple[dict[str, xr.Variable], Bound]:
    """Give each event its bin in all dims; the bins' coordinates say how many events were left out, and why.

    Dropped shots are in none, and in none of these numbers.
    """
    if not isinstance(bins, Mapping) or not bins:  # type: ignore[redundant-expr] # users are not typed
        raise ParameterError("a cube needs bins by variable", found=repr(bins), fix='{"delay": xs.bins(-2, 5, n=70)}')
    kinds = {name: as_binning(given, name) for name, given in bins.items()}
    lazy = (one_per_event(small, name).data for name in kinds)
    values = dict(zip(kinds, dask.compute(*lazy), strict=True))
    coords: dict[str, xr.Variable] = {}
    lit = slice(None) if dropped is None else ~dropped
    index = np.zeros(small.sizes[EVENT] if dropped is None else int((~dropped).sum()), np.int64)
    sizes = []
    for name, kind in kinds.items():
        found = kind.assign(np.asarray(values[name])[lit], name)
        coords.update(_bin_coords(name, found, small[name].attrs))
        missed = (found.index < 0) | (index < 0)
        index = np.where(missed, -1, index * len(found.labels) + found.index)
        sizes.append(len(found.labels))
    of_all = np.full(small.sizes[EVENT], -1, np.int64)
    of_all[lit] = index
    return coords, (tuple(kinds), tuple(sizes), of_all)


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
    _, dropped, bad = left_out(small, bins, weights, dropped_shots=False)
    return bind(small, bins, dropped if bad is None else bad if dropped is None else dropped | bad)[1]


def left_out(
    small: xr.Dataset, bins: Mapping[str, Any], weights: str | None, *, dropped_shots: bool
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_] | None]:
    """Weights of the events, those without X-rays, and those whose weight is none."""
    dropped = None if dropped_shots or XRAY_ON in bins else shots_are_dropped(small)
    weight, bad = (None, None) if weights is None else weight_of(small, weights, dropped)
    return weight, dropped, bad


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
