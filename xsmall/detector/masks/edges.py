"""Reasons that follow from the geometry alone, for a whole detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xsmall.detector.masks import patterns
from xsmall.errors import ParameterError
from xsmall.vocabulary import Reason

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry
    from xsmall.detector.geometry.panel import Panel

__all__ = ["Width", "geometry_reasons", "psana_geometry_mask"]

Width = int | tuple[int, int]
"""Pixels on each side: one number, or (rows, columns)."""


def geometry_reasons(
    geometry: Geometry,
    *,
    edges: Width = 0,
    central: Width = 0,
    unbonded: bool = False,
    unbonded_neighbours: int | None = None,
) -> npt.NDArray[np.uint32]:
    """Flag edges, joins of ASICs and pixels that are not bonded, with their neighbours.

    Parameters
    ----------
    geometry
        The detector.
    edges
        Width of the edge of each segment (not of each ASIC).
    central
        Width on both sides of each join of two ASICs, or of two panels of one segment that touch in memory.
    unbonded
        Flag the pixels that are not bonded (CSPAD).
    unbonded_neighbours
        4 or 8: flag the pixels next to these.

    Returns
    -------
    uint32 (segment, row, column).

    Examples
    --------
    >>> from xsmall.detector.geometry.geometry import Geometry, Panel
    >>> panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 5))
    >>> int((geometry_reasons(Geometry.from_panels([panel]), edges=1) != 0).sum())
    14
    """
    edge_rows, edge_columns = _widths(edges, "edges")
    centre_rows, centre_columns = _widths(central, "central")
    flags = np.zeros(geometry.shape, dtype=np.uint32)
    for panels in _by_segment(geometry).values():
        segment, rows, columns = _memory_block(panels)
        block = flags[segment, rows, columns]
        marks = patterns.edge_pixels(block.shape, edge_rows, edge_columns) if edge_rows or edge_columns else None
        if marks is not None:
            block[marks] |= np.uint32(Reason.EDGE)
        if centre_rows or centre_columns:
            block[_joins(panels, centre_rows, centre_columns)] |= np.uint32(Reason.CENTRAL)
    for panel in geometry.panels if unbonded or unbonded_neighbours is not None else ():
        block = flags[panel.memory]
        if unbonded:
            block[patterns.unbonded_pixels(panel.name, panel.shape)] |= np.uint32(Reason.UNBONDED)
        if unbonded_neighbours is not None:
            near = patterns.unbonded_neighbours(panel.name, panel.shape, unbonded_neighbours)
            block[near] |= np.uint32(Reason.UNBONDED_NEIGHBOUR)
    return flags


def psana_geometry_mask(geometry: Geometry, bits: int, width: int = 1, wcentral: int = 1) -> npt.NDArray[np.uint32]:
    """Flag the pixels that psana1's geometry mask takes away.

    Parameters
    ----------
    geometry
        The detector.
    bits
        1 edges, 2 central, 4 unbonded, 8 with 4 neighbours, 16 with 8 neighbours; 16 goes before 8 before 4.
    width, wcentral
        Of edges and of joins.

    Returns
    -------
    uint32 (segment, row, column). Of the unbonded pixels and their neighbours those are flagged that psana takes;
    with bit 8 that leaves pixels (0, 0) and (0, 194) of a CSPAD 2x1.
    """
    edges, central = (width if bits & 1 else 0), (wcentral if bits & 2 else 0)
    flags = geometry_reasons(geometry, edges=edges, central=central)
    for panel in geometry.panels if bits & 28 else ():
        block = flags[panel.memory]
        taken = patterns.psana_unbonded(panel.name, panel.shape, bits)
        itself = patterns.unbonded_pixels(panel.name, panel.shape)
        block[taken & itself] |= np.uint32(Reason.UNBONDED)
        block[taken & ~itself] |= np.uint32(Reason.UNBONDED_NEIGHBOUR)
    return flags


def _widths(width: Width, what: str) -> tuple[int, int]:
    pair = tuple(width) if isinstance(width, tuple | list) else (width, width)
    if len(pair) != 2 or any(isinstance(w, float | str) for w in pair):
        raise ParameterError(f"invalid width of {what}", found=width, expected="pixels, or (rows, columns)")
    return int(pair[0]), int(pair[1])


def _by_segment(geometry: Geometry) -> dict[int, list[Panel]]:
    panels: dict[int, list[Panel]] = {}
    for panel in geometry.panels:
        panels.setdefault(panel.memory[0], []).append(panel)
    return panels


def _memory_block(panels: list[Panel]) -> tuple[int, slice, slice]:
    """The block of memory that holds all panels of a segment."""
    places = [panel.memory for panel in panels]
    return (
        places[0][0],
        slice(min(p[1].start for p in places), max(p[1].stop for p in places)),
        slice(min(p[2].start for p in places), max(p[2].stop for p in places)),
    )


def _joins(panels: list[Panel], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Mark both sides of the joins within the panels of a segment, and of those between panels that touch."""
    _, whole_rows, whole_columns = _memory_block(panels)
    shape = (whole_rows.stop - whole_rows.start, whole_columns.stop - whole_columns.start)
    marked = np.zeros(shape, dtype=bool)
    for panel in panels:
        r, c = panel.row - whole_rows.start, panel.column - whole_columns.start
        here = marked[r : r + panel.shape[0], c : c + panel.shape[1]]
        asic = (panel.row_axis.length, panel.column_axis.length)
        here |= patterns.central_pixels(panel.shape, asic, rows, columns)
        for other in panels:
            if other.row == panel.row + panel.shape[0] and _overlap(
                panel.memory[2], other.memory[2]
            ):  # the other one is below
                here[max(0, panel.shape[0] - rows) :, :] |= rows > 0
                q, d = other.row - whole_rows.start, other.column - whole_columns.start
                marked[q : q + min(rows, other.shape[0]), d : d + other.shape[1]] = True
            if other.column == panel.column + panel.shape[1] and _overlap(panel.memory[1], other.memory[1]):
                here[:, max(0, panel.shape[1] - columns) :] |= columns > 0
                q, d = other.row - whole_rows.start, other.column - whole_columns.start
                marked[q : q + other.shape[0], d : d + min(columns, other.shape[1])] = True
    return marked


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)
