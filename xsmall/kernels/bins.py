"""Which bin a value falls into, whatever the widths of the bins are.

A table of equal slots over the range of the bins gives the first bin to try.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["find_bin", "first_bins"]

_SLOTS_PER_BIN = 4


def first_bins(edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Bin that holds the left border of each of equal slots over the range of the edges: where to start looking."""
    slots = np.linspace(edges[0], edges[-1], _SLOTS_PER_BIN * (edges.size - 1), endpoint=False)
    return np.clip(np.searchsorted(edges, slots, side="right") - 1, 0, edges.size - 2).astype(np.int32)


@njit
def find_bin(value: Any, edges: Any, first: Any) -> Any:
    """Bin of a value that lies between the outer edges, closed left and open right.

    Parameters
    ----------
    value
        At least ``edges[0]`` and below ``edges[-1]``.
    edges, first
        (bin + 1,) borders that rise, and :func:`first_bins` of them.
    """
    per_slot = first.size / (edges[edges.size - 1] - edges[0])
    b = first[min(int((value - edges[0]) * per_slot), first.size - 1)]
    while b > 0 and value < edges[b]:
        b -= 1
    while value >= edges[b + 1]:
        b += 1
    return b
