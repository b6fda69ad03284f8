"""The edge that a camera time tool found, out of the bytes that it was first written in.

The bytes are a batch: a header of 16 bytes, then frames, each with a tail of 16 bytes behind it that holds its size and
where it is meant for. Frame 1 is a batch of the same form, and frame 0 in it begins with the position of the edge.
Later versions of the time tool have a field of its own for each result.
Source: the public psana sources, checked against psana on real files.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.io.sources.xtc2.fields import EventField, FieldKey
from xsmall.io.sources.xtc2.ragged_fields import ListArray
from xsmall.io.sources.xtc2.run_index import RunFiles

__all__ = ["EDGE_POSITION", "EdgeArray", "edge_field", "edge_position"]

EDGE_POSITION: Final = "edge_position"
_TYPES: Final = frozenset({"ttdet"})
_ALG: Final = "ttalg"
_WIDTH: Final = 16
_RESULT, _EDGE = 1, 0


def frames_of(batch: bytes) -> dict[int, bytes] | None:
    """Give the frames of a batch by where they are meant for; None where the sizes do not add up."""
    frames: dict[int, bytes] = {}
    end = len(batch)
    while end > _WIDTH:
        tail = end - _WIDTH
        size = int.from_bytes(batch[tail : tail + 2], "little")
        start = tail - size
        if start < _WIDTH:
            return None
        frames[batch[tail + 4]] = batch[start:tail]  # the first of a kind stands nearest to the header
        end = start
    return frames if end == _WIDTH else None


def edge_position(data: bytes) -> float:
    """Position of the edge in pixels; NaN where the bytes do not tell one."""
    batch = frames_of(data) or {}
    result = batch.get(_RESULT)
    edge = (frames_of(result) or {}).get(_EDGE) if result else None
    return float(int.from_bytes(edge[:2], "little")) if edge is not None and len(edge) >= 2 else float("nan")


def edge_field(detector_type: str, fields: Sequence[EventField]) -> EventField | None:
    """Find the field that holds the bytes of a time tool."""
    if detector_type not in _TYPES:
        return None
    found = [f for f in fields if f.key.alg == _ALG and f.key.field == "data" and f.dtype == np.dtype("u1")]
    return found[0] if found and found[0].rank == 1 else None


class EdgeArray(ListArray):
    """Position of the edge (event, segment), float64, in pixels.

    Parameters
    ----------
    files
        The bytes to decode.
    key
        The field.
    """

    def __init__(self, files: RunFiles, key: FieldKey) -> None:
        super().__init__(files, key)
        self.dtype = np.dtype(float)

    def empty(self, n: int) -> npt.NDArray[Any]:
        """No edge."""
        return np.full(n, np.nan)

    def value(self, data: npt.NDArray[np.uint8]) -> Any:
        """Decode the bytes."""
        return edge_position(data.tobytes())
