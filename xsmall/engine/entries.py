"""One pass over sparse frames: what is not zero goes to the reducers, at the cost of photons and not of pixels.

Reducers that take entries get them as they are. For all others frames are made whole, four at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.engine.beside import Companion
from xsmall.engine.interrupt import check
from xsmall.engine.one_pass import joined_pieces, no_pieces
from xsmall.engine.packets import Results, finished, variables_of
from xsmall.engine.promises import add_pieces, reducers_of
from xsmall.engine.record import GROUP, Record, Reducer, together

__all__ = ["EntriesJob", "LostCounts", "filled", "pixels_of_runs", "run_on_entries"]

Objects = npt.NDArray[np.object_]
Near = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Values (event, ...) beside the lists, and which events have them."""
Event = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]
"""Pixels that are not zero, their values, and lost pixels."""
T = TypeVar("T", bound=npt.NDArray[Any])


def pixels_of_runs(borders: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """All pixels of runs, of which ``borders`` has the first pixel and the one behind the last, in turn."""
    first, stop = np.asarray(borders, np.int64).reshape(-1, 2).T
    length = stop - first
    return np.repeat(first - np.cumsum(length) + length, length) + np.arange(length.sum())


def filled(
    frame: npt.NDArray[Any], pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]
) -> None:
    """Put entries and lost pixels into a frame of zeros, NaN where no pixel may be used."""
    flat = frame.reshape(-1)
    flat[pixel] = value
    flat[lost] = np.nan


class LostCounts(Generic[T]):
    """Something that is counted over lost pixels: those that no event has, and those of an event."""

    def __init__(self, count: Callable[[npt.NDArray[np.int64]], T], never: npt.NDArray[np.int64]) -> None:
        self._count = count
        self._always: T = count(never)
        self._of: npt.NDArray[np.int64] | None = None
        self._kept: T = self._always

    def __call__(self, lost: npt.NDArray[np.int64]) -> T:
        """The count of an event."""
        if not lost.size:
            return self._always
        if lost is not self._of:
            self._of, self._kept = lost, self._always + self._count(lost)
        return self._kept


class EntriesJob:
    """Records, frames, and the pixels that may be used. Opaque to dask, which would take a dataclass apart."""

    __slots__ = ("frames", "records", "used")

    def __init__(self, records: Mapping[str, Record], frames: Frames, used: npt.NDArray[np.bool_]) -> None:
        self.records, self.frames, self.used = dict(records), frames, used

    def __reduce__(self) -> tuple[Any, ...]:
        return EntriesJob, (self.records, self.frames, self.used)

    def __call__(
        self,
        pixel: Objects,
        value: Objects,
        lost: Objects,
        energy: npt.NDArray[np.float64] | None,
        beside: Mapping[str, Near] | None = None,
    ) -> Results:
        """Reduce the events of some lists with every record; ``beside`` has what else there is of each event."""
        frames = self.frames
        reducers = reducers_of(self.records, frames)
        outputs = {name: record.outputs(frames) for name, record in self.records.items()}
        pieces = no_pieces(outputs)
        promised = {name: {v: o for v, o in made.items() if not o.summed} for name, made in outputs.items()}
        never = np.flatnonzero(~self.used.ravel())
        for reducer in reducers.values():
            if reducer.takes_entries:
                reducer.never(never)
        whole, size = None, together(reducers.values())
        if not all(reducer.takes_entries for reducer in reducers.values()):
            whole, size = np.empty((GROUP, *frames.shape), frames.dtype), GROUP
        same = _Runs()
        for start in range(0, len(pixel), size):
            check()
            stop = min(start + size, len(pixel))
            group = [(pixel[i], value[i], same(lost[i])) for i in range(start, stop)]
            if whole is not None:
                for j, event in enumerate(group):
                    np.copyto(whole[j], np.where(self.used, 0, np.nan))
                    filled(whole[j], *event)
            near = {name: (values[start:stop], there[start:stop]) for name, (values, there) in (beside or {}).items()}
            for name, reducer in reducers.items():
                if energy is not None:
                    reducer.energy = energy[start:stop]
                reducer.beside = near
                add_pieces(pieces, name, _reduced_group(reducer, group, whole), promised[name], stop - start)
        return joined_pieces(pieces, outputs, reducers)


