"""Slow twin of :mod:`xsmall.kernels.azint_energy`."""

import numpy as np
import numpy.typing as npt

__all__ = ["borders_at", "scatter_scaled"]

Floats = npt.NDArray[np.float64]


def scatter_scaled(
    frame: Floats, position: Floats, scale: float, sector: npt.NDArray[np.int64], weight: Floats, edges: Floats, n: int
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Sums, counts and weights of ``n`` sectors times bins for one event."""
    place = position * scale
    bins = np.searchsorted(edges, place, side="right") - 1
    use = np.isfinite(frame) & np.isfinite(place) & (bins >= 0) & (bins < edges.size - 1) & (sector >= 0)
    where = (sector * (edges.size - 1) + bins)[use]
    sums, counts, weights = np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n)
    np.add.at(sums, where, frame[use])
    np.add.at(counts, where, 1)
    np.add.at(weights, where, weight[use])
    return sums, counts, weights


def borders_at(position: Floats, scale: float, edges: Floats) -> npt.NDArray[np.int64]:
    """Number of sorted positions that, scaled, lie below each border."""
    return np.array([(position * scale < edge).sum() for edge in edges], dtype=np.int64)
