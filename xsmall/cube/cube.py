"""Cubes: mean, spread and count of everything, in bins of scan variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall._version import __version__
from xsmall.cube.binning import Assignment, Binning
from xsmall.cube.bins import as_binning
from xsmall.cube.compare import difference
from xsmall.cube.covariance import pairs_of_values
from xsmall.cube.kept import Store
from xsmall.cube.merge import merge_cubes
from xsmall.cube.moments import SPREAD
from xsmall.cube.tasks import Statistics, statistics_of_frames, statistics_of_values
from xsmall.engine.one_pass import Source
from xsmall.engine.parameters import parameters_attr, parameters_of, short_repr
from xsmall.engine.transform import float_dtype
from xsmall.errors import DataError, ParameterError
from xsmall.events.held import Held
from xsmall.events.join import positions
from xsmall.events.labels import is_labelled, labels_of
from xsmall.events.shots import one_per_event, shots_are_dropped
from xsmall.frames.describe import data_of, describe
from xsmall.frames.variance import EVENTS, paired, values_and_variance
from xsmall.vocabulary import (
    BIN_EDGE,
    BINNED_EVENTS,
    BOUNDS,
    BOUNDS_SUFFIX,
    COUNT,
    COUNT_SUFFIX,
    COVARIANCE_SUFFIX,
    DAMAGE,
    DIMENSIONLESS,
    DROPLET,
    EVENT,
    FIDUCIAL,
    FRAME_DIMS,
    IMAGES_JOINED,
    LEFT_OUT,
    LONG_NAME,
    LOST,
    MEAN,
    MEAN_SUFFIX,
    N_BAD_WEIGHTS,
    N_DROPPED_SHOTS,
    N_OUTSIDE,
    N_WITHOUT_IMAGE,
    N_WITHOUT_SMALL_DATA,
    PARAMETERS,
    PULSE_ID,
    RUN,
    SOURCE_TIMESTAMP,
    STD_SUFFIX,
    STDERR_SUFFIX,
    TOLERANCE,
    UNITS,
    VARIANCE_SUFFIX,
    WEIGHT_SUFFIX,
    WEIGHTS,
    XRAY_ON,
)

__all__ = ["average", "cube", "difference", "merge_cubes"]

Where = tuple[Store, Mapping[str, str]]
"""A store of finished lanes, and what they are made of."""

Bound = tuple[tuple[str, ...], tuple[int, ...], npt.NDArray[np.int64]]
"""Names and sizes of the dims of the bins, and the bin of each event counted over all of them."""


def cube(
    small: xr.Dataset,
    bins: Mapping[str, Binning | Any],
    *,
    images: Mapping[str, xr.DataArray | xr.Dataset] | None = None,
    weights: str | None = None,
    dropped_shots: bool = False,
    memory: int | None = None,
    store: Store | None = None,
) -> xr.Dataset:
    """Sort events into bins of scan variables: mean, spread and count of every variable, spectrum and image.

    Parameters
    ----------
    small
        Variables per event (event, ...), among them those to bin by.
    bins
        Bins by the name of the variable, each one a dim of the cube: ``{"delay": xs.bins(-2, 5, width=0.1),
        "laser_on": xs.categories()}``; a bare array means edges. Bins are closed on the left, open on the right.
    images
        Frames (event, segment, row, column), or anything else over ``event``, by the name they get in the cube. They
        are joined to ``small`` by the label ``event``; events that only one of the two has are left out and counted. A
        Dataset of values and their variance, as ``calibrate(..., variance=True)`` returns, carries the variance along.
    weights
        Name of a variable (event), such as ``"i0"``, that ratios are wanted to. With each variable of the small data
        the cube keeps ``<name>_weight``, the mean weight of its events, ``<name>_weight_std`` and
        ``<name>_covariance``, of value and weight, for :func:`xsmall.ratio`. Events whose weight is not finite, zero or
        negative are left out, and counted in ``attrs["n_bad_weights"]``.
    dropped_shots
        Whether events without X-rays (``xray_on`` false) go into the bins. By default they are left out, and counted in
        ``attrs["n_dropped_shots"]``, unless ``xray_on`` is one of the variables to bin by.
    memory
        Bytes that the tasks of one process may use together. Where nothing is said: what the smallest worker of the
        cluster has free, else half of what this process may have (by control groups and limits).
    store
        Where finished lanes of images are kept, :func:`~xsmall.lane_store`: killed at any time, the same cube goes on
        from there, to the same bits.

    Returns
    -------
    Dataset over the bins: for each variable its mean under its own name, ``<name>_std`` (between events, n - 1),
    ``<name>_stderr`` (of the mean, from that spread), ``<name>_count`` where it can vary from value to value (floats:
    NaN is skipped; images), and ``count``, the events of each bin; float64 and integers. ``<name>_variance`` of small
    data or images becomes the propagated variance of the mean, NaN where a value came without one. Of a binned variable
    the mean inside the bin is ``<name>_mean``. Empty bins are NaN with count 0. Coordinates that do not run over events
    stay. The bins' coordinates say in their attributes how many events were below, above, between bins or without a
    value. Text, times, flags and lists per event (droplets) have no mean and are named in ``attrs["left_out"]``.

    Raises
    ------
    DataError
        No events dim, no labels to join by, a variable that cannot be binned.
    ParameterError
        Unknown variables, bins that cover no event, names that clash.
    PlanError
        A cube that does not fit into ``memory``.

    Notes
    -----
    The variables to bin by are computed at once, nothing else; NumPy input gives its result at once. Cost: reads
    everything once where pixels as they lie in the chunks fit into memory, else once per tile of pixels. The result
    does not depend on chunks, scheduler or workers, bit for bit.

    Examples
    --------
    >>> import xarray as xr
    >>> from xsmall.cube.bins import bins
    >>> small = xr.Dataset({"delay": ("event", [0.1, 0.2, 1.5]), "signal": ("event", [1.0, 3.0, 7.0])})
    >>> cube(small, {"delay": bins(0, 2, n=2)})["signal"].values.tolist()
    [2.0, 7.0]
    """
    _check_small(small)
    if images is not None and not isinstance(images, Mapping):
        raise ParameterError("images are given by name", found=type(images).__name__, fix='images={"jungfrau": cal}')
    dropped = None if dropped_shots or XRAY_ON in bins else shots_are_dropped(small)
    weight, bad = (None, None) if weights is None else _weight(small, weights, dropped)
    left = dropped if bad is None else bad if dropped is None else dropped | bad
    coords, bound = _bind(small, bins, left)
    names, sizes, index = bound
    data = _small_variables(small, bound)
    count = np.bincount(index[index >= 0], minlength=int(np.prod(sizes))).reshape(sizes)
    variables: dict[str, xr.Variable] = {COUNT: xr.Variable(names, count, {UNITS: DIMENSIONLESS, LONG_NAME: "events"})}
    apart = {n for n in data if n not in small.variables or _is_variance(n, small)}  # relative to no weight
    for name, variable in data.items():
        _add(variables, _statistics(name, variable, small, bound), "small data")
        if weight is not None and name not in (weights, *apart) and variable.dtype.kind != "b":
            _add(variables, _of_pairs(name, variable, weight, small[weights].attrs, bound), "weights")
    kept = small.drop_dims(EVENT).drop_vars([n for n in small.drop_dims(EVENT).variables if n in names])
    result = xr.Dataset(coords=coords).assign_coords(kept.coords).assign(kept.data_vars)
    where = None if store is None else (store, {"xsmall": __version__, "bins": repr(_said(bins))})
    for name, image in (images or {}).items():
        told = dropped_shots or XRAY_ON in bins
        found, labels = _image(name, image, small, bound, memory, where, dropped_shots=told)
        _add(variables, found, f"images {name!r}")
        result = _with_labels(result, labels, name)
    _check_names(variables, result)
    result = result.assign(variables)
    if is_labelled(small):
        labels = labels_of(small, "the small data")
        held = Held.of(labels[index >= 0], _runs(small, index))
        result = result.assign_coords({BINNED_EVENTS: held.coordinate()})
    result.attrs = _attrs(small, bins, images, index, data)
    if left is not None:
        result.attrs[N_OUTSIDE] = int(((index < 0) & ~left).sum())
    if dropped is not None:
        result.attrs[N_DROPPED_SHOTS] = int(dropped.sum())
    if bad is not None:
        result.attrs |= {WEIGHTS: weights, N_BAD_WEIGHTS: int(bad.sum())}
    return paired(result)


def average(
    obj: xr.DataArray | xr.Dataset,
    *,
    n: int | None = None,
    dropped_shots: bool = False,
    memory: int | None = None,
) -> xr.Dataset:
    """Average over all events: mean, standard deviation, standard error and count of each pixel.

    Parameters
    ----------
    obj
        Frames (event, segment, row, column), or anything else over ``event``; NaN is skipped. A Dataset of values and
        their variance (``<name>_variance``) carries the variance along.
    n
        Average the first ``n`` events only (those that are not left out), for a quick look: no others are read.
    dropped_shots
        Whether events without X-rays (``xray_on`` false) are averaged too. By default they are left out, and counted in
        ``attrs["n_dropped_shots"]``.
    memory
        Bytes that the tasks of one process may use together. Where nothing is said: what the smallest worker of the
        cluster has free, else half of what this process may have (by control groups and limits).

    Returns
    -------
    Dataset with the mean under the name of ``obj`` (or ``mean``), and ``_std``, ``_stderr``, ``_count`` beside it, with
    variances also ``_variance``, as :func:`cube` of one bin; ``count`` is the number of events. Lazy where ``obj`` is.

    Raises
    ------
    DataError
        No events dim, or no numbers.
    ParameterError
        A number of events below 1.

    Notes
    -----
    All threads of a process read and add up together. :func:`xsmall.sums` averages in the pass of other reductions, by
    class of shots, with extremes and counts.

    Examples
    --------
    >>> import xarray as xr
    >>> average(xr.DataArray([[1.0, 2.0], [3.0, float("nan")]], dims=("event", "q"), name="i"))["i"].values.tolist()
    [2.0, 2.0]
    """
    values, variance = values_and_variance(obj, EVENTS)
    name = MEAN if values.name is None else str(values.name)
    dropped = None if dropped_shots else shots_are_dropped(values)
    index = np.zeros(_events(values, name), np.int64) if dropped is None else -dropped.astype(np.int64)
    if n is not None:
        last = _last_of_the_first(n, index)
        values, index = values.isel({EVENT: slice(last)}), index[:last]
        variance = None if variance is None else variance.isel({EVENT: slice(last)})
        dropped = None if dropped is None else dropped[:last]
    bound: Bound = ((), (), index)
    if values.dims == FRAME_DIMS:
        data = _of_frames(name, values, variance, bound, memory)
    else:
        data = _of_values(name, values.variable, bound)
        if variance is not None:
            data |= _of_variance(f"{name}{VARIANCE_SUFFIX}", variance.variable, values.variable, bound)
    out = xr.Dataset(coords={k: c.variable for k, c in _without_events(values.coords).items()}).assign(data)
    out[COUNT] = xr.Variable((), int((index >= 0).sum()), {UNITS: DIMENSIONLESS, LONG_NAME: "events"})
    if dropped is not None:
        out.attrs[N_DROPPED_SHOTS] = int(dropped.sum())
    return paired(out)


def _last_of_the_first(n: object, index: npt.NDArray[np.int64]) -> int:
    """How many events have to be looked at for ``n`` that are averaged."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ParameterError("invalid n", found=repr(n), expected="a number of events, 1 or more", fix="n=100")
    wanted = np.flatnonzero(index >= 0)[:n]
    return int(wanted[-1]) + 1 if wanted.size else len(index)


