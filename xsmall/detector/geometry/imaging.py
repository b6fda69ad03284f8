"""The sparse tables that take the pixels of a detector to the cells of a grid; made once per process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.geometry.grids import Grid, PolarGrid, centres_of, panels_of, shift_of
from xsmall.detector.part import Part

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry
    from xsmall.detector.geometry.panel import Panel

__all__ = ["CellTable", "image_table", "polar_table"]

Floats: TypeAlias = npt.NDArray[np.float64]
CellEntries: TypeAlias = tuple[npt.NDArray[Any], ...]  # cell, pixel, weight
_BLOCK: Final = 1 << 17  # pixels that are shared among cells at a time


@dataclass(frozen=True, eq=False)
class CellTable:
    """Pixels of each cell in compressed rows; an empty ``weight`` means 1 for each."""

    start: npt.NDArray[np.int32]
    pixel: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]

    @cached_property
    def first(self) -> npt.NDArray[np.int32]:
        """The first pixel of each cell, -1 where there is none."""
        first = np.full(self.start.size - 1, -1, dtype=np.int32)
        filled = self.counts > 0
        first[filled] = self.pixel[self.start[:-1][filled]]
        return first

    @cached_property
    def several(self) -> npt.NDArray[np.int32]:
        """The cells that take from more than one pixel."""
        return np.flatnonzero(self.counts > 1).astype(np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of the table, with those made later."""
        return 4 * (3 * self.start.size + self.pixel.size + self.weight.size)

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """How many pixels each cell takes from."""
        return np.diff(self.start)


def image_table(geometry: Geometry, part: Part, grid: Grid, area: bool) -> CellTable:
    """Table from the pixels of a part of the detector to the cells of a grid.

    Parameters
    ----------
    geometry, part
        The pixels, in the order of the array.
    grid
        The cells.
    area
        True: each pixel goes to all cells it covers, weighted by the area they share; False: to the one that holds
        its centre.
    """
    key = ("image", geometry.token, part, grid, area)
    return CACHE.get(key, lambda: _image_table(geometry, part, grid, area))


def polar_table(geometry: Geometry, part: Part, grid: PolarGrid, split: int) -> CellTable:
    """Table to bins (azimuth, radius): ``split`` x ``split`` points share a pixel, whose weights sum to 1."""
    key = ("polar", geometry.token, part, grid, split)
    return CACHE.get(key, lambda: _polar_table(geometry, part, grid, split))


def _image_table(geometry: Geometry, part: Part, grid: Grid, area: bool) -> CellTable:
    entries: list[CellEntries] = []
    for panel, rows, columns, pixel in panels_of(geometry, part):
        if not area:
            cell = grid.cells(*centres_of(panel, rows, columns)).reshape(-1)
            entries.append((cell, pixel.reshape(-1), np.empty(0, dtype=np.float32)))
            continue
        for some in _row_blocks(rows, columns):
            corners = _corners(panel, rows[some], columns)
            x, y = grid.indices(corners[..., 0], corners[..., 1])
            placed = np.stack([x, y], axis=-1) + 0.5
            entries.append(_share_area(placed, pixel[some].reshape(-1), grid, _most_cells(panel, grid)))
    return _cell_table(entries, grid.n_x * grid.n_y)


def _polar_table(geometry: Geometry, part: Part, grid: PolarGrid, split: int) -> CellTable:
    from xsmall.kernels.image import polar_cells

    radius = (grid.radius[0], (grid.radius[1] - grid.radius[0]) / grid.n_radius)
    azimuth = (grid.azimuth[0], (grid.azimuth[1] - grid.azimuth[0]) / grid.n_azimuth)
    entries: list[CellEntries] = []
    for panel, rows, columns, pixel in panels_of(geometry, part):
        for some in _row_blocks(rows, columns):
            corners = _corners(panel, rows[some], columns) - np.array(grid.center)
            shape = (corners.shape[0], split * split)
            cell, weight = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
            polar_cells(corners, split, radius, azimuth, (grid.n_radius, grid.n_azimuth), cell, weight)
            entries.append(_used_entries(cell, pixel[some].reshape(-1), weight))
    return _cell_table(entries, grid.n_radius * grid.n_azimuth)


def _share_area(corners: Floats, pixel: npt.NDArray[np.int32], grid: Grid, reach: int) -> CellEntries:
    from xsmall.kernels.image import share_area

    shape = (corners.shape[0], reach)
    cell, weight = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
    share_area(corners, (grid.n_x, grid.n_y), cell, weight)
    return _used_entries(cell, pixel, weight)


def _most_cells(panel: Panel, grid: Grid) -> int:
    """Cells that the largest pixel of a panel can touch."""
    row, column = panel.row_axis.sizes().max(), panel.column_axis.sizes().max()
    across, down = ((row * abs(panel.slow[k]) + column * abs(panel.fast[k])) / grid.step for k in (0, 1))
    return (int(across) + 2) * (int(down) + 2)


def _used_entries(
    cell: npt.NDArray[np.int32], pixel: npt.NDArray[np.int32], weight: npt.NDArray[np.float32]
) -> CellEntries:
    used = cell >= 0
    return cell[used], np.broadcast_to(pixel[:, None], cell.shape)[used], weight[used]


def _cell_table(entries: list[CellEntries], n_cells: int) -> CellTable:
    """Sort entries (cell, pixel, weight) by cell."""
    from xsmall.kernels.image import count_cells, sort_by_cell

    cell, entry_pixel, entry_weight = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    start = np.empty(n_cells + 1, dtype=np.int32)
    count_cells(cell, start)
    pixel = np.empty(start[-1], dtype=np.int32)
    weight = np.empty(start[-1] if entry_weight.size else 0, dtype=np.float32)
    sort_by_cell(cell, entry_pixel, entry_weight, start, pixel, weight)
    for array in (start, pixel, weight):
        array.flags.writeable = False
    return CellTable(start, pixel, weight)


def _row_blocks(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Iterator[slice]:
    step = max(1, _BLOCK // len(columns))
    return (slice(i, i + step) for i in range(0, len(rows), step))


def _corners(panel: Panel, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Floats:
    """x and y in m of the corners of pixels, in turn: float64 (pixel, 4, 2)."""
    a, b = panel.row_axis.edges()[rows], panel.column_axis.edges()[columns]
    corners = np.empty((len(rows), len(columns), 4, 2))
    for i, (low_high_a, low_high_b) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1))):
        along = a[:, low_high_a][:, None]
        across = b[:, low_high_b] + shift_of(panel, rows)
        for k in (0, 1):
            corners[:, :, i, k] = panel.origin[k] + along * panel.slow[k] + across * panel.fast[k]
    return corners.reshape(-1, 4, 2)
