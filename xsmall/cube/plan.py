"""Which pixels one task accumulates, by the memory it may use: planned before anything is read."""

from __future__ import annotations

import os
from dataclasses import dataclass

import dask

from xsmall.cube.moments import READ_BYTES, Tile, batch_events, lanes
from xsmall.engine.record import GROUP
from xsmall.errors import ParameterError, PlanError

BYTES_PER_BIN_AND_PIXEL = 20  # count uint32, mean and M2 float64

MERGING = 3  # accumulators that live at once in a task that merges two into a third

MOST_READS = 16
"""How often the same bytes may be read for one tile of pixels after the other; beyond it, a smaller cube is better."""


@dataclass(frozen=True)
class Job:
    """What a cube of one detector needs to know before it is planned.

    Attributes
    ----------
    n_events, n_bins
        Numbers of events and bins.
    shape
        Segments, rows and columns.
    raw_bytes, float_bytes
        Bytes of a pixel as it is read, and as it is accumulated.
    segments_read
        Segments that are read together: the largest chunk along ``segment``.
    variance
        Whether variances are read or made, and summed, beside the values.
    """

    n_events: int
    n_bins: int
    shape: tuple[int, int, int]
    raw_bytes: int
    float_bytes: int
    segments_read: int
    variance: bool = False

    def task_bytes(self, segments: int, rows: int) -> int:
        """Peak memory of a task of so many segments and rows: accumulators, a batch as read, its floats."""
        _, all_rows, columns = self.shape
        size = batch_events(all_rows, columns, self.float_bytes)
        twice = 2 if self.variance else 1
        accumulators = MERGING * self.accumulator_bytes * self.n_bins * segments * rows * columns
        piece = max(segments, self.segments_read) * all_rows * columns * self.raw_bytes
        read = min(size, self.n_events) * segments * all_rows * columns * self.raw_bytes + max(piece, READ_BYTES)
        floats = size * rows * columns * self.float_bytes
        scratch = GROUP * all_rows * columns * self.float_bytes if rows < all_rows else 0
        return accumulators + twice * (read + floats + scratch)

    @property
    def accumulator_bytes(self) -> int:
        """Bytes per bin and pixel."""
        return BYTES_PER_BIN_AND_PIXEL + (8 if self.variance else 0)


def tiles(job: Job, memory: int | None = None) -> list[Tile]:
    """Cut the pixels into the largest tiles that fit: what is read together, else segments, else rows of one.

    Parameters
    ----------
    job
        What is to be done.
    memory
        Bytes that all tasks of this machine may use together; half of what it has, where nothing is said.

    Raises
    ------
    PlanError
        Not even small tiles fit, or the data would be read too often for one tile after the other.
    """
    n_segments, n_rows, columns = job.shape
    limit = memory_limit(memory)
    share = limit // n_threads()
    segments = next((m for m in range(job.segments_read, 0, -1) if job.task_bytes(m, n_rows) <= share), 0)
    rows = n_rows
    if not segments:
        segments = 1
        rows = next((r for r in _halved(n_rows) if job.task_bytes(1, r) <= share), 0)
    reads = -(-job.segments_read // segments) * (-(-n_rows // rows) if rows else MOST_READS + 1)
    if reads > MOST_READS:
        per_bin = MERGING * job.accumulator_bytes * columns * max(1, n_rows // MOST_READS)
        fixed = job.task_bytes(1, max(1, n_rows // MOST_READS)) - per_bin * job.n_bins
        fewer = max(0, (share - fixed) // per_bin)
        raise PlanError(
            "this cube does not fit into memory",
            found=f"{job.n_bins} bins of {n_segments} x {n_rows} x {columns} pixels, "
            f"{limit / 1e9:.3g} GB for {n_threads()} threads",
            expected=f"at most {fewer} bins, or memory={_needed(job) * n_threads()}",
            fix="fewer bins, a part of the pixels (.isel(segment=...)), or fewer threads",
        )
    return [
        Tile((s, min(s + segments, n_segments)), (r, min(r + rows, n_rows)))
        for s in range(0, n_segments, segments)
        for r in range(0, n_rows, rows)
    ]


def describe(job: Job, memory: int | None = None) -> dict[str, int]:
    """Tell what the plan costs: tiles, lanes, tasks, bytes read and peak bytes of all tasks that run together."""
    plan = tiles(job, memory)
    segments = max(t.segments[1] - t.segments[0] for t in plan)
    rows = max(t.rows[1] - t.rows[0] for t in plan)
    n_lanes = len(lanes(job.n_events, job.n_bins))
    reads = -(-job.segments_read // segments) * -(-job.shape[1] // rows)
    frames = job.n_events * job.shape[0] * job.shape[1] * job.shape[2] * job.raw_bytes
    return {
        "tiles": len(plan),
        "lanes": n_lanes,
        "tasks": n_lanes * len(plan),
        "bytes_read": frames * reads,
        "peak_bytes": job.task_bytes(segments, rows) * n_threads(),
    }


def memory_limit(memory: object) -> int:
    """Bytes that may be used: as said, or half of the memory of this machine."""
    if memory is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not memory > 0:
        raise ParameterError("memory is a number of bytes", found=repr(memory), fix="memory=8e9 for 8 GB")
    return int(memory)


def n_threads() -> int:
    """Threads that dask will run in this process."""
    return int(dask.config.get("num_workers", 0)) or os.cpu_count() or 1


def _halved(rows: int) -> list[int]:
    sizes = []
    while rows > 1:
        rows = -(-rows // 2)
        sizes.append(rows)
    return sizes


def _needed(job: Job) -> int:
    return job.task_bytes(1, max(1, job.shape[1] // MOST_READS))
