"""Twin of :mod:`xsmall.kernels.entries`: the frame made whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def whole(pixel: Any, value: Any, lost: Any, used: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The frame of the shape of ``used`` that entries and runs of lost pixels stand for."""
    flat = np.where(used.ravel(), np.float32(0), np.float32(np.nan))
    flat[np.asarray(pixel, np.int64)] = value
    for first, stop in np.asarray(lost, np.int64).reshape(-1, 2):
        flat[first:stop] = np.nan
    return flat.reshape(used.shape)
