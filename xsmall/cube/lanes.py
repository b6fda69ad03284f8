"""Moments of frames: rows of pixels by bin, filled by all threads of a process together, a lane of events at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import local
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.accumulator import Block, Row, clear_row
from xsmall.cube.kept import Kept
from xsmall.cube.moments import EXTREMES, PAIRS, SPREADS, Events, Index, Lanes, groups, in_groups
from xsmall.engine.blocks import Batch, Unopened
from xsmall.engine.record import GROUP
from xsmall.engine.team import Team
from xsmall.engine.transform import Cast, Transform
from xsmall.kernels import moments as kernel
from xsmall.kernels import pairs

READ_BYTES = 16 * 2**20
"""Raw bytes that are read together, unless a chunk is larger: joining chunks costs a copy, each reading some work."""

_STRIP = 1 << 16
"""Pixels that a thread adds at a time."""

_STRIP_BYTES = 1 << 22
"""Bytes of floats that a thread makes at a time, where a pixel needs no other: they stay in the cache."""


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
    more: tuple[str, ...] = ()
    """What is gathered beside the moments."""
    kept: Kept | None = None
    """Where finished lanes are kept."""

    @property
    def variance(self) -> bool:
        """Whether variances are summed beside."""
        return SPREADS in self.more


def rows_of_lanes(
    frames: Unopened | Batch,
    events: Events,
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
    events
        Bins and weights of these events.
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
    read = _Pieces(frames, events.bins, team, slice(*tile.rows) if part else None)

    def span(some: range) -> slice:
        return slice(way.lanes[some[0]][0] - first, way.lanes[some[-1]][1] - first)

    def block(some: list[range]) -> Block:
        return Block(max(_n_bins(events.bins[span(part)]) for part in some), pixels, way.more)

    fill = _Filler(transform, tile, way, team, at_once=kept is None)
    total = block([numbers]) if n_bins is None else Block(n_bins, pixels, way.more, by_bin=True)
    together = in_groups(numbers)
    apart = len(numbers) > 1 and not fill.whole_lanes
    lane = block([numbers[i : i + 1] for i in range(len(numbers))]) if apart else None
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
            if into is lane:
                into.clear()
            _fill_lane(read, events, span(alone), way, tile, fill, into, number == some[0] or into is lane, team)
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
    read: _Pieces,
    events: Events,
    lane: slice,
    way: Way,
    tile: Tile,
    fill: _Filler,
    block: Block,
    alone: bool,
    team: Team,
) -> None:
    """Add a lane to a block: alone, or merged with what is in it."""
    parts, n_rows, columns = tile.pixels(way.shape[1])
    own = events.bins[lane]
    bins = np.unique(own[own >= 0])
    if not bins.size:
        return
    fresh = None if alone else ~block.holds(bins)
    if alone:
        block.empty(bins, team)
    into = _Into(block, block.fill(bins), fresh)
    span = lane.stop - lane.start if fill.whole_lanes else way.batch
    for low in range(lane.start, lane.stop, span):
        high = min(low + span, lane.stop)
        batches = list(_batches(events, slice(low, high), way.batch, bins, into))
        if not batches:
            continue
        pieces = read.between(low, high)
        for i in range(parts):
            fill.add(i, low, high, pieces, batches, into, i * n_rows * columns)


class _Into(NamedTuple):
    """Where a lane goes."""

    block: Block
    rows: Index
    """Row of each of its bins in the block."""
    fresh: npt.NDArray[np.bool_] | None
    """Which of the rows are empty; None where the lane is added to the block itself, alone in its rows."""


class _Added(NamedTuple):
    """Events that are added together, bin by bin."""

    events: slice
    """Counted from the first of the span that is in memory."""
    groups: tuple[Index, Index, Index]
    """Their order, the first of each bin and the end, and the row of each bin, of those of the lane or of the block."""
    weight: npt.NDArray[np.float64] | None


def _batches(events: Events, span: slice, batch: int, bins: Index, into: _Into) -> Iterator[_Added]:
    for start in range(span.start, span.stop, batch):
        some = events.cut(slice(start, min(start + batch, span.stop)))
        order, first, of = groups(some.bins)
        if of.size:
            place = np.searchsorted(bins, of)
            rows = into.rows[place] if into.fresh is None else place
            at = slice(start - span.start, start - span.start + len(some.bins))
            yield _Added(at, (order, first, rows.astype(np.int64)), some.weight)


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


Pieces = list[tuple[int, Batch]]


class _Filler:
    """Makes floats of raw frames, one segment at a time, and adds them to the accumulators, strip of pixels by strip.

    Where ``whole_lanes`` is true all frames of a lane are in memory together: a thread then gathers a lane within its
    cache, a strip at a time, and merges it at once; no accumulator of a lane is written to memory.
    """

    def __init__(self, transform: Transform, tile: Tile, way: Way, team: Team, *, at_once: bool) -> None:
        self._transform = transform
        self._tile = tile
        self._way = way
        self._team = team
        self._rows = slice(*tile.rows)
        self._whole = tile.rows == (0, way.shape[0])
        self._pixels = (tile.rows[1] - tile.rows[0]) * way.shape[1]
        self._of_thread = local()
        longest = max(b - a for a, b in way.lanes)
        self.whole_lanes = at_once and longest <= way.batch
        alone = isinstance(transform, Cast)
        self._floats = None if alone else np.empty((2 if way.variance else 1, way.batch, self._pixels), transform.dtype)

    def add(self, i: int, low: int, high: int, pieces: Pieces, batches: list[_Added], into: _Into, at: int) -> None:
        """Add segment number ``i`` of those that were read, of the events from ``low`` to ``high``."""
        if self._floats is None:
            size = max(1024, _STRIP_BYTES // ((high - low) * self._transform.dtype.itemsize))

            def add_strip(strip: tuple[int, int]) -> None:
                floats = self._cast(i, low, high, pieces, strip)
                self._sum(floats, strip, 0, batches, into, at)
        else:
            size = _STRIP
            floats = self._floats
            self._team.map(lambda group: self._fill(i, low, *group), _by_group(pieces, low, high))

            def add_strip(strip: tuple[int, int]) -> None:
                self._sum(floats, strip, strip[0], batches, into, at)

        self._team.map(add_strip, [(p, min(p + size, self._pixels)) for p in range(0, self._pixels, size)])

    def _sum(
        self, floats: npt.NDArray[Any], strip: tuple[int, int], low: int, batches: list[_Added], into: _Into, at: int
    ) -> None:
        """Add a strip of pixels, which begins at ``low`` in the floats, to the block; or to a lane that is merged."""
        size, block, place = strip[1] - strip[0], into.block, at + strip[0]
        lane: Row | None = None
        if into.fresh is None:
            state, start = dict(zip(block.fields, block.arrays, strict=True)), place
        else:
            types = {field: m.dtype for field, m in zip(block.fields, block.arrays, strict=True)}
            state, start = {k: self._scratch(k, (len(into.rows), size), of) for k, of in types.items()}, 0
            lane = Row(**state)
            clear_row(lane)
        pixels = low, low + size, start - low
        for batch in batches:
            values = floats[0, batch.events]
            if SPREADS in self._way.more:
                kernel.add_variances(values, floats[1, batch.events], *batch.groups, state["spread"], *pixels)
            if PAIRS in self._way.more and batch.weight is not None:
                beside = (state[field] for field in ("n", "mean", "weight", "weight_m2", "cross"))
                pairs.add_pairs(values, batch.weight, *batch.groups, *beside, *pixels)
            if EXTREMES in self._way.more:
                pairs.add_extremes(values, *batch.groups, state["low"], state["high"], *pixels)
            kernel.add_frames(values, *batch.groups, state["n"], state["mean"], state["m2"], *pixels)
        if lane is not None and into.fresh is not None:
            block.take_lane(lane, into.rows, into.fresh, place, size)

    def _cast(self, i: int, low: int, high: int, pieces: Pieces, strip: tuple[int, int]) -> npt.NDArray[Any]:
        """Numbers that are what they are: a few pixels of all events become floats while in cache."""
        shape = (2 if self._way.variance else 1, high - low, strip[1] - strip[0])
        floats = self._scratch("floats", shape, self._transform.dtype)
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
        return floats

    def _fill(self, i: int, low: int, first: int, group: Batch) -> None:
        """Fill the floats of a few events, and their variances."""
        k, s = len(group.frames), self._tile.segments[0] + i
        raw, here = group.segment(slice(None), i), group.here(slice(None), i)
        assert self._floats is not None
        into = self._floats[:, first - low : first - low + k].reshape(len(self._floats), k, -1, self._way.shape[1])
        made = self._way.variance and group.variance is None
        out = into if self._whole else self._scratch("frames", (len(into), k, *self._way.shape), into.dtype)
        self._transform.apply(s, raw, here, out[0], *([out[1]] if made else []))
        if out is not into:
            into[...] = out[:, :, self._rows]
        if self._way.variance and not made:
            into[1] = group.variance[:, i, self._rows]

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A buffer of this thread."""
        held: dict[str, npt.NDArray[Any]] = self._of_thread.__dict__
        size = int(np.prod(shape))
        if name not in held or held[name].size < size:
            held[name] = np.empty(size, dtype)
        return held[name][:size].reshape(shape)


def _by_group(pieces: Pieces, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
    """Yield (first event, frames) a few events at a time."""
    for first, read in pieces:
        low, high = max(start, first), min(stop, first + len(read.frames))
        for event in range(low, high, GROUP):
            yield event, read.cut(slice(event - first, min(event + GROUP, high) - first))
