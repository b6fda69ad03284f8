"""Moments of frames per bin: at once for NumPy, as tasks for dask, the same to the bit."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.utils import format_bytes

from xsmall.cube.accumulator import Rows
from xsmall.cube.filling import Tile, Way
from xsmall.cube.finishing import Blocks, bin_blocks, finished_by_block, shaped
from xsmall.cube.kept import Kept, PartStore
from xsmall.cube.lanes import rows_of_lanes, with_kept_groups
from xsmall.cube.moments import (
    GROUP_OF_LANES,
    BinnedEvents,
    Index,
    Lanes,
    batch_events,
    bins_met,
    lanes,
    statistics_types,
)
from xsmall.cube.plan import CubeJob, in_few_tasks, tiles, with_reductions
from xsmall.cube.together import Reductions
from xsmall.cube.values import Statistics, parts_of, picked, with_error
from xsmall.engine.blocks import Batch, Opaque, Unopened, rules_of, shared_of
from xsmall.engine.machine import Machine, free_here, limit_for, machine
from xsmall.engine.one_pass import Source, key_of
from xsmall.engine.packets import Results
from xsmall.engine.passes import PlannedPass, source_token, taken_along
from xsmall.engine.plans import Plan, remember
from xsmall.engine.rule import Rule
from xsmall.engine.team import Team, my_turn
from xsmall.engine.transform import Cast, Transform, as_delayed
from xsmall.errors import PlanError


class TaskCut(NamedTuple):
    """How the work on frames is cut into tasks. Opaque to dask."""

    way: Way
    units: list[range]
    """Lanes of each task."""
    blocks: Blocks
    """Of bins, that are finished one by one where there are several tasks."""
    tiles: list[Tile]
    needs: int
    """Bytes that a process uses at the most, results of other tiles aside."""
    beside: Mapping[str, PlannedPass]
    """Reductions of the same frames that the tasks run too, by the layer of their packets."""


def statistics_of_frames(
    source: Source,
    events: BinnedEvents,
    shape: tuple[int, ...],
    label: str,
    memory: int | None = None,
    *,
    dtype: np.dtype[Any],
    more: tuple[str, ...] = (),
    store: PartStore | None = None,
    made_of: Mapping[str, str] | None = None,
    beside: Mapping[str, PlannedPass] | None = None,
) -> tuple[Statistics, HighLevelGraph | None]:
    """Mean, std, stderr and count of frames (event, segment, row, column) per bin, and what is gathered beside.

    Parameters
    ----------
    source
        Frames, presence and transform.
    events
        Bins of the events, and their weights.
    memory
        Bytes that the tasks of one process may use together, see :func:`xsmall.engine.machine.machine`.
    dtype
        Of the floats that the transform makes.
    more
        What is gathered beside the moments: ``VARIANCES`` propagates the variances that the source has, or its
        transform knows, to that of the mean; ``PAIRS`` needs a weight of each event.
    store, made_of
        Where finished lanes are kept, and what a person is told of the cube that they belong to.
    beside
        Reductions, by the layer of their packets. Those of the same frames are run in the same pass, where memory
        allows it and no lanes are kept: then the graph comes back that makes their packets, else None.
    """
    batch = source.batch
    who = machine(memory)
    same = {} if store is not None else _of_same_frames(source, beside or {})
    cut, plan = _plan(source, events.bins, shape, who, dtype, more, is_kept=store is not None, beside=same)
    if store is not None:
        way = cut.way._replace(kept=_agreed(store, label, source, events, shape, cut, made_of or {}))
        cut = cut._replace(way=way, units=with_kept_groups(cut.units, way, cut.tiles))
        plan = replace(plan, tasks=len(cut.units) * len(cut.tiles))
    packets = None
    if batch.lazy():
        pieces, packets = _tiles_of_dask(source, cut, events, shape, label)
        for piece in pieces:
            for array in piece.values():
                remember(array.name, plan)
    else:
        pieces = [_tile_of_numpy(source, tile, events, cut.way, shape) for tile in cut.tiles]
    return {name: _assemble_tiles(cut.tiles, [p[name] for p in pieces], len(shape)) for name in pieces[0]}, packets


def _of_same_frames(source: Source, passes: Mapping[str, PlannedPass]) -> dict[str, PlannedPass]:
    """Passes that read the frames of a source, one energy of each event; none where the scheduler brings the frames."""
    if not passes or not source.batch.lazy() or source.is_held:
        return {}
    read = source_token(source.batch, key_of(source.transform))
    same = {name: made for name, made in passes.items() if made.source == read}
    energy = dask.base.tokenize(_energy_of(same))
    return {n: made for n, made in same.items() if made.energy is None or dask.base.tokenize(made.energy) == energy}


def _energy_of(passes: Mapping[str, PlannedPass]) -> npt.NDArray[np.float64] | None:
    """Photon energy of each event that the first pass needs which needs any."""
    return next((made.energy for made in passes.values() if made.energy is not None), None)


def _agreed(
    store: PartStore,
    label: str,
    source: Source,
    events: BinnedEvents,
    shape: tuple[int, ...],
    cut: TaskCut,
    made_of: Mapping[str, str],
) -> Kept:
    """The place of this cube in a store, whose parts were made of the same."""
    transform = source.transform
    key = transform.key if isinstance(transform, Delayed) else dask.base.tokenize(transform)
    store.agree(label, {
        **made_of,
        "frames": f"{source.batch.frames.shape} {source.batch.frames.dtype}",
        "frames and where they lie": dask.base.tokenize(*source.batch),
        "calibration": str(key),
        "bins of events": dask.base.tokenize(events.bins, shape),
        "weights of events": dask.base.tokenize(events.weight),
        "lanes": dask.base.tokenize(cut.way.lanes, cut.way.batch, cut.way.more),
    })  # fmt: skip
    return Kept(store, label)


def _plan(
    source: Source,
    index: Index,
    shape: tuple[int, ...],
    who: Machine,
    dtype: np.dtype[Any],
    more: tuple[str, ...],
    *,
    is_kept: bool,
    beside: Mapping[str, PlannedPass],
) -> tuple[TaskCut, Plan]:
    """Lanes, batches and tiles, by the bins of the events, the shape of frames and the machine."""
    frames = source.batch.frames
    n, segments, rows, columns = frames.shape
    n_bins = int(np.prod(shape, dtype=np.int64))
    borders = lanes(index)
    way = Way(borders, batch_events(index, borders, segments * rows * columns), (rows, columns), more)
    together = Rule(frames).together if isinstance(frames, da.Array) else 1
    more_bytes = sum(a.dtype.itemsize for a in source.batch.beside if a.ndim == frames.ndim)
    job = CubeJob(
        n_events=n,
        n_bins=n_bins,
        shape=(segments, rows, columns),
        raw_bytes=frames.dtype.itemsize + more_bytes,
        float_bytes=0 if isinstance(source.transform, Cast) else dtype.itemsize,
        segments_read=max(frames.chunks[1], default=1) if isinstance(frames, da.Array) else 1,
        events_read=together,
        batch=way.batch,
        n_lanes=len(borders),
        met=int(np.ceil(max(1.0, bins_met(index, max(1, borders[0][1]))))),
        lane=borders[0][1] - borders[0][0],
        is_kept=is_kept,
        more=more,
        task_lanes=_lanes_read_together(borders, together) if who.cluster else len(borders),
    )
    if beside:
        job = with_reductions(job, sum(made.result_bytes for made in beside.values()), who)
    taken = beside if job.beside_bytes else {}
    if who.cluster and not source.is_held:  # frames that workers hold would all have to come to few
        job = in_few_tasks(job, who, {k: _handing_on(job, index, borders, k) for k in _task_lanes(job)})
    numbers = range(len(borders))
    units = [numbers[i : i + job.task_lanes] for i in numbers[:: job.task_lanes]]
    found = tiles(job, who)
    first = found[0]
    segments_of, rows_of = first.segments[1], first.rows[1]
    needs = job.working_bytes(segments_of, rows_of, who)
    some = bool(taken) or bool((index >= 0).any())
    plan = Plan(
        what=f"cube of {n} events in {n_bins} bins of {segments} x {rows} x {columns} pixels"
        + "".join(f", {record}" for made in taken.values() for record in made.records),
        bytes_to_read=some * job.frame_bytes * n * job.reads(segments_of, rows_of),
        tasks=len(units) * len(found),
        peak_bytes=_peak_bytes(job, needs, len(found), who),
        result_bytes=job.result_bytes,
        machine=str(who),
        events=some * n * len(found),
        along=tuple(taken),
    )
    blocks = bin_blocks(shape, job.result_bytes // len(found), who)
    return TaskCut(way, units, blocks, found, needs, taken), plan


def _peak_bytes(job: CubeJob, needs: int, n_tiles: int, who: Machine) -> int:
    """With what is done and waits: of all tiles but one; dask hands out a copy of what it has, piece by piece."""
    result = job.result_bytes // who.workers
    working = needs + result * (n_tiles - 1) // n_tiles
    return working if who.cluster else max(working, 2 * result)


def _lanes_read_together(borders: Lanes, together: int) -> int:
    """Lanes that one task does: one, or where chunks are longer a group of them, or all: chunks are then read once."""
    longest, group = borders[0][1], min(GROUP_OF_LANES, len(borders))
    return 1 if together <= longest else group if together <= longest * group else len(borders)


def _task_lanes(job: CubeJob) -> list[int]:
    """Lanes that a task may do: those of the job, a group, or all."""
    return sorted({job.task_lanes, *(n for n in (GROUP_OF_LANES, job.n_lanes) if job.task_lanes < n <= job.n_lanes)})


def _handing_on(job: CubeJob, index: Index, borders: Lanes, task_lanes: int) -> float:
    """Work of handing on the moments of tasks of so many lanes."""
    of_task = max(1, borders[task_lanes - 1][1])
    return job.handing_on(of_task, bins_met(index, of_task))


def _tile_of_numpy(source: Source, tile: Tile, events: BinnedEvents, way: Way, shape: tuple[int, ...]) -> Statistics:
    batch = source.batch.cut(slice(None), slice(*tile.segments))
    return with_error(_whole_tile(batch, events, tile, way, shape, source.ready(), Team()))


def _whole_tile(
    frames: Batch | Unopened,
    events: BinnedEvents,
    tile: Tile,
    way: Way,
    shape: tuple[int, ...],
    transform: Transform,
    team: Team,
    beside: Reductions | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Statistics of all events of a tile."""
    n_bins = int(np.prod(shape, dtype=np.int64))
    numbers = range(len(way.lanes))
    made = rows_of_lanes(frames, events, numbers, way, tile, transform, team, n_bins=n_bins, beside=beside)
    return shaped(made.block.statistics(made.held, n_bins, team), shape, tile.pixels(way.shape[1]))


