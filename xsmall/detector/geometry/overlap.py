"""Which block of memory each panel is: no two may share a pixel, and none may lie outside."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xsmall.detector.geometry.panel import Panel
from xsmall.errors import GeometryError

__all__ = ["MAX_PANELS", "check_memory"]

MAX_PANELS = 1 << 14
MAX_PIXELS = 1 << 30


def check_memory(panels: Sequence[Panel], shape: tuple[int, int, int]) -> None:
    """Refuse panels that lie outside the array or share a pixel, and arrays that nobody can have meant."""
    if not 0 < len(panels) <= MAX_PANELS:
        raise GeometryError("invalid number of panels in a geometry", found=len(panels))
    if min(shape) < 1 or shape[0] * shape[1] * shape[2] > MAX_PIXELS:
        raise GeometryError("invalid size of a detector", found=shape, expected=f"up to {MAX_PIXELS} pixels")
    blocks: dict[int, list[tuple[int, int, int, int]]] = {}
    for panel in panels:
        segment, rows, columns = panel.memory
        if segment >= shape[0] or rows.stop > shape[1] or columns.stop > shape[2]:
            raise GeometryError(
                "a panel outside the detector",
                found=f"segment {segment}, rows to {rows.stop}, columns to {columns.stop}",
                expected=f"within {shape}",
            )
        blocks.setdefault(segment, []).append((rows.start, rows.stop, columns.start, columns.stop))
    for segment, listed in blocks.items():
        if len(listed) > 1 and overlap(np.array(sorted(listed))):
            raise GeometryError(f"two panels share pixels of segment {segment}")


def overlap(blocks: npt.NDArray[np.int64]) -> bool:
    """Whether any two of some blocks (first row, last, first column, last; sorted by row) share a pixel."""
    first, last, left, right = blocks.T
    after = np.searchsorted(first, last)  # blocks from here on begin below block i
    for i in range(len(blocks) - 1):
        below = slice(i + 1, after[i])
        if ((left[below] < right[i]) & (left[i] < right[below])).any():
            return True
    return False
