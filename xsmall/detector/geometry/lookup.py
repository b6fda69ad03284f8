"""The way back from space to memory: tables of a geometry for :mod:`xsmall.kernels.locate`, made once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, GeometryError

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry
    from xsmall.detector.geometry.panel import Panel, PixelAxis

__all__ = ["LookupTables", "locate_pixels", "lookup_tables"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Counts = npt.NDArray[np.uint32]

CELLS_PER_PANEL = (
    16  # along an axis: a cell is small beside a panel, and the grid of a 16-Mpixel detector has 16k cells
)
MAX_CELLS = 512  # along an axis
EDGE_ON = 1e-6  # a panel seen at less than this part of its area has no inside


@dataclass(frozen=True, eq=False)
class LookupTables:
    """The arguments of the kernel ``locate`` that come from the geometry, in its order."""

    grid: Floats
    cells: Counts
    candidates: Counts
    panels: Floats
    memory: Counts
    low: Floats
    high: Floats
    guess: Counts

    def arguments(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the tables as the kernel takes them."""
        return self.grid, self.cells, self.candidates, self.panels, self.memory, self.low, self.high, self.guess


def locate_pixels(geometry: Geometry, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Ints, Ints, Ints]:
    """Find the pixel under points of space.

    A point (x, y) stands for the line parallel to the beam (along z) through it: a tilted panel is seen as it projects
    on the plane across the beam. Where panels lie behind each other the one nearest to the sample (smallest z) is
    taken, and the first one in memory of two at the same z.

    Parameters
    ----------
    geometry
        The detector.
    x, y
        Points in m, lab frame (x to the left when looking along the beam, y up), of the same shape.

    Returns
    -------
    Segment, row and column in the whole detector, int32 of that shape; -1 where no pixel is: in gaps and outside.

    Raises
    ------
    DataError
        ``x`` and ``y`` of different shapes or not real numbers.

    Notes
    -----
    A pixel reaches to its borders: a wide one fills the space to the join of the ASICs; a hexagonal one is taken for
    the rectangle of its row. Cost: some 20 to 40 ns per point.

    Examples
    --------
    >>> from xsmall.detector.geometry.geometry import Geometry, Panel
    >>> panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> locate_pixels(Geometry.from_panels([panel]), [3e-4, 1.0], [2e-4, 0.0])[1].tolist()
    [2, -1]
    """
    from xsmall.kernels.locate import locate

    xs, ys = np.asarray(x), np.asarray(y)
    for values in (xs, ys):
        if values.dtype.kind not in "fiu":
            raise DataError("coordinates of points are real numbers in m", found=values.dtype, expected="float64")
    if xs.shape != ys.shape:
        raise DataError("x and y of points differ in shape", found=f"{xs.shape} and {ys.shape}", expected="the same")
    out = tuple(np.empty(xs.shape, dtype=np.int32) for _ in range(3))
    flat_x = np.ascontiguousarray(xs, dtype=np.float64).reshape(-1)
    flat_y = np.ascontiguousarray(ys, dtype=np.float64).reshape(-1)
    locate(flat_x, flat_y, *lookup_tables(geometry).arguments(), *(a.reshape(-1) for a in out))
    return out[0], out[1], out[2]


@lru_cache(maxsize=16)
def lookup_tables(geometry: Geometry) -> LookupTables:
    """Make the tables of a geometry; kept for the last few geometries of the process.

    Raises
    ------
    GeometryError
        Every panel is seen edge-on, so no point lies on one.
    """
    seen = [(i, p) for i, p in enumerate(geometry.panels) if _seen_area(p) > EDGE_ON * p.pitch[0] * p.pitch[1]]
    if not seen:
        raise GeometryError(
            "no panel faces the sample along the beam", expected="at least one that is not seen edge-on"
        )
    axes = _Axes()
    panels = np.empty((len(seen), 14))
    memory = np.empty((len(seen), 7), dtype=np.uint32)
    boxes = np.empty((len(seen), 4))
    for i, (number, panel) in enumerate(seen):
        rows, columns = axes.entry(panel.row_axis), axes.entry(panel.column_axis)
        panels[i] = (*_affine(panel), rows.first, rows.length, columns.first, columns.length)
        segment = number if panel.segment is None else panel.segment
        memory[i] = (segment, panel.row, panel.column, rows.guess, rows.border, columns.guess, columns.border)
        boxes[i] = _panel_bounds(panel)
    borders = np.concatenate(axes.lows), np.concatenate(axes.highs)
    return LookupTables(*_coarse_grid(boxes), panels, memory, *borders, np.concatenate(axes.guesses))


