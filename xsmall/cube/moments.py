"""Moments of many events per bin: lanes of events, tiles of pixels, one fixed tree of merges.

A lane is a range of events whose borders come from the number of events and bins alone. Inside a lane, frames are
taken in batches of consecutive events, and a batch bin by bin, so that each bin's accumulator is read and written once
per batch. The accumulators of the lanes are merged pairwise in a fixed tree. So the result does not depend on chunks,
scheduler, number of workers or size of tiles, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.engine.blocks import Batch
from xsmall.engine.interrupt import check
from xsmall.engine.record import GROUP
from xsmall.engine.transform import Transform
from xsmall.kernels import moments as kernel

BATCH = 256
"""Events that are taken bin by bin together, at the most; lanes are whole batches."""

FEWEST_LANE = 512
MOST_LANES = 64
EVENTS_PER_BIN = 8
"""Events of a lane per bin at least, so that merging accumulators stays cheap beside filling them."""

READ_BYTES = 16 * 2**20
"""Raw bytes that are read together, unless a chunk is larger: joining chunks costs a copy, each reading some work."""

BATCH_BYTES = 256 * 2**20
"""Floats of one segment in a batch at the most: a rule on the shape of a segment, never on the machine."""

Piece = tuple[int, Batch]
"""First event (within the lane), and the frames of its events that were read together."""

DTYPES: Mapping[str, type] = {"mean": np.float64, "std": np.float64, "stderr": np.float64, "count": np.int32}
"""Statistics that come out, and their types."""

SPREAD = "variance"
"""One more where the variances of the values are known: the propagated variance of the mean, float64."""

Index = npt.NDArray[np.int64]
T = TypeVar("T")


class Moments(NamedTuple):
    """Count (n), mean and M2, each (part, bin, pixel): a part is a segment; there is one where data have none.

    ``spread`` is the sum of the variances of the values, where they are known.
    """

    n: npt.NDArray[np.uint32]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, n_parts: int, n_bins: int, n_pixels: int, *, variance: bool = False) -> Moments:
        """Moments of no events."""
        shape = (n_parts, n_bins, n_pixels)
        return cls(np.zeros(shape, np.uint32), np.zeros(shape), np.zeros(shape), np.zeros(shape) if variance else None)


@dataclass(frozen=True)
class Tile:
    """Pixels that one task accumulates: segments and rows, half open; all columns."""

    segments: tuple[int, int]
    rows: tuple[int, int]


def lanes(n_events: int, n_bins: int) -> list[tuple[int, int]]:
    """Cut the events into lanes: whole batches, the same for the same number of events and bins."""
    wanted = max(FEWEST_LANE, EVENTS_PER_BIN * n_bins, -(-n_events // MOST_LANES))
    size = BATCH * -(-wanted // BATCH)
    return [(start, min(start + size, n_events)) for start in range(0, n_events, size)] or [(0, 0)]


def batch_events(rows: int, columns: int, itemsize: int) -> int:
    """Events of a batch of frames: as many as the floats of one segment may be, a power of two from 16 to 256."""
    fit = BATCH_BYTES // max(1, rows * columns * itemsize)
    return int(min(BATCH, max(16, 1 << max(0, fit.bit_length() - 1))))


def groups(index: Index) -> tuple[Index, Index, Index]:
    """Order the events of a batch by bin: (order, first of each group and the end, bin of each group)."""
    order = np.argsort(index, kind="stable")
    order = order[np.searchsorted(index[order], 0) :]
    bins, first = np.unique(index[order], return_index=True)
    return order, np.append(first, order.size).astype(np.int64), bins.astype(np.int64)


def lane_of_values(values: npt.NDArray[Any], index: Index, n_bins: int) -> Moments:
    """Moments of one lane of any variable (event, ...); what is not finite is skipped."""
    dtype = np.float32 if values.dtype == np.float32 else np.float64
    flat = values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64)))
    out = Moments.empty(1, n_bins, flat.shape[1])
    for start in range(0, len(flat), BATCH):
        stop = min(start + BATCH, len(flat))
        order, first, bins = groups(index[start:stop])
        if bins.size:
            frames = np.ascontiguousarray(flat[start:stop], dtype=dtype)
            kernel.add_frames(frames, order, first, bins, out.n[0], out.mean[0], out.m2[0])
    return out


def lane_of_frames(
    pieces: Iterable[Piece],
    index: Index,
    n_bins: int,
    tile: Tile,
    shape: tuple[int, int],
    transform: Transform,
    *,
    variance: bool = False,
) -> Moments:
    """Moments of one lane of frames and one tile of pixels.

    Parameters
    ----------
    pieces
        The frames of the tile's segments, whole rows and columns, in order; events without a bin may be left out.
    index
        Bin of each event of the lane, -1 for none.
    n_bins
        Number of bins.
    tile
        Segments and rows to accumulate.
    shape
        Rows and columns of a segment.
    transform
        What makes floats of raw frames.
    variance
        Take the variances along: those of the pieces, else those that the transform knows.
    """
    rows, columns = shape
    n_pixels = (tile.rows[1] - tile.rows[0]) * columns
    out = Moments.empty(tile.segments[1] - tile.segments[0], n_bins, n_pixels, variance=variance)
    size = batch_events(rows, columns, transform.dtype.itemsize)
    batch = np.empty((size, n_pixels), transform.dtype)
    spreads = np.empty_like(batch) if variance else None
    fill = _Filler(transform, tile, shape)
    for start, stop, held in _by_batch(pieces, len(index), size):
        check()
        order, first, bins = groups(index[start:stop])
        if not bins.size:
            continue
        used = index[start:stop] >= 0
        for i in range(len(out.n)):
            s = tile.segments[0] + i
            for low, group in _by_group(held, start, stop):
                into = slice(low, low + len(group.frames))
                if used[into].any():
                    fill(s, i, group, batch[into], None if spreads is None else spreads[into])
            kernel.add_frames(batch, order, first, bins, out.n[i], out.mean[i], out.m2[i])
            if spreads is not None and out.spread is not None:
                kernel.add_variances(batch, spreads, order, first, bins, out.spread[i])
    return out


class _Filler:
    """Makes the floats of a tile's rows, and their variances, from a few events of raw frames."""

    def __init__(self, transform: Transform, tile: Tile, shape: tuple[int, int]) -> None:
        self._transform = transform
        self._rows = slice(*tile.rows)
        self._columns = shape[1]
        whole = tile.rows == (0, shape[0])
        self._scratch = None if whole else np.empty((2, GROUP, *shape), transform.dtype)

    def __call__(
        self, s: int, i: int, group: Batch, frames: npt.NDArray[Any], spreads: npt.NDArray[Any] | None
    ) -> None:
        """Fill ``frames`` and ``spreads`` (k, pixel) from segment ``s``, number ``i`` of those that were read."""
        k = len(group.frames)
        raw, here = group.segment(slice(None), i), group.here(slice(None), i)
        values = frames.reshape(k, -1, self._columns)
        variances = None if spreads is None else spreads.reshape(values.shape)
        made = None if group.variance is not None else variances
        if self._scratch is None:
            self._apply(s, raw, here, values, made)
        else:
            both = self._scratch[:, :k]
            self._apply(s, raw, here, both[0], None if made is None else both[1])
            values[...] = both[0, :, self._rows]
            if made is not None:
                made[...] = both[1, :, self._rows]
        if variances is not None and group.variance is not None:
            variances[...] = group.variance[:, i, self._rows]

    def _apply(self, s: int, raw: Any, here: Any, values: Any, variances: Any) -> None:
        if variances is None:
            self._transform.apply(s, raw, here, values)
        else:
            self._transform.apply(s, raw, here, values, variances)


