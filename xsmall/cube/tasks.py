"""Moments of NumPy and dask arrays per bin: at once for the first, as tasks for the second, the same to the bit."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.cube.moments import (
    DTYPES,
    READ_BYTES,
    SPREAD,
    Index,
    Moments,
    Piece,
    Tile,
    finish,
    lane_of_frames,
    lane_of_values,
    lanes,
    merge,
    merge_tree,
)
from xsmall.cube.plan import Job, tiles
from xsmall.engine.blocks import Batch, Opaque, Unopened, rules_of, shared_of
from xsmall.engine.one_pass import Source
from xsmall.engine.transform import Transform, as_delayed

Statistics = dict[str, Any]
"""mean, std, stderr, count, and variance where it is known: NumPy or dask arrays (*bins, ...)."""


def statistics_of_values(
    data: npt.NDArray[Any] | da.Array, index: Index, shape: tuple[int, ...], label: str
) -> Statistics:
    """Statistics of any variable (event, ...) per bin.

    Parameters
    ----------
    data
        Numbers or true/false; NaN is skipped.
    index
        Bin of each event, counted over all dims of the bins, -1 for none.
    shape
        Numbers of bins.
    label
        First part of dask names.
    """
    n_bins = int(np.prod(shape, dtype=np.int64))
    borders = lanes(len(index), n_bins)
    trailing = tuple(data.shape[1:])
    if not isinstance(data, da.Array):
        parts = [lane_of_values(data[a:b], index[a:b], n_bins) for a, b in borders]
        return finish(merge_tree(parts, merge), shape, trailing)
    token = f"{label}-{dask.base.tokenize(data.name, index, shape)}"
    lane_chunks = {0: tuple(b - a for a, b in borders), **dict.fromkeys(range(1, data.ndim), -1)}
    blocks = data.rechunk(lane_chunks).to_delayed(optimize_graph=False).ravel()
    tasks = [
        dask.delayed(lane_of_values, pure=False)(block, part, n_bins, dask_key_name=f"lane-{token}-{i}")
        for i, (block, part) in enumerate(zip(blocks, _lane_indices(index, borders, token), strict=True))
    ]
    return _arrays(tasks, token, shape, trailing)


def statistics_of_frames(
    source: Source,
    index: Index,
    shape: tuple[int, ...],
    label: str,
    memory: int | None = None,
    *,
    variance: bool = False,
) -> Statistics:
    """Statistics of frames (event, segment, row, column) per bin; see :func:`statistics_of_values`.

    Parameters
    ----------
    source
        Frames, presence and transform.
    memory
        Bytes that the tasks may use together, see :func:`xsmall.cube.plan.tiles`.
    variance
        Propagate the variances that the source has, or its transform knows, to that of the mean.
    """
    frames = source.batch.frames
    n_bins = int(np.prod(shape, dtype=np.int64))
    borders = lanes(len(index), n_bins)
    job = Job(
        n_events=frames.shape[0],
        n_bins=n_bins,
        shape=(frames.shape[1], frames.shape[2], frames.shape[3]),
        raw_bytes=sum(a.dtype.itemsize for a in (frames, *source.batch.beside) if a.ndim == frames.ndim),
        float_bytes=8 if isinstance(source.transform, Delayed) else source.transform.dtype.itemsize,
        segments_read=max(frames.chunks[1], default=1) if isinstance(frames, da.Array) else 1,
        variance=variance,
    )
    plan = tiles(job, memory)
    if not source.batch.lazy():
        transform = source.ready()
        pieces = [_tile_of_numpy(source.batch, tile, index, borders, shape, transform, variance) for tile in plan]
    else:
        pieces = _tiles_of_dask(source, plan, index, borders, shape, label, variance)
    return {name: _assemble(plan, [p[name] for p in pieces], len(shape)) for name in pieces[0]}


def _tile_of_numpy(
    batch: Batch,
    tile: Tile,
    index: Index,
    borders: list[tuple[int, int]],
    shape: tuple[int, ...],
    transform: Transform,
    variance: bool,
) -> Statistics:
    cut = slice(*tile.segments)
    rows, columns = batch.frames.shape[2:]
    n_bins = int(np.prod(shape))
    parts = []
    for a, b in borders:
        piece = (0, batch.cut(slice(a, b), cut))
        lane = lane_of_frames([piece], index[a:b], n_bins, tile, (rows, columns), transform, variance=variance)
        parts.append(lane)
    return finish(merge_tree(parts, merge), shape, _pixels(tile, columns))


def _tiles_of_dask(
    source: Source,
    plan: list[Tile],
    index: Index,
    borders: list[tuple[int, int]],
    shape: tuple[int, ...],
    label: str,
    variance: bool,
) -> list[Statistics]:
    transform = as_delayed(source.transform, "transform")
    rows, columns = source.batch.frames.shape[2:]
    n_bins = int(np.prod(shape, dtype=np.int64))
    token = f"{label}-{dask.base.tokenize(*source.batch, variance, transform.key, index, shape, plan)}"
    parts = _lane_indices(index, borders, token)
    held = source.is_held
    rules = None if held else rules_of(source.batch)
    shared = None if rules is None else shared_of(rules, source.batch, borders, f"shared-{token}")
    out: list[Statistics] = []
    for number, tile in enumerate(plan):
        if rules is None:
            sources: Sequence[Batch | Unopened] = _held_blocks(
                source.batch.cut(slice(None), slice(*tile.segments)), borders
            )
        else:
            sources = [Unopened(rules, a, b, tile.segments) for a, b in borders]
        tasks = [
            dask.delayed(_frames_task, pure=False)(
                block, lane, n_bins, tile, (rows, columns), transform, variance, shared,
                dask_key_name=f"lane-{token}-{number}-{i}",
            )
            for i, (block, lane) in enumerate(zip(sources, parts, strict=True))
        ]  # fmt: skip
        out.append(_arrays(tasks, f"{token}-{number}", shape, _pixels(tile, columns), variance=variance))
    return out


def _held_blocks(batch: Batch, borders: list[tuple[int, int]]) -> list[Batch]:
    """The batch of each lane, of Delayed blocks where it is not in this process."""
    sizes = {0: tuple(b - a for a, b in borders), 1: -1, 2: -1, 3: -1}
    lazy = batch.lazy()
    blocks = {i: list(a.rechunk(sizes).to_delayed(optimize_graph=False).ravel()) for i, a in lazy.items()}
    small = batch.put(dict.fromkeys(lazy))
    return [
        small.cut(slice(a, b)).put({i: of_lanes[lane] for i, of_lanes in blocks.items()})
        for lane, (a, b) in enumerate(borders)
    ]


def _frames_task(
    block: Unopened | Batch,
    index: Index,
    n_bins: int,
    tile: Tile,
    shape: tuple[int, int],
    transform: Transform,
    variance: bool,
    shared: Opaque | None,
) -> Moments:
    """One lane of one tile, from frames in memory or read here piece by piece."""
    if isinstance(block, Unopened):
        block = block.attached(shared)
    pieces: Iterable[Piece] = [(0, block)] if isinstance(block, Batch) else block.pieces(index >= 0, READ_BYTES)
    return lane_of_frames(pieces, index, n_bins, tile, shape, transform, variance=variance)


def _lane_indices(index: Index, borders: list[tuple[int, int]], token: str) -> list[Delayed]:
    """Bins of the events of each lane, each once in the graph."""
    return [dask.delayed(index[a:b], name=f"index-{token}-{i}", traverse=False) for i, (a, b) in enumerate(borders)]


def _arrays(
    tasks: list[Delayed], token: str, shape: tuple[int, ...], trailing: tuple[int, ...], *, variance: bool = False
) -> Statistics:
    """Merge the lanes in the fixed tree; one dask array for each statistic."""
    count = iter(range(len(tasks)))

    def merge_two(a: Delayed, b: Delayed) -> Delayed:
        return dask.delayed(merge, pure=False)(a, b, dask_key_name=f"merge-{token}-{next(count)}")

    merged = merge_tree(tasks, merge_two)
    done = dask.delayed(finish, pure=False)(merged, shape, trailing, dask_key_name=f"finish-{token}")
    pick: Callable[..., Delayed] = dask.delayed(operator.getitem, pure=False)
    return {
        name: da.from_delayed(
            pick(done, name, dask_key_name=f"{name}-{token}"), (*shape, *trailing), dtype=dtype, name=f"{name}s-{token}"
        )
        for name, dtype in ({**DTYPES, SPREAD: np.float64} if variance else DTYPES).items()
    }


def _pixels(tile: Tile, columns: int) -> tuple[int, int, int]:
    return tile.segments[1] - tile.segments[0], tile.rows[1] - tile.rows[0], columns


def _assemble(plan: Sequence[Tile], pieces: Sequence[Any], axis: int) -> Any:
    """Put tiles (*bins, segment, row, column) side by side; ``axis`` is that of the segments."""
    by_segments: dict[tuple[int, int], list[Any]] = {}
    for tile, piece in zip(plan, pieces, strict=True):
        by_segments.setdefault(tile.segments, []).append(piece)
    join = da.concatenate if isinstance(pieces[0], da.Array) else np.concatenate
    return join([join(parts, axis=axis + 1) for parts in by_segments.values()], axis=axis)
