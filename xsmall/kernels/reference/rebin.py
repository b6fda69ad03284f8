"""Twin of :mod:`xsmall.kernels.rebin`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def overlap(n: int, factor: float) -> npt.NDArray[np.float64]:
    """Length that each of ``n`` pixels shares with each larger pixel of ``factor``: (larger, pixel)."""
    larger = int(np.ceil(n / factor - 1e-9))
    low, i = np.arange(larger)[:, None] * factor, np.arange(n)
    return np.asarray(np.clip(np.minimum(low + factor, i + 1) - np.maximum(low, i), 0, 1))


def rebin(
    frame: npt.NDArray[Any], values: npt.NDArray[Any], factors: tuple[float, float], power: int = 1
) -> npt.NDArray[np.float64]:
    """Values of the valid pixels, shared by area among larger pixels; ``power`` 2 squares the shares."""
    along, across = (overlap(n, f) ** power for n, f in zip(frame.shape, factors, strict=True))
    return np.asarray(along @ np.where(np.isfinite(frame), values, 0).astype(np.float64) @ across.T)
