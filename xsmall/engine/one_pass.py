"""The engine: one pass over blocks of events for any number of records.

A block of events is read in batches of whole chunks; a batch goes through the transform and all reducers one segment of
a few events at a time, which is what stays in the cache. Raw frames are read and calibrated once, however many
records share them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.detector.frames import Frames
from xsmall.detector.types import DetectorType
from xsmall.engine.beside import Beside, Companion, held_block, joined_blocks
from xsmall.engine.blocks import (
    Batch,
    Unopened,
    event_blocks,
    is_in_memory,
    map_chunks,
    rests_on_futures,
    unopened_blocks,
)
from xsmall.engine.interrupt import check
from xsmall.engine.packets import TOTALS, Results, finished, variables_of
from xsmall.engine.passes import PlannedPass, remember_pass, source_token
from xsmall.engine.plans import plan_of_pass, remember
from xsmall.engine.promises import Returned, add_pieces, checked_totals, is_ours, reducers_of
from xsmall.engine.record import Output, Record, Reducer, together
from xsmall.engine.transform import (
    Cast,
    FloatFrames,
    Origin,
    Transform,
    as_delayed,
    origin_of,
)

FEWEST_SUMMED = 16
"""Events of a task at least, where it sums them up: what it has gathered is larger than a frame, and is joined."""


class Job:
    """Records, frames and transform of one pass. Opaque to dask, which would take a dataclass apart."""

    __slots__ = ("_outputs", "beside", "frames", "records", "transform")

    def __init__(
        self,
        records: Mapping[str, Record],
        frames: Frames,
        transform: Transform,
        beside: Mapping[str, Transform | None] | None = None,
        outputs: Mapping[str, Mapping[str, Output]] | None = None,
    ) -> None:
        self.records = dict(records)
        self.frames = frames
        self.transform = transform
        self.beside = dict(beside or {})
        self._outputs = outputs

    @property
    def outputs(self) -> Mapping[str, Mapping[str, Output]]:
        """What each record gives; asked once, for a job has many blocks of events."""
        if self._outputs is None:
            self._outputs = {name: record.outputs(self.frames) for name, record in self.records.items()}
        return self._outputs

    def __reduce__(self) -> tuple[Any, ...]:
        return Job, (self.records, self.frames, self.transform, self.beside)


@dataclass(frozen=True)
class Source:
    """What a pass reads, lazy or in memory, and the transform that makes floats of it.

    Variances come from the transform, or, where it does not know them, are read beside the frames.
    """

    batch: Batch
    transform: Transform | Delayed

    @classmethod
    def of(
        cls,
        data: npt.NDArray[Any] | da.Array,
        present: npt.NDArray[np.bool_] | None,
        dtype: np.dtype[Any],
        variance: npt.NDArray[Any] | da.Array | None = None,
        energy: npt.NDArray[np.float64] | None = None,
        words: DetectorType | None = None,
        kinds: int = 0,
    ) -> Source:
        """Find what to read for ``data``: its raw origin where it is the untouched result of a transform.

        ``words`` is the detector whose raw words they are, where they are such; ``kinds`` what makes segments of them
        unusable, see :mod:`xsmall.engine.flagged`.
        """
        origin = _live_origin(data)
        if origin is not None and not origin.variance:
            other = None if variance is None else _live_origin(variance)
            if variance is None or (other is not None and other.variance and other.key == origin.key):
                here = _both(origin.raw.present, present)
                return cls(origin.raw._replace(present=here, energy=energy), origin.transform)
        return cls(Batch(data, present, _as_lazy_as(data, variance), energy, kinds=kinds), Cast(dtype, words))

    @property
    def is_held(self) -> bool:
        """True if any chunk is computed already (here or on a cluster): then the scheduler must deliver the chunks."""
        return any(is_in_memory(array) or rests_on_futures(array) for array in self.batch.lazy().values())

    def ready(self) -> Transform:
        """The transform, built here and now where it is not yet."""
        return self.transform.compute() if isinstance(self.transform, Delayed) else self.transform


def _as_lazy_as(
    data: npt.NDArray[Any] | da.Array, variance: npt.NDArray[Any] | da.Array | None
) -> npt.NDArray[Any] | da.Array | None:
    """The variance in memory where the values are, lazy where they are; both are read together."""
    if variance is None or isinstance(variance, da.Array) == isinstance(data, da.Array):
        return variance
    if isinstance(data, da.Array):
        return da.from_array(variance, chunks=data.chunks, asarray=False)
    return np.asarray(variance)


def _both(a: npt.NDArray[np.bool_] | None, b: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    """Segments that both masks have: that of the calibration (undamaged), and that of the user."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def _live_origin(data: npt.NDArray[Any] | da.Array) -> Origin | None:
    """Origin of an array that is still to be computed; persisted data are taken as they are."""
    return None if isinstance(data, da.Array) and is_in_memory(data) else origin_of(data)


