"""Floats of raw frames, made one segment at a time and added to accumulators, strip of pixels by strip."""

from __future__ import annotations

from dataclasses import dataclass
from threading import local
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.accumulator import HeldRow, Row, RowBlock, clear_row
from xsmall.cube.kept import Kept
from xsmall.cube.moments import EXTREMES, PAIRS, RATIOS, VARIANCES, Index, Lanes
from xsmall.cube.pieces import EventPiece, Pieces, by_group, in_place
from xsmall.cube.together import Reductions, float_batch
from xsmall.engine.blocks import Batch
from xsmall.engine.transform import Cast, Transform
from xsmall.kernels import add_frames as kernel
from xsmall.kernels import pairs

__all__ = ["AddedEvents", "Filler", "Lane", "RowsOfBlock", "Tile", "Way"]

_STRIP = 1 << 16
"""Pixels that a thread adds at a time, where floats were made of them before,"""

_STRIP_IN_PLACE = 1 << 14
"""and where they are added as they were read: their accumulators stay in the cache from batch to batch."""

_STRIP_BYTES = 1 << 22
"""Bytes of floats that a thread makes at a time, where a pixel needs no other: they stay in the cache."""

SortedStack = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]
"""Frames of one segment as the kernel takes them: values, and where each frame begins."""


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
        return VARIANCES in self.more


class RowsOfBlock(NamedTuple):
    """Groups of events of one batch whose rows lie in one block."""

    block: RowBlock
    order: Index
    """The events in the order of their bins,"""
    first: Index
    """the first of each bin and the end,"""
    rows: Index
    """and the row of each bin."""
    how: npt.NDArray[np.uint8]
    """What is done with each row."""

    @property
    def groups(self) -> tuple[Index, Index, Index]:
        """Order, first of each group, and its row."""
        return self.order, self.first, self.rows


class AddedEvents(NamedTuple):
    """Events that are added together, bin by bin."""

    events: slice
    """Counted from the first of the span that is in memory."""
    groups: tuple[Index, Index, Index]
    """Their order, the first of each bin and the end, and the number of each bin in the lane."""
    parts: list[RowsOfBlock]
    """The same by the block that they go into."""
    weight: npt.NDArray[np.float64] | None


class Lane(NamedTuple):
    """Where the bins of a lane go, in order."""

    places: list[HeldRow]
    fresh: list[bool]
    """Whether there is nothing in the place yet, whatever its memory holds."""


