"""Cubes: mean, spread and count of everything, in bins of scan variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall._version import __version__
from xsmall.calls import warn_user
from xsmall.cube.binning import Binning
from xsmall.cube.compare import difference
from xsmall.cube.images import (
    Along,
    Road,
    are_images,
    frames_of,
    n_events,
    of_any,
    of_frames,
    of_image,
    values_of,
    with_labels,
    without_events,
)
from xsmall.cube.kept import Averaged, PartStore
from xsmall.cube.merge import merge_cubes
from xsmall.cube.room import check_room, check_variables
from xsmall.cube.sorting import Bound, events_per_bin, said, sort_events
from xsmall.cube.variables import Wanted, check_statistics, of_values, of_variance, small_variables
from xsmall.engine.pairs import check_small, is_variance, paired
from xsmall.engine.parameters import parameters_attr, parameters_of
from xsmall.errors import GainBitsWarning, ParameterError
from xsmall.events.held import with_events
from xsmall.events.ragged import dims_of_events
from xsmall.events.shots import shots_are_dropped
from xsmall.frames.describe import gain_bits
from xsmall.vocabulary import (
    COUNT,
    DIMENSIONLESS,
    EVENT,
    LEFT_OUT,
    LONG_NAME,
    LOST,
    MEAN,
    N_DROPPED_SHOTS,
    UNITS,
    VARIANCE_SUFFIX,
    XRAY_ON,
)

__all__ = ["average", "cube", "difference", "merge_cubes"]


def cube(
    small: xr.Dataset,
    bins: Mapping[str, Binning | Any],
    *,
    images: Mapping[str, xr.DataArray | xr.Dataset | Averaged] | None = None,
    weights: str | None = None,
    statistics: Sequence[str] = (),
    coordinates: Sequence[str] | bool = False,
    dropped_shots: bool = False,
    memory: int | None = None,
    store: PartStore | None = None,
) -> xr.Dataset:
    """Sort events into bins of scan variables: mean, spread and count of every data variable, spectrum and image.

    Parameters
    ----------
    small
        Variables per event (event, ...); those to bin by are among them or are coordinates.
    bins
        Bins by the name of the variable, each one a dim of the cube: ``{"delay": xs.bins(-2, 5, width=0.1),
        "laser_on": xs.categories()}``; a bare array means edges. Bins are closed on the left, open on the right.
    images
        Frames (event, segment, row, column), or anything else over ``event``, by the name they get in the cube. They
        are joined to ``small`` by the label ``event``; events that only one of the two has are left out and counted. A
        Dataset of values and their variance, as ``calibrate(..., variance=True)`` returns, carries the variance along;
        sparse frames, as ``xs.photon(sparse=True)`` returns, give what the dense ones would, means at the cost of
        photons.
    weights
        Name of a variable (event), such as ``"i0"``, that ratios are wanted to. With each variable and image the cube
        keeps ``<name>_weight``, the mean weight of its events, ``<name>_weight_std`` and ``<name>_covariance``, of
        value and weight, for :func:`xsmall.ratio`: of images pixel by pixel, for 24 more bytes per bin and pixel.
        Events whose weight is not finite, zero or negative are left out, and counted in ``attrs["n_bad_weights"]``.
    statistics
        Some of ``"min"``, ``"max"``, ``"sum"`` and ``"median"``, which come beside as ``<name>_min`` and so on. A sum
        is of what is finite, 0 in an empty bin. Images have no median, which would need all frames of a bin at once.
        ``"ratio"`` with ``weights``: the mean of the ratios of single events, with ``<name>_ratio_std`` and
        ``<name>_ratio_stderr``, for ``ratio("ratios")``; of images for 16 more bytes per bin and pixel.
    coordinates
        Names of coordinates of the events that are averaged like variables, such as ``["i0", "photon_energy"]``; True
        for all of them. Those that are not asked for are named in ``attrs["left_out"]``.
    dropped_shots
        Whether events without X-rays (``xray_on`` false) go into the bins. By default they are left out, and counted in
        ``attrs["n_dropped_shots"]``, unless ``xray_on`` is one of the variables to bin by.
    memory
        Bytes that the tasks of one process may use together. Where nothing is said: what the smallest worker of the
        cluster has free, else half of what this process may have (by control groups and limits).
    store
        Where finished lanes of images are kept, :func:`~xsmall.lane_store`: killed at any time, the same cube goes on
        from there, to the same bits. Of sparse frames, which are quickly done again, none are kept.

    Returns
    -------
    Dataset over the bins: for each data variable its mean under its own name, ``<name>_std`` (between events, n - 1),
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
    if images is not None and not (isinstance(images, Mapping) and all(isinstance(name, str) for name in images)):  # type: ignore[redundant-expr] # users are not typed
        raise ParameterError("images are given by name", found=type(images).__name__, fix='images={"jungfrau": cal}')
    if store is not None and not hasattr(store, "agree"):
        raise ParameterError("a store of lanes is wanted", found=repr(store), fix='store=xs.lane_store("parts")')
    events = sort_events(small, bins, weights, dropped_shots=dropped_shots)
    bound, weight = events.bound, events.weight
    names, _, index = bound
    data = small_variables(small, bound, weights, coordinates)
    check_room(math.prod(bound[1]), {k: x for k, x in data.items() if not are_images(x)}, memory)
    variables: dict[str, xr.Variable] = {COUNT: events_per_bin(bound)}
    wanted = Wanted(check_statistics(statistics, weights), weight, {} if weights is None else small[weights].attrs)
    where = None if store is None else (store, {"xsmall": __version__, "bins": repr(said(bins))})
    road = Road(memory, where, dropped_shots or XRAY_ON in bins, Along(data.values()))
    for image in (images or {}).values():
        _warn_of_gain_bits(values_of(frames_of(image))[0])
    pictures = {name: of_image(name, image, small, bound, road, wanted) for name, image in (images or {}).items()}
    for found in _of_small(data, small, bound, road, wanted, weights):
        _add_variables(variables, found, "small data")
    kept = small.drop_dims(dims_of_events(small))
    kept = kept.drop_vars([n for n in kept.variables if n in names])
    result = xr.Dataset(coords=events.coords).assign_coords(kept.coords).assign(kept.data_vars)
    for name, (found, labels) in pictures.items():
        _add_variables(variables, found, f"images {name!r}")
        result = with_labels(result, labels, name)
    check_variables(variables, result)
    result = result.assign(variables)
    result = with_events(result, small, index)
    asked = {"weights": weights, "statistics": list(wanted.statistics), "coordinates": coordinates}
    result.attrs = _cube_attrs(small, bins, {k: frames_of(x) for k, x in (images or {}).items()}, index, data, asked)
    result.attrs |= events.attrs(weights)
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
        their variance (``<name>_variance``) carries the variance along; sparse frames are averaged as the dense ones.
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
    >>> import xarray as xr, xsmall as xs
    >>> xs.average(xr.DataArray([[1.0, 2.0], [3.0, float("nan")]], dims=("event", "q"), name="i"))["i"].values.tolist()
    [2.0, 2.0]
    """
    values, variance, sparse = values_of(obj)
    _warn_of_gain_bits(values)
    name = MEAN if values.name is None else str(values.name)
    dropped = None if dropped_shots else shots_are_dropped(values)
    index = np.zeros(n_events(values, name), np.int64) if dropped is None else -dropped.astype(np.int64)
    if n is not None:
        last = _last_of_the_first(n, index)
        values, index = values.isel({EVENT: slice(last)}), index[:last]
        variance = None if variance is None else variance.isel({EVENT: slice(last)})
        dropped = None if dropped is None else dropped[:last]
        sparse = None if sparse is None else sparse.first(last)
    data = of_any(name, values, variance, ((), (), index), Road(memory, None, dropped_shots), Wanted(), sparse)
    out = xr.Dataset(coords={k: c.variable for k, c in without_events(values.coords).items()}).assign(data)
    out[COUNT] = xr.Variable((), int((index >= 0).sum()), {UNITS: DIMENSIONLESS, LONG_NAME: "events"})
    if LOST in values.attrs:
        out.attrs[LOST] = values.attrs[LOST]
    if dropped is not None:
        out.attrs[N_DROPPED_SHOTS] = int(dropped.sum())
    return paired(with_events(out, values, index) if values.get_index(EVENT).is_unique else out)


def _warn_of_gain_bits(frames: xr.DataArray) -> None:
    """Say that a mean of raw words is no mean of values, where they hold gain bits."""
    text = gain_bits(frames)
    if text is not None:
        warn_user(text, GainBitsWarning)


def _last_of_the_first(n: object, index: npt.NDArray[np.int64]) -> int:
    """How many events have to be looked at for ``n`` that are averaged."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ParameterError("invalid n", found=repr(n), expected="a number of events, 1 or more", fix="n=100")
    wanted = np.flatnonzero(index >= 0)[:n]
    return int(wanted[-1]) + 1 if wanted.size else len(index)