# ---- bins -------------------------------------------------------------------------------------------------------


def _bind(
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


# ---- variables ----------------------------------------------------------------------------------------------------


def _small_variables(small: xr.Dataset, bound: Bound) -> dict[str, xr.Variable]:
    """Variables that have a mean, by the name it gets."""
    out: dict[str, xr.Variable] = {}
    for key, array in small.variables.items():
        name = str(key)
        if EVENT not in array.dims or _reason_to_leave_out(name, array):
            continue
        if name in bound[0]:
            if array.dtype.kind in "iuf":
                out[f"{name}{MEAN_SUFFIX}"] = array
        elif set(map(str, array.dims)) & set(bound[0]):
            raise ParameterError(
                f"{name} has a dim of the name of the bins", found=array.dims, fix="rename one of them"
            )
        else:
            out[name] = array
    return out


def _reason_to_leave_out(name: str, array: xr.Variable) -> str | None:
    if array.dtype.kind not in "biuf":
        return "no numbers"
    if name in (PULSE_ID, FIDUCIAL, DAMAGE, RUN, SOURCE_TIMESTAMP) or "flag_meanings" in array.attrs:
        return "flags or counters"
    if any(str(d) == DROPLET or str(d).endswith(f"_{DROPLET}") for d in array.dims):
        return "lists per event"
    return None


def _statistics(name: str, array: xr.Variable, small: xr.Dataset, bound: Bound) -> dict[str, xr.Variable]:
    if _is_variance(name, small):
        return _of_variance(name, array, small.variables[name.removesuffix(VARIANCE_SUFFIX)], bound)
    return _of_values(name, array, bound)


def _is_variance(name: str, small: xr.Dataset) -> bool:
    return name.endswith(VARIANCE_SUFFIX) and name.removesuffix(VARIANCE_SUFFIX) in small.variables


def _weight(
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


def _of_pairs(
    name: str, array: xr.Variable, weight: npt.NDArray[np.float64], attrs: Mapping[Any, Any], bound: Bound
) -> dict[str, xr.Variable]:
    """How a variable and the weight of its events go together."""
    ordered = array.transpose(EVENT, ...)
    mean, std, covariance = pairs_of_values(_data(ordered), weight, bound[2], bound[1], f"cube-{name}")
    dims = (*bound[0], *ordered.dims[1:])
    unit = {UNITS: attrs[UNITS]} if UNITS in attrs else {}
    return {
        f"{name}{WEIGHT_SUFFIX}": xr.Variable(dims, mean, unit),
        f"{name}{WEIGHT_SUFFIX}{STD_SUFFIX}": xr.Variable(dims, std, unit),
        f"{name}{COVARIANCE_SUFFIX}": xr.Variable(dims, covariance),
    }


def _of_values(name: str, array: xr.Variable, bound: Bound) -> dict[str, xr.Variable]:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has no mean", found=array.dtype, expected="numbers or true/false")
    ordered = array.transpose(EVENT, ...)
    found = statistics_of_values(_data(ordered), bound[2], bound[1], f"cube-{name}")
    return _labelled(name, found, bound[0], ordered)


def _of_variance(name: str, array: xr.Variable, values: xr.Variable, bound: Bound) -> dict[str, xr.Variable]:
    """Propagated variance of a mean: the mean of the variances over their number.

    Those of values that are not finite do not count; a value without a variance makes that of the mean unknown.
    """
    valid = xr.apply_ufunc(np.isfinite, xr.DataArray(values), dask="allowed")
    variance = xr.DataArray(array)
    known = variance.where(valid).transpose(EVENT, ...).variable
    lacking = (valid & variance.isnull()).transpose(EVENT, ...).variable
    found = statistics_of_values(_data(known), bound[2], bound[1], f"cube-{name}")
    lack = statistics_of_values(_data(lacking), bound[2], bound[1], f"cube-{name}-lacking")
    dims = (*bound[0], *known.dims[1:])
    mean = xr.DataArray(found[MEAN] / np.maximum(found[COUNT], 1), dims=dims)
    out = mean.where(xr.DataArray(lack[MEAN], dims=dims) == 0)
    return {name: out.assign_attrs(array.attrs).variable}


def _labelled(
    name: str, found: Statistics, bins: tuple[str, ...], array: xr.Variable, *, counted: bool = False
) -> dict[str, xr.Variable]:
    """Name the statistics of one variable; true/false has no unit but 1."""
    dims = (*bins, *array.dims[1:])
    attrs = {**array.attrs, **({UNITS: DIMENSIONLESS} if array.dtype.kind == "b" else {})}
    spread = {UNITS: attrs[UNITS]} if UNITS in attrs else {}
    out = {
        name: xr.Variable(dims, found[MEAN], attrs),
        f"{name}{STD_SUFFIX}": xr.Variable(dims, found["std"], spread),
        f"{name}{STDERR_SUFFIX}": xr.Variable(dims, found["stderr"], spread),
    }
    if array.dtype.kind == "f" or counted:
        out[f"{name}{COUNT_SUFFIX}"] = xr.Variable(dims, found[COUNT], {UNITS: DIMENSIONLESS})
    return out


def _data(array: xr.Variable) -> Any:
    """Array inside, NumPy or dask, without loading anything else that is lazy."""
    return data_of(xr.DataArray(array))


# ---- images -----------------------------------------------------------------------------------------------------


def _image(
    name: str,
    given: xr.DataArray | xr.Dataset,
    small: xr.Dataset,
    bound: Bound,
    memory: int | None,
    kept: Where | None,
    *,
    dropped_shots: bool,
) -> tuple[dict[str, xr.Variable], Mapping[Any, xr.DataArray]]:
    """Statistics of images joined to the small data, and the coordinates that stay with them."""
    image, variance = values_and_variance(given, EVENTS, f"the images {name!r}")
    _events(image, name)
    at = positions(small, image, name)
    names, sizes, index = bound
    own = np.where(at >= 0, np.append(index, -1)[at], -1)
    missing = int((index >= 0).sum() - (own >= 0).sum())
    dropped = None if dropped_shots else shots_are_dropped(image)
    dark = 0 if dropped is None else int((dropped & (own >= 0)).sum())  # that the small data do not know of
    own = own if dropped is None else np.where(dropped, -1, own)
    here: Bound = (names, sizes, own)
    if image.dims == FRAME_DIMS:
        out = _of_frames(name, image, variance, here, memory, kept)
    else:
        ordered = image.variable.transpose(EVENT, ...)
        found = statistics_of_values(_data(ordered), own, sizes, f"cube-{name}")
        out = _labelled(name, found, names, ordered, counted=True)
        if variance is not None:
            out |= _of_variance(f"{name}{VARIANCE_SUFFIX}", variance.variable, image.variable, here)
    offered = {dask.base.tokenize(labels_of(image, name).values): [int(at.size), int((at >= 0).sum())]}
    out[name].attrs |= {
        N_WITHOUT_SMALL_DATA: int((at < 0).sum()), N_WITHOUT_IMAGE: missing, IMAGES_JOINED: json.dumps(offered)
    } | ({N_DROPPED_SHOTS: dark} if dark else {})  # fmt: skip
    return out, _without_events(image.coords)


def _of_frames(
    name: str,
    image: xr.DataArray,
    variance: xr.DataArray | None,
    bound: Bound,
    memory: int | None,
    kept: Where | None = None,
) -> dict[str, xr.Variable]:
    frames = describe(image)
    spread = None if variance is None else data_of(variance)
    source = Source.of(data_of(image), frames.usable, float_dtype(frames.dtype), spread)
    known = variance is not None
    dtype = float_dtype(frames.dtype)
    store, made_of = kept or (None, {})
    found = statistics_of_frames(
        source, bound[2], bound[1], f"cube-{name}", memory, dtype=dtype, variance=known, store=store,
        made_of={**made_of, "made by": str(image.attrs.get(PARAMETERS, ""))},
    )  # fmt: skip
    out = _labelled(name, found, bound[0], image.variable, counted=True)
    if variance is not None:
        dims = (*bound[0], *image.dims[1:])
        out[f"{name}{VARIANCE_SUFFIX}"] = xr.Variable(dims, found[SPREAD], dict(variance.attrs))
    return out


def _without_events(coords: Mapping[Any, xr.DataArray]) -> dict[Any, xr.DataArray]:
    return {k: c.drop_vars([n for n in c.coords if EVENT in c.coords[n].dims]) for k, c in coords.items()
            if EVENT not in c.dims}  # fmt: skip


def _with_labels(result: xr.Dataset, labels: Mapping[Any, xr.DataArray], name: str) -> xr.Dataset:
    """Add the coordinates of an image; two detectors whose pixels differ do not go into one cube."""
    for key, coord in labels.items():
        if key in result.variables and not result[key].variable.equals(coord.variable):
            raise ParameterError(
                f"the images {name!r} do not go with the others into one cube",
                found=f"coordinate {key!r} differs",
                expected="images of one detector",
                fix="a cube for each detector",
            )
    return result.assign_coords({k: c.variable for k, c in labels.items()})


def _runs(small: xr.Dataset, index: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of the runs of the events in the bins, as far as they are known without computing."""
    if RUN in small.variables and small[RUN].dims == (EVENT,):
        numbers = small[RUN].variable
        return [] if numbers.chunks is not None else np.unique(numbers.values[index >= 0]).astype(int).tolist()
    said = np.ravel(small.attrs.get(RUN, []))
    return [int(n) for n in said] if said.dtype.kind in "iu" else []


# ---- checks -----------------------------------------------------------------------------------------------------


def _check_small(small: xr.Dataset) -> None:
    if not isinstance(small, xr.Dataset):
        raise DataError("a cube is made of a Dataset", found=type(small).__name__, fix=".to_dataset()")
    if EVENT not in small.sizes:
        raise DataError("a cube is made of variables per event", found=f"dims {dict(small.sizes)}", expected=EVENT)


def _events(obj: xr.DataArray, name: str) -> int:
    if EVENT not in obj.dims:
        raise DataError(f"{name} does not run over events", found=f"dims {obj.dims}", expected=f"a dim {EVENT!r}")
    return int(obj.sizes[EVENT])


def _add(variables: dict[str, xr.Variable], new: Mapping[str, xr.Variable], what: str) -> None:
    for name, variable in new.items():
        if name in variables:
            raise ParameterError(f"two things of the {what} would be called {name!r}", fix="rename one of them")
        variables[name] = variable


def _check_names(variables: Mapping[str, xr.Variable], result: xr.Dataset) -> None:
    sizes: dict[Any, int] = dict(result.sizes)
    for name, variable in variables.items():
        if name in result.variables:
            raise ParameterError(
                f"{name!r} would be there twice", found="a variable and a coordinate", fix="rename one"
            )
        for dim, n in zip(variable.dims, variable.shape, strict=True):
            if sizes.setdefault(dim, n) != n:
                raise ParameterError(
                    f"{name} does not go with the others into one cube",
                    found=f"{n} along {dim!r}, elsewhere {sizes[dim]}",
                    fix="a cube for each detector",
                )


def _said(bins: Mapping[str, Any]) -> dict[str, str]:
    return {name: short_repr(as_binning(given, name)) for name, given in bins.items()}


def _attrs(
    small: xr.Dataset,
    bins: Mapping[str, Any],
    images: Mapping[str, xr.DataArray | xr.Dataset] | None,
    index: Any,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    left = [str(n) for n, v in small.variables.items() if EVENT in v.dims and n != EVENT
            and n not in bins and n not in data]  # fmt: skip
    said = _said(bins)
    read = {name: values_and_variance(image, EVENTS)[0].attrs for name, image in (images or {}).items()}
    before = {name: parameters_of(attrs) for name, attrs in read.items()}
    lost = dict.fromkeys(str(attrs[LOST]) for attrs in (small.attrs, *read.values()) if LOST in attrs)
    return {
        **small.attrs,
        **({LOST: "; ".join(lost)} if lost else {}),
        **parameters_attr("cube", {"small": parameters_of(small.attrs), "images": before or None}, bins=said),
        "n_events": int(index.size),
        N_OUTSIDE: int((index < 0).sum()),
        LEFT_OUT: ", ".join(left),
    }
