"""Positions of photons by a fit: moved until clouds of charge of a given width explain the pixels best, one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["fit"]

_SWEEPS, _STEPS, _REACH = 20, 3, 2
_SMALL = 1e-3


@njit
def _share(i: Any, x: Any, cloud: Any) -> Any:
    """Part of a cloud of charge at ``x`` that pixel ``i`` collects along one direction, and its slope with ``x``."""
    a, b = (i - 0.5 - x) / cloud, (i + 0.5 - x) / cloud
    part = 0.5 * (math.erf(b / math.sqrt(2.0)) - math.erf(a / math.sqrt(2.0)))
    slope = (math.exp(-0.5 * a * a) - math.exp(-0.5 * b * b)) / (cloud * math.sqrt(2.0 * math.pi))
    return part, slope


@njit
def _add_cloud(y: Any, x: Any, sign: Any, cloud: Any, shape: Any, mine: Any, rest: Any, owner: Any) -> None:
    """Add a photon's cloud to what is left of the pixels of its droplet."""
    rows, columns = shape
    r0: Any = np.int64(math.floor(y + 0.5))
    c0: Any = np.int64(math.floor(x + 0.5))
    for r in range(max(r0 - _REACH, 0), min(r0 + _REACH + 1, rows)):
        along, _ = _share(r, y, cloud)
        for c in range(max(c0 - _REACH, 0), min(c0 + _REACH + 1, columns)):
            p = r * columns + c
            if owner[p] == mine:
                across, _ = _share(c, x, cloud)
                rest[p] += sign * along * across


@njit
def _misfit(y: Any, x: Any, window: Any, cloud: Any, shape: Any, mine: Any, rest: Any, owner: Any) -> Any:
    """Squares of what a photon at (y, x) leaves of the pixels around, and their normal equations."""
    rows, columns = shape
    total = by_y = by_x = yy = xx = xy = 0.0
    for r in range(max(window[0] - _REACH, 0), min(window[0] + _REACH + 1, rows)):
        along, along_slope = _share(r, y, cloud)
        for c in range(max(window[1] - _REACH, 0), min(window[1] + _REACH + 1, columns)):
            p = r * columns + c
            if owner[p] != mine:
                continue
            across, across_slope = _share(c, x, cloud)
            left = rest[p] - along * across
            sy, sx = along_slope * across, along * across_slope
            total += left * left
            by_y += left * sy
            by_x += left * sx
            yy += sy * sy
            xx += sx * sx
            xy += sy * sx
    return total, by_y, by_x, yy, xx, xy


@njit
def fit(
    frame: Any, pixels: Any, energy: Any, cloud: Any, mine: Any, scratch: Any, row: Any, column: Any, span: Any
) -> None:
    """Move the photons ``span`` of a droplet until their clouds explain its pixels best."""
    rest, owner = scratch[0], scratch[1]
    shape = frame.shape
    for p in pixels:
        rest[p], owner[p] = np.float64(frame[p // shape[1], p % shape[1]]) / energy, mine
    for k in range(*span):
        _add_cloud(row[k], column[k], -1.0, cloud, shape, mine, rest, owner)
    for _ in range(_SWEEPS):
        moved = 0.0
        for k in range(*span):
            y, x = row[k], column[k]
            _add_cloud(y, x, 1.0, cloud, shape, mine, rest, owner)
            for _ in range(_STEPS):
                window = np.int64(math.floor(y + 0.5)), np.int64(math.floor(x + 0.5))
                total, by_y, by_x, yy, xx, xy = _misfit(y, x, window, cloud, shape, mine, rest, owner)
                yy, xx = 1.1 * yy + 1e-3, 1.1 * xx + 1e-3  # damped: at the centre of a pixel there is no slope
                det = yy * xx - xy * xy
                new_y = y + min(max((xx * by_y - xy * by_x) / det, -0.25), 0.25)
                new_x = x + min(max((yy * by_x - xy * by_y) / det, -0.25), 0.25)
                r, c = np.int64(math.floor(new_y + 0.5)), np.int64(math.floor(new_x + 0.5))
                inside = 0 <= r < shape[0] and 0 <= c < shape[1] and owner[r * shape[1] + c] == mine
                if not inside or _misfit(new_y, new_x, window, cloud, shape, mine, rest, owner)[0] >= total:
                    break
                y, x = new_y, new_x
            moved = max(moved, abs(y - row[k]), abs(x - column[k]))
            row[k], column[k] = y, x
            _add_cloud(y, x, -1.0, cloud, shape, mine, rest, owner)
        if moved < _SMALL:
            break