def _tiles_of_dask(
    source: Source, cut: TaskCut, events: BinnedEvents, shape: tuple[int, ...], label: str
) -> tuple[list[Statistics], HighLevelGraph | None]:
    way, batch = cut.way, source.batch._replace(energy=_energy_of(cut.beside))
    transform = as_delayed(source.transform, "transform")
    made_of = *batch, transform.key, *events, shape, cut.tiles, cut.units, cut.blocks, way, list(cut.beside)
    token = f"{label}-{dask.base.tokenize(*made_of)}"
    borders = [(way.lanes[unit[0]][0], way.lanes[unit[-1]][1]) for unit in cut.units]
    parts = parts_of(events, borders, token)
    rules = None if source.is_held else rules_of(batch)
    shared = None if rules is None else shared_of(rules, batch, borders, f"shared-{token}")
    beside = [made.bare() for made in cut.beside.values()]
    common = dask.delayed(Opaque((way, cut.needs, beside)), name=f"way-{token}", traverse=False)
    met = [np.unique(bins[bins >= 0]) for bins in (events.bins[a:b] for a, b in borders)]
    out: list[Statistics] = []
    packets = None
    for number, tile in enumerate(cut.tiles):
        if rules is None:
            sources: Sequence[Batch | Unopened] = _held_blocks(batch.cut(slice(None), slice(*tile.segments)), borders)
        else:
            sources = [Unopened(rules, a, b, tile.segments) for a, b in borders]
        name = f"{token}-{number}"
        pixels = tile.pixels(way.shape[1])
        tasks = _tile_tasks(name, sources, parts, cut.units, (common, transform, shared), tile, shape)
        if beside:
            packets = taken_along(cut.beside, tasks, borders)
            tasks = [_moments_of(task) for task in tasks]
        if len(tasks) == 1:
            found = picked(tasks[0], name, (*shape, *pixels), statistics_types(way.more))
        else:
            found = finished_by_block(tasks, cut.units, name, met, cut.blocks, common, shape, pixels, way.more)
        out.append(with_error(found))
    return out, packets


