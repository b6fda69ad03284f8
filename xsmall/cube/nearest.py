"""Shots with laser minus the nearest ones without: what drifts slowly is the same in both, and goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.binning import Binning
from xsmall.cube.images import are_images
from xsmall.cube.moments import Index
from xsmall.cube.room import check_room, check_variables
from xsmall.cube.sorting import events_per_bin, said, sort_events
from xsmall.cube.values import picked
from xsmall.cube.variables import data_inside, small_variables
from xsmall.engine.pairs import is_variance
from xsmall.engine.parameters import parameters_attr, parameters_of
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import is_labelled, labels_of
from xsmall.events.ragged import dims_of_events
from xsmall.events.shots import one_per_event
from xsmall.vocabulary import (
    COUNT,
    COUNT_SUFFIX,
    DIFFERENCE,
    DIMENSIONLESS,
    EVENT,
    LASER_ON,
    LEFT_OUT,
    N_VALID,
    STDERR_SUFFIX,
    UNITS,
)

__all__ = ["nearest_off"]

Floats = npt.NDArray[np.float64]
_TYPES: Final = {"value": np.float64, "stderr": np.float64, "count": np.int64}


class _Neighbours(NamedTuple):
    """The shots with laser that are in a bin, and for each the nearest ones without."""

    on: Index
    """Numbers of the events,"""
    bins: Index
    """and their bins."""
    off: Index
    """Numbers of the events without laser, in order."""
    first: Index
    """First of the nearest, and the one after the last, counted among those."""
    stop: Index
    n_bins: int
    relative: bool


def nearest_off(
    small: xr.Dataset,
    bins: Mapping[str, Binning | Any],
    *,
    by: str = LASER_ON,
    n: int = 10,
    relative: bool = False,
    coordinates: Sequence[str] | bool = False,
    dropped_shots: bool = False,
) -> xr.Dataset:
    """Subtract from each shot with laser the mean of the nearest shots without, and average the differences in bins.

    Parameters
    ----------
    small
        Variables per event (event, ...), as for :func:`xsmall.cube.cube.cube`.
    bins
        Bins of the shots with laser by the name of the variable, as there; ``by`` is not one of them.
    by
        The variable (event) that is true, or not 0, for shots with laser.
    n
        How many shots without laser are averaged for each one with: enough that their noise is small, few enough that
        what drifts is the same for all of them. Nearest by the labels of the events, such as their time, else by order.
    relative
        Divide by the mean of the shots that were subtracted: (on - off) / off.
    coordinates
        Names of coordinates of the events to take as well, True for all of them, as there.
    dropped_shots
        Whether events without X-rays are taken, on both sides.

    Returns
    -------
    Dataset over the bins: each mean difference under the name of the variable, ``<name>_stderr``, ``<name>_count``, and
    ``count``, the shots with laser in each bin; what is binned by and numbers of valid pixels have no difference; NaN
    where there is none. Lazy where the variable is. It is a result, like a difference: it does not merge, since shots
    without laser are shared between bins.

    Raises
    ------
    ParameterError
        ``by`` among the bins, ``n`` below 1, or unknown names.
    DataError
        Shots of one kind only, or events without a label.
    PlanError
        Bins that do not fit into memory.

    Notes
    -----
    The error takes into account that neighbours share the shots they subtract: in a step scan all shots of a step have
    the same ones, and the scatter of the differences alone would make it too small. With d the differences of a bin, c
    the share that each shot without laser has in their mean, and s2 half the mean square of what follows one another
    among these shots, which a drift does not enter: variance = var(d) / count + s2 (sum of c2 - what var(d) has of it).
    All values of a variable are in memory at once.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> on = np.arange(4000) % 4 != 0
    >>> drift = np.linspace(100, 120, 4000)
    >>> signal = drift + np.where(on, 2.0, 0.0)
    >>> small = xr.Dataset({"laser_on": ("event", on), "delay": ("event", np.zeros(4000)), "signal": ("event", signal)})
    >>> float(small.sd.nearest_off({"delay": xs.bins(-1, 1, n=1)}, n=2)["signal"].round(3)[0])
    2.0
    """
    if by in bins:
        raise ParameterError(f"{by!r} says what is subtracted, and cannot be binned by", fix="bins without it")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:  # type: ignore[redundant-expr]
        raise ParameterError("invalid number of nearest shots", found=repr(n), expected="a whole number, 1 or more")
    events = sort_events(small, bins, None, dropped_shots=dropped_shots)
    names, sizes, index = events.bound
    data = small_variables(small, events.bound, coordinates=coordinates)
    check_room(math.prod(sizes), {name: array for name, array in data.items() if not are_images(array)})
    given = one_per_event(small, by)
    if given.dtype.kind not in "biuf":
        raise ParameterError(
            f"{by!r} does not say which shots have laser", found=str(given.dtype), expected="true/false"
        )
    said_on = np.asarray(dask.compute(given.data)[0])
    known = np.isfinite(said_on) if said_on.dtype.kind == "f" else np.ones(len(said_on), bool)
    here = known if events.left is None else known & ~events.left
    near = _nearest_shots(small, said_on != 0, here, index, int(np.prod(sizes)), int(n), relative)
    lit = np.full(len(index), -1, np.int64)
    lit[near.on] = near.bins
    variables: dict[str, xr.Variable] = {COUNT: events_per_bin((names, sizes, lit))}
    left = [k for k, v in data.items() if k not in small.variables or are_images(v) or is_variance(k, small.variables)
            or small[k].dtype.kind == "b" or k in (by, N_VALID) or k.endswith(f"_{N_VALID}")]  # fmt: skip
    for name, array in data.items():
        if name not in left:
            ordered = array.transpose(EVENT, ...)
            unit = {UNITS: DIMENSIONLESS} if relative else {UNITS: array.attrs[UNITS]} if UNITS in array.attrs else {}
            dims = (*names, *ordered.dims[1:])
            found = _subtracted(data_inside(ordered), near, sizes, name)
            variables[name] = xr.Variable(dims, found["value"], {**array.attrs, **unit})
            variables[f"{name}{STDERR_SUFFIX}"] = xr.Variable(dims, found["stderr"], unit)
            variables[f"{name}{COUNT_SUFFIX}"] = xr.Variable(dims, found["count"], {UNITS: DIMENSIONLESS})
    kept = small.drop_dims(dims_of_events(small))
    kept = kept.drop_vars([k for k in kept.variables if k in names])
    out = xr.Dataset(coords=events.coords).assign_coords(kept.coords).assign(kept.data_vars)
    check_variables(variables, out)
    out = out.assign(variables)
    steps = {"small": parameters_of(small.attrs)}
    told = parameters_attr("nearest_off", steps, bins=said(bins), by=by, n=n, relative=relative,
                            **({"coordinates": coordinates} if coordinates else {}))  # fmt: skip
    how = f"{by}: each shot minus the {n} nearest without" + (", relative to them" if relative else "")
    out.attrs = {**small.attrs, **told, DIFFERENCE: how, LEFT_OUT: ", ".join(left), **events.attrs(None)}
    return out


def _nearest_shots(
    small: xr.Dataset,
    is_on: npt.NDArray[np.bool_],
    here: npt.NDArray[np.bool_],
    index: Index,
    n_bins: int,
    n: int,
    relative: bool,
) -> _Neighbours:
    time = _places_in_time(small)
    on, off = np.flatnonzero(is_on & here & (index >= 0)), np.flatnonzero(~is_on & here)
    for what, which in (("with", np.flatnonzero(is_on & here)), ("without", off)):
        if not which.size:
            raise DataError(
                f"there is no shot {what} laser", found=f"{len(index)} events", expected="shots of both kinds"
            )
    off = off[np.argsort(time[off], kind="stable")]
    times = time[off]
    stop = np.searchsorted(times, time[on])
    first = stop.copy()
    for _ in range(min(n, len(off))):  # the window grows to the nearer side
        before = time[on] - times[np.maximum(first - 1, 0)]
        after = times[np.minimum(stop, len(off) - 1)] - time[on]
        left = (first > 0) & ((stop >= len(off)) | (before <= after))
        first, stop = first - left, stop + ~left
    return _Neighbours(on, index[on], off, first, stop, n_bins, relative)


def _places_in_time(small: xr.Dataset) -> npt.NDArray[Any]:
    """Where each event is: its time, or number, else its place in the order of the labels, or as the events come."""
    if not is_labelled(small):
        return np.arange(small.sizes[EVENT])
    labels = labels_of(small, "the small data") if small.get_index(EVENT).is_unique else small.get_index(EVENT)
    if (lost := int(labels.isna().sum())) > 0:
        raise DataError(
            "events without a label have no neighbours in time",
            found=f"{lost} of {labels.size}",
            expected="a label for each event",
            fix=f"small.isel({EVENT}=small.{EVENT}.notnull().values) leaves them out",
        )
    values = labels.to_numpy()
    if values.dtype.kind in "iuM":
        return np.asarray(values.astype(np.int64))
    places: npt.NDArray[Any] = np.unique(values, return_inverse=True)[1]
    return values if values.dtype.kind == "f" else places


def _subtracted(data: Any, near: _Neighbours, sizes: tuple[int, ...], name: str) -> dict[str, Any]:
    shape = (*sizes, *data.shape[1:])
    if not isinstance(data, da.Array):
        return _differences(data, near, shape)
    token = f"nearest-{name}-{dask.base.tokenize(data.name, *near, sizes)}"
    told = dask.delayed(near, name=f"near-{token}", traverse=False)
    done = dask.delayed(_differences, pure=False)(data, told, shape, dask_key_name=f"subtract-{token}")
    return picked(done, token, shape, _TYPES)


def _differences(values: npt.NDArray[Any], near: _Neighbours, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """Mean difference, its error, and how many there are, of each bin and value."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64))).astype(np.float64)
    off = np.where(np.isfinite(flat[near.off]), flat[near.off], np.nan)
    good = np.isfinite(off)
    length = int(near.stop[0] - near.first[0]) if near.stop.size else 1
    sums, counts = (_SumsOfRuns.of(x, length) for x in (np.where(good, off, 0.0), good.astype(np.float64)))
    noise = _shot_noise(off)
    out: dict[str, npt.NDArray[Any]] = {key: np.full((near.n_bins, flat.shape[1]), np.nan) for key in _TYPES}
    out["count"] = np.zeros((near.n_bins, flat.shape[1]), np.int64)
    for b in np.unique(near.bins):
        mine = np.flatnonzero(near.bins == b)
        first, stop = near.first[mine], near.stop[mine]
        k = counts.beginning(first)
        around = np.where(k > 0, sums.beginning(first) / np.maximum(k, 1.0), np.nan)
        d = flat[near.on[mine]] - around
        valid = np.isfinite(d)
        n = valid.sum(axis=0)
        some = np.maximum(n, 1)
        mean = np.where(valid, d, 0.0).sum(axis=0) / some
        variance = (np.where(valid, d - mean, 0.0) ** 2).sum(axis=0) / np.where(n > 1, n - 1, np.nan)
        share = np.where(valid, 1.0 / np.maximum(k, 1.0), 0.0) / some
        start, end = int(first.min()), int(stop.max())
        ends = np.zeros((end - start + 1, flat.shape[1]))
        np.add.at(ends, first - start, share)
        np.subtract.at(ends, stop - start, share)
        part = np.cumsum(ends, axis=0)[:-1] * good[start:end]
        shared, own = (part**2).sum(axis=0), (share / some).sum(axis=0)
        value, of_off, of_d = mean, noise * shared, variance / some - noise * own
        if near.relative:
            base = np.where(valid, around, 0.0).sum(axis=0) / some
            base = np.where(base != 0, base, np.nan)
            value, of_off, of_d = mean / base, of_off * (1 + mean / base) ** 2 / base**2, of_d / base**2
        out["value"][b] = np.where(n > 0, value, np.nan)
        out["stderr"][b] = np.sqrt(np.maximum(of_d, 0.0) + of_off)
        out["count"][b] = n
    return {key: m.reshape(shape) for key, m in out.items()}


