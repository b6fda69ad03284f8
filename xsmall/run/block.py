"""One block of events of one detector: read once, reduced and averaged, whatever becomes of single events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.engine.beside import Beside, Companion
from xsmall.engine.blocks import BATCH_BYTES, Batch, Rules, Unopened, rules_of
from xsmall.engine.faults import collecting
from xsmall.engine.interrupt import Interrupted
from xsmall.engine.one_pass import Job, reduce_batches
from xsmall.engine.record import Output, Record, Totals
from xsmall.engine.transform import Transform
from xsmall.reductions.reduce import Pass
from xsmall.run.average import Average, Averager, MomentsByBin
from xsmall.run.detectors import Detector
from xsmall.vocabulary import FAULT, FRAME_SIZE, N_SEGMENTS

__all__ = ["Fault", "Work", "blocks_of", "lost_block"]

Array = npt.NDArray[Any]

FEWEST_EVENTS: Final = 256
MOST_EVENTS: Final = 1024
FEWEST_BLOCKS: Final = 64
"""Blocks of a run as far as each has the fewest events, so that all workers have something to do."""
SMALLER: Final = 8
"""How much less is read at once where memory was short."""
MOST_FAILURES: Final = 32
"""Events of a block that may fail one by one; where more do, it is no matter of single events."""
MOMENTS: Final = "moments"
TOTALS: Final = "totals"
_TEXT: Final = 200


class Fault(IntFlag):
    """What an event lacks, one bit each."""

    ABSENT = 1  # the detector has no frame of this event
    SEGMENTS_MISSING = 2  # some or all segments are missing or damaged, as the run says
    UNREADABLE = 4  # a part of the file cannot be read
    FAILED = 8  # the calculation of this event ended in an error
    LOST = 16  # the worker that had it was lost, more than once


def blocks_of(n_events: int) -> list[tuple[int, int]]:
    """Cut events into blocks, the same for the same number of events."""
    size = FEWEST_EVENTS
    while size < MOST_EVENTS and size * FEWEST_BLOCKS < n_events:
        size *= 2
    return [(start, min(start + size, n_events)) for start in range(0, n_events, size)]


@dataclass
class BlockResult:
    """Arrays of a block, by their keys, and what is to be told of it."""

    arrays: dict[str, Array]
    note: dict[str, Any] = field(default_factory=dict)


class Work:
    """What a process needs to compute blocks of one detector: rules of its frames, and the tables of its calibration.

    Parameters
    ----------
    detector
        The detector; its tables are made here, once.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.prepared: Pass = detector.prepared
        source = self.prepared.source
        self._transform: Transform = source.ready()
        self._rules: Rules = rules_of(source.batch)
        self._beside = {name: (_source_beside(c), c) for name, c in self.prepared.beside.items()}
        self._floats = {name: c.ready() for name, c in self.prepared.beside.items()}

    def compute(self, start: int, stop: int, limit: int = BATCH_BYTES) -> BlockResult:
        """Compute a block of events; those that fail are left out, flagged and told.

        Parameters
        ----------
        start, stop
            The events, half open.
        limit
            Bytes of frames that are read at once.
        """
        begun = time.perf_counter()
        bad: dict[int, str] = {}
        with collecting() as reasons:
            try:
                block = self._run([(start, stop)], start, stop, limit)
            except MemoryError:
                block = self._run([(start, stop)], start, stop, max(1, limit // SMALLER))
            except Exception as error:
                _raise_if_stopped(error)
                self._find(start, stop, limit, error, bad)
                block = self._run(_without(start, stop, bad), start, stop, limit)
        faults = block.arrays[FAULT]
        for event in bad:
            faults[event - start] |= np.uint8(Fault.FAILED)
        block.note = {
            "events": [start, stop],
            "faults": _fault_counts(faults),
            "reasons": list(reasons)[:20],
            "errors": _errors_counted(bad),
            "functions": _failed_functions(block.arrays, self.prepared),
            "seconds": round(time.perf_counter() - begun, 3),
        }
        return block

    def _run(self, ranges: list[tuple[int, int]], start: int, stop: int, limit: int) -> BlockResult:
        """Compute the events of some ranges; the others stay empty."""
        n, segments = stop - start, self.prepared.frames.shape[0]
        arrays = empty_arrays(self.prepared, n)
        here, known = np.zeros((n, segments), bool), np.zeros((n, segments), bool)

        index = {name: own[start:stop] for name, own in self.detector.sums.items()}
        averager = Averager(self.prepared.frames, index) if index else None
        joined: dict[str, Record] = {} if averager is None else {MOMENTS: Average(averager)}
        job = Job({**self.prepared.records, **joined}, self.prepared.frames, self._transform, self._floats)
        near = {name: _beside_block(held, c, start, stop) for name, (held, c) in self._beside.items()}
        totals: dict[str, Totals] = {}
        used = np.zeros(n, bool)
        for a, b in ranges:
            used[a - start : b - start] = True
            for first, batch in Unopened(self._rules, a, b).pieces(limit=limit):
                at = a - start + first
                into = slice(at, at + len(batch.frames))
                if averager is not None:
                    averager.move_to(at)
                if job.records:
                    for other in near.values():
                        other.move_to(at)
                    for (name, variable), values in reduce_batches([batch], job, near).items():
                        if isinstance(values, Totals):
                            totals[name] = totals[name].joined(values) if name in totals else values
                        else:
                            arrays[key_of(name, variable)][into] = values
                here[into] = True if batch.present is None else batch.present
        if averager is not None:
            arrays |= arrays_of_moments(averager.finish())
        for name, gathered in totals.items():
            arrays |= {total_key(name, key): values for key, values in gathered.arrays().items()}
        present = self.prepared.source.batch.present
        known[:] = True if present is None else present[start:stop]
        faults = np.zeros(n, np.uint8)
        faults[~known.all(axis=1)] |= np.uint8(Fault.SEGMENTS_MISSING)
        faults[(known & ~here).any(axis=1) & used] |= np.uint8(Fault.UNREADABLE)
        return BlockResult(arrays | {FAULT: faults, N_SEGMENTS: here.sum(axis=1).astype(np.int32)})

    def _find(self, start: int, stop: int, limit: int, error: Exception, bad: dict[int, str]) -> None:
        """Find the events that fail, by halves; where nearly all do, the rest of them is not tried."""
        if stop - start == 1 or len(bad) >= MOST_FAILURES:
            bad |= dict.fromkeys(range(start, stop), f"{type(error).__name__}: {error}"[:_TEXT])
            return
        middle = (start + stop) // 2
        for a, b in ((start, middle), (middle, stop)):
            try:
                self._run([(a, b)], a, b, limit)
            except Exception as inner:
                _raise_if_stopped(inner)
                self._find(a, b, limit, inner, bad)


def key_of(name: str, variable: str) -> str:
    """Key of a variable of a record among the arrays of a block."""
    return f"{name}.{variable}"


def empty_arrays(prepared: Pass, n: int) -> dict[str, Array]:
    """What stands for events of which nothing is known: NaN, 0, False, no text, an empty list."""
    return {
        key_of(name, variable): nothing(output, n)
        for name, outputs in prepared.described.items()
        for variable, output in outputs.items()
        if not output.summed
    }


def nothing(output: Output, n: int) -> Array:
    """Values of ``n`` events that have none."""
    if output.is_ragged:
        out = np.empty(n, object)
        for i in range(n):
            out[i] = list_of_nothing(output.dtype, output.attrs)
        return out
    fill: Any = np.nan if output.dtype.kind == "f" else np.zeros((), output.array_dtype)
    return np.full((n, *output.array_shape), fill, output.array_dtype)


def list_of_nothing(dtype: np.dtype[Any] | str, attrs: Mapping[Any, Any]) -> Array:
    """The list of an event that has none: empty; of lost pixels the border of the whole frame, which is lost."""
    return np.array([0, attrs[FRAME_SIZE]] if FRAME_SIZE in attrs else [], dtype)


def lost_block(detector: Detector, start: int, stop: int, why: str) -> BlockResult:
    """Return the block of events whose workers were lost: nothing but the flags."""
    n = stop - start
    arrays = empty_arrays(detector.prepared, n)
    arrays[FAULT] = np.full(n, Fault.LOST, np.uint8)
    arrays[N_SEGMENTS] = np.zeros(n, np.int32)
    told = {"events": [start, stop], "faults": _fault_counts(arrays[FAULT]), "errors": {why[:_TEXT]: n}, "lost": True}
    return BlockResult(arrays, told)


def moments_key(name: str, number: int) -> str:
    """First part of the keys of the moments of one bin."""
    return f"{MOMENTS}.{name}.{number}"


def total_key(name: str, key: str) -> str:
    """Key of an array of what a record has gathered."""
    return f"{TOTALS}.{name}.{key}"


def arrays_of_moments(bins: MomentsByBin) -> dict[str, Array]:
    """Moments as arrays of a block."""
    return {f"{moments_key(*of)}.{k}": x for of, moments in bins.items() for k, x in moments.arrays().items()}


def _source_beside(companion: Companion) -> Rules | Batch:
    """What lies beside the frames: values of events in memory; of frames of another detector where to read them."""
    frames = companion.batch.frames
    if companion.transform is not None and companion.batch.lazy():
        return rules_of(companion.batch)
    if not hasattr(frames, "dask"):
        return companion.batch
    return Batch(frames.compute(scheduler="synchronous"))


def _beside_block(held: Rules | Batch, companion: Companion, start: int, stop: int) -> Beside:
    """The part of it that a block of events needs."""
    if isinstance(held, Batch):
        return Beside(held, companion.at[start:stop])
    first, last = companion.span(start, stop)
    return Beside(Unopened(held, first, last), companion.at[start:stop] - first)


def _without(start: int, stop: int, bad: dict[int, str]) -> list[tuple[int, int]]:
    """The events that are not bad, as ranges."""
    borders = [start - 1, *sorted(bad), stop]
    return [(a + 1, b) for a, b in pairwise(borders) if b > a + 1]


def _fault_counts(faults: Array) -> dict[str, int]:
    counts = {str(f.name).lower(): int((faults & f != 0).sum()) for f in Fault}
    return {name: n for name, n in counts.items() if n}


def _errors_counted(bad: dict[int, str]) -> dict[str, int]:
    """How many events each error has cost."""
    told: dict[str, int] = {}
    for text in bad.values():
        told[text] = told.get(text, 0) + 1
    return told


def _failed_functions(arrays: dict[str, Array], prepared: Pass) -> dict[str, Any]:
    """Functions of users that raised: in how many events, and the first thing that was said."""
    found = {}
    for name, outputs in prepared.described.items():
        if not {"failed", "error"} <= outputs.keys():
            continue
        failed = arrays[key_of(name, "failed")]
        if failed.any():
            found[name] = [int(failed.sum()), str(arrays[key_of(name, "error")][failed][0])]
    return found


def _raise_if_stopped(error: Exception) -> None:
    """Whoever stops a computation is not to be taken for an error of it."""
    if isinstance(error, Interrupted) or type(error).__name__ == "Reschedule":
        raise error
