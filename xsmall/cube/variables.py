"""Statistics of the variables of small data per bin, named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.moments import COVARIANCE, MEAN_RATIO, RATIO_STD, WEIGHT, WEIGHT_STD, BinnedEvents
from xsmall.cube.room import check_dims
from xsmall.cube.sorting import Bound
from xsmall.cube.values import (
    COVARIANCES,
    EXTREME_VALUES,
    MEAN_RATIOS,
    MEDIANS,
    MOMENTS,
    Statistics,
    folded,
    with_error,
)
from xsmall.errors import DataError, ParameterError, alike
from xsmall.events.unknown import only_known
from xsmall.frames.describe import data_of
from xsmall.vocabulary import (
    COUNT,
    COUNT_SUFFIX,
    COVARIANCE_SUFFIX,
    DAMAGE,
    DIMENSIONLESS,
    DROPLET,
    EVENT,
    FIDUCIAL,
    MAX,
    MEAN,
    MEAN_SUFFIX,
    MEDIAN,
    MIN,
    PULSE_ID,
    RATIO,
    RUN,
    SAMPLE_DIMENSION,
    SOURCE_TIMESTAMP,
    STD_SUFFIX,
    STDERR_SUFFIX,
    SUM,
    UNITS,
    WEIGHT_SUFFIX,
)

Named = dict[str, xr.Variable]
"""Variables of a cube by name."""


def small_variables(
    small: xr.Dataset, bound: Bound, weights: str | None = None, coordinates: Sequence[str] | bool = False
) -> dict[str, xr.Variable]:
    """Variables to average, by the name of the mean: data variables, the weight, what is binned by, and coordinates.

    Of coordinates of the events those that are asked for by name, or all that have a mean.
    """
    asked = _coordinates(small, coordinates)
    out: dict[str, xr.Variable] = {}
    for key, array in small.variables.items():
        name = str(key)
        if EVENT not in array.dims or _reason_to_leave_out(name, array):
            continue
        if name in bound[0]:
            if array.dtype.kind in "iuf":
                alone = {d: 0 for d in array.dims if d in bound[0]}  # one region that has the name of what is binned
                out[f"{name}{MEAN_SUFFIX}"] = array.isel(alone)
        elif name in small.coords and name != weights and name not in asked:
            continue
        else:
            check_dims(f"values of {name!r}", array.dims, bound[0])
            out[name] = only_known(small, name)
    return out


def _coordinates(small: xr.Dataset, asked: Sequence[str] | bool) -> set[str]:
    """Names of the coordinates of the events that are averaged too."""
    there = [str(name) for name, c in small.coords.items() if EVENT in c.dims and name != EVENT]
    if isinstance(asked, bool):
        return set(there) if asked else set()
    if not isinstance(asked, Iterable):  # users are not typed
        raise ParameterError("coordinates are given by name", found=repr(asked), fix="coordinates=True for all of them")
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in small.variables or EVENT not in small[name].dims:
            near = alike(str(name), there)
            raise ParameterError(
                f"the events have no coordinate {name!r}", found=repr(name), expected=f"some of {there}",
                fix=f"coordinates=[{near[0]!r}]" if near else "coordinates=True for all of them",
            )  # fmt: skip
        if why := _reason_to_leave_out(name, small[name].variable):
            raise ParameterError(f"{name} has no mean", found=f"{why} ({small[name].dtype})", fix="leave it out")
    return set(names)


def _reason_to_leave_out(name: str, array: xr.Variable) -> str | None:
    if array.dtype.kind not in "biuf":
        return "no numbers"
    if name in (PULSE_ID, FIDUCIAL, DAMAGE, RUN, SOURCE_TIMESTAMP) or "flag_meanings" in array.attrs:
        return "flags or counters"
    if any(str(d) == DROPLET or str(d).endswith(f"_{DROPLET}") for d in array.dims):
        return "lists per event"
    return None


class Wanted(NamedTuple):
    """What a cube has of each variable beside mean, spread and count."""

    statistics: tuple[str, ...] = ()
    """Some of :data:`STATISTICS`."""
    weight: npt.NDArray[np.float64] | None = None
    """Weight of each event that ratios are wanted to."""
    weight_attrs: Mapping[Any, Any] = MappingProxyType({})

    def only_statistics(self) -> Wanted:
        """The same without the weight."""
        return Wanted(tuple(name for name in self.statistics if name != RATIO))


STATISTICS: Final = (MIN, MAX, SUM, MEDIAN, RATIO)
"""What can be asked for."""


def check_statistics(statistics: Sequence[str], weights: str | None) -> tuple[str, ...]:
    """Check what a user asks for."""
    if not isinstance(statistics, str | Iterable):
        raise ParameterError("statistics are given by name", found=repr(statistics), fix='statistics=("min", "max")')
    given = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    unknown = [name for name in given if name not in STATISTICS]
    if unknown:
        raise ParameterError(
            "unknown statistics of a cube", found=unknown, expected=f"some of {STATISTICS}; mean, std, stderr and "
            "count are always there", fix='statistics=("min", "max")',
        )  # fmt: skip
    if RATIO in given and weights is None:
        raise ParameterError(
            "a ratio is one of values and weights", found=f"statistics={given}, no weights",
            fix='weights="i0", statistics="ratio"',
        )  # fmt: skip
    return given


def of_values(name: str, array: xr.Variable, bound: Bound, wanted: Wanted, *, counted: bool = False) -> Named:
    """Statistics of a variable (event, ...)."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has no mean", found=array.dtype, expected="numbers or true/false")
    ordered = array.transpose(EVENT, ...)
    data, events, shape = data_inside(ordered), BinnedEvents(bound[2], wanted.weight), bound[1]
    found = with_error(folded(data, BinnedEvents(bound[2]), shape, f"cube-{name}", MOMENTS))
    if wanted.weight is not None:
        found |= folded(data, events, shape, f"cube-{name}", COVARIANCES)
    if RATIO in wanted.statistics:
        found |= folded(data, events, shape, f"cube-{name}", MEAN_RATIOS)
    if {MIN, MAX} & set(wanted.statistics):
        found |= folded(data, BinnedEvents(bound[2]), shape, f"cube-{name}", EXTREME_VALUES)
    if MEDIAN in wanted.statistics:
        found |= folded(data, BinnedEvents(bound[2]), shape, f"cube-{name}", MEDIANS)
    return labelled(name, found, bound[0], ordered, wanted, counted=counted)