class Filler:
    """Makes floats of raw frames, one segment at a time, and adds them to the accumulators, strip of pixels by strip.

    Where ``whole_lanes`` is true all frames of a lane are in memory together: a thread then gathers a lane within its
    cache, a strip at a time, and merges it at once; no accumulator of a lane is written to memory. Frames of numbers
    that are what they are go into the accumulators from where they were read.
    """

    def __init__(
        self,
        transform: Transform,
        tile: Tile,
        way: Way,
        read: Pieces,
        *,
        at_once: bool,
        beside: Reductions | None = None,
    ) -> None:
        self._transform = transform
        self._tile = tile
        self._way = way
        self._read = read
        self._rows = slice(*tile.rows)
        self._whole = tile.rows == (0, way.shape[0])
        self._pixels = (tile.rows[1] - tile.rows[0]) * way.shape[1]
        self._of_thread = local()
        longest = max(b - a for a, b in way.lanes)
        self.whole_lanes = at_once and longest <= way.batch
        alone = isinstance(transform, Cast)
        self.beside = beside
        """Reductions of the same frames."""
        self._floats = self._frames = None
        if not alone and beside is not None:
            kinds = 2 if way.variance or beside.variance else 1
            self._frames = np.empty((kinds, way.batch, *tile.pixels(way.shape[1])), transform.dtype)
        elif not alone:
            self._floats = np.empty((2 if way.variance else 1, way.batch, self._pixels), transform.dtype)
        self.span = max(1, longest) if self.whole_lanes else read.together(way.batch) if alone else way.batch
        """Events that are best added together."""

    def add(self, low: int, high: int, pieces: list[EventPiece], batches: list[AddedEvents], lane: Lane) -> None:
        """Add the events from ``low`` to ``high``."""
        segments = self._tile.segments[1] - self._tile.segments[0]
        if self.beside is not None:
            pieces = self._reduced(low, high, pieces, self.beside)
        for i in range(segments if batches else 0):
            if self._floats is None:
                self._add_cast(i, low, high, pieces, batches, lane)
            else:
                self._add_made(i, low, high, pieces, batches, lane, self._floats)

    def _reduced(self, low: int, high: int, pieces: list[EventPiece], beside: Reductions) -> list[EventPiece]:
        """Reduce whole frames a few events at a time; where floats are made for that, these are what is added."""

        def take(piece: EventPiece) -> None:
            first, group = piece
            if self._frames is not None:
                into = self._frames[:, first - low : first - low + len(group.frames)]
                group = float_batch(self._transform, group, into)
            beside.take(first, group)

        self._read.map(take, by_group(pieces, low, high))
        if self._frames is None:
            return pieces
        made = self._frames[:, : high - low]
        read = pieces[0][1].variance is not None
        if self._way.variance and read:
            for first, piece in pieces:
                a, b = max(low, first), min(high, first + len(piece.frames))
                made[1, a - low : b - low] = piece.variance[a - first : b - first]
        return [(low, Batch(made[0], None, made[1] if self._way.variance else None))]

    def _add_made(
        self,
        i: int,
        low: int,
        high: int,
        pieces: list[EventPiece],
        batches: list[AddedEvents],
        lane: Lane,
        floats: npt.NDArray[Any],
    ) -> None:
        """Add segment number ``i`` by floats that are made of it."""
        self._read.map(lambda group: self._fill(i, low, *group), by_group(pieces, low, high))

        def add_strip(strip: tuple[int, int]) -> None:
            self._sum(floats, strip, strip[0], batches, lane, i * self._pixels)

        self._read.map(add_strip, self._strips(_STRIP))

    def _add_cast(
        self, i: int, low: int, high: int, pieces: list[EventPiece], batches: list[AddedEvents], lane: Lane
    ) -> None:
        """Add segment number ``i``, whose numbers are what they are."""
        stack = None if self._way.more else in_place(pieces, i, low, high)
        at = i * self._pixels

        def add_strip(strip: tuple[int, int]) -> None:
            if stack is not None:
                for batch in batches:
                    self._add_moments((stack[0], stack[1][batch.events]), batch, *strip, at)
                return
            for batch in batches:  # a copy of one batch at a time: it stays in the cache
                a, b = low + batch.events.start, low + batch.events.stop
                alone = [batch._replace(events=slice(0, b - a))]
                self._sum(self._cast(i, a, b, pieces, strip), strip, 0, alone, lane, at)

        size = max(1024, _STRIP_BYTES // (min(self._way.batch, high - low) * self._transform.dtype.itemsize))
        self._read.map(add_strip, self._strips(size if stack is None else _STRIP_IN_PLACE))

    def _strips(self, size: int) -> list[tuple[int, int]]:
        return [(p, min(p + size, self._pixels)) for p in range(0, self._pixels, size)]

    def _sum(
        self,
        floats: npt.NDArray[Any],
        strip: tuple[int, int],
        low: int,
        batches: list[AddedEvents],
        lane: Lane,
        at: int,
    ) -> None:
        """Add a strip of pixels, which begins at ``low`` in the floats."""
        size, shift = strip[1] - strip[0], at + strip[0] - low
        if self._way.more and self.whole_lanes:
            self._sum_whole(floats, strip, low, batches, lane, at)
            return
        for batch in batches:
            values = floats[0, batch.events]
            for part in batch.parts if self._way.more else ():
                beside = dict(zip(part.block.fields, part.block.arrays, strict=True))
                self._add_beside(floats, batch, part.groups, beside, (low, low + size, shift))
            self._add_moments(kernel.flat(values), batch, low, low + size, shift)

    def _add_moments(self, stack: SortedStack, batch: AddedEvents, low: int, high: int, at: int) -> None:
        for part in batch.parts:
            kernel.add_frames(*stack, *part.groups, part.how, *part.block.arrays[:3], low, high, at)

    def _sum_whole(
        self,
        floats: npt.NDArray[Any],
        strip: tuple[int, int],
        low: int,
        batches: list[AddedEvents],
        lane: Lane,
        at: int,
    ) -> None:
        """Gather a strip of a whole lane, and what lies beside, in the cache; and merge it."""
        size = strip[1] - strip[0]
        like = lane.places[0].block
        types = {field: m.dtype for field, m in zip(like.fields, like.arrays, strict=True)}
        state = {field: self._scratch(field, (len(lane.places), size), of) for field, of in types.items()}
        clear_row(Row(**state))
        for batch in batches:
            self._add_beside(floats, batch, batch.groups, state, (low, low + size, -low))
            how = kernel.all_go_on(batch.groups[2])
            moments = (state[field] for field in like.fields[:3])
            kernel.add_frames(
                *kernel.flat(floats[0, batch.events]), *batch.groups, how, *moments, low, low + size, -low
            )
        for i, (place, fresh) in enumerate(zip(lane.places, lane.fresh, strict=True)):
            theirs = Row(**{field: m[i] for field, m in state.items()})
            mine = place.row(slice(at + strip[0], at + strip[1]))
            if fresh:
                mine.copy_from(theirs)
            else:
                mine.take(theirs)

    def _add_beside(
        self,
        floats: npt.NDArray[Any],
        batch: AddedEvents,
        groups: tuple[Index, Index, Index],
        state: dict[str, npt.NDArray[Any]],
        pixels: tuple[int, int, int],
    ) -> None:
        """Add what is gathered beside the moments, before they are."""
        values, more = floats[0, batch.events], self._way.more
        if VARIANCES in more:
            kernel.add_variances(values, floats[1, batch.events], *groups, state["variances"], *pixels)
        if PAIRS in more and batch.weight is not None:
            beside = (state[field] for field in ("n", "mean", "weight", "weight_m2", "cross"))
            pairs.add_pairs(values, batch.weight, *groups, *beside, *pixels)
        if RATIOS in more and batch.weight is not None:
            beside = (state[field] for field in ("n", "ratio", "ratio_m2"))
            pairs.add_ratios(values, batch.weight, *groups, *beside, *pixels)
        if EXTREMES in more:
            pairs.add_extremes(values, *groups, state["low"], state["high"], *pixels)

    def _cast(self, i: int, low: int, high: int, pieces: list[EventPiece], strip: tuple[int, int]) -> npt.NDArray[Any]:
        """Numbers that are what they are: a few pixels of all events become floats while in cache."""
        shape = (2 if self._way.variance else 1, high - low, strip[1] - strip[0])
        floats = self._scratch("floats", shape, self._transform.dtype)
        for first, piece in pieces:
            a, b = max(low, first), min(high, first + len(piece.frames))
            if a >= b:
                continue
            events, into = slice(a - first, b - first), slice(a - low, b - low)
            rows = piece.frames[events, i].reshape(b - a, -1)
            np.copyto(floats[0, into], rows[:, slice(*strip)], casting="unsafe")
            if piece.present is not None:
                floats[0, into][~piece.present[events, i]] = np.nan
            if self._way.variance:
                rows = piece.variance[events, i].reshape(b - a, -1)
                np.copyto(floats[1, into], rows[:, slice(*strip)], casting="unsafe")
        return floats

    def _fill(self, i: int, low: int, first: int, group: Any) -> None:
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
