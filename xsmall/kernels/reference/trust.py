"""The slow, obvious NumPy twin of :mod:`xsmall.kernels.trust`: the oracle of its tests."""

import numpy as np
import numpy.typing as npt

__all__ = ["flags"]


def flags(
    raw: npt.NDArray[np.integer],
    static: npt.NDArray[np.uint32],
    plane: npt.NDArray[np.integer],
    of_stage: npt.NDArray[np.uint32],
    code_shift: int,
    code_mask: int,
    data_mask: int,
    limits: npt.NDArray[np.integer],
    names: npt.NDArray[np.uint32],
) -> npt.NDArray[np.uint32]:
    """Flag frames (k, pixel): every code is worked out everywhere, then chosen."""
    words = raw.astype(np.int64)
    code, value = (words >> code_shift) & code_mask, words & data_mask
    out = np.zeros(raw.shape, np.uint32)
    for c, p in enumerate(plane):
        low, high, below, above = limits[c]
        found = np.broadcast_to(static | (names[2] if p < 0 else of_stage[p]), raw.shape).copy()
        if p >= 0:
            found |= np.where((value < low) | (value > high), names[0], np.uint32(0))
            found |= np.where((value < below) | (value > above), names[1], np.uint32(0))
        out = np.where(code == c, found, out)
    return out