def _by_batch(pieces: Iterable[Piece], n: int, size: int) -> Iterable[tuple[int, int, list[Piece]]]:
    """Yield (start, stop, pieces that overlap) for each batch of ``size`` events."""
    held: list[Piece] = []
    start = 0
    for piece in pieces:
        held.append(piece)
        reached = piece[0] + len(piece[1].frames)
        while start + size <= reached:
            yield start, start + size, held
            start += size
            held = [p for p in held if p[0] + len(p[1].frames) > start]
    while held and start < n:
        stop = min(start + size, n)
        yield start, stop, held
        start = stop
        held = [p for p in held if p[0] + len(p[1].frames) > start]


def _by_group(held: list[Piece], start: int, stop: int) -> Iterable[tuple[int, Batch]]:
    """Yield (first event within the batch, frames) a few events at a time."""
    for first, read in held:
        low, high = max(start, first), min(stop, first + len(read.frames))
        for event in range(low, high, GROUP):
            part = slice(event - first, min(event + GROUP, high) - first)
            yield event - start, read.cut(part)


def merge(a: Moments, b: Moments) -> Moments:
    """Merge the moments of two sets of events."""
    spread = None if a.spread is None or b.spread is None else a.spread + b.spread
    out = Moments(np.empty_like(a.n), np.empty_like(a.mean), np.empty_like(a.m2), spread)
    flat: list[npt.NDArray[Any]] = [m.reshape(-1) for one in (a, b, out) for m in (one.n, one.mean, one.m2)]
    kernel.merge(*flat)
    return out


def merge_tree(parts: Sequence[T], merge_two: Callable[[T, T], T]) -> T:
    """Merge in a fixed tree: neighbours first, whatever is left over goes up."""
    level = list(parts)
    while len(level) > 1:
        pairs = [merge_two(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def finish(moments: Moments, shape: tuple[int, ...], trailing: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """Mean, standard deviation (n - 1), standard error and count, each (*shape of bins, *trailing).

    Where variances were summed also the variance of the mean, sum(variance) / n^2.
    """
    parts, bins, pixels = moments.n.shape
    out: dict[str, npt.NDArray[Any]] = {name: np.empty((bins, parts, pixels), dtype) for name, dtype in DTYPES.items()}
    kernel.statistics(moments.n, moments.mean, moments.m2, *out.values())
    if moments.spread is not None:
        n = moments.n.astype(np.float64)
        spread = np.divide(moments.spread, n**2, out=np.full(n.shape, np.nan), where=n > 0)
        out[SPREAD] = np.ascontiguousarray(spread.swapaxes(0, 1))
    return {name: values.reshape(*shape, *trailing) for name, values in out.items()}
