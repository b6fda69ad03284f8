"""Regular grids over the plane across the beam, and the extent of a part of a detector on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.detector.part import Part
from xsmall.errors import GeometryError, ParameterError

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry
    from xsmall.detector.geometry.panel import Panel

__all__ = ["Grid", "PolarGrid", "centres_of", "detector_grid", "panels_of", "part_grid", "shift_of"]

Floats: TypeAlias = npt.NDArray[np.float64]

ON_EDGE: Final = 1e-6
"""Pixel centres that lie on a border of two cells but for rounding (in cells) go to the one of larger index."""
MAX_CELLS: Final = 1 << 29


@dataclass(frozen=True)
class Grid:
    """Square cells over the plane across the beam, as a picture that looks downstream.

    Row 0 is at the top (largest y), column 0 at the left (largest x), as in psana's images. Parts of one detector lie
    on the same grid, so that their images can be combined.

    Parameters
    ----------
    x, y
        Centre in m of the cell that row and column count from.
    step
        Size of a cell, m.
    first_column, first_row
        Of the part of the grid.
    n_x, n_y
        Its columns and rows.
    """

    x: float
    y: float
    step: float
    first_column: int
    first_row: int
    n_x: int
    n_y: int

    @property
    def image_x(self) -> Floats:
        """Centres of the columns in m, falling."""
        return np.asarray(self.x - (self.first_column + np.arange(self.n_x)) * self.step, dtype=np.float64)

    @property
    def image_y(self) -> Floats:
        """Centres of the rows in m, falling."""
        return np.asarray(self.y - (self.first_row + np.arange(self.n_y)) * self.step, dtype=np.float64)

    def indices(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Column and row of points in m, fractional; whole numbers are centres of cells."""
        return (self.x - x) / self.step - self.first_column, (self.y - y) / self.step - self.first_row

    def cells(self, x: Floats, y: Floats) -> npt.NDArray[np.int32]:
        """Cell (row, column flattened) that holds each point, -1 outside and for NaN."""
        column, row = (np.floor(i + 0.5 + ON_EDGE) for i in self.indices(x, y))
        held = (column >= 0) & (column < self.n_x) & (row >= 0) & (row < self.n_y)
        return np.where(held, np.where(held, row, 0) * self.n_x + np.where(held, column, 0), -1).astype(np.int32)

    def within(self, x: tuple[float, float] | None, y: tuple[float, float] | None) -> Grid:
        """Rows and columns whose centre lies within limits in m."""
        columns, rows = np.arange(self.n_x), np.arange(self.n_y)
        if x is not None:
            columns = columns[_within_limits(self.image_x, x, "x")]
        if y is not None:
            rows = rows[_within_limits(self.image_y, y, "y")]
        return replace(
            self,
            first_column=self.first_column + int(columns[0]),
            first_row=self.first_row + int(rows[0]),
            n_x=len(columns),
            n_y=len(rows),
        )


def _within_limits(centres: Floats, limits: tuple[float, float], name: str) -> npt.NDArray[np.bool_]:
    try:
        pair = np.asarray(limits, dtype=np.float64)
    except (TypeError, ValueError):
        pair = np.empty(0)
    if pair.shape != (2,) or not pair[0] < pair[1]:
        raise ParameterError(f"{name} of an image", found=limits, expected="(low, high) in m with low < high")
    chosen = (centres >= pair[0]) & (centres <= pair[1])
    if not chosen.any():
        raise ParameterError(
            f"no pixel of the image has {name} within these limits",
            found=limits,
            expected=f"within {centres.min():.6g} to {centres.max():.6g} m",
        )
    return np.asarray(chosen)


@lru_cache(maxsize=64)
def detector_grid(geometry: Geometry, pixel_size: float | None = None) -> Grid:
    """Grid that holds the centres of all pixels, as psana's image has it.

    Parameters
    ----------
    geometry
        The detector.
    pixel_size
        Size of a cell in m; None: the smallest pitch of the detector.

    Raises
    ------
    ParameterError
        An invalid size, or so small that the grid would have more than half a billion cells.

    Examples
    --------
    >>> from xsmall.detector.geometry.geometry import Geometry, Panel
    >>> panel = Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(-1e-4, 0, 0), shape=(4, 5))
    >>> grid = detector_grid(Geometry.from_panels([panel]))
    >>> grid.n_y, grid.n_x
    (4, 5)
    """
    pitch = min(min(panel.pitch) for panel in geometry.panels)
    number = isinstance(pixel_size, int | float | np.integer | np.floating)
    step = float(f"{pitch:.9g}") if pixel_size is None else float(pixel_size) if number else np.nan
    if not (np.isfinite(step) and 0 < step < 1):
        raise ParameterError("size of an image pixel", found=pixel_size, expected="m, above 0", fix="pixel_size=75e-6")
    x_low, x_high, y_low, y_high = _part_extent(geometry, Part.whole(geometry.shape))
    return _grid(x_high, y_high, step, (x_low, x_high, y_low, y_high))


