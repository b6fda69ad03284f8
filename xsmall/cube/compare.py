"""Differences between bins, and cubes of several runs merged into one."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.frames.variance import paired
from xsmall.vocabulary import (
    BOUNDS_SUFFIX,
    COUNT,
    COUNT_SUFFIX,
    DIFFERENCE,
    DIMENSIONLESS,
    STD_SUFFIX,
    STDERR_SUFFIX,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["difference", "merge_cubes"]


def difference(cube: xr.Dataset, dim: str, *, relative: bool = False) -> xr.Dataset:
    """Subtract the two bins of ``dim`` from each other, with the error of the difference.

    Parameters
    ----------
    cube
        What :func:`xsmall.cube.cube.cube` returns.
    dim
        A dim of two bins: the second minus the first; of true and false, in whatever order, true minus false, that is
        ``laser_on`` on minus off. ``attrs["difference"]`` says which it was.
    relative
        Divide by the first: (on - off) / off.

    Returns
    -------
    Dataset without ``dim``: each mean's difference under its own name, ``<name>_stderr`` (the two errors taken as
    independent, to first order) and ``<name>_variance`` where there is one; ``count`` keeps ``dim``. NaN where one of
    the two bins is empty or, for ``relative``, the first is 0.

    Raises
    ------
    ParameterError
        No such dim, or not two bins.
    DataError
        Nothing with a standard error: this is no cube.

    Examples
    --------
    >>> import xarray as xr
    >>> from xsmall.cube.bins import categories
    >>> from xsmall.cube.cube import cube
    >>> small = xr.Dataset({"on": ("event", [False, False, True, True]), "s": ("event", [1.0, 3.0, 5.0, 7.0])})
    >>> out = difference(cube(small, {"on": categories()}), "on")
    >>> float(out["s"]), round(float(out["s_stderr"]), 3)
    (4.0, 1.414)
    """
    if dim not in cube.dims:
        raise ParameterError(f"the cube has no dim {dim!r}", found=f"dims {dict(cube.sizes)}")
    if cube.sizes[dim] != 2:
        raise ParameterError(
            f"a difference is taken between two bins of {dim!r}",
            found=f"{cube.sizes[dim]} bins: {cube[dim].values.tolist()[:8]}" if dim in cube.coords else "no labels",
            fix=f"cube.sel({dim}=[first, second])",
        )
    names = [str(v) for v in cube.data_vars if f"{v}{STDERR_SUFFIX}" in cube and dim in cube[v].dims]
    if not names:
        raise DataError("nothing here has a standard error", found=sorted(map(str, cube.data_vars)), expected="a cube")
    labels = cube[dim].values.tolist()  # where there are none, 0 and 1
    before, after = (1, 0) if labels == [True, False] else (0, 1)
    first, second = cube.isel({dim: before}, drop=True), cube.isel({dim: after}, drop=True)
    out = cube.drop_vars([v for v in cube.data_vars if v != COUNT])
    for name in names:
        a, b = first[name], second[name]
        out[name] = _relative(b, a) if relative else b - a
        out[name].attrs = {**cube[name].attrs, **({UNITS: DIMENSIONLESS} if relative else {})}
        for suffix, power in ((STDERR_SUFFIX, 2), (VARIANCE_SUFFIX, 1)):
            error = f"{name}{suffix}"
            if error not in cube:
                continue
            of_b, of_a = second[error] ** power, first[error] ** power
            if relative:
                of_b, of_a = of_b / _nonzero(a) ** 2, of_a * (b / _nonzero(a) ** 2) ** 2
            total = of_b + of_a
            out[error] = np.sqrt(total) if power == 2 else total
            out[error].attrs = {**cube[error].attrs, **({UNITS: DIMENSIONLESS} if relative else {})}
    said = f"{dim}: {labels[after]} - {labels[before]}"
    out.attrs[DIFFERENCE] = f"{said}, relative to {labels[before]}" if relative else said
    return paired(out)


def merge_cubes(first: xr.Dataset, *others: xr.Dataset) -> xr.Dataset:
    """Merge cubes of several runs with the same bins, as if all events had been binned together.

    Parameters
    ----------
    first, *others
        Cubes with the same bins and variables.

    Returns
    -------
    One cube: counts add up, means and spreads are those of all events (to 1e-12, by the formula of Chan, Golub and
    LeVeque 1983), numbers of events left out add up.

    Raises
    ------
    ParameterError
        Cubes with other bins, variables or shapes.

    Examples
    --------
    >>> import xarray as xr
    >>> from xsmall.cube.bins import categories
    >>> from xsmall.cube.cube import cube
    >>> small = xr.Dataset({"on": ("event", [False, True, True]), "s": ("event", [1.0, 3.0, 5.0])})
    >>> parts = [cube(small.isel(event=cut), {"on": categories()}) for cut in (slice(0, 2), slice(2, 3))]
    >>> merge_cubes(*parts)["s"].values.tolist()
    [1.0, 4.0]
    """
    cubes: tuple[object, ...] = (first, *others)
    for given in cubes:
        if not isinstance(given, xr.Dataset) or COUNT not in given:
            raise ParameterError(
                "only cubes can be merged",
                found=type(given).__name__,
                expected=f"Datasets with {COUNT!r}",
                fix="xs.merge_cubes(*cubes)",
            )
    for other in others:
        first = _merge_two(first, other)
    return paired(first)


def _merge_two(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    _check_alike(a, b)
    out = a.copy()
    names = [str(v) for v in a.data_vars if f"{v}{STD_SUFFIX}" in a]
    for name in names:
        n_a, n_b = _count(a, name), _count(b, name)
        n = n_a + n_b
        share = n_b / n.where(n > 0, 1)
        mean_a, mean_b = a[name].where(n_a > 0, 0.0), b[name].where(n_b > 0, 0.0)
        delta = mean_b - mean_a
        m2 = _m2(a, name, n_a) + _m2(b, name, n_b) + delta**2 * n_a * share
        std = (m2 / (n - 1).where(n > 1)) ** 0.5
        out[name] = (mean_a + delta * share).where(n > 0).assign_attrs(a[name].attrs)
        for key in ("n_without_small_data", "n_without_image"):
            if key in a[name].attrs:
                out[name].attrs[key] = a[name].attrs[key] + b[name].attrs.get(key, 0)
        out[f"{name}{STD_SUFFIX}"] = std.assign_attrs(a[f"{name}{STD_SUFFIX}"].attrs)
        out[f"{name}{STDERR_SUFFIX}"] = (std / n**0.5).assign_attrs(a[f"{name}{STDERR_SUFFIX}"].attrs)
        variance = f"{name}{VARIANCE_SUFFIX}"
        if variance in a:
            parts = [(c[variance] * m**2).where(m > 0, 0.0) for c, m in ((a, n_a), (b, n_b))]
            out[variance] = ((parts[0] + parts[1]) / (n**2).where(n > 0)).assign_attrs(a[variance].attrs)
    for name in map(str, a.data_vars):
        if name == COUNT or (name.endswith(COUNT_SUFFIX) and name.removesuffix(COUNT_SUFFIX) in names):
            out[name] = (a[name] + b[name]).assign_attrs(a[name].attrs)
    for coord in a.coords:
        counted = {k: v + b[coord].attrs.get(k, 0) for k, v in a[coord].attrs.items() if str(k).startswith("n_")}
        out[coord].attrs |= counted
    out.attrs |= {k: v + b.attrs.get(k, 0) for k, v in a.attrs.items() if k in ("n_events", "n_outside")}
    return out


def _check_alike(a: xr.Dataset, b: xr.Dataset) -> None:
    if set(a.data_vars) != set(b.data_vars):
        raise ParameterError("these cubes hold other variables", found=sorted(map(str, set(a) ^ set(b))))
    for name in a.variables:
        one, two = a[name], b.variables.get(name)
        if two is None or one.dims != two.dims or one.shape != two.shape:
            raise ParameterError(f"{name} has another shape in the two cubes", found=one.sizes, fix="the same bins")
    for dim in a[COUNT].dims:
        for label in (dim, f"{dim}{BOUNDS_SUFFIX}"):
            if label in a.coords and not np.array_equal(a[label].values, b[label].values):
                raise ParameterError(
                    f"the bins of {dim} differ",
                    found=f"{a[label].values[:3].tolist()} ... and {b[label].values[:3].tolist()} ...",
                    fix="the same bins for all runs",
                )


def _count(cube: xr.Dataset, name: str) -> xr.DataArray:
    own = f"{name}{COUNT_SUFFIX}"
    return cube[own] if own in cube else cube[COUNT]


def _m2(cube: xr.Dataset, name: str, n: xr.DataArray) -> xr.DataArray:
    return (cube[f"{name}{STD_SUFFIX}"] ** 2 * (n - 1)).where(n > 1, 0.0)


def _relative(b: xr.DataArray, a: xr.DataArray) -> xr.DataArray:
    return (b - a) / _nonzero(a)


def _nonzero(a: xr.DataArray) -> xr.DataArray:
    return a.where(a != 0)
