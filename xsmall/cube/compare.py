"""Differences between bins."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xsmall.cube.pool import as_made
from xsmall.cube.ratio import ratio
from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError, alike
from xsmall.vocabulary import (
    COUNT,
    DIFFERENCE,
    DIMENSIONLESS,
    STDERR_SUFFIX,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["difference"]


def difference(cube: xr.Dataset, dim: str, *, relative: bool = False, normalize: str | None = None) -> xr.Dataset:
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
    normalize
        Take each value for a weight of 1 first: the estimator of :func:`xsmall.ratio`, such as ``"sums"``; needs a cube
        made with ``weights=``.

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
        Nothing with a standard error: this is no cube; or one that was computed with as a whole.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"on": ("event", [False, False, True, True]), "s": ("event", [1.0, 3.0, 5.0, 7.0])})
    >>> out = xs.difference(small.sd.cube({"on": xs.categories()}), "on")
    >>> float(out["s"]), round(float(out["s_stderr"]), 3)
    (4.0, 1.414)
    """
    if normalize is not None:
        cube = ratio(cube, normalize)
    if not isinstance(dim, str):  # users are not typed
        raise ParameterError(
            "a difference is taken along one dim, given by its name",
            found=repr(dim),
            fix='small.sd.cube({"laser_on": xs.categories()}).sd.difference("laser_on")',
        )
    if dim not in cube.dims:
        raise _no_dim(cube, dim)
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
    cube = as_made(cube)
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


def _relative(b: xr.DataArray, a: xr.DataArray) -> xr.DataArray:
    return (b - a) / _nonzero(a)


def _nonzero(a: xr.DataArray) -> xr.DataArray:
    return a.where(a != 0)


def _no_dim(cube: xr.Dataset, dim: str) -> ParameterError:
    """The error for a dim that is not there: mistyped, or of small data that were not binned yet."""
    if COUNT not in cube:
        fix = f'small.sd.cube({{"delay": xs.bins(-2, 5, width=0.1), "{dim}": xs.categories()}}).sd.difference("{dim}")'
        return ParameterError("a difference is taken of a cube", found=f"dims {dict(cube.sizes)}", fix=fix)
    near = alike(dim, map(str, cube.dims))
    advice = f'cube.sd.difference("{near[0]}")' if near else None
    return ParameterError(f"the cube has no dim {dim!r}", found=f"dims {dict(cube.sizes)}", fix=advice)
