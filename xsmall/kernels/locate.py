"""From points in space back to pixels, and points inside polygons.

Each panel is a small affine map; a coarse grid over the detector says which panels can hold a point, so that the cost
does not grow with their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["inside_polygon", "locate", "pixel_on_axis"]


SAME_DEPTH = 1e-9
"""Two panels less than that far apart in z (m) are equally near; the first one is taken."""


@njit(inline="always")
def pixel_on_axis(at: Any, axis: Any, axis_range: Any, low: Any, high: Any, guess: Any) -> Any:
    """Pixel of an axis that holds the coordinate ``at`` (in pitches), or -1 in a gap or outside."""
    start, count, first_guess, n_guesses = axis_range
    cell = (at - axis[0]) / axis[1]
    if not (cell >= 0.0 and cell < n_guesses):
        return -1
    i = guess[first_guess + int(cell)]
    while i < count and at >= high[start + i]:
        i += 1
    if i < count and at >= low[start + i]:
        return i
    return -1


@njit
def locate(
    x: Any, y: Any, grid: Any, cells: Any, candidates: Any, panels: Any, memory: Any, axes: Any, axis_range: Any,
    low: Any, high: Any, guess: Any, segment: Any, row: Any, column: Any,
) -> None:  # fmt: skip
    """Find the pixel under each point; -1 where there is none.

    Parameters
    ----------
    x, y
        Points in m, lab frame, float64 (n,).
    grid
        float64 (5,): x and y of the corner of the coarse grid, cells per m, number of cells along x and along y.
    cells, candidates
        Panels that can hold points of cell i: ``candidates[cells[i]:cells[i + 1]]``, ascending.
    panels
        float64 (panel, 10): origin x, y, z; pitches along slow and fast per m of x and y (a_x, a_y, b_x, b_y); rise of
        z per m of x and of y; shift of odd rows in pitches.
    memory
        int32 (panel, 5): segment, first row, first column, axis of the rows, axis of the columns.
    axes
        float64 (axis, 2): border of the first pixel and width of a cell of the table of guesses, in pitches.
    axis_range
        int32 (axis, 4): first entry in ``low`` and ``high``, number of pixels, first entry in ``guess``, their number.
    low, high
        Borders of the pixels of all axes, float64.
    guess
        int32: the first pixel that can hold a coordinate of this cell.
    segment, row, column
        int32 (n,), filled.
    """
    for i in range(x.size):
        segment[i] = -1
        row[i] = -1
        column[i] = -1
        gx = (x[i] - grid[0]) * grid[2]
        gy = (y[i] - grid[1]) * grid[2]
        if not (gx >= 0.0 and gy >= 0.0 and gx < grid[3] and gy < grid[4]):
            continue
        cell = int(gy) * int(grid[3]) + int(gx)
        nearest = np.inf
        for k in range(cells[cell], cells[cell + 1]):
            p = candidates[k]
            dx = x[i] - panels[p, 0]
            dy = y[i] - panels[p, 1]
            z = panels[p, 2] + panels[p, 7] * dx + panels[p, 8] * dy
            if z > nearest - SAME_DEPTH:
                continue
            t = memory[p, 3]
            a = panels[p, 3] * dx + panels[p, 4] * dy
            r = pixel_on_axis(a, axes[t], axis_range[t], low, high, guess)
            if r < 0:
                continue
            t = memory[p, 4]
            b = panels[p, 5] * dx + panels[p, 6] * dy - panels[p, 9] * (r & 1)
            c = pixel_on_axis(b, axes[t], axis_range[t], low, high, guess)
            if c < 0:
                continue
            nearest = z
            segment[i] = memory[p, 0]
            row[i] = memory[p, 1] + r
            column[i] = memory[p, 2] + c


@njit(fastmath=False)
def inside_polygon(x: Any, y: Any, corner_x: Any, corner_y: Any, inside: Any) -> None:
    """Mark the points that an odd number of polygon sides lies to the right of.

    ``corner_x`` and ``corner_y`` are closed (last = first). Points on a lower or left side count as inside, points on
    an upper or right one do not, and a side is taken from its lower end whichever way it runs, so that polygons that
    share a side share no point and leave none between them.
    """
    for i in range(x.size):
        odd = False
        for k in range(corner_x.size - 1):
            if (corner_y[k] > y[i]) != (corner_y[k + 1] > y[i]):
                low, high = (k, k + 1) if corner_y[k] < corner_y[k + 1] else (k + 1, k)
                rise = (y[i] - corner_y[low]) / (corner_y[high] - corner_y[low])
                if x[i] < corner_x[low] + rise * (corner_x[high] - corner_x[low]):
                    odd = not odd
        inside[i] = odd
