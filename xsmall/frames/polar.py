"""Polar maps: frames over radius and azimuth around the beam, with the flux kept."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.grids import PolarGrid, part_grid
from xsmall.detector.geometry.imaging import polar_table
from xsmall.detector.part import Part
from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError
from xsmall.frames.beam import beam_of
from xsmall.frames.image import float_dtype, gather_frames, kind_of, over_frames, whole_frames
from xsmall.frames.image_variance import variance_attrs, variance_of_cells
from xsmall.frames.pixels import need_geometry
from xsmall.frames.variance import PIXELS, values_and_variance
from xsmall.vocabulary import AZIMUTH, INTENSITY, LONG_NAME, N_VALID, RADIUS, UNITS, UNITS_OF, VARIANCE_SUFFIX

__all__ = ["polar"]

Array: TypeAlias = npt.NDArray[Any]


def polar(
    obj: xr.DataArray | xr.Dataset,
    *,
    radius: tuple[float, float] | None = None,
    n_radius: int | None = None,
    azimuth: tuple[float, float] = (-180.0, 180.0),
    n_azimuth: int = 360,
    split: int = 4,
) -> xr.Dataset:
    """Map frames to radius and azimuth around the beam, keeping the flux.

    Each pixel is shared by ``split`` x ``split`` points; the bins they fall into get its value in proportion, so that
    the sum of ``intensity`` x ``n_valid`` is the sum of the valid pixels that lie within the limits.

    Parameters
    ----------
    obj
        Data over (segment, row, column) with a geometry, or a Dataset of them and their variance; centre and tilts come
        from ``assign_beam``, else the beam runs along z through (0, 0).
    radius
        (low, high) in m from the beam centre; None: from 0 to the farthest corner of the detector.
    n_radius
        Number of bins; None: one per pixel pitch.
    azimuth
        (low, high) in degrees from +x towards +y; the range may run through 180.
    n_azimuth
        Number of bins.
    split
        Points along each side of a pixel, 1 to 16; 1 gives each pixel to one bin.

    Returns
    -------
    Dataset (..., azimuth, radius) as lazy as ``obj``: ``intensity``, mean value per pixel, NaN in empty bins, and
    ``n_valid``, float32, the number of valid pixels in the bin, parts included. With variances also
    ``intensity_variance``, that of each bin by itself: neighbours share pixels.

    Raises
    ------
    GeometryError
        Data without a geometry.
    ParameterError
        Ranges out of order, invalid numbers of bins, a centre or tilt of the beam that got lost.
    DataError
        Masks or reasons, which have no mean.

    Notes
    -----
    Radius and azimuth are those of ``.sd.pixel``: the distance from the beam in the plane across it, and the angle
    around it, tilts included. Cost: the table of a 16-Mpixel detector takes some 4 s, once per process.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(2, 3))
    >>> data = xr.DataArray(np.ones((1, 2, 3)), dims=("segment", "row", "column"))
    >>> rings = xs.polar(xs.assign_geometry(data, xs.Geometry.from_panels([panel])), n_radius=3, n_azimuth=4)
    >>> float((rings.intensity * rings.n_valid).sum())
    6.0
    """
    values, variance = values_and_variance(obj, PIXELS)
    if kind_of(values) != "mean":
        raise DataError("masks and reasons have no mean", found=obj.dtype, fix="data.where(mask).sd.polar()")
    frames = whole_frames(values)
    geometry, center = _seen_along_beam(frames)
    part = Part.of(frames)
    grid = _polar_grid(center, geometry, part, radius, n_radius, azimuth, n_azimuth)
    if split not in range(1, 17):
        raise ParameterError("points along each side of a pixel", found=split, expected="an integer from 1 to 16")
    sizes = {AZIMUTH: grid.n_azimuth, RADIUS: grid.n_radius}
    intensity, n_valid = over_frames(
        frames,
        _map_polar,
        {"geometry": geometry, "part": part, "grid": grid, "split": split},
        sizes,
        [float_dtype(values), np.dtype(np.float32)],
    )
    coords = {
        AZIMUTH: (AZIMUTH, grid.azimuths, {UNITS: UNITS_OF[AZIMUTH], LONG_NAME: "from +x towards +y"}),
        RADIUS: (RADIUS, grid.radii, {UNITS: UNITS_OF[RADIUS], LONG_NAME: "distance from the beam centre"}),
    }
    out = xr.Dataset({INTENSITY: intensity, N_VALID: n_valid}).assign_coords(coords)
    out[INTENSITY].attrs = dict(values.attrs)
    if variance is not None:
        table = geometry, part, grid, split
        variances = variance_of_cells(frames, whole_frames(variance), gather_frames, polar_table, table, sizes)
        out[f"{INTENSITY}{VARIANCE_SUFFIX}"] = variances.assign_attrs(variance_attrs(variance))
    out[N_VALID].attrs = {UNITS: UNITS_OF[N_VALID], LONG_NAME: "valid pixels, parts included"}
    return paired(out)


def _map_polar(block: Array, geometry: Geometry, part: Part, grid: PolarGrid, split: int) -> tuple[Array, Array]:
    """Polar maps of frames (..., segment, row, column), and their valid pixels."""
    wide = block.dtype.itemsize > (4 if block.dtype.kind == "f" else 2)
    table = polar_table(geometry, part, grid, split)
    mean, total = gather_frames(block, table, np.dtype(np.float64 if wide else np.float32))
    shape = (*block.shape[:-3], grid.n_azimuth, grid.n_radius)
    return mean.reshape(shape), total.reshape(shape)


def _seen_along_beam(frames: xr.DataArray) -> tuple[Geometry, tuple[float, float]]:
    """Geometry as the beam sees it, and where in it the beam is; a tilted one is turned, centre and all."""
    geometry, beam = need_geometry(frames), beam_of(frames)
    if beam is None:
        return geometry, (0.0, 0.0)
    beam.need_all()
    return (beam.align(geometry), (0.0, 0.0)) if beam.tilted else (geometry, beam.center)


def _polar_grid(
    center: tuple[float, float],
    geometry: Geometry,
    part: Part,
    radius: tuple[float, float] | None,
    n_radius: int | None,
    azimuth: tuple[float, float],
    n_azimuth: int,
) -> PolarGrid:
    grid = part_grid(geometry, part)
    if radius is None:
        x, y = (np.array([v[0], v[-1]]) for v in (grid.image_x - center[0], grid.image_y - center[1]))
        radius = (0.0, float(np.hypot(np.abs(x).max() + grid.step, np.abs(y).max() + grid.step)))
    _check_ordered("radius", radius, 0.0, np.inf)
    _check_ordered("azimuth", azimuth, -720.0, 720.0)
    if azimuth[1] - azimuth[0] > 360.0:
        raise ParameterError("an azimuth range of more than a turn", found=azimuth, expected="360 degrees at most")
    n_bins = max(1, int(np.ceil((radius[1] - radius[0]) / grid.step))) if n_radius is None else n_radius
    for name, n in (("n_radius", n_bins), ("n_azimuth", n_azimuth)):
        if n not in range(1, 1 << 20):
            raise ParameterError(f"invalid {name}", found=n, expected="a number of bins")
    low, high = (float(v) for v in radius)
    return PolarGrid(center, (low, high), int(n_bins), (float(azimuth[0]), float(azimuth[1])), int(n_azimuth))


def _check_ordered(name: str, limits: tuple[float, float], lowest: float, highest: float) -> None:
    try:
        pair = np.asarray(limits, dtype=np.float64)
    except (TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,) or not (lowest <= pair[0] < pair[1] <= highest) or not np.isfinite(pair).all():
        raise ParameterError(f"limits of {name}", found=limits, expected="(low, high) with low < high")