def of_variance(name: str, array: xr.Variable, values: xr.Variable, bound: Bound) -> Named:
    """Propagated variance of a mean: the mean of the variances over their number.

    Those of values that are not finite do not count; a value without a variance makes that of the mean unknown.
    """
    valid = xr.apply_ufunc(np.isfinite, xr.DataArray(values), dask="allowed")
    variance = xr.DataArray(array)
    known = variance.where(valid).transpose(EVENT, ...).variable
    lacking = (valid & ~xr.apply_ufunc(np.isfinite, variance, dask="allowed")).transpose(EVENT, ...).variable
    events = BinnedEvents(bound[2])
    found = folded(data_inside(known), events, bound[1], f"cube-{name}", MOMENTS)
    lack = folded(data_inside(lacking), events, bound[1], f"cube-{name}-lacking", MOMENTS)
    dims = (*bound[0], *known.dims[1:])
    mean = xr.DataArray(found[MEAN] / np.maximum(found[COUNT], 1), dims=dims)
    out = mean.where(xr.DataArray(lack[MEAN], dims=dims) == 0)
    return {name: out.assign_attrs(array.attrs).variable}


def labelled(
    name: str,
    found: Statistics,
    bins: tuple[str, ...],
    array: xr.Variable,
    wanted: Wanted | None = None,
    *,
    counted: bool = False,
) -> Named:
    """Name the statistics of one variable; true/false has no unit but 1."""
    dims = (*bins, *array.dims[1:])
    attrs = {**array.attrs, **({UNITS: DIMENSIONLESS} if array.dtype.kind == "b" else {})}
    attrs.pop(SAMPLE_DIMENSION, None)  # a mean of counts counts no entries of a file
    own_unit = {UNITS: attrs[UNITS]} if UNITS in attrs else {}
    out = {
        name: xr.Variable(dims, found[MEAN], attrs),
        f"{name}{STD_SUFFIX}": xr.Variable(dims, found["std"], own_unit),
        f"{name}{STDERR_SUFFIX}": xr.Variable(dims, found["stderr"], own_unit),
    }
    if array.dtype.kind == "f" or counted:
        out[f"{name}{COUNT_SUFFIX}"] = xr.Variable(dims, found[COUNT], {UNITS: DIMENSIONLESS})
    if WEIGHT in found and wanted is not None:
        unit = {UNITS: wanted.weight_attrs[UNITS]} if UNITS in wanted.weight_attrs else {}
        out[f"{name}{WEIGHT_SUFFIX}"] = xr.Variable(dims, found[WEIGHT], unit)
        out[f"{name}{WEIGHT_SUFFIX}{STD_SUFFIX}"] = xr.Variable(dims, found[WEIGHT_STD], unit)
        out[f"{name}{COVARIANCE_SUFFIX}"] = xr.Variable(dims, found[COVARIANCE])
    for statistic in () if wanted is None else wanted.statistics:
        if statistic == RATIO and wanted is not None:
            out |= _ratio_and_errors(f"{name}_{statistic}", found, dims, own_unit, wanted)
            continue
        values = _sum(found) if statistic == SUM else found[statistic]
        out[f"{name}_{statistic}"] = xr.Variable(dims, values, own_unit)
    return out


def _ratio_and_errors(
    name: str, found: Statistics, dims: tuple[Any, ...], own_unit: dict[str, Any], wanted: Wanted
) -> Named:
    """Mean of the ratios of single events with its spread and error."""
    unit = unit_of_ratio(own_unit.get(UNITS), wanted.weight_attrs.get(UNITS))
    made = with_error({"std": found[RATIO_STD], COUNT: found[COUNT]})
    values = {name: found[MEAN_RATIO], f"{name}{STD_SUFFIX}": made["std"], f"{name}{STDERR_SUFFIX}": made["stderr"]}
    return {key: xr.Variable(dims, array, {} if unit is None else {UNITS: unit}) for key, array in values.items()}


def unit_of_ratio(of_value: Any, of_weight: Any) -> str | None:
    """Unit of a value for a weight of 1, where both are known."""
    if of_value is None or of_weight is None:
        return None
    return str(of_value) if of_weight == "1" else f"{of_value} ({of_weight})-1"


def _sum(found: Statistics) -> Any:
    """Sum of the values of each bin; of none it is 0."""
    n = found[COUNT]
    where = da.where if isinstance(n, da.Array) else np.where
    return where(n > 0, found[MEAN] * n, 0.0)


def data_inside(array: xr.Variable) -> Any:
    """Array inside, NumPy or dask, without loading anything else that is lazy."""
    return data_of(xr.DataArray(array))