def float_segments(
    batch: Batch, transform: Transform, most: int, values: FloatFrames, variances: FloatFrames | None = None
) -> Iterator[tuple[int, int, int, FloatFrames, FloatFrames | None]]:
    """Walk a batch by groups of events, as many as the buffers hold, or ``most`` where none is needed, and by segments.

    Yields (first event of the group, events in it, segment, frames (k, row, column), their variance or None). The
    arrays are the two buffers, (k, row, column) or of whole frames (k, segment, row, column), or views of the batch:
    good until the next step, not to be written to.
    """
    frames, variance = batch.frames, batch.variance
    ready = _is_ready(batch, transform)
    size = most if ready else len(values)
    for start in range(0, frames.shape[0], size):
        check()
        group = slice(start, min(start + size, frames.shape[0]))
        k = group.stop - group.start
        for s in range(frames.shape[1]):
            read = None if variance is None else in_one_piece(variance[group, s])
            if ready:
                yield start, k, s, in_one_piece(frames[group, s]), read
                continue
            raw, here = batch.segment(group, s), batch.here(group, s)
            into = values[:k, s] if values.ndim == frames.ndim else values[:k]
            if read is not None or variances is None:
                transform.apply(s, raw, here, into)
                yield start, k, s, into, read
            else:
                into_variance = variances[:k, s] if values.ndim == frames.ndim else variances[:k]
                transform.apply(s, raw, here, into, into_variance)
                yield start, k, s, into, into_variance


