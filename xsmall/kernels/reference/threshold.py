"""Twin of :mod:`xsmall.kernels.threshold`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def threshold(frames: npt.NDArray[Any], low: float, high: float, noise: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """0 below ``low``, NaN above ``high`` and where the noise is not known; both in multiples of the noise if given."""
    scale = np.ones(frames.shape[1:]) if noise is None else noise
    out = np.where(frames < low * scale, 0, frames)
    return np.where((frames > high * scale) | np.isnan(scale) | ~np.isfinite(frames), np.nan, out)
