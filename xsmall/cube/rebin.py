"""Neighbouring bins joined, exact from the moments."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xsmall.cube.pool import as_made, bounds_of, in_order_of, pooled
from xsmall.engine.pairs import paired
from xsmall.errors import ParameterError
from xsmall.vocabulary import BIN_EDGE, BOUNDS_SUFFIX, COUNT

__all__ = ["rebin_cube"]

_PART = "bin_of_the_wider_one"


def rebin_cube(cube: xr.Dataset, **joined: int) -> xr.Dataset:
    """Join neighbouring bins of a cube: means, spreads and errors are those of all events of the wider bins.

    Parameters
    ----------
    cube
        What :func:`xsmall.cube.cube.cube` or :func:`xsmall.merge_cubes` returns.
    **joined
        How many neighbours become one bin, by dim: ``delay=2``. It has to divide the number of bins.

    Returns
    -------
    The cube with fewer bins, as if it had been made so (to 1e-12); labels are the centres of the wider bins, numbers of
    events left out stay. Lazy where the cube is.

    Raises
    ------
    ParameterError
        Unknown dims, categories, bins that do not touch, or a number that does not divide that of the bins.
    DataError
        Variables that are no moments, such as differences; a cube that was computed with as a whole.

    Notes
    -----
    Plain ``cube.coarsen(delay=2).mean()`` weights bins of few events like those of many, and averages counts and
    errors.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"x": ("event", [0.1, 0.2, 1.5]), "s": ("event", [1.0, 2.0, 6.0])})
    >>> xs.rebin_cube(small.sd.cube({"x": xs.bins(0, 2, n=2)}), x=2)["s"].values.tolist()
    [3.0]
    """
    if not joined:
        raise ParameterError("rebin needs a dim and a number", fix="cube.sd.rebin(delay=2)")
    out = as_made(cube)
    for dim, n in joined.items():
        out = _neighbours_joined(out, dim, n)
    return paired(out)


def _neighbours_joined(cube: xr.Dataset, dim: str, n: int) -> xr.Dataset:
    bounds = f"{dim}{BOUNDS_SUFFIX}"
    _check_rebinning(cube, dim, n, bounds)
    borders = bounds_of(cube, dim)
    wide = np.stack([borders[::n, 0], borders[n - 1 :: n, 1]], axis=1)
    with_dim = [c for c in cube.coords if dim in cube[c].dims]
    parts = cube.drop_vars(with_dim).coarsen({dim: n}).construct({dim: (dim, _PART)})
    out = in_order_of(pooled(parts, _PART), cube)
    labels = wide[:, 0] + (wide[:, 1] - wide[:, 0]) / 2
    if borders.dtype.kind == "f" and (borders > 0).all():
        geometric = np.sqrt(borders[:, 0] * borders[:, 1])
        if np.allclose(cube[dim].values, geometric, rtol=1e-9):  # of logarithmic bins
            labels = np.sqrt(wide[:, 0] * wide[:, 1])
    return out.assign_coords({dim: (dim, labels, cube[dim].attrs), bounds: ((dim, BIN_EDGE), wide, cube[bounds].attrs)})


def _check_rebinning(cube: xr.Dataset, dim: str, n: int, bounds: str) -> None:
    if COUNT not in cube or dim not in cube[COUNT].dims:
        dims = [str(d) for d in cube[COUNT].dims] if COUNT in cube else "no cube"
        raise ParameterError(f"{dim!r} is no dim of bins", found=dim, expected=f"one of {dims}")
    if bounds not in cube.coords:
        raise ParameterError(f"{dim!r} has no neighbours to join: its bins are categories", found=cube[dim].values[:8])
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 or cube.sizes[dim] % n:  # type: ignore[redundant-expr]
        size = cube.sizes[dim]
        keep = size // n * n if isinstance(n, int) and n > 1 else 0  # type: ignore[redundant-expr]
        raise ParameterError(
            f"{size} bins of {dim!r} cannot be joined by {n!r}",
            expected="a whole number that divides the number of bins",
            fix=f"cube.isel({dim}=slice({keep})).sd.rebin({dim}={n})" if keep else f"cube.sd.rebin({dim}=2)",
        )
    borders = bounds_of(cube, dim)
    inside = np.arange(1, len(borders)) % n != 0
    if (borders[:-1, 1] != borders[1:, 0])[inside].any():
        raise ParameterError(
            f"the bins of {dim!r} do not touch: what is between them was in none",
            found=f"borders {borders[:3].tolist()} ...",
            expected="bins made by xs.bins or xs.edges, whole and in order",
        )
