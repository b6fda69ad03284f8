"""The slow twin of peaks: rings as boolean arrays, peaks as labels of scipy, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["peaks", "rings"]

Array = npt.NDArray[Any]


def rings(frames: Array, ring: Array, snr: float, threshold: float) -> tuple[Array, Array, Array]:
    """Mean, spread and threshold of each ring after five rounds."""
    n = ring.max() + 1
    mean, spread, top, low = np.zeros(n), np.zeros(n), np.full(n, np.inf), np.full(n, -np.inf)
    for _ in range(5):
        for i in range(n):
            values = frames[(ring == i) & np.isfinite(frames)].astype(float)
            values = values[(values < top[i]) & (values > low[i])]
            mean[i], spread[i] = (values.mean(), values.std()) if values.size else (0.0, 0.0)
            top[i] = max(mean[i] + snr * spread[i], threshold) if values.size else np.inf
            low[i] = mean[i] - snr * spread[i] if values.size else -np.inf
    return mean, spread, top


def peaks(frame: Array, ring: Array, stats: tuple[Array, Array, Array], sizes: Any, snr: float, reach: int) -> Array:
    """Rows of sum, highest value, pixels, row, column, background, noise and ratio, of one tile."""
    mean, spread, top = stats
    known = (ring >= 0) & np.isfinite(frame)
    values = np.where(known, frame, 0).astype(float)
    high = known & (values > top[ring])
    labels, n = ndimage.label(high, np.ones((3, 3)))
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    out = []
    for number in dict.fromkeys(labels[1:-1, 1:-1].ravel().tolist()):  # in the order of their first inner pixel
        mine = labels == number
        if not number or not sizes[0] <= mine.sum() <= sizes[1]:
            continue
        above = values[mine] - mean[ring[mine]]
        row, column = (round(float((above * x[mine]).sum() / abs(above.sum()))) for x in (rows, columns))
        window = (rows >= row - reach) & (rows < row + reach) & (columns >= column - reach) & (columns < column + reach)
        window &= (rows - row) ** 2 + (columns - column) ** 2 <= reach**2
        around = values[window & known & (values < top[ring])]
        first = ring[mine][0]
        offset, noise = (around.mean(), around.std()) if around.size else (mean[first], spread[first])
        total, own = (values[mine] - offset).sum(), values[mine]
        if noise <= 1e-10 or total / noise < snr or own.max() < (around.max() if around.size else -np.inf):
            continue
        place = [(own * x[mine]).sum() / abs(own.sum()) for x in (rows, columns)]
        if min(place) >= 0 and place[0] <= frame.shape[0] - 1 and place[1] <= frame.shape[1] - 1:
            out.append([total, own.max() - offset, mine.sum(), *place, offset, noise, total / noise])
    assert n >= len(out)
    return np.array(out).reshape(-1, 8)
