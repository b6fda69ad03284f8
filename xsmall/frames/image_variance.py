"""Variances of images and polar maps: those of the weighted means that their cells hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import CACHE
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.imaging import CellTable
from xsmall.detector.part import Part
from xsmall.vocabulary import PIXEL_DIMS, UNITS

__all__ = ["variance_attrs", "variance_of_cells"]

Array: TypeAlias = npt.NDArray[Any]
Gather: TypeAlias = Callable[[Array, CellTable, np.dtype[Any]], tuple[Array, Array]]


def variance_attrs(variance: xr.DataArray) -> dict[str, Any]:
    """What the variance of a picture keeps of that of its pixels."""
    return {k: v for k, v in variance.attrs.items() if k == UNITS}


def variance_of_cells(
    frames: xr.DataArray,
    variance: xr.DataArray,
    gather: Gather,
    table: Callable[..., CellTable],
    arguments: tuple[Geometry, Part, Any, Any],
    sizes: dict[str, int],
) -> xr.DataArray:
    """Propagate variances of pixels to the cells of a grid: sum(w^2 variance) / sum(w)^2 over valid pixels.

    Parameters
    ----------
    frames, variance
        Whole frames (..., segment, row, column) and the variance of each value.
    gather
        What averages the pixels of each cell.
    table, arguments
        Makes the table of the cells, and from what.
    sizes
        Dims and sizes of the grid, slow one first.

    Returns
    -------
    float64 (..., *grid), NaN where no pixel is valid or one that is has no variance.
    """
    bare = [f.drop_vars([n for n, c in f.coords.items() if set(c.dims) & set(PIXEL_DIMS)]) for f in (frames, variance)]
    out: xr.DataArray = xr.apply_ufunc(
        _variance_of_block,
        *bare,
        kwargs={"gather": gather, "table": table, "arguments": arguments, "shape": tuple(sizes.values())},
        input_core_dims=[list(PIXEL_DIMS), list(PIXEL_DIMS)],
        output_core_dims=[list(sizes)],
        dask="parallelized",
        output_dtypes=[np.dtype(np.float64)],
        dask_gufunc_kwargs={"output_sizes": sizes},
        keep_attrs=True,  # of the coordinates: their units
        join="exact",
    )
    out.attrs = {}  # drop_attrs copies the numbers
    return out


def _variance_of_block(
    values: Array,
    variance: Array,
    *,
    gather: Gather,
    table: Callable[..., CellTable],
    arguments: tuple[Geometry, Part, Any, Any],
    shape: tuple[int, ...],
) -> Array:
    double = np.dtype(np.float64)
    plain = table(*arguments)
    valid, known = np.isfinite(values), np.isfinite(variance)
    squares = np.where(valid & known, variance, np.where(valid, 0.0, np.nan)).astype(double)
    mean, norm = gather(squares, plain, double)
    total = norm
    if plain.weight.size:
        geometry, *rest = arguments
        squared = CACHE.get(
            ("squared", table.__name__, geometry.token, *rest),
            lambda: CellTable(plain.start, plain.pixel, plain.weight**2),
        )
        mean, total = gather(squares, squared, double)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = mean * total / norm.astype(double) ** 2
    if (valid & ~known).any():  # a valid pixel without a variance makes that of its cell unknown
        lacking = np.where(valid, np.where(known, 0.0, 1.0), np.nan)
        out[gather(lacking, plain, double)[0] > 0] = np.nan
    return out.reshape(*values.shape[:-3], *shape)
