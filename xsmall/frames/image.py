"""Pictures of a detector: assembled images of any per-pixel array, and the way back."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, overload

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask import delayed
from dask.utils import format_bytes

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.grids import Grid, part_grid
from xsmall.detector.geometry.imaging import CellTable, image_table
from xsmall.detector.part import Part
from xsmall.engine.pairs import paired
from xsmall.engine.record import GROUP
from xsmall.engine.transform import follows, usable_floats
from xsmall.errors import DataError, ParameterError, PlanError
from xsmall.frames.describe import data_of, followed_kinds, usable_segments
from xsmall.frames.image_variance import variance_attrs, variance_of_cells
from xsmall.frames.pixels import need_geometry
from xsmall.frames.variance import PIXELS, values_and_variance
from xsmall.vocabulary import (
    DAMAGE,
    DIMENSIONLESS,
    EVENT,
    FLAG_MEANINGS,
    FRAME_DIMS,
    IMAGE_X,
    IMAGE_Y,
    LONG_NAME,
    N_PIXELS,
    PIXEL_DIMS,
    PRESENT,
    SEGMENT,
    UNITS,
    UNITS_OF,
    VARIANCE_SUFFIX,
    Reason,
)

__all__ = [
    "check_table",
    "float_dtype",
    "from_image",
    "gather_frames",
    "image",
    "image_coords",
    "kind_of",
    "only_usable",
    "over_frames",
    "whole_frames",
]

Array: TypeAlias = npt.NDArray[Any]
ImageMethod: TypeAlias = Literal["nearest", "area"]
MAX_ENTRIES = 1 << 30  # of a table: pixels times the cells that each covers
BLOCK_BYTES = 1 << 28  # of frames that are brought together from chunks of segments


@overload
def image(
    obj: xr.DataArray,
    *,
    method: ImageMethod = ...,
    pixel_size: float | None = ...,
    x: tuple[float, float] | None = ...,
    y: tuple[float, float] | None = ...,
) -> xr.DataArray: ...
@overload
def image(
    obj: xr.Dataset,
    *,
    method: ImageMethod = ...,
    pixel_size: float | None = ...,
    x: tuple[float, float] | None = ...,
    y: tuple[float, float] | None = ...,
) -> xr.Dataset: ...
def image(
    obj: xr.DataArray | xr.Dataset,
    *,
    method: ImageMethod = "nearest",
    pixel_size: float | None = None,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
) -> xr.DataArray | xr.Dataset:
    """Assemble pixels to a picture on a regular grid, as seen looking downstream.

    Parameters
    ----------
    obj
        Any array over (segment, row, column) with a geometry: data, masks, reasons, stacks with further dims; whole or
        a slice. A Dataset of values and their variance (``<name>_variance``) carries the variance along.
    method
        ``"nearest"``: each pixel goes to the image pixel that holds its centre (psana's way); ``"area"``: to all that
        it covers, weighted by the area they share, so that wide pixels fill their place.
    pixel_size
        Of the image, in m; None: the smallest pitch of the detector.
    x, y
        (low, high) in m: only this part of the picture.

    Returns
    -------
    DataArray (..., image_y, image_x) as lazy as ``obj``. Where several pixels meet, the (weighted) mean of those
    that are valid; NaN in gaps and where no valid pixel is. Integers become floats (float32 up to 16 bits, else
    float64); a mask stays boolean (True where all pixels are; gaps False); reasons are united (gaps ``missing``).
    ``image_x`` and ``image_y`` are centres in m and fall: row 0 is at the top and column 0 at the left, where x is
    largest. ``n_pixels`` says how many pixels an image pixel takes from. Of a Dataset: a Dataset of the picture and
    its variance, which with ``"area"`` is that of each image pixel by itself: neighbours then share pixels.

    Raises
    ------
    GeometryError
        Data without a geometry.
    ParameterError
        An invalid image size or limit.
    PlanError
        An area-weighted image of so small pixels that its table would not fit into memory.

    Notes
    -----
    psana's ``det.raw.image`` has the same shape, rows and columns, but fills gaps with another value and takes the
    last of several pixels. All parts of a detector lie on one grid. Tables (some 12 bytes per pixel, more with
    ``"area"``) are made once per process; a frame then costs some 2 ns per pixel, 5 ns and more with ``"area"``.
    Segments that are missing or damaged are gaps.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> from xsmall.detector.geometry.geometry import Panel
    >>> from xsmall.frames.pixels import assign_geometry
    >>> panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(2, 3))
    >>> data = xr.DataArray(np.arange(6.0).reshape(1, 2, 3), dims=("segment", "row", "column"))
    >>> image(assign_geometry(data, xs.Geometry.from_panels([panel]))).values
    array([[5., 4., 3.],
           [2., 1., 0.]])
    """
    if method not in ("nearest", "area"):
        raise ParameterError("unknown way to make an image", found=method, expected="'nearest' or 'area'")
    values, variance = values_and_variance(obj, PIXELS)
    frames = whole_frames(values)
    geometry, part = need_geometry(frames), Part.of(frames)
    grid = part_grid(geometry, part, pixel_size).within(x, y)
    area = method == "area"
    if area:
        check_table(geometry, part, grid)
    kind = kind_of(values)
    sizes = {IMAGE_Y: grid.n_y, IMAGE_X: grid.n_x}
    out = over_frames(
        frames,
        _assemble_images,
        {"geometry": geometry, "part": part, "grid": grid, "area": area, "kind": kind},
        sizes,
        [float_dtype(values)],
    )[0]
    coords: dict[str, Any] = dict(image_coords(grid))
    counts = _pixels_per_cell(geometry, part, grid, area, lazy=frames.chunks is not None)
    coords[N_PIXELS] = ((IMAGE_Y, IMAGE_X), counts, {UNITS: DIMENSIONLESS, LONG_NAME: "pixels that meet here"})
    picture = out.assign_coords(coords).rename(values.name).assign_attrs(values.attrs)
    if variance is None:
        return picture.to_dataset() if isinstance(obj, xr.Dataset) else picture
    table = geometry, part, grid, area
    variances = variance_of_cells(frames, whole_frames(variance), gather_frames, image_table, table, sizes)
    named = {f"{values.name}{VARIANCE_SUFFIX}": variances.assign_attrs(variance_attrs(variance))}
    return paired(picture.to_dataset().assign(named))


def image_coords(grid: Grid) -> dict[str, tuple[str, Array, dict[str, str]]]:
    """Centres of the image pixels: dim, values and attributes of each coordinate."""
    coords = {IMAGE_Y: (IMAGE_Y, grid.image_y), IMAGE_X: (IMAGE_X, grid.image_x)}
    names = {IMAGE_Y: "y, lab frame, upwards", IMAGE_X: "x, lab frame, to the left when looking along the beam"}
    return {k: (d, v, {UNITS: UNITS_OF[k], LONG_NAME: names[k]}) for k, (d, v) in coords.items()}


def from_image(values: xr.DataArray | Array, obj: xr.DataArray | Geometry) -> xr.DataArray:
    """Take an array over the picture back to the pixels: a mask drawn on an image becomes one in memory.

    Parameters
    ----------
    values
        Array (image_y, image_x): a DataArray made from :func:`image`, or a plain array of the whole image's shape,
        which is psana's, row 0 at the top and column 0 at the left.
    obj
        Data with a geometry, or a geometry: the pixels that are asked for.

    Returns
    -------
    DataArray (segment, row, column): for each pixel the value of the image pixel that holds its centre; NaN, False or 0
    for pixels without a place in space.

    Raises
    ------
    DataError
        An array of another shape, or an image that does not reach over all pixels.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(-1e-4, 0, 0), shape=(2, 3))
    >>> drawn = np.array([[True, False, False], [False, False, True]])
    >>> xs.from_image(drawn, xs.Geometry.from_panels([panel])).values
    array([[[ True, False, False],
            [False, False,  True]]])
    """
    from xsmall.detector.geometry.grids import detector_grid
    from xsmall.frames.mask import Target

    target = Target.of(obj)
    geometry = target.need_geometry("images")
    x, y = (geometry.positions()[..., k] for k in (0, 1))
    if isinstance(values, xr.DataArray):
        picture = values.transpose(IMAGE_Y, IMAGE_X)
        steps = [np.diff(picture.coords[d].values) for d in (IMAGE_Y, IMAGE_X)]
        if any(s.size == 0 or not np.allclose(s, s[0], rtol=1e-6) for s in steps) or not steps[0][0] * steps[1][0] > 0:
            raise DataError("not a regular image", found=dict(picture.sizes), expected="an image made by .sd.image()")
        step = float(-steps[1][0])
        grid = Grid(float(picture[IMAGE_X][0]), float(picture[IMAGE_Y][0]), step, 0, 0, *picture.shape[::-1])
        data = picture.values
    else:
        data, grid = np.asarray(values), detector_grid(geometry)
        if data.shape != (grid.n_y, grid.n_x):
            raise DataError("an image of another detector", found=data.shape, expected=(grid.n_y, grid.n_x))
    cell = grid.cells(x, y)
    outside = target.labelled((cell < 0) & np.isfinite(x), None, {}).values
    if outside.any():
        raise DataError("the image does not reach over all pixels", found=f"{int(outside.sum())} lie outside of it")
    taken = np.where(cell >= 0, data.reshape(-1)[np.maximum(cell, 0)], _nowhere(data.dtype))
    return target.labelled(taken, None, {})


def check_table(geometry: Geometry, part: Part, grid: Grid) -> None:
    """Refuse an area-weighted image whose table no memory would hold."""
    pitch = max(max(panel.pitch) for panel in geometry.panels)
    entries = part.size * (pitch / grid.step + 1) ** 2
    if entries > MAX_ENTRIES:
        raise PlanError(
            "the table of an area-weighted image would be too large",
            found=f"some {format_bytes(8 * entries)} for pixels of {grid.step:g} m",
            expected=f"at most {format_bytes(8 * MAX_ENTRIES)}",
            fix="give a larger pixel_size, or cut the detector to the part that matters",
        )


def _nowhere(dtype: np.dtype[Any]) -> Any:
    """What a pixel without a place gets: NaN, False or 0."""
    return np.array(np.nan if dtype.kind == "f" else 0).astype(dtype)


# ---- what both share ----------------------------------------------------------------------------------------------


def kind_of(obj: xr.DataArray) -> Literal["mean", "all", "flags"]:
    """What is done with several pixels in one place."""
    if obj.dtype == np.bool_:
        return "all"
    if obj.dtype.kind in "ui" and FLAG_MEANINGS in obj.attrs:
        return "flags"
    if obj.dtype.kind not in "uif":
        raise DataError("no picture can be made of these", found=obj.dtype, expected="numbers or booleans")
    return "mean"


def float_dtype(obj: xr.DataArray) -> np.dtype[Any]:
    kind = kind_of(obj)
    if kind == "all":
        return np.dtype(bool)
    if kind == "flags":
        return np.dtype(np.uint32)
    small = obj.dtype.itemsize <= (4 if obj.dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def whole_frames(obj: xr.DataArray) -> xr.DataArray:
    """Frames with all three pixel dims, whole within a chunk, and absent segments as NaN."""
    need_geometry(obj)
    for dim in PIXEL_DIMS:
        if dim not in obj.dims:
            if dim not in obj.coords:
                raise DataError(
                    f"the pixels have lost their {dim}", found=f"dims {obj.dims}", fix="make the image before"
                )
            obj = obj.expand_dims(dim)
    obj = only_usable(obj)
    obj = obj.drop_vars([n for n, c in obj.coords.items() if set(c.dims) & set(PIXEL_DIMS) and n not in PIXEL_DIMS])
    if obj.chunks is None:
        return obj if isinstance(obj.variable._data, np.ndarray) else obj.chunk()
    split = [d for d in PIXEL_DIMS if len(obj.chunksizes[d]) > 1]
    if not split:
        return obj
    frame = obj.dtype.itemsize * int(np.prod([obj.sizes[d] for d in PIXEL_DIMS]))
    sizes: dict[Any, Any] = dict.fromkeys(PIXEL_DIMS, -1)
    lead = [d for d in obj.dims if d not in PIXEL_DIMS]
    if lead:
        most = max(1, BLOCK_BYTES // frame)
        sizes[lead[0]] = min(most, max(obj.chunksizes[lead[0]]))
    return obj.chunk(sizes)


def only_usable(obj: xr.DataArray) -> xr.DataArray:
    """Numbers of segments that may not be used as NaN; nothing is done where all may."""
    if kind_of(obj) != "mean" or not _has_state(obj):
        return obj
    usable = usable_segments(obj)
    if followed_kinds(obj) and set(obj.dims) in (set(FRAME_DIMS), set(PIXEL_DIMS)) and follows(data_of(obj)):
        return _left_out_of_words(obj, usable)
    if usable is None:
        return obj
    axes = tuple(slice(None) if dim in obj.dims else 0 for dim in (EVENT, SEGMENT))
    dims = [dim for dim in (EVENT, SEGMENT) if dim in obj.dims]
    return obj.astype(float_dtype(obj)).where(xr.DataArray(usable[axes], dims=dims))


def _left_out_of_words(obj: xr.DataArray, usable: npt.NDArray[np.bool_] | None) -> xr.DataArray:
    """Lazy numbers as floats, NaN where they are computed of segments that are none, wherever these were."""
    frames = obj.transpose(*(d for d in FRAME_DIMS if d in obj.dims))
    data = frames.data if EVENT in frames.dims else frames.data[None]
    floats = usable_floats(data, usable, float_dtype(obj), followed_kinds(obj))
    return frames.copy(data=floats if EVENT in frames.dims else floats[0]).transpose(*obj.dims)


def _has_state(obj: xr.DataArray) -> bool:
    """Whether coordinates still say it of these very events and segments, rather than of what was averaged."""
    said = {d for name in (PRESENT, DAMAGE) if name in obj.coords for d in obj.coords[name].dims}
    return said <= ({EVENT, SEGMENT} & set(obj.dims))


def over_frames(
    frames: xr.DataArray, function: Any, arguments: dict[str, Any], sizes: dict[str, int], dtypes: list[np.dtype[Any]]
) -> list[xr.DataArray]:
    """Run ``function`` over blocks of whole frames; pixel coordinates go, those of the other dims stay as they are."""
    bare = frames.drop_vars([n for n, c in frames.coords.items() if set(c.dims) & set(PIXEL_DIMS)])
    out = xr.apply_ufunc(
        function,
        bare,
        kwargs=arguments,
        input_core_dims=[list(PIXEL_DIMS)],
        output_core_dims=[list(sizes)] * len(dtypes),
        dask="parallelized",
        output_dtypes=dtypes,
        dask_gufunc_kwargs={"output_sizes": sizes},
        keep_attrs=True,  # of the coordinates: their units
    )
    several = list(out) if isinstance(out, tuple) else [out]
    for one in several:
        one.attrs = {}  # drop_attrs copies the numbers
    return several


def gather_frames(block: Array, table: CellTable, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Mean and weight of each cell, for frames (..., segment, row, column)."""
    shape = (*block.shape[:-3], table.start.size - 1)
    total = np.empty((math.prod(block.shape[:-3]), shape[-1]), dtype=np.float32)
    return _gathered(block, table, dtype, total), total.reshape(shape)