def _reduced_group(
    reducer: Reducer,
    group: Sequence[Event],
    whole: npt.NDArray[Any] | None,
) -> Mapping[str, npt.NDArray[Any]]:
    """What a reducer finds in a group of events."""
    k = len(group)
    reducer.begin(k)
    if reducer.takes_entries:
        for j, event in enumerate(group):
            reducer.entries(j, *event)
        return reducer.end()
    assert whole is not None
    if reducer.takes_whole_frames:
        reducer.whole(whole[:k], None, np.isfinite(whole[:k]).any(axis=(1, 2, 3)))
    else:
        for s in range(whole.shape[1]):
            reducer.add(s, whole[:k, s], None)
    return reducer.end()


class _Runs:
    """Pixels of runs; the same array for events that lack the same."""

    def __init__(self) -> None:
        self._of: npt.NDArray[Any] = np.empty(0, np.int32)
        self._pixels = np.empty(0, np.int64)

    def __call__(self, borders: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if not np.array_equal(borders, self._of):
            self._of, self._pixels = borders, pixels_of_runs(borders)
        return self._pixels


def run_on_entries(
    lists: tuple[Any, Any, Any],
    used: npt.NDArray[np.bool_],
    records: Mapping[str, Record],
    frames: Frames,
    energy: npt.NDArray[np.float64] | None,
    beside: Mapping[str, Companion],
) -> dict[tuple[str, str], Any]:
    """Run records over lists (event,) of pixels, values and runs of lost pixels: at once in memory, lazily for dask."""
    near = {name: (c.batch.frames[np.maximum(c.at, 0)], c.at >= 0) for name, c in beside.items()}
    job = EntriesJob(records, frames, used)
    outputs = {(name, v): o for name, record in records.items() for v, o in record.outputs(frames).items()}
    if not any(isinstance(part, da.Array) for part in (*lists, *(values for values, _ in near.values()))):
        return finished(job(*lists, energy, near), outputs)
    lengths = next((part.chunks[0] for part in lists if isinstance(part, da.Array)), (len(lists[0]),))
    borders = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    token = dask.base.tokenize(lists, energy, near, dict(records), frames, used)
    ready = dask.delayed(job, name=f"entries-job-{token}", traverse=False)
    blocks = zip(*(_blocks_of_entries(part, lengths, borders) for part in lists), strict=True)
    beside_of = {name: _blocks_of_entries(values, lengths, borders) for name, (values, _) in near.items()}
    tasks = []
    for i, (block, start, stop) in enumerate(zip(blocks, borders[:-1], borders[1:], strict=True)):
        here = {name: (parts[i], near[name][1][start:stop]) for name, parts in beside_of.items()}
        own = None if energy is None else energy[start:stop]
        task = dask.delayed(_run_job, pure=False)(ready, *block, own, here, dask_key_name=f"entries-{token}-{i}")
        tasks.append(da.from_delayed(task, (1,), dtype=object, meta=np.empty(0, object)))
    packed = da.concatenate(tasks)
    return variables_of(packed, outputs, tuple(lengths), token)


def _blocks_of_entries(part: Any, lengths: Sequence[int], borders: Sequence[int]) -> list[Any]:
    """The pieces of an array that belong to blocks of events: Delayed, or in memory."""
    if not isinstance(part, da.Array):
        return [part[a:b] for a, b in pairwise(borders)]
    whole = {0: tuple(lengths), **dict.fromkeys(range(1, part.ndim), -1)}
    return list(part.rechunk(whole).to_delayed(optimize_graph=False).ravel())


def _run_job(job: EntriesJob, *given: Any) -> Results:
    return job(*given)
