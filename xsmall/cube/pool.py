"""Moments of bins pooled into those of all their events: what merging cubes and joining bins have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import (
    BIN_EDGE,
    BOUNDS_SUFFIX,
    COUNT,
    COUNT_SUFFIX,
    COVARIANCE_SUFFIX,
    MAX,
    MIN,
    RATIO,
    STD_SUFFIX,
    STDERR_SUFFIX,
    SUM,
    VARIANCE_SUFFIX,
    WEIGHT_SUFFIX,
)

Array: TypeAlias = npt.NDArray[Any]

_POOLED: Final[Mapping[str, str]] = {f"_{MIN}": "min", f"_{MAX}": "max", f"_{SUM}": "sum"}
"""Statistics beside a mean that pool by the method of this name."""

__all__ = ["as_made", "bounds_of", "count_of", "in_order_of", "is_count", "means_of", "not_pooled", "pooled"]

_ROUNDING: Final = 1e-4
"""What a standard error may be off from spread and count, in single precision too."""


def means_of(cube: xr.Dataset) -> list[str]:
    """Names of the variables of a cube that have a spread beside them."""
    return [str(v) for v in cube.data_vars if f"{v}{STD_SUFFIX}" in cube]


def is_count(cube: xr.Dataset, name: str) -> bool:
    """Whether a variable counts events."""
    return name == COUNT or (name.endswith(COUNT_SUFFIX) and name.removesuffix(COUNT_SUFFIX) in cube)


def not_pooled(cube: xr.Dataset) -> list[str]:
    """Names of the variables that are neither moments of events nor counts."""
    suffixes = ("", STD_SUFFIX, STDERR_SUFFIX, VARIANCE_SUFFIX, COVARIANCE_SUFFIX, *_POOLED)
    known = {f"{name}{suffix}" for name in means_of(cube) for suffix in suffixes}
    return [str(v) for v in cube.data_vars if v not in known and not is_count(cube, str(v))]


def bounds_of(cube: xr.Dataset, dim: str) -> Array:
    """Borders of the bins of a dim, (bin, 2), in whatever order their dims stand."""
    return np.asarray(cube[f"{dim}{BOUNDS_SUFFIX}"].transpose(dim, BIN_EDGE).values)


def in_order_of(cube: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """The same cube, each variable with its dims in the order that it has in another."""
    own = {
        name: x.transpose(*other[name].dims)
        for name, x in cube.variables.items()
        if name in other.variables and set(x.dims) == set(other[name].dims) and x.ndim > 1
    }
    coords = {name: x for name, x in own.items() if name in cube.coords}
    return cube.assign({name: x for name, x in own.items() if name not in coords}).assign_coords(coords)


def count_of(cube: xr.Dataset, name: str) -> xr.DataArray:
    """How many events are in each mean of a variable."""
    base = name.removesuffix(WEIGHT_SUFFIX)  # a weight is known where its value is,
    of_ratio = name.removesuffix(f"_{RATIO}")
    base = of_ratio if f"{of_ratio}{COVARIANCE_SUFFIX}" in cube else base  # and so is a ratio
    own = f"{base if base in cube else name}{COUNT_SUFFIX}"
    return cube[own] if own in cube else cube[COUNT]


def as_made(cube: xr.Dataset) -> xr.Dataset:
    """The same cube, whose spreads, errors and counts fit each other, as they do until somebody computes with it.

    ``cube - 5`` takes 5 from spreads, errors and counts as well, ``cube / 2`` halves them. What is lazy is looked at
    when it is computed.

    Raises
    ------
    DataError
        A standard error that is not the spread over the root of the count, or a negative spread or count.
    """
    out = cube
    for name in means_of(cube):
        std, error = cube[f"{name}{STD_SUFFIX}"].variable, cube.variables.get(f"{name}{STDERR_SUFFIX}")
        if error is None:
            continue
        n = count_of(cube, name).variable
        if std.chunks is None and error.chunks is None and n.chunks is None:
            xr.apply_ufunc(partial(_with_checked_errors, name), std, std, error, n)
            continue
        for key in (f"{name}{suffix}" for suffix in ("", STD_SUFFIX, STDERR_SUFFIX, VARIANCE_SUFFIX)):
            if key in cube:
                own = cube[key].variable
                seen = xr.apply_ufunc(
                    partial(_with_checked_errors, name),
                    own,
                    std,
                    error,
                    n,
                    dask="parallelized",
                    output_dtypes=[own.dtype],
                )
                out = out.assign({key: (seen.dims, seen.data, own.attrs, own.encoding)})
    return out


def _with_checked_errors(name: str, values: Array, std: Array, error: Array, n: Array) -> Array:
    _check_errors(name, std, error, n)
    return values


def _check_errors(name: str, std: Array, error: Array, n: Array) -> None:
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = std / np.sqrt(np.where(n > 0, n, np.nan))
    off = (np.abs(expected - error) > _ROUNDING * np.abs(expected)) | (std < 0) | (n < 0)
    if not off.any():
        return
    at = np.flatnonzero(np.ravel(off))[0]
    shown = [float(np.ravel(np.broadcast_to(x, off.shape))[at]) for x in (std, n, error)]
    raise DataError(
        f"spread, count and standard error of {name} do not fit each other: arithmetic changes all of them alike",
        found="{:g} of {:g} events, with the error {:g}".format(*shown),
        expected="a cube as it was made, chosen from or joined but not computed with",
        fix="compute with the result, variable by variable: cube['name'] - background",
    )


def pooled(cube: xr.Dataset, dim: str) -> xr.Dataset:
    """Pool the bins along ``dim`` into one: counts add up, means, spreads and errors are those of all events.

    Variables that do not run over ``dim`` stay. The formula is that of Chan, Golub and LeVeque (1983).

    Raises
    ------
    DataError
        Variables over ``dim`` that are no moments: nobody knows how they add.
    """
    others = [name for name in not_pooled(cube) if dim in cube[name].dims]
    if others:
        raise DataError(
            "not everything here can be pooled: it is not a mean with its spread",
            found=others,
            expected="a cube as .sd.cube() made it, before differences and ratios",
            fix=f"cube.drop_vars({others})",
        )
    out = cube.drop_vars([v for v in cube.variables if dim in cube[v].dims])
    for name in (str(v) for v in cube.data_vars if dim in cube[v].dims and is_count(cube, str(v))):
        out[name] = cube[name].sum(dim, keep_attrs=True)
    for name in means_of(cube):
        if dim not in cube[name].dims:
            continue
        n = count_of(cube, name)
        total = n.sum(dim)
        some = total.where(total > 0)
        means = cube[name].where(n > 0, 0.0)
        mean = (means * n).sum(dim) / some
        inner = (cube[f"{name}{STD_SUFFIX}"] ** 2 * (n - 1)).where(n > 1, 0.0)
        m2 = (inner + (means - mean) ** 2 * n).sum(dim)
        std = (m2 / (total - 1).where(total > 1)) ** 0.5
        made = {name: mean, f"{name}{STD_SUFFIX}": std, f"{name}{STDERR_SUFFIX}": std / total**0.5}
        variance = f"{name}{VARIANCE_SUFFIX}"
        if variance in cube:
            summed = (cube[variance] * n.astype(float) ** 2).where(n > 0, 0.0)
            made[variance] = summed.sum(dim, skipna=False) / some**2
        covariance = f"{name}{COVARIANCE_SUFFIX}"
        if covariance in cube:
            made[covariance] = _pooled_covariance(cube, name, n, dim)
        made |= {
            f"{name}{suffix}": getattr(cube[f"{name}{suffix}"], how)(dim)
            for suffix, how in _POOLED.items()
            if f"{name}{suffix}" in cube
        }
        for key, value in made.items():
            if key in cube:
                dims = [d for d in cube[key].dims if d != dim]
                out[key] = value.transpose(*dims)
                out[key].attrs = dict(cube[key].attrs)  # arithmetic brings those of the counts along
    return out[[str(v) for v in cube.data_vars]].assign_coords(out.coords)  # borders of other dims are over no variable


def _pooled_covariance(cube: xr.Dataset, name: str, n: xr.DataArray, dim: str) -> xr.DataArray:
    """Covariance of value and weight over all events of the bins along ``dim``."""
    total = n.sum(dim)
    value, weight = (cube[key].where(n > 0, 0.0) for key in (name, f"{name}{WEIGHT_SUFFIX}"))
    of_value, of_weight = ((x * n).sum(dim) / total.where(total > 0) for x in (value, weight))
    inner = (cube[f"{name}{COVARIANCE_SUFFIX}"] * (n - 1)).where(n > 1, 0.0)
    products = (inner + (value - of_value) * (weight - of_weight) * n).sum(dim)
    return products / (total - 1).where(total > 1)
