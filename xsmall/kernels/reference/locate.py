"""The slow twin of :mod:`xsmall.kernels.locate`: every point against every pixel row and column of every panel."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["inside_polygon", "locate"]

SAME_DEPTH = 1e-9


def locate(geometry: Any, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int32], ...]:
    """Segment, row and column under points: solve for the pixel coordinates on each panel, compare with borders."""
    out = np.full((3, len(x)), -1, dtype=np.int32)
    depth = np.full(len(x), np.inf)
    for number, panel in enumerate(geometry.panels):
        slow, fast, origin = (np.array(v) for v in (panel.slow, panel.fast, panel.origin))
        across = np.stack([slow[:2], fast[:2]], axis=1)
        a, b = np.linalg.solve(across, np.stack([x, y]) - origin[:2, None])
        z = origin[2] + a * slow[2] + b * fast[2]
        row = _index_between(panel.row_axis.edges(), a)
        column = _index_between(panel.column_axis.edges(), b - panel.column_axis.stagger * (row % 2))
        nearer = (row >= 0) & (column >= 0) & (z <= depth - SAME_DEPTH)
        segment = number if panel.segment is None else panel.segment
        out[:, nearer] = np.stack([np.full(len(x), segment), row + panel.row, column + panel.column])[:, nearer]
        depth[nearer] = z[nearer]
    return out[0], out[1], out[2]


def _index_between(edges: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    held = (at[:, None] >= edges[:, 0]) & (at[:, None] < edges[:, 1])
    return np.where(held.any(axis=1), held.argmax(axis=1), -1)


def inside_polygon(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a ray to the right of the point crosses an odd number of sides."""
    crossings = 0
    for side in pairwise(corners):
        (x0, y0), (x1, y1) = sorted(side, key=lambda corner: corner[1])
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            crossings += 1
    return crossings % 2 == 1