def _tile_tasks(
    name: str,
    sources: Sequence[Batch | Unopened],
    parts: list[Delayed],
    units: list[range],
    common: tuple[Any, ...],
    tile: Tile,
    shape: tuple[int, ...],
) -> list[Delayed]:
    """One task for all events; or one for some lanes each, which are still to be merged."""
    if len(units) == 1:
        return [
            dask.delayed(_tile_task, pure=False)(
                sources[0], parts[0], Opaque((shape, tile)), *common, dask_key_name=f"lanes-{name}"
            )
        ]
    return [
        dask.delayed(_lanes_task, pure=False)(
            block, part, Opaque((unit, tile)), *common, dask_key_name=f"lane-{name}-{i}"
        )
        for i, (block, part, unit) in enumerate(zip(sources, parts, units, strict=True))
    ]


def _moments_of(task: Delayed) -> Delayed:
    """What a task returns beside reductions."""
    moments: Delayed = dask.delayed(operator.itemgetter(0), pure=False)(task, dask_key_name=f"moments-{task.key}")
    return moments


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


def _lanes_task(
    frames: Unopened | Batch, events: Opaque, what: Opaque, common: Opaque, transform: Transform, shared: Opaque | None
) -> Rows | tuple[Rows, list[Results]]:
    """Some lanes of one tile, from frames in memory or read here piece by piece; and reductions of the same frames."""
    (numbers, tile), (way, needs, passes) = what.value, common.value
    _check_memory(needs)
    beside = Reductions(passes, transform) if passes else None
    with my_turn() as team:
        read = _with_shared(frames, shared)
        rows = rows_of_lanes(read, events.value, numbers, way, tile, transform, team, beside=beside).held.rows()
    return rows if beside is None else (rows, beside.results())