def part_grid(geometry: Geometry, part: Part, pixel_size: float | None = None) -> Grid:
    """The rows and columns of :func:`detector_grid` that a part of the detector needs."""
    whole = detector_grid(geometry, pixel_size)
    return _grid(whole.x, whole.y, whole.step, _part_extent(geometry, part))


def _grid(x: float, y: float, step: float, extent: tuple[float, float, float, float]) -> Grid:
    x_low, x_high, y_low, y_high = extent
    column, row = (int(np.floor((a - b) / step + 0.5 + ON_EDGE)) for a, b in ((x, x_high), (y, y_high)))
    last_column, last_row = ((a - b) / step + 0.5 + ON_EDGE for a, b in ((x, x_low), (y, y_low)))
    if (last_column - column + 1) * (last_row - row + 1) > MAX_CELLS:
        raise ParameterError(
            "the image would be too large",
            found=f"{last_row - row:.3g} x {last_column - column:.3g} pixels of {step:g} m",
            expected=f"less than {MAX_CELLS:g} pixels",
            fix="give a larger pixel_size, or cut the detector to the part that matters",
        )
    return Grid(x, y, step, column, row, int(last_column) - column + 1, int(last_row) - row + 1)


@dataclass(frozen=True)
class PolarGrid:
    """Bins of radius (m, from the beam centre) and azimuth (degrees from +x towards +y)."""

    center: tuple[float, float]
    radius: tuple[float, float]
    n_radius: int
    azimuth: tuple[float, float]
    n_azimuth: int

    @property
    def radii(self) -> Floats:
        """Centres of the bins in m."""
        low, high = self.radius
        centres: Floats = low + (np.arange(self.n_radius) + 0.5) * (high - low) / self.n_radius
        return centres

    @property
    def azimuths(self) -> Floats:
        """Centres of the bins in degrees."""
        low, high = self.azimuth
        centres: Floats = low + (np.arange(self.n_azimuth) + 0.5) * (high - low) / self.n_azimuth
        return centres


# ---- pixels of a part of the detector -------------------------------------------------------------------------------


def panels_of(
    geometry: Geometry, part: Part
) -> Iterator[tuple[Panel, npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int32]]]:
    """Each panel that the part touches: its rows and columns that are there, and their places in the part."""
    segments = {label: i for i, label in enumerate(part.segment)}
    row_labels, column_labels = np.array(part.row, dtype=np.intp), np.array(part.column, dtype=np.intp)
    for panel in geometry.panels:
        segment, row_slice, column_slice = panel.memory
        if segment not in segments:
            continue
        at_row = np.flatnonzero((row_labels >= row_slice.start) & (row_labels < row_slice.stop))
        at_column = np.flatnonzero((column_labels >= column_slice.start) & (column_labels < column_slice.stop))
        if at_row.size and at_column.size:
            first = segments[segment] * len(row_labels)
            pixel = ((first + at_row[:, None]) * len(column_labels) + at_column).astype(np.int32)
            yield panel, row_labels[at_row] - row_slice.start, column_labels[at_column] - column_slice.start, pixel


def shift_of(panel: Panel, rows: npt.NDArray[np.intp]) -> Floats:
    """Shift along fast of each row, in pitches: (row, 1)."""
    shift: Floats = panel.column_axis.stagger * (rows % 2).astype(np.float64)
    return shift[:, None]


def centres_of(
    panel: Panel, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], axes: Iterable[int] = (0, 1)
) -> list[Floats]:
    """x and y in m of pixel centres, or other ``axes`` of x, y, z: each (row, column)."""
    a = panel.row_axis.centres()[rows][:, None]
    b = panel.column_axis.centres()[columns] + shift_of(panel, rows)
    return [panel.origin[k] + a * panel.slow[k] + b * panel.fast[k] for k in axes]


@lru_cache(maxsize=64)
def _part_extent(geometry: Geometry, part: Part) -> tuple[float, float, float, float]:
    """Smallest and largest x, smallest and largest y of the centres of a part of the detector, m."""
    boxes = []
    for panel, rows, columns, _ in panels_of(geometry, part):
        rows = np.sort(rows)  # labels may come in any order
        ends = np.concatenate([rows[:2], rows[-2:]])  # two of each: odd rows may be shifted
        x, y = centres_of(panel, ends, np.array([columns.min(), columns.max()]))
        boxes.append((x.min(), x.max(), y.min(), y.max()))
    if not boxes:
        raise GeometryError("no pixel of these data lies on a panel of the geometry", found=part)
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return float(low[0]), float(high[1]), float(low[2]), float(high[3])
