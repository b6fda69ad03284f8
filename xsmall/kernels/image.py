"""Sparse tables from pixels to the cells of a grid, and the pass that takes frames through them.

A table is in compressed rows, one row per cell: ``start`` (cell + 1), ``pixel`` and ``weight``. An image, an
area-weighted image and a polar map differ in their tables only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["clip_area", "count_cells", "gather", "gather_flags", "polar_cells", "sort_by_cell", "spread_area", "take"]


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
            mean[e, i] = frames[e, np.uint64(j)] if j >= 0 else np.nan
        for k in range(several.size):
            i = several[k]
            value, norm = 0.0, 0.0
            for j in range(start[i], start[i + 1]):
                v = frames[e, np.uint64(pixel[j])]
                if v == v:
                    value += v
                    norm += 1.0
            mean[e, i] = value / norm if norm > 0.0 else np.nan


@njit
def gather(frames: Any, start: Any, pixel: Any, weight: Any, mean: Any, total: Any) -> None:
    """Average the valid pixels of each cell, for a stack of frames.

    Parameters
    ----------
    frames
        Float (k, pixel), NaN where not valid.
    start, pixel, weight
        The table; ``weight`` may be empty, every entry then counts 1.
    mean
        Float (k, cell), filled: sum(weight value) / sum(weight) over valid pixels, NaN where there is none.
    total
        float32 (k, cell), filled with sum(weight) over valid pixels.
    """
    weighted = weight.size > 0
    for e in range(frames.shape[0]):
        for i in range(start.size - 1):
            value = 0.0
            norm = 0.0
            for j in range(start[i], start[i + 1]):
                v = frames[e, np.uint64(pixel[j])]
                if v == v:
                    w = np.float64(weight[j]) if weighted else 1.0
                    value += w * v
                    norm += w
            mean[e, i] = value / norm if norm > 0.0 else np.nan
            total[e, i] = norm


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
def clip_area(px: Any, py: Any, n: Any, x_low: Any, x_high: Any, y_low: Any, y_high: Any, work: Any) -> float:
    """Area of a convex polygon of ``n`` corners within a box; ``work`` is float64 (4, at least n + 4)."""
    for k in range(n):
        work[0, k] = px[k]
        work[1, k] = py[k]
    source = 0
    for side in range(4):
        target = 2 - source
        axis = side // 2
        limit = (x_low, x_high, y_low, y_high)[side]
        sign = 1.0 if side % 2 == 0 else -1.0
        m = 0
        for k in range(n):
            k2 = k + 1 if k + 1 < n else 0
            here = sign * (work[source + axis, k] - limit)
            there = sign * (work[source + axis, k2] - limit)
            if here >= 0.0:
                work[target, m] = work[source, k]
                work[target + 1, m] = work[source + 1, k]
                m += 1
            if (here >= 0.0) != (there >= 0.0):
                t = here / (here - there)
                work[target, m] = work[source, k] + t * (work[source, k2] - work[source, k])
                work[target + 1, m] = work[source + 1, k] + t * (work[source + 1, k2] - work[source + 1, k])
                m += 1
        source = target
        n = m
        if n < 3:
            return 0.0
    area = 0.0
    for k in range(n):
        k2 = k + 1 if k + 1 < n else 0
        area += work[source, k] * work[source + 1, k2] - work[source, k2] * work[source + 1, k]
    return abs(area) / 2.0


@njit
def spread_area(corners: Any, grid: Any, cell: Any, weight: Any) -> int:
    """Spread quadrilaterals over the cells of a grid by the area they share.

    Parameters
    ----------
    corners
        float64 (pixel, 4, 2): corners in turn, in units of cells from the corner of cell (0, 0).
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
    work = np.empty((4, 12))
    short = 0
    for p in range(corners.shape[0]):
        cell[p, :] = -1
        x, y = corners[p, :, 0], corners[p, :, 1]
        if not (abs(x.sum()) < np.inf and abs(y.sum()) < np.inf):
            continue
        x_first, x_last = max(0, int(np.floor(x.min()))), min(n_x - 1, int(np.floor(x.max())))
        y_first, y_last = max(0, int(np.floor(y.min()))), min(n_y - 1, int(np.floor(y.max())))
        m = 0
        for j in range(y_first, y_last + 1):
            for i in range(x_first, x_last + 1):
                area = clip_area(x, y, 4, float(i), i + 1.0, float(j), j + 1.0, work)
                if area > 1e-6:
                    if m == cell.shape[1]:
                        short += 1
                        break
                    cell[p, m] = j * n_x + i
                    weight[p, m] = area
                    m += 1
    return short


@njit
def polar_cells(
    corners: Any, split: Any, radius_range: Any, azimuth_start: Any, bins: Any, cell: Any, weight: Any
) -> None:
    """Spread quadrilaterals over bins of radius and azimuth, by ``split`` x ``split`` points in each.

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
    for p in range(corners.shape[0]):
        m = 0
        cell[p, :] = -1
        if not abs(corners[p].sum()) < np.inf:
            continue
        for i in range(split):
            u = (i + 0.5) / split
            for j in range(split):
                v = (j + 0.5) / split
                x, y = 0.0, 0.0
                for k in range(4):
                    share = (u if (k == 1 or k == 2) else 1.0 - u) * (v if k >= 2 else 1.0 - v)
                    x += share * corners[p, k, 0]
                    y += share * corners[p, k, 1]
                r = (np.hypot(x, y) - radius_range[0]) / radius_range[1]
                a = (np.degrees(np.arctan2(y, x)) - azimuth_start[0]) % 360.0
                a = (a if a < 360.0 else 0.0) / azimuth_start[1]  # a tiny negative angle is 360 after rounding
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