def _tile_task(
    frames: Unopened | Batch, events: Opaque, what: Opaque, common: Opaque, transform: Transform, shared: Opaque | None
) -> dict[str, npt.NDArray[Any]] | tuple[dict[str, npt.NDArray[Any]], list[Results]]:
    """All events of one tile; and reductions of the same frames."""
    (shape, tile), (way, needs, passes) = what.value, common.value
    _check_memory(needs)
    beside = Reductions(passes, transform) if passes else None
    with my_turn() as team:
        found = _whole_tile(_with_shared(frames, shared), events.value, tile, way, shape, transform, team, beside)
    return found if beside is None else (found, beside.results())


def _with_shared(frames: Unopened | Batch, shared: Opaque | None) -> Unopened | Batch:
    return frames.attached(shared) if isinstance(frames, Unopened) else frames


def _check_memory(needs: int) -> None:
    """Refuse what would only be killed: on a cluster that was not there, or was another, when the plan was made."""
    free = free_here()
    if free is not None and needs > free:
        raise PlanError(
            "this cube was planned for more memory than the worker has",
            found=f"{format_bytes(max(0, free))} to work with on the worker",
            expected=format_bytes(needs),
            fix="build the cube again while the client of this cluster is there, it is then planned for its workers; "
            f"or workers with memory_limit={limit_for(needs)}",
        )


def _assemble_tiles(plan: Sequence[Tile], pieces: Sequence[Any], axis: int) -> Any:
    """Put tiles (*bins, segment, row, column) side by side; ``axis`` is that of the segments."""
    by_segments: dict[tuple[int, int], list[Any]] = {}
    for tile, piece in zip(plan, pieces, strict=True):
        by_segments.setdefault(tile.segments, []).append(piece)
    join = da.concatenate if isinstance(pieces[0], da.Array) else np.concatenate
    return join([join(parts, axis=axis + 1) for parts in by_segments.values()], axis=axis)
