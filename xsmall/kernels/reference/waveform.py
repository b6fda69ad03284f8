"""The slow twins of what is done with waveforms: NumPy, a pulse after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["fit", "hits"]

Array = npt.NDArray[Any]


def hits(wave: Array, level: float, threshold: float, fraction: float, delay: int) -> list[tuple[float, float, float]]:
    """Time, highest value and width of each stretch at or above the threshold, of a waveform that begins below it."""
    v = np.nan_to_num(wave.astype(float) - level)
    high = np.concatenate([[False], v >= threshold, [False]])
    first, last = np.flatnonzero(np.diff(high.astype(int)) == 1), np.flatnonzero(np.diff(high.astype(int)) == -1)
    late = np.concatenate([np.zeros(delay), v])[: v.size]
    shaped = fraction * v - late
    out = []
    for a, b in zip(first, last, strict=True):
        rises = np.interp(threshold, v[a - 1 : a + 1], [a - 1, a])
        falls = b - 1 + (v[b - 1] - threshold) / (v[b - 1] - v[b]) if b < v.size else float(b)
        crossings = [j for j in range(int(a), min(int(b) + delay, v.size)) if shaped[j - 1] > 0 >= shaped[j]]
        time = float(rises) if not delay else np.nan
        if delay and crossings:
            j = crossings[0]
            time = float(np.interp(0, shaped[[j, j - 1]], [j, j - 1]))
        out.append((time, float(v[a:b].max()), float(falls - rises)))
    return out


def fit(wave: Array, level: float, templates: Array) -> tuple[Array, float, float]:
    """Coefficients of templates, and the squared sums of what is left and of what there was."""
    values = wave.astype(float) - level
    coefficients: Array = np.linalg.lstsq(templates.T, values, rcond=None)[0]
    return coefficients, float(((values - coefficients @ templates) ** 2).sum()), float((values**2).sum())
