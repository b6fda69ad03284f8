"""Twin of :mod:`xsmall.kernels.fletcher`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fletcher32(words: npt.NDArray[np.uint16]) -> int:
    """Add words of swapped bytes, and their sums; carries are added at the lower end."""
    first = second = 0
    for word in words.byteswap().tolist():
        first = (first + word) % 65535 or 65535 * (first + word > 0)
        second = (second + first) % 65535 or 65535 * (second + first > 0)
    return second << 16 | first