def _gathered(block: Array, table: CellTable, dtype: np.dtype[Any], total: Array | None = None) -> Array:
    """Mean of each cell; the weights go into ``total``."""
    from xsmall.kernels.image import gather

    stack = _flat_frames(block)
    mean = np.empty((len(stack), table.start.size - 1), dtype=dtype)
    for first in range(0, len(stack), GROUP):  # a few frames at a time: an integer stack is not held as floats
        some = slice(first, first + GROUP)
        weights = None if total is None else total[some]
        gather(stack[some].astype(dtype, copy=False), table.start, table.pixel, table.weight, mean[some], weights)
    return mean.reshape(*block.shape[:-3], table.start.size - 1)


def _means(block: Array, table: CellTable, dtype: np.dtype[Any]) -> Array:
    """Mean of each cell; hardly more than a copy where few pixels meet."""
    from xsmall.kernels.image import take

    if table.weight.size:
        return _gathered(block, table, dtype)
    stack = _flat_frames(block)
    out = np.empty((len(stack), table.first.size), dtype=dtype)
    for i in range(len(stack)):
        frame = stack[i : i + 1].astype(dtype, copy=False)
        take(frame, table.first, table.several, table.start, table.pixel, out[i : i + 1])
    return out.reshape(*block.shape[:-3], table.first.size)


