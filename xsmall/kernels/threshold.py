"""Thresholds of pixels: what is below one counts as nothing, what is above the other is left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["threshold"]


@njit
def threshold(frames: Any, low: Any, high: Any, noise: Any, out: Any) -> Any:
    """Apply two thresholds to the frames of a segment.

    Parameters
    ----------
    frames
        (k, row, column) values.
    low, high
        In the unit of the frames, or of ``noise`` where there is one.
    noise
        (row, column) what thresholds are multiplied by, NaN where a pixel is not used; or empty.
    out
        (k, row, column), filled: 0 below ``low``, NaN above ``high`` and where the value is not finite, else the value.
    """
    for j in range(frames.shape[0]):
        for r in range(frames.shape[1]):
            for c in range(frames.shape[2]):
                value = frames[j, r, c]
                scale = noise[r, c] if noise.size else 1.0
                if abs(value) < np.inf and value <= high * scale:
                    out[j, r, c] = value if value >= low * scale else 0.0
                else:
                    out[j, r, c] = np.nan
