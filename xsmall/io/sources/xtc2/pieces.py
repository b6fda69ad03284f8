"""Pieces of the files of a stream, read to where they belong, in as few reads as they allow."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError, FileFormatError
from xsmall.io.files import as_bytes
from xsmall.io.sources.xtc2.chain import Chain

__all__ = ["fill", "fill_rows"]

_GAP: Final = 1 << 15
"""Bytes that are rather read over than left out by another read."""
_LONGEST: Final = 1 << 24
"""Bytes of one read."""
_SMALL: Final = 64
"""Bytes of a piece that is rather copied out of what lies around it than read for itself."""
_SMALL_GAP: Final = 1 << 10
_SMALL_READ: Final = 1 << 20
_MANY: Final = 16
"""Small pieces of a read: fewer are not worth it."""


def fill_rows(
    chain: Chain, where: npt.NDArray[np.int64], rows: npt.NDArray[Any], numbers: npt.NDArray[np.intp]
) -> None:
    """Fill some rows of an array, each of which is a piece of the files.

    Parameters
    ----------
    chain
        The files.
    where
        Offset of each piece; they rise.
    rows
        (row, value), C-contiguous.
    numbers
        The row of each piece.

    Raises
    ------
    DamagedDataError, FileFormatError
        As :func:`fill`.
    """
    if rows.shape[1] * rows.itemsize > _SMALL or not _copied_out(chain, where, rows, numbers):
        fill(chain, where.tolist(), [rows[n] for n in numbers.tolist()])


def _copied_out(
    chain: Chain, where: npt.NDArray[np.int64], rows: npt.NDArray[Any], numbers: npt.NDArray[np.intp]
) -> bool:
    """Read small pieces together with what lies between them; False where that is not worth it, or fails."""
    size = rows.shape[1] * rows.itemsize
    into = rows.view(np.uint8).reshape(len(rows), size)
    spans = list(_spans(chain, where, size))
    if len(spans) * _MANY > where.size:
        return False
    around = np.empty(max(int(where[b - 1] - where[a]) for a, b in spans) + size, np.uint8)
    files = [chain.open(k) for k in sorted({chain.number(int(where[a])) for a, _ in spans})]
    try:
        for a, b in spans:
            part = around[: int(where[b - 1] - where[a]) + size]
            chain.read_into(int(where[a]), [part])
            pieces = np.lib.stride_tricks.sliding_window_view(part, size)
            into[numbers[a:b]] = pieces[where[a:b] - where[a]]
    except (OSError, FileFormatError):
        return False  # found again, and told, piece by piece
    for file in files:
        file.check()
    return True


def _spans(chain: Chain, where: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Group pieces that lie near each other in one file: the first of each group, and the one behind its last."""
    if not where.size:
        return
    gaps = np.diff(where) - size
    file = np.searchsorted(chain.starts, where, side="right")
    block = (where - where[0]) // _SMALL_READ
    cut = (gaps < 0) | (gaps > _SMALL_GAP) | (np.diff(file) != 0) | (np.diff(block) != 0)
    starts = [0, *(np.flatnonzero(cut) + 1).tolist()]
    yield from zip(starts, [*starts[1:], where.size], strict=True)


def fill(chain: Chain, where: list[int], pieces: list[npt.NDArray[Any]], *, holes: bool = True) -> None:
    """Fill the pieces from the files; what turns out unreadable is an error, or inside a pass over a run a hole.

    Parameters
    ----------
    chain, where, pieces
        Files, offsets that rise, and what is to be filled.
    holes
        Whether the pieces are frames, for which a pass knows how to leave them out.

    Raises
    ------
    DamagedDataError
        With file, byte and reason.
    FileFormatError
        A file is gone, or its bytes are not those that were meant: neither is a hole.
    """
    files = [chain.open(k) for k in sorted({chain.number(offset) for offset in where})]
    try:
        read_pieces(chain, where, [as_bytes(piece) for piece in pieces])
    except (OSError, FileFormatError):  # found again below, frame by frame
        for offset, piece in zip(where, pieces, strict=True):
            try:
                read_pieces(chain, [offset], [as_bytes(piece)])
            except (OSError, FileFormatError) as error:
                damaged = _damaged(chain, offset, error)
                if not holes:
                    raise damaged from error
                piece[...] = unreadable(damaged, piece.dtype)
    for file in files:
        file.check()


def _damaged(chain: Chain, offset: int, error: Exception) -> DamagedDataError:
    number = chain.number(offset)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
    return DamagedDataError(
        f"{chain.files[number].path}, byte {offset - chain.starts[number]}: cannot be read",
        found=reason,
        expected="the bytes that were there when the run was opened",
        fix="open the run again; copy the file again where that does not help",
    )


def read_pieces(chain: Chain, where: list[int], pieces: list[npt.NDArray[np.uint8]]) -> None:
    """Fill the pieces, whose places rise, from the files; neighbours go in one read, over small gaps."""
    gap = np.empty(_GAP, np.uint8)
    buffers: list[npt.NDArray[np.uint8]] = []
    start = end = edge = 0
    for offset, piece in zip(where, pieces, strict=True):
        last = offset + piece.nbytes
        if buffers and not (0 <= offset - end <= _GAP and last - start <= _LONGEST and last <= edge):
            chain.read_into(start, buffers)
            buffers = []
        if not buffers:
            start = end = offset
            edge = chain.ends(chain.number(offset))
        if offset > end:
            buffers.append(gap[: offset - end])
        buffers.append(piece)
        end = last
    if buffers:
        chain.read_into(start, buffers)