def _of_small(
    data: Mapping[str, xr.Variable], small: xr.Dataset, bound: Bound, road: Road, wanted: Wanted, weights: str | None
) -> list[dict[str, xr.Variable]]:
    """Statistics of the variables of small data; of pictures first, which may take along what others come from."""

    def asked(name: str) -> Wanted:
        own = name in small.variables and name != weights and small[name].dtype.kind != "b"  # has a ratio to the weight
        return wanted if own else wanted.only_statistics()

    variances = {name: name.removesuffix(VARIANCE_SUFFIX) for name in data if is_variance(name, small.variables)}
    for base in variances.values():
        check_small(small, base)
    pictures = {
        name: of_frames(name, small[name], small.get(f"{name}{VARIANCE_SUFFIX}"), bound, road, asked(name))
        for name, variable in data.items()
        if name in small.variables and name not in variances and are_images(variable)
    }
    along = road.beside
    others = {n: v if along is None else along.rerouted(v) for n, v in data.items() if n not in pictures}
    out = []
    for name in data:
        if name not in variances:
            out.append(pictures[name] if name in pictures else of_values(name, others[name], bound, asked(name)))
        elif variances[name] not in pictures:
            values = others.get(variances[name], small.variables[variances[name]])
            out.append(of_variance(name, others[name], values, bound))
    return out