def _flat_frames(block: Array) -> Array:
    return np.ascontiguousarray(block.reshape(-1, int(np.prod(block.shape[-3:]))))


def _assemble_images(block: Array, geometry: Geometry, part: Part, grid: Grid, area: bool, kind: str) -> Array:
    """Images of frames (..., segment, row, column)."""
    from xsmall.kernels.image import gather_flags

    table = image_table(geometry, part, grid, area)
    shape = (*block.shape[:-3], grid.n_y, grid.n_x)
    if kind == "flags":
        stack = _flat_frames(block).astype(np.uint32, copy=False)
        out = np.empty((len(stack), grid.n_y * grid.n_x), dtype=np.uint32)
        gather_flags(stack, table.start, table.pixel, np.uint32(Reason.MISSING), out)
        return out.reshape(shape)
    if kind == "all":
        return np.asarray(_means(block, table, np.dtype(np.float32)) == 1.0).reshape(shape)
    wide = block.dtype.itemsize > (4 if block.dtype.kind == "f" else 2)
    return _means(block, table, np.dtype(np.float64 if wide else np.float32)).reshape(shape)


def _pixels_per_cell(geometry: Geometry, part: Part, grid: Grid, area: bool, *, lazy: bool) -> Any:
    """Pixels that meet in each image pixel: int32 (image_y, image_x)."""
    if not lazy:
        return image_table(geometry, part, grid, area).counts.reshape(grid.n_y, grid.n_x)
    task = delayed(_pixel_counts, pure=True, traverse=False)(geometry, part, grid, area)
    return da.from_delayed(task, (grid.n_y, grid.n_x), dtype=np.int32)


def _pixel_counts(geometry: Geometry, part: Part, grid: Grid, area: bool) -> npt.NDArray[np.int32]:
    return image_table(geometry, part, grid, area).counts.reshape(grid.n_y, grid.n_x)