class _AxisEntry(NamedTuple):
    """Where an axis stands in the tables: its first border and length in pitches, first guess and first border."""

    first: float
    length: float
    guess: int
    border: int


class _Axes:
    """Borders of the pixels of all kinds of axes, one after the other, and where to start looking among them."""

    def __init__(self) -> None:
        self.lows: list[Floats] = []
        self.highs: list[Floats] = []
        self.guesses: list[Counts] = []
        self._entries: dict[PixelAxis, _AxisEntry] = {}

    def entry(self, axis: PixelAxis) -> _AxisEntry:
        """Find the place of an axis, which is entered when it is new."""
        if axis not in self._entries:
            borders = axis.edges()
            first = float(borders[0, 0])
            low, high = borders[:, 0] - first, borders[:, 1] - first
            guess = np.searchsorted(high, np.arange(int(high[-1]) + 1), side="right").astype(np.uint32)
            counts = (sum(map(len, self.guesses)), sum(map(len, self.lows)))
            self._entries[axis] = _AxisEntry(first, float(high[-1]), *counts)
            self.lows.append(low)
            self.highs.append(high)
            self.guesses.append(guess)
        return self._entries[axis]


def _seen_area(panel: Panel) -> float:
    """Area of a regular pixel as seen along the beam, m2."""
    return abs(panel.slow[0] * panel.fast[1] - panel.slow[1] * panel.fast[0])


def _affine(panel: Panel) -> list[float]:
    """Origin, the inverse of the map from pitches to x and y, the rise of z, and the shift of odd rows."""
    (sx, sy, sz), (fx, fy, fz) = panel.slow, panel.fast
    determinant = sx * fy - sy * fx
    a_x, a_y, b_x, b_y = fy / determinant, -fx / determinant, -sy / determinant, sx / determinant
    rise = (sz * a_x + fz * b_x, sz * a_y + fz * b_y)
    return [*panel.origin, a_x, a_y, b_x, b_y, *rise, panel.column_axis.stagger]


def _panel_bounds(panel: Panel) -> tuple[float, float, float, float]:
    """Smallest and largest x, smallest and largest y of the panel, borders included, m."""
    a = panel.row_axis.edges()[[0, -1], [0, 1]]
    b = panel.column_axis.edges()[[0, -1], [0, 1]]
    stagger = panel.column_axis.stagger
    b = b + np.array([min(stagger, 0.0), max(stagger, 0.0)])
    x, y = (panel.origin[k] + a[:, None] * panel.slow[k] + b * panel.fast[k] for k in (0, 1))
    return float(x.min()), float(x.max()), float(y.min()), float(y.max())


def _coarse_grid(boxes: Floats) -> tuple[Floats, Counts, Counts]:
    """Square cells over all panels and, for each, the panels whose box it touches, in order."""
    x_low, x_high, y_low, y_high = boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max()
    narrow = min((boxes[:, 1] - boxes[:, 0]).min(), (boxes[:, 3] - boxes[:, 2]).min())
    size = max(narrow / CELLS_PER_PANEL, max(x_high - x_low, y_high - y_low) / MAX_CELLS)
    n_x, n_y = int((x_high - x_low) / size) + 1, int((y_high - y_low) / size) + 1
    touching: list[list[int]] = [[] for _ in range(n_x * n_y)]
    for p, (left, right, bottom, top) in enumerate(boxes):
        columns = range(max(0, int((left - x_low) / size - 1e-6)), min(n_x, int((right - x_low) / size + 1e-6) + 1))
        rows = range(max(0, int((bottom - y_low) / size - 1e-6)), min(n_y, int((top - y_low) / size + 1e-6) + 1))
        for j in rows:
            for i in columns:
                touching[j * n_x + i].append(p)
    cells = np.zeros(n_x * n_y + 1, dtype=np.uint32)
    np.cumsum([len(t) for t in touching], out=cells[1:])
    candidates = np.array([p for t in touching for p in t], dtype=np.uint32)
    return np.array([x_low, y_low, 1.0 / size, n_x, n_y]), cells, candidates