def _add_variables(variables: dict[str, xr.Variable], new: Mapping[str, xr.Variable], what: str) -> None:
    for name, variable in new.items():
        if name in variables:
            raise ParameterError(f"two things of the {what} would be called {name!r}", fix="rename one of them")
        variables[name] = variable


def _cube_attrs(
    small: xr.Dataset,
    bins: Mapping[str, Any],
    images: Mapping[str, xr.DataArray | xr.Dataset] | None,
    index: Any,
    data: Mapping[str, Any],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    per_event = set(dims_of_events(small))
    left = [str(n) for n, v in small.variables.items() if per_event & set(v.dims) and n not in (*v.dims, *bins, *data)]
    read = {name: values_of(image)[0].attrs for name, image in (images or {}).items()}
    before = {name: parameters_of(attrs) for name, attrs in read.items()}
    steps = {"small": parameters_of(small.attrs), "images": before or None}
    lost = dict.fromkeys(str(attrs[LOST]) for attrs in (small.attrs, *read.values()) if LOST in attrs)
    return {
        **small.attrs,
        **({LOST: "; ".join(lost)} if lost else {}),
        **parameters_attr("cube", steps, bins=said(bins), **{key: value for key, value in asked.items() if value}),
        "n_events": int(index.size),
        LEFT_OUT: ", ".join(left),
    }
