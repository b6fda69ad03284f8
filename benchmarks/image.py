"""Frames of a Jungfrau 4M assembled to a picture and mapped to radius and azimuth."""

from __future__ import annotations

import numpy as np
import xarray as xr

from benchmarks import Case, read
from benchmarks.locate import jungfrau
from xsmall.detector.geometry.grids import part_grid
from xsmall.detector.geometry.imaging import image_table
from xsmall.detector.part import Part
from xsmall.frames.image import image
from xsmall.frames.pixels import assign_geometry
from xsmall.frames.polar import polar
from xsmall.vocabulary import FRAME_DIMS


def cases(scale: float) -> list[Case]:
    """Nearest, area-weighted, polar: two events each."""
    geometry = jungfrau(8 if scale == 1 else 1)
    values = np.random.default_rng(0).normal(5, 1, (2, *geometry.shape)).astype(np.float32)
    data = assign_geometry(xr.DataArray(values, dims=FRAME_DIMS), geometry)
    part = Part(*map(range, geometry.shape))
    grid = part_grid(geometry, part)
    at = geometry.positions()
    cell = grid.cells(at[..., 0], at[..., 1]).reshape(-1).astype(np.int64)
    n_cells = grid.n_x * grid.n_y
    frames = values.reshape(2, -1)
    image_table(geometry, part, grid, False)

    def assign() -> None:
        for frame in frames:
            picture = np.full(n_cells, np.nan, dtype=np.float32)
            picture[cell] = frame

    def bincount() -> None:
        for frame in frames:
            np.bincount(cell, weights=frame, minlength=n_cells) / np.maximum(np.bincount(cell, minlength=n_cells), 1)

    radius, azimuth = np.hypot(at[..., 0], at[..., 1]), np.degrees(np.arctan2(at[..., 1], at[..., 0]))
    bins = (360, polar(data).sizes["radius"])

    def histogram() -> None:
        for frame in frames:
            np.histogram2d(azimuth.ravel(), radius.ravel(), bins=bins, weights=frame)

    size = f"{geometry.shape[0] * 0.5:g} Mpixel"
    return [
        Case(
            f"image, nearest, {size}",
            lambda: image(data),
            2,
            {"NumPy, last pixel wins": assign, "NumPy bincount": bincount},
            read(values),
        ),
        Case(f"image, area-weighted, {size}", lambda: image(data, method="area"), 2, {}, read(values)),
        Case(f"polar, {size}, 4 x 4 points", lambda: polar(data), 2, {"NumPy histogram2d": histogram}, read(values)),
    ]
