"""Chunks that are stored as they are: read straight from the file into the result.

HDF5 reads such a chunk into memory of its own and copies it from there. Straight reading saves the copy, and the lock
that HDF5 holds while it reads. A checksum behind the chunk is compared as the library would.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.io.files import as_bytes

__all__ = ["CHECKSUM_BYTES", "StoredChunk", "can_be_read_straight", "read_chunk", "shared"]

CHECKSUM_BYTES: Final = 4
_SMALLEST: Final = 1 << 14
"""Bytes of a piece: below that the library is as quick."""


class StoredChunk(NamedTuple):
    """A chunk whose bytes are the numbers of the array."""

    read: Callable[[int, Sequence[npt.NDArray[np.uint8]]], None]
    """Fills buffers, one behind the other, with the bytes of the chunk from an offset on."""
    checksum: Callable[[npt.NDArray[np.uint8]], int] | None = None
    """Of all bytes of the chunk; behind them it is stored, in four bytes, the lowest first."""


def can_be_read_straight(dtype: np.dtype[Any]) -> bool:
    """Whether the bytes of a file are the numbers in memory: of plain types, in this machine's order."""
    return dtype.kind in "iuf" and dtype.isnative


def read_chunk(
    out: npt.NDArray[Any], region: Sequence[slice], part: Sequence[slice], chunk: Sequence[int], stored: StoredChunk
) -> bool:
    """Fill that part of a block which lies in a chunk.

    Parameters
    ----------
    out
        The block, C-contiguous.
    region
        Which elements of the array it is.
    part
        Which elements lie in the chunk.
    chunk
        Shape of the chunk as it is stored, beyond the edge of the array too.
    stored
        Its bytes.

    Returns
    -------
    Whether it was read: False where the block takes many small pieces of the chunk, or where there is a checksum that
    differs, or that holds for more than the block takes in one piece.
    """
    both = shared(part, region)
    low, high = [s.start for s in both], [s.stop for s in both]
    axis = _joined_from(low, high, chunk, out.shape)
    itemsize = out.dtype.itemsize
    steps = [itemsize * math.prod(chunk[k + 1 :]) for k in range(len(chunk))]
    if (high[axis] - low[axis]) * steps[axis] < _SMALLEST:
        return False
    if stored.checksum is not None:
        if axis or high[0] - low[0] != chunk[0]:
            return False
        whole = as_bytes(out[low[0] - region[0].start : high[0] - region[0].start])
        word = np.empty(CHECKSUM_BYTES, np.uint8)
        stored.read(0, [whole, word])
        return stored.checksum(whole) == int.from_bytes(word.tobytes(), "little")
    pieces: list[tuple[int, npt.NDArray[np.uint8]]] = []
    for at in itertools.product(*(range(a, b) for a, b in zip(low[:axis], high[:axis], strict=True))):
        first = [*at, *low[axis:]]
        offset = sum((i - p.start) * step for i, p, step in zip(first, part, steps, strict=True))
        inside = tuple(i - r.start for i, r in zip(at, region, strict=False))
        along = slice(low[axis] - region[axis].start, high[axis] - region[axis].start)
        pieces.append((offset, as_bytes(out[(*inside, along)])))
    for start, buffers in _consecutive_pieces(pieces):
        stored.read(start, buffers)
    return True


def shared(part: Sequence[slice], region: Sequence[slice]) -> tuple[slice, ...]:
    """Which elements of an array lie in a chunk and in a block."""
    pairs = zip(part, region, strict=True)
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)


def _joined_from(low: list[int], high: list[int], chunk: Sequence[int], shape: tuple[int, ...]) -> int:
    """The first axis from which on the elements lie behind each other, in the chunk as in the block."""
    axis = len(chunk) - 1
    while axis and high[axis] - low[axis] == chunk[axis] == shape[axis]:
        axis -= 1
    return axis


def _consecutive_pieces(
    pieces: list[tuple[int, npt.NDArray[np.uint8]]],
) -> Iterator[tuple[int, list[npt.NDArray[np.uint8]]]]:
    """Group pieces that follow one another in the chunk."""
    start = end = -1
    buffers: list[npt.NDArray[np.uint8]] = []
    for offset, piece in pieces:
        if offset != end:
            if buffers:
                yield start, buffers
            start, buffers = offset, []
        buffers.append(piece)
        end = offset + piece.nbytes
    if buffers:
        yield start, buffers
