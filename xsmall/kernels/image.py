"""Sparse tables from pixels to the cells of a grid, and the pass that takes frames through them.

A table is in compressed rows, one row per cell: ``start`` (cell + 1), ``pixel`` and ``weight``. An image, an
area-weighted image and a polar map differ in their tables only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["count_cells", "gather", "gather_flags", "polar_cells", "share_area", "sort_by_cell", "take"]


_EXACT = frozenset({"nsz"})  # sums in the order in which they are written: that of an event alone and of four
_TOGETHER = 4


@njit
def take(frames: Any, first: Any, several: Any, start: Any, pixel: Any, mean: Any) -> None:
    """Do what :func:`gather` does where all weights are 1 and few cells take from several pixels.

    Parameters
    ----------
    frames, start, pixel, mean
        As in :func:`gather`.
    first
        int32 (cell,): the first pixel of each cell, -1 where there is none.
    several
        int32: the cells that take from more than one pixel.
    """
    for e in range(frames.shape[0]):
        for i in range(first.size):
            j = first[i]
            v = frames[e, np.uint64(j)] if j >= 0 else np.nan
            mean[e, i] = v if v - v == 0.0 else np.nan
        for k in range(several.size):
            i = several[k]
            value, norm = 0.0, 0.0
            for j in range(start[i], start[i + 1]):
                v = frames[e, np.uint64(pixel[j])]
                if v - v == 0.0:  # finite
                    value += v
                    norm += 1.0
            mean[e, i] = value / norm if norm > 0.0 else np.nan


def gather(frames: Any, start: Any, pixel: Any, weight: Any, mean: Any, total: Any = None) -> None:
    """Average the valid pixels of each cell, for a stack of frames.

    Parameters
    ----------
    frames
        Float (k, pixel), not finite where not valid.
    start, pixel, weight
        The table; ``weight`` may be empty, every entry then counts 1.
    mean
        Float (k, cell), filled: sum(weight value) / sum(weight) over valid pixels, NaN where there is none.
    total
        float32 (k, cell), filled with sum(weight) over valid pixels; None where nobody asks for it.
    """
    last = len(frames) - 1
    for first in range(0, len(frames), _TOGETHER):  # the table is read once for four events
        rows = [min(first + j, last) for j in range(_TOGETHER)]  # the last stands for those that lack, and is the same
        totals = mean[:_TOGETHER, :0] if total is None else total
        _gather_four(
            tuple(np.ascontiguousarray(frames[row]) for row in rows), start, pixel, weight,
            tuple(mean[row] for row in rows), tuple(totals[min(row, len(totals) - 1)] for row in rows),
        )  # fmt: skip


@njit(fastmath=_EXACT)
def _gather_four(frames: Any, start: Any, pixel: Any, weight: Any, means: Any, totals: Any) -> None:
    """Do so for four events, each an array (pixel) and one (cell), or (0) for totals that nobody asks for."""
    a, b, c, d = frames
    of_a, of_b, of_c, of_d = means
    n_a, n_b, n_c, n_d = totals
    weighted, one = weight.size > 0, np.float64(1.0)
    for i in range(start.size - 1):
        v, w, x, y, norm = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(np.uint64(start[i]), np.uint64(start[i + 1])):
            at, part = np.uint64(pixel[k]), np.float64(weight[k]) if weighted else one
            v += part * a[at]
            w += part * b[at]
            x += part * c[at]
            y += part * d[at]
            norm += part
        if norm > 0.0 and abs(v + w + x + y) < np.inf:
            per_norm = one / norm
            of_a[i], of_b[i], of_c[i], of_d[i] = v * per_norm, w * per_norm, x * per_norm, y * per_norm
            if n_a.size:
                n_a[i] = n_b[i] = n_c[i] = n_d[i] = norm
        else:
            _gather_cell(a, start, pixel, weight, i, of_a, n_a)
            _gather_cell(b, start, pixel, weight, i, of_b, n_b)
            _gather_cell(c, start, pixel, weight, i, of_c, n_c)
            _gather_cell(d, start, pixel, weight, i, of_d, n_d)


@njit(fastmath=_EXACT)
def _gather_cell(frame: Any, start: Any, pixel: Any, weight: Any, i: Any, mean: Any, total: Any) -> None:
    """Average the valid pixels of one cell."""
    value, norm, one = 0.0, 0.0, np.float64(1.0)
    for k in range(start[i], start[i + 1]):
        v = frame[np.uint64(pixel[k])]
        if abs(v) < np.inf:
            part = np.float64(weight[k]) if weight.size > 0 else one
            value += part * v
            norm += part
    mean[i] = value * (one / norm) if norm > 0.0 else np.nan
    if total.size:
        total[i] = norm


@njit
def gather_flags(flags: Any, start: Any, pixel: Any, gap: Any, out: Any) -> None:
    """Unite the reasons of the pixels of each cell: uint32 (k, pixel) to (k, cell); ``gap`` where there is no pixel."""
    for e in range(flags.shape[0]):
        for i in range(start.size - 1):
            reasons = np.uint32(0)
            for j in range(start[i], start[i + 1]):
                reasons |= flags[e, pixel[j]]
            out[e, i] = reasons if start[i + 1] > start[i] else gap


@njit
def count_cells(cell: Any, start: Any) -> None:
    """Make the row starts of a table from the cell of each entry (-1: none); ``start`` is int32 (cells + 1)."""
    start[:] = 0
    for j in range(cell.size):
        if cell[j] >= 0:
            start[cell[j] + 1] += 1
    for i in range(start.size - 1):
        start[i + 1] += start[i]


@njit
def sort_by_cell(cell: Any, entry_pixel: Any, entry_weight: Any, start: Any, pixel: Any, weight: Any) -> None:
    """Bring entries (cell, pixel, weight) into the order of the cells, keeping the order within one."""
    at = start[:-1].copy()
    weighted = entry_weight.size > 0
    for j in range(cell.size):
        i = cell[j]
        if i >= 0:
            pixel[at[i]] = entry_pixel[j]
            if weighted:
                weight[at[i]] = entry_weight[j]
            at[i] += 1


@njit
def cut_polygon(along: Any, across: Any, n: int, limit: float, sign: float, out_along: Any, out_across: Any) -> Any:
    """Keep the part of a convex polygon of ``n`` corners where ``sign * (along - limit) >= 0``; return its corners."""
    m = 0
    a, b = along[n - 1], across[n - 1]
    here = sign * (a - limit)
    for k in range(n):
        there = sign * (along[k] - limit)
        if (here >= 0.0) != (there >= 0.0):
            t = here / (here - there)
            out_along[m] = a + t * (along[k] - a)
            out_across[m] = b + t * (across[k] - b)
            m += 1
        if there >= 0.0:
            out_along[m] = along[k]
            out_across[m] = across[k]
            m += 1
        a, b, here = along[k], across[k], there
    return m


@njit
def polygon_area(x: Any, y: Any, n: int) -> Any:
    """Area of a polygon of ``n`` corners; 0 for fewer than three."""
    if n < 3:
        return 0.0
    twice = x[n - 1] * y[0] - x[0] * y[n - 1]
    for k in range(n - 1):
        twice += x[k] * y[k + 1] - x[k + 1] * y[k]
    return abs(twice) / 2.0


@njit
def share_area(corners: Any, grid: Any, cell: Any, weight: Any) -> Any:
    """Share quadrilaterals among the cells of a grid by area.

    Each is cut into the rows of the grid; the area left of each column border then grows from cell to cell.

    Parameters
    ----------
    corners
        float64 (pixel, 4, 2): corners (x, y) in turn, in units of cells from the corner of cell (0, 0).
    grid
        Numbers of cells along x and y.
    cell, weight
        int32 and float32 (pixel, reach): filled with the cell (y, x flattened; -1: unused entry) and the part of a
        cell that the pixel covers.

    Returns
    -------
    The number of pixels for which ``reach`` was too small.
    """
    n_x, n_y = grid
    x, y = np.empty(4), np.empty(4)
    above_x, above_y = np.empty(12), np.empty(12)
    row_x, row_y = np.empty(12), np.empty(12)
    left_x, left_y = np.empty(12), np.empty(12)
    short = 0
    for p in range(corners.shape[0]):
        cell[p, :] = -1
        for k in range(4):
            x[k], y[k] = corners[p, k, 0], corners[p, k, 1]
        x_low, x_high = min(min(x[0], x[1]), min(x[2], x[3])), max(max(x[0], x[1]), max(x[2], x[3]))
        y_low, y_high = min(min(y[0], y[1]), min(y[2], y[3])), max(max(y[0], y[1]), max(y[2], y[3]))
        if not abs(x_low + x_high + y_low + y_high) < np.inf:
            continue
        first_column, last_column = max(0, int(np.floor(x_low))), min(n_x - 1, int(np.floor(x_high)))
        m = 0
        for j in range(max(0, int(np.floor(y_low))), min(n_y - 1, int(np.floor(y_high))) + 1):
            n = cut_polygon(y, x, 4, float(j), 1.0, above_y, above_x)
            if n < 3:
                continue
            n = cut_polygon(above_y, above_x, n, j + 1.0, -1.0, row_y, row_x)
            left = 0.0
            if x_low < first_column:
                left = polygon_area(
                    left_x, left_y, cut_polygon(row_x, row_y, n, float(first_column), -1.0, left_x, left_y)
                )
            for i in range(first_column, last_column + 1):
                up_to = polygon_area(left_x, left_y, cut_polygon(row_x, row_y, n, i + 1.0, -1.0, left_x, left_y))
                if up_to - left > 1e-6:
                    if m == cell.shape[1]:
                        short += 1
                        break
                    cell[p, m] = j * n_x + i
                    weight[p, m] = up_to - left
                    m += 1
                left = up_to
    return short


@njit
def polar_cells(
    corners: Any, split: Any, radius_range: Any, azimuth_start: Any, bins: Any, cell: Any, weight: Any
) -> None:
    """Share quadrilaterals among bins of radius and azimuth, by ``split`` x ``split`` points in each.

    Parameters
    ----------
    corners
        float64 (pixel, 4, 2) in m from the beam centre.
    split
        Points along each side; the bins they fall into share the pixel in proportion.
    radius_range
        Lowest radius and width of a bin, m.
    azimuth_start
        Lowest azimuth in degrees and width of a bin.
    bins
        Numbers of bins in radius and azimuth.
    cell, weight
        int32 and float32 (pixel, split^2): filled with the bin (azimuth, radius flattened; -1: unused) and the part of
        the pixel that falls into it.
    """
    part = 1.0 / (split * split)
    width, turn = np.radians(azimuth_start[1]), 360.0 / azimuth_start[1]
    for p in range(corners.shape[0]):
        m = 0
        cell[p, :] = -1
        if not abs(corners[p].sum()) < np.inf:
            continue
        # the points lie within the pixel: far from the borders of an azimuth bin all of them are in that of its middle
        middle_x, middle_y, reach = 0.0, 0.0, 0.0
        for k in range(4):
            middle_x += corners[p, k, 0] / 4.0
            middle_y += corners[p, k, 1] / 4.0
        for k in range(4):
            reach = max(reach, (corners[p, k, 0] - middle_x) ** 2 + (corners[p, k, 1] - middle_y) ** 2)
        away = np.sqrt(middle_x**2 + middle_y**2)
        at = azimuth_bins(middle_x, middle_y, azimuth_start)
        seen = 1.2 * np.sqrt(reach) / away / width if away > 0.0 else np.inf  # more than the angle for reach < away / 2
        alone = np.sqrt(reach) < away / 2.0 and at > seen and at + seen < turn and int(at - seen) == int(at + seen)
        if alone and at - seen >= bins[1]:
            continue
        for i in range(split):
            u = (i + 0.5) / split
            from_x = corners[p, 0, 0] * (1.0 - u) + corners[p, 1, 0] * u
            from_y = corners[p, 0, 1] * (1.0 - u) + corners[p, 1, 1] * u
            to_x = corners[p, 3, 0] * (1.0 - u) + corners[p, 2, 0] * u
            to_y = corners[p, 3, 1] * (1.0 - u) + corners[p, 2, 1] * u
            for j in range(split):
                v = (j + 0.5) / split
                x, y = from_x + v * (to_x - from_x), from_y + v * (to_y - from_y)
                r = (np.sqrt(x * x + y * y) - radius_range[0]) / radius_range[1]
                a = at if alone else azimuth_bins(x, y, azimuth_start)
                if not (r >= 0.0 and r < bins[0] and a < bins[1]):
                    continue
                found = int(a) * bins[0] + int(r)
                k = 0
                while k < m and cell[p, k] != found:
                    k += 1
                if k == m:
                    cell[p, m] = found
                    weight[p, m] = 0.0
                    m += 1
                weight[p, k] += part


@njit
def azimuth_bins(x: Any, y: Any, azimuth_start: Any) -> Any:
    """Azimuth in bins from the lowest one."""
    turned = (np.degrees(np.arctan2(y, x)) - azimuth_start[0]) % 360.0
    return (turned if turned < 360.0 else 0.0) / azimuth_start[1]  # a tiny negative angle is 360 after rounding
