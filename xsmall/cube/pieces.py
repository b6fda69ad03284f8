"""Frames of consecutive events, read piece by piece in order by all threads of a process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import Index
from xsmall.engine.blocks import Batch, Unopened
from xsmall.engine.record import GROUP
from xsmall.engine.team import Team
from xsmall.engine.transform import Cast

__all__ = ["READ_BYTES", "EventPiece", "Pieces", "by_group", "in_place", "pieces_held"]

T = TypeVar("T")

READ_BYTES: Final = 16 * 2**20
"""Raw bytes that are read together, unless a chunk is larger: joining chunks costs a copy, each reading some work."""

_LARGE: Final = 64 * 2**20
"""Bytes of a piece from which on no more of them wait in memory than threads can read at once."""

EventPiece = tuple[int, Batch]
"""The first event, and the frames."""


def pieces_held(threads: int, piece_bytes: int) -> int:
    """How many pieces are in memory at the most, beside a batch: those that are added, and those read ahead."""
    return threads + 1 + (threads if piece_bytes <= _LARGE else 0)


class Pieces:
    """Frames of consecutive events: those that are needed now, and while they are added up the next ones.

    Parameters
    ----------
    frames
        The frames, unopened or in memory.
    index
        Bins of the events: of what is -1 nothing needs to be read.
    team
        Who reads.
    rows
        Rows that are wanted, where no pixel needs another: others need not wait in memory.
    cast
        The transform of frames that are taken as they are: it knows which of them are padded.
    """

    def __init__(
        self,
        frames: Unopened | Batch,
        index: Index,
        team: Team,
        rows: slice | None = None,
        cast: Cast | None = None,
    ) -> None:
        self._rows = rows
        self._cast = cast
        self._frames = frames
        self._team = team
        self._parts = [(0, len(index))] if isinstance(frames, Batch) else frames.parts(index >= 0, READ_BYTES)
        self._held: dict[tuple[int, int], Batch] = {}
        self._to_come: list[tuple[int, int]] = []
        self._let_go: list[Batch] = []

    def together(self, batch: int) -> int:
        """Events, some batches, that are best added together: those of as many pieces as there are threads."""
        longest = max((stop - start for start, stop in self._parts), default=batch)
        large = isinstance(self._frames, Unopened) and longest * self._frames.bytes_per_event > _LARGE
        return batch if large else batch * max(1, self._team.n * longest // batch)

    def between(self, start: int, stop: int, last: int) -> list[EventPiece]:
        """Pieces that overlap some events; those before them are let go. Up to the event ``last`` others may follow."""
        self._let_go += [self._held.pop(part) for part in list(self._held) if part[1] <= start]
        needed = [part for part in self._parts if part[0] < stop and part[1] > start]
        to_read = [part for part in needed if part not in self._held]
        if to_read:  # what is let go makes room for what is read, piece by piece
            self._make_all([*self._lettings_go(), *(partial(self._read, part) for part in to_read)])
        ahead = [part for part in self._parts if stop <= part[0] < last][: self._team.n]
        self._to_come = [part for part in ahead if part not in self._held]
        return [(part[0], self._held[part]) for part in needed]

    def map(self, function: Callable[[T], object], items: Iterable[T]) -> None:
        """Call a function for each item, by all threads, which read what comes next meanwhile."""
        ahead, self._to_come = self._to_come, []
        calls = self._lettings_go()
        calls += [partial(self._read, part) for part in ahead]
        calls += [partial(function, item) for item in items]
        self._make_all(calls)

    def _make_all(self, calls: Iterable[Callable[[], object]]) -> None:
        self._team.map(lambda call: call(), calls)

    def _lettings_go(self) -> list[Callable[[], object]]:
        """Calls that each let a piece go: to give memory back takes time, which the other threads need not wait for."""
        let_go, self._let_go = [[piece] for piece in self._let_go], []
        return [piece.clear for piece in let_go]

    def _read(self, part: tuple[int, int]) -> None:
        whole = self._frames if isinstance(self._frames, Batch) else self._frames.read(*part)
        if self._cast is not None:
            whole = self._cast.flagged(whole)
        if self._rows is not None:
            whole = whole.put({
                i: m[:, :, self._rows].copy() for i, m in enumerate(whole.members()) if m is not None and m.ndim == 4
            })  # fmt: skip
        self._held[part] = whole


def by_group(pieces: Iterable[EventPiece], start: int, stop: int) -> Iterator[EventPiece]:
    """Yield (first event, frames) a few events at a time."""
    for first, read in pieces:
        low, high = max(start, first), min(stop, first + len(read.frames))
        for event in range(low, high, GROUP):
            yield event, read.cut(slice(event - first, min(event + GROUP, high) - first))


def in_place(
    pieces: Iterable[EventPiece], segment: int, start: int, stop: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]] | None:
    """Frames of one segment where they lie in memory, without a copy.

    Returns what :func:`xsmall.kernels.add_frames.add_frames` takes: one array that begins with the frame of the lowest
    address and reaches over the others, and the place of the first pixel of each event from ``start`` to ``stop``. Only
    these pixels may be read, while the pieces are in memory. None where something is missing, or does not lie as a
    kernel can read it.
    """
    found: list[tuple[slice, npt.NDArray[Any]]] = []
    for first, piece in pieces:
        low, high = max(start, first), min(stop, first + len(piece.frames))
        if not piece.here(slice(low - first, high - first), segment).all():
            return None
        frames = piece.frames[low - first : high - first, segment]
        if not _is_plain(frames) or (found and frames.dtype != found[0][1].dtype):
            return None
        found.append((slice(low - start, high - start), frames))
    lowest = min((frames for _, frames in found), key=_memory_address, default=None)
    if lowest is None:
        return None
    size = lowest.dtype.itemsize
    begin = np.zeros(stop - start, np.int64)
    for events, frames in found:
        begin[events] = _memory_address(frames) - _memory_address(lowest) + np.arange(len(frames)) * frames.strides[0]
    if (begin % size).any():
        return None
    begin //= size
    reach = int(begin.max()) + lowest[0].size
    return np.lib.stride_tricks.as_strided(lowest[0].reshape(-1), (reach,), (size,), writeable=False), begin


def _is_plain(frames: Any) -> bool:
    """Whether a kernel can read frames (k, row, column) as they are: each whole, one after the other."""
    return (
        isinstance(frames, np.ndarray)
        and frames.dtype in (np.uint16, np.float32, np.float64)
        and frames.dtype.isnative
        and frames.flags.aligned
        and len(frames) > 0
        and frames[0].flags.c_contiguous
        and frames.strides[0] > 0
    )


def _memory_address(frames: npt.NDArray[Any]) -> int:
    where: int = frames.__array_interface__["data"][0]
    return where