def in_one_piece(stack: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return frames (k, ...) each of which is contiguous and in the machine's byte order; copied where they are not.

    Kernels are compiled anew for arrays that have gaps, and may then add up in another order: what comes of a frame
    must not depend on how it lies in memory.
    """
    plain = stack[0].flags.c_contiguous and stack.dtype.isnative
    return stack if plain else np.ascontiguousarray(stack, stack.dtype.newbyteorder("="))


def _is_ready(batch: Batch, transform: Transform) -> bool:
    """Whether the frames of a batch are what the reducers get."""
    plain = isinstance(transform, Cast) and transform.words is None
    return plain and batch.frames.dtype == transform.dtype and batch.present is None


class RecordsWalk:
    """The reducers of one thread, and the buffers of their frames."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.reducers = reducers_of(job.records, job.frames)
        self._promised = {
            name: {v: output for v, output in outputs.items() if not output.summed}
            for name, outputs in job.outputs.items()
        }
        whole = any(reducer.takes_whole_frames for reducer in self.reducers.values())
        shape = job.frames.shape[0 if whole else 1 :]
        self._most = together(self.reducers.values())
        size = together(self.reducers.values(), math.prod(shape) * job.transform.dtype.itemsize)
        self._values = np.empty((size, *shape), dtype=job.transform.dtype)
        self._variances = np.empty_like(self._values) if job.frames.variance else None

    def take(self, batch: Batch, pieces: Returned, before: int = 0, beside: Mapping[str, Beside] | None = None) -> None:
        """Reduce the frames of a batch, and put what comes of each group of events behind the others.

        ``before`` is the number of events before those of the batch.
        """
        job, reducers = self._job, self.reducers
        last, values, variances = job.frames.shape[0] - 1, self._values, self._variances
        for start, k, s, stack, variance in float_segments(batch, job.transform, self._most, values, variances):
            if s == 0:
                near = {n: b.take(before + start, k, job.beside[n]) for n, b in (beside or {}).items()}
            for name, reducer in reducers.items():
                if s == 0:
                    if batch.energy is not None:
                        reducer.energy = batch.energy[start : start + k]
                    reducer.beside = near
                    reducer.begin(k)
                if not reducer.takes_whole_frames:
                    reducer.add(s, *((stack, variance) if is_ours(reducer) else _both_read_only(stack, variance)))
                elif s == last:
                    _hand_over_frames(reducer, batch, job.transform, slice(start, start + k), values, variances)
                if s == last:
                    add_pieces(pieces, name, reducer.end(), self._promised[name], k)


def reduce_batches(batches: Iterable[Batch], job: Job, beside: Mapping[str, Beside] | None = None) -> Results:
    """Reduce the frames of some batches, in order, with every record of the job."""
    walk, outputs, before = RecordsWalk(job), job.outputs, 0
    pieces = no_pieces(outputs)
    for batch in batches:
        walk.take(batch, pieces, before, beside)
        before += len(batch.frames)
    return joined_pieces(pieces, outputs, walk.reducers)


def _hand_over_frames(
    reducer: Reducer,
    batch: Batch,
    transform: Transform,
    group: slice,
    values: FloatFrames,
    variances: FloatFrames | None,
) -> None:
    """Give a reducer the whole frames of a group: views, read-only, of the batch or of the buffers just filled."""
    k = group.stop - group.start
    stack = in_one_piece(batch.frames[group]) if _is_ready(batch, transform) else values[:k]
    variance = None if variances is None else variances[:k]
    if batch.variance is not None:
        variance = in_one_piece(batch.variance[group])
    here = np.ones(k, bool) if batch.present is None else batch.present[group].any(axis=1)
    reducer.whole(*_both_read_only(stack, variance), here)


def _both_read_only(values: npt.NDArray[Any], variance: npt.NDArray[Any] | None) -> tuple[Any, Any]:
    views = values.view(), None if variance is None else variance.view()
    for view in views:
        if view is not None:
            view.flags.writeable = False
    return views


def no_pieces(outputs: Mapping[str, Mapping[str, Output]]) -> Returned:
    """Room for what groups of events give, by record and variable."""
    return {(name, v): [] for name, variables in outputs.items() for v, o in variables.items() if not o.summed}


def joined_pieces(
    pieces: Returned, outputs: Mapping[str, Mapping[str, Output]], reducers: Mapping[str, Reducer]
) -> Results:
    """Put what groups of events gave behind each other; and what reducers have gathered of all of them."""
    totals: dict[tuple[str, str], Any] = {
        (name, TOTALS): gathered
        for name, r in reducers.items()
        if (gathered := checked_totals(name, r.totals(), outputs[name])) is not None
    }
    return totals | {key: _join_pieces(values, outputs[key[0]][key[1]]) for key, values in pieces.items()}


def _join_pieces(pieces: list[npt.NDArray[Any]], output: Output) -> npt.NDArray[Any]:
    empty = np.empty((0, *output.array_shape), dtype=output.array_dtype)
    return np.concatenate([empty, *pieces]).astype(output.array_dtype, copy=False)


def run_records(
    source: Source,
    records: Mapping[str, Record],
    frames: Frames,
    beside: Mapping[str, Companion] | None = None,
    described: Mapping[str, Mapping[str, Output]] | None = None,
) -> dict[tuple[str, str], Any]:
    """Run records over a source in one pass: at once for NumPy frames, lazily for dask.

    ``beside`` is what is joined to its events, by the name that reducers find it under; ``described`` what the records
    return, where they were asked already. Returns the arrays (event, ...) of each (record, variable), NumPy or dask.
    """
    beside = dict(beside or {})
    described = described or {name: record.outputs(frames) for name, record in records.items()}
    outputs = {(name, variable): o for name, made in described.items() for variable, o in made.items()}
    if not source.batch.lazy() and not any(c.batch.lazy() for c in beside.values()):
        ready = {name: c.ready() for name, c in beside.items()}
        job = Job(records, frames, source.ready(), ready, described)
        made = reduce_batches([source.batch], job, {n: Beside(c.batch, c.at) for n, c in beside.items()})
        return finished(made, outputs)
    token = dask.base.tokenize(
        *source.batch, dict(records), frames, key_of(source.transform),
        [(name, *c.batch, key_of(c.transform), c.at) for name, c in beside.items()],
    )  # fmt: skip
    job = dask.delayed(Job, pure=True)(
        dask.delayed(dict(records), name=f"records-{token}", traverse=False),
        dask.delayed(frames, name=f"frames-{token}", traverse=False),
        as_delayed(source.transform, "transform"),
        {n: None if c.transform is None else as_delayed(c.transform, "transform") for n, c in beside.items()},
        dask_key_name=f"job-{token}",
    )
    fewest = FEWEST_SUMMED if any(output.summed for output in outputs.values()) else 1
    if beside:
        packed, sizes = _map_joined(source, beside, job, token, fewest)
    else:
        packed, sizes = _map_blocks(source, job, token, fewest)
        if not source.is_held and not any(output.summed for output in outputs.values()):
            read = source_token(source.batch, key_of(source.transform))
            remember_pass(packed.name, PlannedPass(read, source.batch.energy, dict(records), frames, sizes))
    arrays = variables_of(packed, outputs, sizes, token)
    plan = plan_of_pass(
        [source.batch, *(c.batch for c in beside.values())], outputs.values(), sizes, ", ".join(records), packed.name
    )
    for array in arrays.values():
        remember(array.name, plan)
    return arrays


def _map_joined(
    source: Source, beside: Mapping[str, Companion], job: Delayed, token: str, fewest: int
) -> tuple[da.Array, tuple[int, ...]]:
    """Map the pass over blocks of events together with what lies beside them; a task for each block."""
    batch = source.batch.all_lazy()
    others = {name: c.batch.all_lazy() for name, c in beside.items()}
    blocks = joined_blocks(batch.frames, {name: (others[name].frames, c.at) for name, c in beside.items()}, fewest)
    held = source.is_held or any(c.is_held for c in beside.values())
    mains = _block_holders(batch, blocks, held, f"blocks-{token}")
    spans = {name: [c.span(*block) for block in blocks] for name, c in beside.items()}
    found = {name: _block_holders(others[name], spans[name], held, f"{name}-{token}") for name in beside}
    parts = []
    for i, (start, stop) in enumerate(blocks):
        at = {name: c.at[start:stop] - spans[name][i][0] for name, c in beside.items()}
        near = {name: holders[i] for name, holders in found.items()}
        task = dask.delayed(_run_joined, pure=False)(
            mains[i], near, dask.delayed(at, name=f"at-{token}-{i}", traverse=False), job,
            dask_key_name=f"joined-{token}-{i}",
        )  # fmt: skip
        parts.append(da.from_delayed(task, (1,), dtype=object, meta=np.empty(0, dtype=object)))
    return da.concatenate(parts), tuple(stop - start for start, stop in blocks)


def _block_holders(batch: Batch, spans: list[tuple[int, int]], held: bool, name: str) -> list[Any]:
    """What a task of each span of events gets: the span unopened, or brought by the scheduler."""
    if held:
        return [held_block(batch, *span) for span in spans]
    return list(unopened_blocks(batch, spans, name).to_delayed(optimize_graph=False))


def _run_joined(main: Any, beside: dict[str, Any], at: dict[str, npt.NDArray[np.int64]], job: Job) -> Results:
    near = {name: Beside(_held_block(holder), at[name]) for name, holder in beside.items()}
    block = _held_block(main)
    return reduce_batches([block] if isinstance(block, Batch) else block.batches(), job, near)


def _held_block(holder: Any) -> Unopened | Batch:
    block: Unopened | Batch = holder if isinstance(holder, Batch) else holder.item()
    return block


def _map_blocks(source: Source, job: Delayed, token: str, fewest: int) -> tuple[da.Array, tuple[int, ...]]:
    """Map the pass over blocks of events; each chunk of the result is a :data:`Results`."""
    sizes: tuple[int, ...] = source.batch.frames.chunks[0]
    as_objects: dict[str, Any] = {"job": job, "dtype": object, "meta": np.empty(0, dtype=object)}
    if source.is_held:
        packed = map_chunks(
            _run_chunk, source.batch, name=f"pass-{token}", whole_events=True, **as_objects,
        )  # fmt: skip
        return packed, sizes
    blocks = event_blocks(source.batch.frames, fewest) or [(0, 0)]
    holders = unopened_blocks(source.batch, blocks, f"blocks-{token}")
    packed = da.map_blocks(_run_block, holders, name=f"pass-{token}", **as_objects)
    return packed, tuple(stop - start for start, stop in blocks)


def _run_block(holder: npt.NDArray[np.object_], *, job: Job) -> Results:
    block: Unopened = holder.item()
    return reduce_batches(block.batches(), job)


def _run_chunk(batch: Batch, first: int, *, job: Job) -> Results:
    del first  # a chunk has all segments
    return reduce_batches([batch], job)


def key_of(transform: Transform | Delayed | None) -> object:
    """What tells a transform from others."""
    return transform.key if isinstance(transform, Delayed) else transform
