"""Variances of images and polar maps: those of the weighted means that their cells hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.grids import Part
from xsmall.detector.geometry.imaging import TABLES, Table
from xsmall.errors import DataError
from xsmall.vocabulary import PIXEL_DIMS, UNITS, VARIANCE_SUFFIX

__all__ = ["spread_attrs", "spread_of_cells", "values_and_variance_of_pixels"]

Array: TypeAlias = npt.NDArray[Any]
Gather: TypeAlias = Callable[[Array, Table, np.dtype[Any]], tuple[Array, Array]]


def values_and_variance_of_pixels(obj: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the values over pixels, and in a Dataset their variance."""
    if isinstance(obj, xr.DataArray):
        return obj, None
    pixels = [str(v) for v in obj.data_vars if set(obj[v].dims) & set(PIXEL_DIMS)]
    values = [v for v in pixels if v.endswith(VARIANCE_SUFFIX) and v.removesuffix(VARIANCE_SUFFIX) in pixels]
    names = [v.removesuffix(VARIANCE_SUFFIX) for v in values]
    if len(names) != 1:
        raise DataError(
            "a picture of a Dataset needs one variable and its variance",
            found=f"variables over pixels {pixels[:8]}",
            expected="<name> and <name>_variance",
            fix='choose: dataset["jungfrau"].sd ..., or dataset[["jungfrau", "jungfrau_variance"]].sd ...',
        )
    if obj[values[0]].dims != obj[names[0]].dims:
        raise DataError(f"{values[0]} has other dims than its values", found=obj[values[0]].dims)
    return obj[names[0]], obj[values[0]]


def spread_attrs(variance: xr.DataArray) -> dict[str, Any]:
    """What the variance of a picture keeps of that of its pixels."""
    return {k: v for k, v in variance.attrs.items() if k == UNITS}


def spread_of_cells(
    frames: xr.DataArray,
    variance: xr.DataArray,
    gather: Gather,
    table: Callable[..., Table],
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
        _spread_of_block,
        *bare,
        kwargs={"gather": gather, "table": table, "arguments": arguments, "shape": tuple(sizes.values())},
        input_core_dims=[list(PIXEL_DIMS), list(PIXEL_DIMS)],
        output_core_dims=[list(sizes)],
        dask="parallelized",
        output_dtypes=[np.dtype(np.float64)],
        dask_gufunc_kwargs={"output_sizes": sizes},
        keep_attrs=False,
        join="exact",
    )
    return out


def _spread_of_block(
    values: Array,
    variance: Array,
    *,
    gather: Gather,
    table: Callable[..., Table],
    arguments: tuple[Geometry, Part, Any, Any],
    shape: tuple[int, ...],
) -> Array:
    double = np.dtype(np.float64)
    plain = table(*arguments)
    known = np.where(np.isnan(variance), np.inf, variance).astype(double)  # an unknown one must not be passed over
    known[np.isnan(values)] = np.nan
    mean, norm = gather(known, plain, double)
    total = norm
    if plain.weight.size:
        geometry, *rest = arguments
        squared = TABLES.get(
            ("squared", table.__name__, geometry.token, *rest), lambda: Table(plain.start, plain.pixel, plain.weight**2)
        )
        mean, total = gather(known, squared, double)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = mean * total / norm.astype(double) ** 2
    out[np.isinf(out)] = np.nan
    return out.reshape(*values.shape[:-3], *shape)
