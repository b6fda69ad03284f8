"""Which pixels one task accumulates, by the memory of who computes: planned before anything is read."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dask.utils import format_bytes

from xsmall.cube.accumulator import fields_of
from xsmall.cube.filling import Tile
from xsmall.cube.moments import FEWEST_LANE, GROUP_OF_LANES, MOST_LANES, VARIANCES
from xsmall.cube.pieces import READ_BYTES, pieces_held
from xsmall.engine.machine import Machine, limit_for
from xsmall.engine.record import GROUP
from xsmall.errors import PlanError

BYTES_PER_BIN_AND_PIXEL = 20  # count uint32, mean and M2 float64

MOST_READS = 16
"""Plans that would read the same bytes more often than this, for one tile of pixels after the other, are refused."""

_MOST_OF_LIMIT = 0.8
"""Of what this process may have, that a user is advised to give a cube."""

_HANDING_ON: Final = 2.0
"""Work of storing, sending and merging a byte of moments, in that of filling from a byte of frames; measured."""

_WORTH: Final = 0.5
"""Of the work of filling, that handing moments on takes at the least where tasks of several lanes are worth it,"""

_SOONER: Final = 0.9
"""and in what part of the time they are done then: else more tasks are better, since more workers may come."""


@dataclass(frozen=True)
class CubeJob:
    """What a cube of one detector needs to know before it is planned.

    Attributes
    ----------
    n_events, n_bins
        Numbers of events and bins.
    shape
        Segments, rows and columns.
    raw_bytes, float_bytes
        Bytes of a pixel as it is read, and of its float where all of a batch are made at once (else 0).
    segments_read
        Segments that are read together: the largest chunk along ``segment``.
    events_read
        Events that are read together.
    batch
        Events that are added together.
    n_lanes, met
        Lanes, and bins that one of them meets.
    lane
        Events of the longest lane.
    is_kept
        Whether finished lanes are kept on disk.
    more
        What is gathered beside the moments.
    beside_bytes
        Bytes of what reductions of the same frames give, which need floats of whole frames; 0 where there are none.
    task_lanes
        Lanes of a tile that one task does on a cluster.
    """

    n_events: int
    n_bins: int
    shape: tuple[int, int, int]
    raw_bytes: int
    float_bytes: int
    segments_read: int
    events_read: int
    batch: int
    n_lanes: int
    met: int
    lane: int = FEWEST_LANE
    is_kept: bool = False
    more: tuple[str, ...] = ()
    beside_bytes: int = 0
    task_lanes: int = 1

    @property
    def accumulator_bytes(self) -> int:
        """Bytes per bin and pixel."""
        return BYTES_PER_BIN_AND_PIXEL + 8 * (len(fields_of(self.more)) - len(fields_of(())))

    @property
    def n_units(self) -> int:
        """Tasks that share the lanes of a tile on a cluster."""
        return max(1, -(-self.n_lanes // self.task_lanes))

    @property
    def result_bytes(self) -> int:
        """Bytes of all that comes out: mean, spread, standard error, count, and what was gathered beside."""
        segments, rows, columns = self.shape
        return (8 + self.accumulator_bytes) * self.n_bins * segments * rows * columns + self.beside_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of a whole frame as it is read."""
        segments, rows, columns = self.shape
        return segments * rows * columns * self.raw_bytes

    def working_bytes(self, segments: int, rows: int, machine: Machine) -> int:
        """Peak memory of a process that accumulates a tile of so many segments and rows, results of others aside."""
        columns = self.shape[2]
        pixels = segments * rows * columns
        whole = self.accumulator_bytes * pixels * self.n_bins
        lane = self.accumulator_bytes * pixels * min(self.met, self.n_bins)
        frames = self._frames_bytes(segments, rows, machine.threads) + 2 * self.beside_bytes  # parts, then joined
        group = min(whole, GROUP_OF_LANES * lane) if self.n_lanes > GROUP_OF_LANES else 0
        written = max(lane, group) if self.is_kept else 0  # a copy in one piece
        if machine.cluster and self.n_units > 1:  # a task must not change what it was given
            of_task = min(whole, self.task_lanes * lane)
            merging = 3 * whole + of_task  # two become a third, while the next task waits
            return max(lane + frames + whole + written, merging, 2 * whole)
        apart = self.n_lanes > 1 and (self.lane > self.batch or self.is_kept)  # else lanes are gathered in the cache
        filling = frames + whole + group + (lane if apart else 0) + written
        finishing = whole + 8 * self.n_bins * pixels  # in place, but for the standard error
        return max(filling, finishing)

    def _frames_bytes(self, segments: int, rows: int, threads: int) -> int:
        """Frames of a batch as they are read, and their floats."""
        _, all_rows, columns = self.shape
        read = max(segments, self.segments_read) * all_rows * columns * self.raw_bytes
        piece = max(READ_BYTES, self.events_read * read) if self.events_read > 1 else max(READ_BYTES, read)
        kept = read if self.float_bytes else read * rows // all_rows  # what needs no other pixel is cut at once
        pieces = min(pieces_held(threads, piece), 1 + self.n_events * read // piece)
        held = min(self.n_events, self.batch, self.lane) * kept + pieces * piece
        floats = self.batch * rows * columns * self.float_bytes * (segments if self.beside_bytes else 1)
        scratch = threads * GROUP * all_rows * columns * self.float_bytes if rows < all_rows else 0
        return (2 if VARIANCES in self.more else 1) * (held + floats + scratch)

    def handing_on(self, events: int, met: float) -> float:
        """Work of handing on the moments of tasks of so many events and bins, in that of filling them.

        What is gathered beside the moments is left out: it takes as much more to fill.
        """
        frames = events * (self.raw_bytes + self.float_bytes)
        return _HANDING_ON * BYTES_PER_BIN_AND_PIXEL * met / max(1, frames)

    def reads(self, segments: int, rows: int) -> int:
        """How often a frame is read for one tile after the other."""
        return -(-self.segments_read // segments) * -(-self.shape[1] // rows)

    def sizes(self) -> list[tuple[int, int]]:
        """Segments and rows of the tiles that may be taken, the largest first."""
        n_rows = self.shape[1]
        if self.beside_bytes:
            return [(self.shape[0], n_rows)]
        both = [(m, n_rows) for m in range(self.segments_read, 0, -1)]
        rows = n_rows
        while rows > 1:
            rows = -(-rows // 2)
            both.append((1, rows))
        return [s for s in both if self.reads(*s) <= MOST_READS] or both[:1]


def tiles(job: CubeJob, machine: Machine) -> list[Tile]:
    """Cut the pixels into the largest tiles that fit: what is read together, else segments, else rows of one.

    Parameters
    ----------
    job
        What is to be done.
    machine
        Who does it.

    Raises
    ------
    PlanError
        Not even small tiles fit, or the data would be read too often for one tile after the other.
    """
    fit = _size_that_fits(job, machine)
    if fit is None:
        raise _refusal(job, machine)
    return _tiles_of(job, *fit)


def in_few_tasks(job: CubeJob, machine: Machine, ways: Mapping[int, float]) -> CubeJob:
    """The same job with several lanes to a task, or all, where a cluster is done sooner that way.

    Tasks share the work of filling, which is 1, among as many workers as have one at once. Moments are handed on and
    merged by all workers; one task for all lanes hands on none. A scan whose lanes meet few bins hands on little: it
    keeps its tasks on one worker too, since others may come.

    Parameters
    ----------
    job
        What is to be done, with as few lanes to a task as there may be.
    machine
        Who does it.
    ways
        Work of handing on, see :meth:`CubeJob.handing_on`, by the lanes that a task may do; those of the job first.
    """
    made = [replace(job, task_lanes=n) for n in ways]
    if not machine.cluster or job.n_units < 2 or ways[job.task_lanes] < _WORTH:
        return job
    fit = {one: size for one in made if (size := _size_that_fits(one, machine)) is not None}
    if not fit:
        return job
    at_once = {one: _at_once(one, size, machine) for one, size in fit.items()}
    reads = min(one.reads(*size) for one, size in fit.items())
    found = [one for one, size in fit.items() if one.reads(*size) == reads]
    if job.beside_bytes:  # their work has no moments: as many workers share it as can
        found = [one for one in found if at_once[one] == max(at_once[one] for one in found)]
    takes = {
        one: 1 / at_once[one] + (ways[one.task_lanes] / machine.workers if one.n_units > 1 else 0.0) for one in found
    }
    best = min(found, key=lambda one: takes[one])
    return best if takes[best] < _SOONER * takes.get(job, math.inf) else job


def _at_once(job: CubeJob, size: tuple[int, int], machine: Machine) -> float:
    """As many workers as share the tasks of a cube, on average."""
    n_tasks = len(_tiles_of(job, *size)) * job.n_units
    return n_tasks / -(-n_tasks // machine.workers)


def _size_that_fits(job: CubeJob, machine: Machine) -> tuple[int, int] | None:
    """Segments and rows of the largest tiles that fit."""
    return next((s for s in job.sizes() if job.working_bytes(*s, machine) <= machine.memory), None)


def _tiles_of(job: CubeJob, segments: int, rows: int) -> list[Tile]:
    n_segments, n_rows, _ = job.shape
    return [
        Tile((s, min(s + segments, n_segments)), (r, min(r + rows, n_rows)))
        for s in range(0, n_segments, segments)
        for r in range(0, n_rows, rows)
    ]


def with_reductions(job: CubeJob, beside_bytes: int, machine: Machine) -> CubeJob:
    """The same job with reductions of the same frames, if they fit into memory beside it."""
    made = replace(job, beside_bytes=beside_bytes)
    return made if needed(made, machine) <= machine.memory else job


def needed(job: CubeJob, machine: Machine) -> int:
    """Bytes that the smallest of all plans takes."""
    return min(job.working_bytes(*s, machine) for s in job.sizes())


def _refusal(job: CubeJob, machine: Machine) -> PlanError:
    """What is too large, and what fits: every way out is one that the same plan accepts."""
    n_segments, n_rows, columns = job.shape
    least = needed(job, machine)
    fewer = bisect_right(range(1, job.n_bins), machine.memory, key=lambda n: needed(with_bins(job, n), machine))
    ways = [f"at most {fewer} bins"] if fewer else []
    of_segment = replace(job, shape=(1, n_rows, columns), segments_read=1)
    if n_segments > 1 and needed(of_segment, machine) <= machine.memory:
        ways.append("a cube of each segment (.isel(segment=[0]))")
    if machine.said and least <= machine.free:
        ways.append(f"memory={least}")
    elif machine.cluster:
        ways.append(f"workers with memory_limit={limit_for(least)}" + (" and no memory=" if machine.said else ""))
    elif least <= machine.limit * _MOST_OF_LIMIT:
        ways.append(f"memory={least}")
    return PlanError(
        "this cube does not fit into memory",
        found=f"{job.n_bins} bins of {n_segments} x {n_rows} x {columns} pixels; {machine}",
        expected=f"{format_bytes(least)} at the least",
        fix=", or ".join(ways) or f"a part of the pixels (.isel(row=slice(0, {max(1, n_rows // 4)})))",
    )


def with_bins(job: CubeJob, n_bins: int) -> CubeJob:
    """The same events in fewer bins: no lane meets more bins than there are, but there may be more lanes."""
    most = min(MOST_LANES, -(-job.n_events // FEWEST_LANE))
    n_lanes = max(job.n_lanes, most)
    task_lanes = n_lanes if job.n_units == 1 else job.task_lanes
    return replace(job, n_bins=n_bins, met=min(job.met, n_bins), n_lanes=n_lanes, task_lanes=task_lanes)
