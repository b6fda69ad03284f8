"""Twin of :mod:`xsmall.kernels.projection`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def projection(
    frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], axis: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sum along ``axis`` over the valid pixels, and their number."""
    valid = np.isfinite(frame) & use
    return np.where(valid, frame, 0).sum(axis=axis, dtype=np.float64), valid.sum(axis=axis)
