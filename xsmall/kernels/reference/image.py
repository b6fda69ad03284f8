"""The slow twins of :mod:`xsmall.kernels.image`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["gather", "polar_share", "shared_area"]

Floats = npt.NDArray[np.float64]


def gather(frames: npt.NDArray[Any], start: Any, pixel: Any, weight: Any) -> tuple[Floats, Floats]:
    """Weighted mean of the valid pixels of each cell, and the sum of their weights."""
    mean = np.full((len(frames), len(start) - 1), np.nan)
    total = np.zeros(mean.shape)
    for e, frame in enumerate(frames):
        for i in range(len(start) - 1):
            entries = slice(start[i], start[i + 1])
            values = frame[pixel[entries]].astype(np.float64)
            weights = np.asarray(weight[entries], dtype=np.float64) if len(weight) else np.ones(len(values))
            valid = np.isfinite(values)
            total[e, i] = weights[valid].sum()
            if total[e, i] > 0:
                mean[e, i] = (weights[valid] * values[valid]).sum() / total[e, i]
    return mean, total


def shared_area(corners: Floats, box: tuple[float, float, float, float], n: int = 400) -> float:
    """Area of a convex quadrilateral within a box, by counting points of a fine grid over the box."""
    x_low, x_high, y_low, y_high = box
    x, y = np.meshgrid(
        x_low + (np.arange(n) + 0.5) / n * (x_high - x_low), y_low + (np.arange(n) + 0.5) / n * (y_high - y_low)
    )
    sides = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        sides.append((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0))
    inside = np.all(np.array(sides) >= 0, axis=0) | np.all(np.array(sides) <= 0, axis=0)
    return float(inside.mean() * (x_high - x_low) * (y_high - y_low))


def polar_share(corners: Floats, split: int, radius_edges: Floats, azimuth_edges: Floats) -> npt.NDArray[np.float64]:
    """Part of a quadrilateral in each bin (azimuth, radius), by the same points."""
    at = (np.arange(split) + 0.5) / split
    u, v = (a[..., None] for a in np.meshgrid(at, at, indexing="ij"))
    p0, p1, p2, p3 = corners
    points = (p0 * (1 - u) * (1 - v) + p1 * u * (1 - v) + p2 * u * v + p3 * (1 - u) * v).reshape(-1, 2)
    radius = np.hypot(points[:, 0], points[:, 1])
    azimuth = (np.degrees(np.arctan2(points[:, 1], points[:, 0])) - azimuth_edges[0]) % 360 + azimuth_edges[0]
    share, _, _ = np.histogram2d(azimuth, radius, bins=(azimuth_edges, radius_edges))
    return np.asarray(share / split**2)