class _SumsOfRuns(NamedTuple):
    """Sums of so many values in a row, that no value outside of the row enters: an outlier stays where it is."""

    before: Floats
    """Of each value and those before it in its block of this length,"""
    after: Floats
    """and those after it."""
    length: int

    @classmethod
    def of(cls, values: Floats, length: int) -> _SumsOfRuns:
        """Make them of values (event, value)."""
        blocks = -(-len(values) // length)
        padded = np.zeros((blocks * length, values.shape[1]))
        padded[: len(values)] = values
        of_block = padded.reshape(blocks, length, -1)
        after = np.cumsum(of_block[:, ::-1], axis=1)[:, ::-1]
        return cls(np.cumsum(of_block, axis=1).reshape(padded.shape), after.reshape(padded.shape), length)

    def beginning(self, first: Index) -> Floats:
        """Sums of the rows that begin at these places."""
        inside = (first % self.length != 0)[:, np.newaxis]
        out: Floats = self.before[first + self.length - 1] + np.where(inside, self.after[first], 0.0)
        return out


def _shot_noise(off: Floats) -> Floats:
    """Variance of single shots without what drifts: half the mean square of the steps from one to the next."""
    step = np.diff(off, axis=0) ** 2
    known = np.isfinite(step)
    n = known.sum(axis=0)
    mean: Floats = np.where(known, step, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan)
    return mean / 2
