"""A small picture of what is known without reading: the data in memory, or the outlines of the panels."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.part import Part
from xsmall.frames.beam import beam_of
from xsmall.frames.image import image
from xsmall.frames.pixels import geometry_of
from xsmall.plot.detector import outlines
from xsmall.vocabulary import COLUMN, EVENT, FLAG_MEANINGS, IMAGE_X, IMAGE_Y, PIXEL_DIMS, ROW, SEGMENT

__all__ = ["layout_svg", "thumbnail_png"]

SIZE: Final = 200  # pixels along the longer side
_MOST_BYTES: Final = 256 * 2**20  # in memory, of which a picture is made


def thumbnail_png(obj: xr.DataArray) -> bytes | None:
    """Draw an array that is in memory, of events the middle one, in lab coordinates; None where that needs reading.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> png = thumbnail_png(xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("row", "column")))
    >>> png[1:4]
    b'PNG'
    """
    in_memory = obj.chunks is None and isinstance(obj.variable._data, np.ndarray)
    if not in_memory or obj.size == 0 or obj.nbytes > _MOST_BYTES:
        return None
    picture = _two_dims(obj)
    if picture is None:
        return None
    values = np.asarray(picture, dtype=np.float64)
    step = -(-max(values.shape) // SIZE)
    thin = values[::step, ::step]
    finite = thin[np.isfinite(thin)]
    if not finite.size:
        return None
    from matplotlib.image import imsave

    low, high = np.percentile(finite, (1, 99))
    target = io.BytesIO()
    imsave(target, thin, cmap="viridis", vmin=low, vmax=high if high > low else low + 1, format="png")
    return target.getvalue()


def _two_dims(obj: xr.DataArray) -> npt.NDArray[Any] | None:
    """Two dims of an array: assembled where it has a geometry, else as it lies in memory."""
    if EVENT in obj.dims:
        obj = obj.isel({EVENT: obj.sizes[EVENT] // 2})
    extra = [d for d in obj.dims if d not in (*PIXEL_DIMS, IMAGE_X, IMAGE_Y)]
    obj = obj.isel(dict.fromkeys(extra, 0))
    if FLAG_MEANINGS in obj.attrs:
        obj = (obj != 0).astype(np.float32)
    if obj.dtype == np.bool_:
        obj = obj.astype(np.float32)
    if {ROW, COLUMN} <= set(obj.dims):
        if geometry_of(obj) is not None and all(d in obj.coords for d in PIXEL_DIMS):
            return np.asarray(image(obj, pixel_size=_pixel_size(obj)).values)
        if SEGMENT in obj.dims:
            return np.asarray(obj.transpose(SEGMENT, ROW, COLUMN).values).reshape(-1, obj.sizes[COLUMN])
        return np.asarray(obj.transpose(ROW, COLUMN).values)
    if set(obj.dims) == {IMAGE_X, IMAGE_Y}:
        return np.asarray(obj.transpose(IMAGE_Y, IMAGE_X).values)
    return None


def _pixel_size(obj: xr.DataArray) -> float:
    from xsmall.detector.geometry.grids import part_grid

    geometry = geometry_of(obj)
    assert geometry is not None
    grid = part_grid(geometry, Part.of([np.atleast_1d(obj.coords[d].values) for d in PIXEL_DIMS]))
    return float(max(1, -(-max(grid.n_x, grid.n_y) // SIZE)) * grid.step)


def layout_svg(obj: xr.DataArray) -> str | None:
    """Outlines of the panels as SVG, seen looking downstream, with the beam; None without a geometry.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> layout_svg(sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)).count("<polyline")
    2
    """
    geometry = geometry_of(obj)
    if geometry is None:
        return None
    segments = set(np.atleast_1d(obj.coords[SEGMENT].values).tolist()) if SEGMENT in obj.coords else None
    lines = outlines(geometry, segments)
    if not lines:
        return None
    points = np.concatenate([np.asarray(line) for line in lines])
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    scale = SIZE / max(right - left, top - bottom, 1e-9)
    shapes = "".join(
        f'<polyline fill="#dbe7f3" stroke="#4477aa" points="{_svg_points(line, right, top, scale)}"/>' for line in lines
    )
    beam = beam_of(obj)
    if beam is not None and not beam.lost:
        x, y = ((right - 1e3 * beam.center[0]) * scale, (top - 1e3 * beam.center[1]) * scale)
        shapes += f'<path stroke="crimson" d="M{x - 6:.1f} {y:.1f}h12M{x:.1f} {y - 6:.1f}v12"/>'
    width, height = (right - left) * scale, (top - bottom) * scale
    box = f'viewBox="-4 -4 {width + 8:.1f} {height + 8:.1f}" width="{width + 8:.0f}" height="{height + 8:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{shapes}</svg>'


def _svg_points(line: list[list[float]], right: float, top: float, scale: float) -> str:
    return " ".join(f"{(right - x) * scale:.1f},{(top - y) * scale:.1f}" for x, y in line)
