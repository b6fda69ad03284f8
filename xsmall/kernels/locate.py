"""From points in space back to pixels, and points inside polygons.

Each panel is a small affine map; a coarse grid over the detector says which panels can hold a point, so that the cost
does not grow with their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["inside_polygon", "locate"]


SAME_DEPTH = 1e-9
"""Two panels less than that far apart in z (m) are equally near; the first one is taken."""


@njit
def locate(
    x: Any, y: Any, grid: Any, cells: Any, candidates: Any, panels: Any, memory: Any, low: Any, high: Any, guess: Any,
    segment: Any, row: Any, column: Any,
) -> None:  # fmt: skip
    """Find the pixel under each point; -1 where there is none.

    Indices are unsigned, so that no check for negative ones is compiled in.

    Parameters
    ----------
    x, y
        Points in m, lab frame, float64 (n,).
    grid
        float64 (5,): x and y of the corner of the coarse grid, cells per m, number of cells along x and along y.
    cells, candidates
        uint32: panels that can hold points of cell i are ``candidates[cells[i]:cells[i + 1]]``, ascending.
    panels
        float64 (panel, 14): origin x, y, z; pitches along slow and fast per m of x and y (a_x, a_y, b_x, b_y); rise of
        z per m of x and of y; shift of odd rows; along slow and then along fast the border of the first pixel and the
        distance from there to the last border. All in pitches but origin and rise.
    memory
        uint32 (panel, 7): segment, first row, first column; first entry in ``guess`` and in ``low`` and ``high`` for
        the rows, and for the columns.
    low, high
        Borders of pixels, float64, in pitches from the first border.
    guess
        uint32: the first pixel that can hold a coordinate of this whole number.
    segment, row, column
        int32 (n,), filled.
    """
    one = np.uint32(1)
    n_x, n_y = grid[3], grid[4]
    for i in range(x.size):
        found_segment, found_row, found_column = np.int32(-1), np.int32(-1), np.int32(-1)
        gx = (x[i] - grid[0]) * grid[2]
        gy = (y[i] - grid[1]) * grid[2]
        if gx >= 0.0 and gy >= 0.0 and gx < n_x and gy < n_y:
            cell = np.uint64(gy) * np.uint64(n_x) + np.uint64(gx)
            nearest = np.inf
            for k in range(cells[cell], cells[cell + np.uint64(1)]):
                p = np.uint64(candidates[np.uint64(k)])
                dx = x[i] - panels[p, 0]
                dy = y[i] - panels[p, 1]
                a = panels[p, 3] * dx + panels[p, 4] * dy - panels[p, 10]
                if not (a >= 0.0 and a < panels[p, 11]):
                    continue
                r = guess[np.uint64(memory[p, 3]) + np.uint64(a)]
                border = np.uint64(memory[p, 4])
                while a >= high[border + np.uint64(r)]:
                    r += one
                if a < low[border + np.uint64(r)]:
                    continue
                b = panels[p, 5] * dx + panels[p, 6] * dy - panels[p, 9] * (r & one) - panels[p, 12]
                if not (b >= 0.0 and b < panels[p, 13]):
                    continue
                c = guess[np.uint64(memory[p, 5]) + np.uint64(b)]
                border = np.uint64(memory[p, 6])
                while b >= high[border + np.uint64(c)]:
                    c += one
                if b < low[border + np.uint64(c)]:
                    continue
                z = panels[p, 2] + panels[p, 7] * dx + panels[p, 8] * dy
                if z > nearest - SAME_DEPTH:
                    continue
                nearest = z
                found_segment = np.int32(memory[p, 0])
                found_row = np.int32(memory[p, 1] + r)
                found_column = np.int32(memory[p, 2] + c)
        segment[i] = found_segment
        row[i] = found_row
        column[i] = found_column


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
