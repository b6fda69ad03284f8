"""Moments of frames: rows of pixels by bin, filled by all threads of a process together, a lane of events at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import local
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.accumulator import Block
from xsmall.cube.kept import Kept
from xsmall.cube.moments import Index, Lanes, groups, in_groups
from xsmall.engine.blocks import Batch, Unopened
from xsmall.engine.record import GROUP
from xsmall.engine.team import Team
from xsmall.engine.transform import Cast, Transform
from xsmall.kernels import moments as kernel

READ_BYTES = 16 * 2**20
"""Raw bytes that are read together, unless a chunk is larger: joining chunks costs a copy, each reading some work."""

_STRIP = 1 << 16
"""Pixels that a thread adds at a time."""

_STRIP_BYTES = 1 << 20
"""Bytes of floats that a thread makes at a time, where a pixel needs no other: they stay in its cache."""


@dataclass(frozen=True)
class Tile:
    """Pixels that one task accumulates: segments and rows, half open; all columns."""

    segments: tuple[int, int]
    rows: tuple[int, int]

    @property
    def name(self) -> str:
        """What files of the tile are called."""
        return "segments-{}-{}_rows-{}-{}".format(*self.segments, *self.rows)

    def pixels(self, columns: int) -> tuple[int, int, int]:
        """Shape: segments, rows, columns."""
        return self.segments[1] - self.segments[0], self.rows[1] - self.rows[0], columns


class Way(NamedTuple):
    """How the frames of a cube are accumulated; one for all its tasks. Opaque to dask, which takes it as it is."""

    lanes: Lanes
    batch: int
    """Events of a batch."""
    shape: tuple[int, int]
    """Rows and columns of a segment."""
    variance: bool
    """Whether variances are summed beside."""
    kept: Kept | None = None
    """Where finished lanes are kept."""


def rows_of_lanes(
    frames: Unopened | Batch,
    index: Index,
    numbers: range,
    way: Way,
    tile: Tile,
    transform: Transform,
    team: Team,
    *,
    n_bins: int | None = None,
) -> Block:
    """Moments of some lanes and one tile, merged in the fixed order.

    Parameters
    ----------
    frames
        The frames of the tile's segments, whole rows and columns, from the first of the lanes to the last; unopened, or
        in memory.
    index
        Bin of each of these events, -1 for none.
    numbers
        The lanes, one group of them, or all.
    way, tile, transform
        What is done.
    team
        Who does it.
    n_bins
        Where these are all lanes, the bins of the cube: the block has them in order.
    """
    kept = None if way.kept is None else way.kept.tile(tile.name)
    first = way.lanes[numbers[0]][0]
    pixels = int(np.prod(tile.pixels(way.shape[1])))
    part = isinstance(transform, Cast) and tile.rows != (0, way.shape[0])
    read = _Pieces(frames, index, team, slice(*tile.rows) if part else None)
    fill = _Filler(transform, tile, way, team)

    def events(some: range) -> slice:
        return slice(way.lanes[some[0]][0] - first, way.lanes[some[-1]][1] - first)

    def block(some: list[range]) -> Block:
        return Block(max(_n_bins(index[events(part)]) for part in some), pixels, variance=way.variance)

    total = block([numbers]) if n_bins is None else Block(n_bins, pixels, variance=way.variance, by_bin=True)
    together = in_groups(numbers)
    lane = block([numbers[i : i + 1] for i in range(len(numbers))]) if len(numbers) > 1 else None
    group = block(together) if len(together) > 1 else total
    for some in together:
        done = kept.get(_name(some)) if kept is not None and group is not total else None
        if kept is not None and done is not None:
            total.take(done, team)
            kept.drop([_name(range(number, number + 1)) for number in some])  # where a kill came in between
            continue
        group.clear()
        for number in some:
            alone = range(number, number + 1)
            finished = None if kept is None else kept.get(_name(alone))
            if finished is not None:
                group.take(finished, team)
                continue
            into = group if lane is None or number == some[0] else lane
            into.clear()
            _fill_lane(read, index, events(alone), way, tile, fill, into, team)
            if kept is not None:
                kept.put(_name(alone), into.rows())
            if into is not group:
                group.take(into.rows(), team)
        if group is not total:
            if kept is not None:
                kept.put(_name(some), group.rows())
                kept.drop([_name(range(number, number + 1)) for number in some])
            total.take(group.rows(), team)
    return total


def _name(numbers: range) -> str:
    return f"lane-{numbers[0]}" if len(numbers) == 1 else f"lanes-{numbers[0]}-{numbers[-1]}"


def _n_bins(index: Index) -> int:
    return len(np.unique(index[index >= 0]))


def _fill_lane(
    read: _Pieces, index: Index, events: slice, way: Way, tile: Tile, fill: _Filler, block: Block, team: Team
) -> None:
    parts, n_rows, columns = tile.pixels(way.shape[1])
    own = index[events]
    block.empty(np.unique(own[own >= 0]), team)
    for low in range(events.start, events.stop, way.batch):
        high = min(low + way.batch, events.stop)
        order, first, of = groups(index[low:high])
        if not of.size:
            continue
        batch = order, first, block.place(of)
        pieces = read.between(low, high)
        for i in range(parts):
            fill.add(i, low, high, pieces, batch, block.arrays, i * n_rows * columns)


class _Pieces:
    """Frames of consecutive events, read piece by piece in order; those that are needed now, by all threads."""

    def __init__(self, frames: Unopened | Batch, index: Index, team: Team, rows: slice | None = None) -> None:
        self._rows = rows  # where no pixel needs another, other rows need not wait in memory
        self._frames = frames
        self._team = team
        self._parts = [(0, len(index))] if isinstance(frames, Batch) else frames.parts(index >= 0, READ_BYTES)
        self._held: dict[tuple[int, int], Batch] = {}

    def between(self, start: int, stop: int) -> list[tuple[int, Batch]]:
        """Yield (first event, frames) of the pieces that overlap; those before them are let go."""
        self._held = {part: read for part, read in self._held.items() if part[1] > start}
        needed = [part for part in self._parts if part[0] < stop and part[1] > start]
        new = [part for part in needed if part not in self._held]
        if new:  # and the next ones, so that no thread is idle
            ahead = [part for part in self._parts if part[0] > new[-1][0]]
            new += ahead[: -len(new) % self._team.n]
        self._held |= dict(zip(new, self._team.map(self._read, new), strict=True))
        return [(part[0], self._held[part]) for part in needed]

    def _read(self, part: tuple[int, int]) -> Batch:
        whole = self._frames if isinstance(self._frames, Batch) else self._frames.read(*part)
        if self._rows is None:
            return whole
        cut = {i: m[:, :, self._rows].copy() for i, m in enumerate(whole.members()) if m is not None and m.ndim == 4}
        return whole.put(cut)


Groups = tuple[Index, Index, Index]
Pieces = list[tuple[int, Batch]]


class _Filler:
    """Makes floats of the raw frames of a batch, one segment at a time, and adds them to the accumulators."""

    def __init__(self, transform: Transform, tile: Tile, way: Way, team: Team) -> None:
        self._transform = transform
        self._tile = tile
        self._way = way
        self._team = team
        self._rows = slice(*tile.rows)
        self._whole = tile.rows == (0, way.shape[0])
        self._pixels = (tile.rows[1] - tile.rows[0]) * way.shape[1]
        self._of_thread = local()
        alone = isinstance(transform, Cast)
        self._batch = None if alone else np.empty((2 if way.variance else 1, way.batch, self._pixels), transform.dtype)

    def add(self, i: int, low: int, high: int, pieces: Pieces, batch: Groups, block: Any, at: int) -> None:
        """Add segment number ``i`` of those that were read, of the events from ``low`` to ``high``."""
        if self._batch is None:
            step = max(1024, _STRIP_BYTES // (self._way.batch * self._transform.dtype.itemsize))
            self._team.map(
                lambda strip: self._add_strip(i, low, high, pieces, batch, block, at, strip), self._strips(step)
            )
            return
        self._team.map(lambda group: self._fill(i, low, *group), _by_group(pieces, low, high))
        values, spreads = self._batch[0], self._batch[-1] if self._way.variance else None
        self._team.map(lambda strip: _add(values, spreads, batch, block, *strip, at), self._strips(_STRIP))

    def _strips(self, step: int) -> list[tuple[int, int]]:
        return [(p, min(p + step, self._pixels)) for p in range(0, self._pixels, step)]

    def _add_strip(
        self, i: int, low: int, high: int, pieces: Pieces, batch: Groups, block: Any, at: int, strip: tuple[int, int]
    ) -> None:
        """Numbers that are what they are: a few pixels of all events become floats and are added while in cache."""
        size = strip[1] - strip[0]
        floats = self._scratch((2 if self._way.variance else 1, high - low, size))
        for first, piece in pieces:
            a, b = max(low, first), min(high, first + len(piece.frames))
            events, into = slice(a - first, b - first), slice(a - low, b - low)
            rows = piece.frames[events, i].reshape(b - a, -1)
            np.copyto(floats[0, into], rows[:, slice(*strip)], casting="unsafe")
            if piece.present is not None:
                floats[0, into][~piece.present[events, i]] = np.nan
            if self._way.variance:
                rows = piece.variance[events, i].reshape(b - a, -1)
                np.copyto(floats[1, into], rows[:, slice(*strip)], casting="unsafe")
        spreads = floats[1] if self._way.variance else None
        _add(floats[0], spreads, batch, block, 0, size, at + strip[0])

    def _fill(self, i: int, low: int, first: int, group: Batch) -> None:
        """Fill the floats of a few events, and their variances."""
        k, s = len(group.frames), self._tile.segments[0] + i
        raw, here = group.segment(slice(None), i), group.here(slice(None), i)
        assert self._batch is not None
        into = self._batch[:, first - low : first - low + k].reshape(len(self._batch), k, -1, self._way.shape[1])
        made = self._way.variance and group.variance is None
        out = into if self._whole else self._scratch((len(into), k, *self._way.shape))
        self._transform.apply(s, raw, here, out[0], *([out[1]] if made else []))
        if out is not into:
            into[...] = out[:, :, self._rows]
        if self._way.variance and not made:
            into[1] = group.variance[:, i, self._rows]

    def _scratch(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A buffer of this thread."""
        held: npt.NDArray[Any] | None = getattr(self._of_thread, "held", None)
        size = int(np.prod(shape))
        if held is None or held.size < size:
            held = self._of_thread.held = np.empty(size, self._transform.dtype)
        return held[:size].reshape(shape)


def _add(
    values: npt.NDArray[Any], spreads: npt.NDArray[Any] | None, batch: Groups, block: Any, low: int, high: int, at: int
) -> None:
    kernel.add_frames(values, *batch, *block[:3], low, high, at)
    if spreads is not None:
        kernel.add_variances(values, spreads, *batch, block[3], low, high, at)


def _by_group(pieces: Pieces, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
    """Yield (first event, frames) a few events at a time."""
    for first, read in pieces:
        low, high = max(start, first), min(stop, first + len(read.frames))
        for event in range(low, high, GROUP):
            yield event, read.cut(slice(event - first, min(event + GROUP, high) - first))
