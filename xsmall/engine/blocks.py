"""Blocks of events: slices of a lazy array that a task carries unopened and reads in small batches.

The unit of a task is not the unit of reading. A task holds some hundred events as a slice of the lazy array; dask does
not look inside the wrapper, so nothing is read until the task walks it, batch by batch, each batch a few whole chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import Task, TaskRef
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep

from xsmall.engine.faults import Holes, holes_in, reading, tell
from xsmall.engine.flagged import FlaggedFrames, differing, told_of_moved, with_others
from xsmall.engine.interrupt import can_be_stopped, check, events_read
from xsmall.engine.record import GROUP
from xsmall.engine.rule import Rule, read_together

BATCH_BYTES = 64 * 2**20
"""Raw bytes that a task reads at once, unless one chunk alone is larger."""

LARGE_CHUNK_BYTES = 16 * 2**20
"""Chunks from this size on are not joined beyond a group: that would only copy them."""

MOST_EVENTS = 1024
"""Events of one task at the most: a million events are then a thousand tasks."""

FEWEST_TASKS = 64
"""Tasks that a run is cut into as far as its chunks allow, so that all workers have something to do."""


class Batch(NamedTuple):
    """Frames (event, segment, row, column) that go together and what belongs to them, in memory or lazy."""

    frames: Any
    present: npt.NDArray[np.bool_] | None = None
    """Which segments are there (event, segment); None where all are."""
    variance: Any = None
    """Variance of each value, where it is read rather than made by the transform."""
    energy: npt.NDArray[np.float64] | None = None
    """Photon energy of each event in eV, where it differs between them."""
    beside: tuple[Any, ...] = ()
    """What the transform needs beside the frames: arrays (event,), (event, segment) or of the shape of the frames."""
    kinds: int = 0
    """Bits of what makes segments unusable, see :mod:`xsmall.engine.flagged`: their words are followed."""

    def members(self) -> list[Any]:
        """All arrays, in a fixed order; None where there is none."""
        return [*self[:4], *self.beside]

    def lazy(self) -> dict[int, da.Array]:
        """The dask arrays by their place among the members."""
        return {i: m for i, m in enumerate(self.members()) if isinstance(m, da.Array)}

    def all_lazy(self) -> Batch:
        """The same with frames, and what is of their shape, as dask arrays."""
        if isinstance(self.frames, da.Array):
            return self
        chunks = (min(MOST_EVENTS, max(1, len(self.frames))), *self.frames.shape[1:])
        alike = {i: m for i, m in enumerate(self.members()) if getattr(m, "shape", None) == self.frames.shape}
        return self.put({i: da.from_array(m, chunks=chunks, asarray=False) for i, m in alike.items()})

    def put(self, new: Mapping[int, Any]) -> Batch:
        """Replace members by their place."""
        members = [new.get(i, m) for i, m in enumerate(self.members())]
        frames, present, variance, energy, *beside = members
        return Batch(frames, present, variance, energy, tuple(beside), self.kinds)

    def cut(self, events: slice, segments: slice = slice(None)) -> Batch:
        """Cut every member down to some events and segments."""
        whole = enumerate(self.members())
        return self.put({i: _cut_member(m, events, segments) for i, m in whole if m is not None})

    def segment(self, events: slice, i: int) -> Any:
        """What a transform takes of segment number ``i`` of some events: frames, or a tuple with what lies beside."""
        frames = self.frames[events, i]
        return (frames, *(_cut_member(a, events, i) for a in self.beside)) if self.beside else frames

    def here(self, events: slice, i: int) -> npt.NDArray[np.bool_]:
        """Which of some events have segment number ``i``."""
        if self.present is None:
            return np.ones(len(self.frames[events]), dtype=bool)
        there: npt.NDArray[np.bool_] = self.present[events, i]
        return there


def _cut_member(member: Any, events: slice, segments: slice | int) -> Any:
    return member[events] if member.ndim == 1 else member[events, segments]


class Unopened:
    """A lazy slice of frames that dask treats as one opaque object, so that nothing is read until the task asks.

    What lies beside the frames is sliced with them. Pickled, it is the rule of these events alone.

    Parameters
    ----------
    batch
        The frames of a run; or what :func:`rules_of` made of them, where there are many blocks.
    start, stop
        The events.
    segments
        The segments that are read.
    """

    __slots__ = ("_first", "_others", "_rules", "_segments", "_small", "_start", "_stop")

    def __init__(
        self, batch: Batch | Rules, start: int, stop: int, segments: tuple[int, int] | None = None, first: int = 0
    ) -> None:
        rules = rules_of(batch) if isinstance(batch, Batch) else batch
        self._rules = rules.rules
        self._others = rules.others
        self._small = rules.small
        self._start = start
        self._stop = stop
        self._segments = slice(None) if segments is None else slice(*segments)
        self._first = first

    def __len__(self) -> int:
        return self._stop - self._start

    def __reduce__(self) -> tuple[Any, ...]:
        events, segments = (self._start, self._stop), self._segments
        small = self._small.cut(slice(events[0] - self._first, events[1] - self._first))
        rules, others = (
            {i: rule.cut(events, segments) for i, rule in of.items()} for of in (self._rules, self._others)
        )
        span = None if segments == slice(None) else (segments.start, segments.stop)
        return Unopened, (Rules(small, rules, others), *events, span, self._start)

    def attached(self, shared: Opaque | None) -> Unopened:
        """The block with what all blocks of a run share, see :func:`shared_of`."""
        if shared is None:
            return self
        values, changed = shared.value
        rules = {i: rule.attached(values) for i, rule in self._rules.items()}
        others = {i: rule.attached(values | changed) for i, rule in self._rules.items()} if changed else {}
        span = None if self._segments == slice(None) else (self._segments.start, self._segments.stop)
        return Unopened(Rules(self._small, rules, others), self._start, self._stop, span, self._first)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the frames of one event."""
        return tuple(self._rules[0].shape[1:])

    @property
    def bytes_per_event(self) -> int:
        """Bytes of the frames of one event, of the segments that are read."""
        rule = self._rules[0]
        segments = len(range(rule.shape[1])[self._segments])
        size: int = rule.dtype.itemsize * segments * math.prod(rule.shape[2:])
        return max(1, size)

    def batches(self, limit: int = BATCH_BYTES) -> Iterator[Batch]:
        """Read the events in order, at most ``limit`` bytes at once unless a chunk is larger and cannot be parted."""
        for _, batch in self.pieces(limit=limit):
            yield batch

    def pieces(
        self, wanted: npt.NDArray[np.bool_] | None = None, limit: int = BATCH_BYTES
    ) -> Iterator[tuple[int, Batch]]:
        """Read as :meth:`batches`, with the first event of each batch; what holds no ``wanted`` event is not read."""
        for start, stop in self.parts(wanted, limit):
            check()
            yield start, self.read(start, stop)

    def parts(self, wanted: npt.NDArray[np.bool_] | None = None, limit: int = BATCH_BYTES) -> list[tuple[int, int]]:
        """Say which events :meth:`pieces` reads together, counted from the first of the block."""
        rule, most = self._rules[0], max(1, limit // self.bytes_per_event)
        if rule.step is not None:  # what nobody wants is left out where it is a good part of what is read at once
            step = rule.step * max(1, most // (4 * rule.step))
            return list(group_chunks(_even_sizes(self._start, self._stop, step), most, wanted))
        sizes = rule.sizes(self._start, self._stop)
        if max(sizes, default=0) * self.bytes_per_event >= LARGE_CHUNK_BYTES:
            most = min(most, GROUP)
        return list(group_chunks(tuple(sizes), most, wanted))

    def read(self, start: int, stop: int) -> Batch:
        """Read some events here and now, counted from the first of the block.

        Segments of events that cannot be read are ``present`` False, and a warning names file and part; so are those
        that were computed of missing or damaged ones.
        """
        events = self._start + start, self._start + stop
        own = slice(events[0] - self._first, events[1] - self._first)
        small = self._small.cut(own, self._segments)
        rules = list(self._rules.values())
        source = rules[0].source
        known, kinds = np.zeros((), np.uint8), small.kinds
        if isinstance(source, FlaggedFrames):  # whose words are under their own labels
            known, kinds = source.against(slice(*events), self._segments) & np.uint8(kinds), 0
        with reading(kinds=kinds) as holes:
            made = read_together(rules, events, self._segments)
        events_read(stop - start)
        batch = small.put(dict(zip(self._rules, made, strict=True)))
        if not (holes.reasons or holes.met or self._others):
            holes.met = int(np.bitwise_or.reduce(known, axis=None))
            return _left_without(batch, known != 0, holes) if holes.met else batch
        with reading(other=True, kinds=kinds):
            again = read_together(list((self._others or self._rules).values()), events, self._segments)
        return _left_without(batch, holes_in(made, again) | (known != 0), holes)


def _left_without(batch: Batch, holed: npt.NDArray[np.bool_], holes: Holes) -> Batch:
    """Leave segments of events out of a batch, and tell why where the coordinates do not."""
    here = ~holed if batch.present is None else batch.present & ~holed
    if not holes.reasons and (holed if batch.present is None else holed & batch.present).any():
        holes.reasons[told_of_moved(holes.met)] = None
    tell(holes)
    return batch._replace(present=here)


class Rules(NamedTuple):
    """A batch whose lazy members are rules: what blocks of one run share in this process."""

    small: Batch
    rules: dict[int, Rule]
    others: dict[int, Rule] = {}  # noqa: RUF012
    """The same with what blocks share computed of other words, where that makes a difference."""


def rules_of(batch: Batch) -> Rules:
    """Make the rules of what is lazy in a batch."""
    lazy = batch.lazy()
    can_be_stopped()
    return Rules(batch.put(dict.fromkeys(lazy)), {i: Rule(array) for i, array in lazy.items()})


def shared_of(rules: Rules, batch: Batch, blocks: list[tuple[int, int]], name: str) -> Delayed | None:
    """What every block needs (a user's own pedestals, the mean of the run), as one node of the graph.

    Returns None where there is nothing. The blocks that are made of ``rules`` from now on need it attached.
    """
    if len(blocks) < 2:
        return None
    keys: list[Any] = []
    others: dict[Any, Any] = {}
    arrays = batch.lazy()
    for rule in rules.rules.values():
        mine = rule.shared(blocks[0], blocks[-1])
        if batch.kinds and mine:
            others |= with_others(rule.tasks(mine), batch.kinds)
        rule.lend(mine)
        keys += [key for key in mine if key not in keys]
    if not keys:
        return None
    changed = {key: TaskRef(others[key].key) for key in keys if key in others}
    task = Task(name, _collected, keys, list(changed), *map(TaskRef, keys), *changed.values())
    layer = {name: task, **{other.key: other for other in others.values()}}
    graph = HighLevelGraph.from_collections(name, layer, dependencies=list(arrays.values()))
    needed = set().union(*(made.dependencies for made in layer.values())) - layer.keys()
    return Delayed(name, _with_needs(graph, name, needed))


def _with_needs(graph: HighLevelGraph, name: str, needed: set[Any]) -> HighLevelGraph:
    """Tell which layers one needs that reaches past the last: dask would fuse those into another, and lose them."""
    layers = {key[0] if isinstance(key, tuple) else key for key in needed} & graph.layers.keys()
    return HighLevelGraph(graph.layers, {**graph.dependencies, name: {*graph.dependencies[name], *layers}})


def _collected(keys: list[Any], changed: list[Any], *values: Any) -> Opaque:
    """What blocks share, and what of it would be other values if words that are none were others."""
    shared, others = dict(zip(keys, values, strict=False)), dict(zip(changed, values[len(keys) :], strict=True))
    return Opaque((shared, {key: other for key, other in others.items() if differing(shared[key], other)}))


def _even_sizes(start: int, stop: int, step: int) -> tuple[int, ...]:
    """Sizes of the parts of some events whose borders are multiples of ``step``."""
    borders = [start, *range(start - start % step + step, stop, step), stop]
    return tuple(b - a for a, b in pairwise(borders) if b > a)


def group_chunks(
    chunks: tuple[int, ...], most: int, wanted: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, int]]:
    """Join neighbouring chunks to groups of at most ``most`` events; a larger chunk is a group of its own.

    Yields (start, stop) of each group that holds an event; chunks without a ``wanted`` one are in no group.
    """
    start = stop = 0
    for size in chunks:
        idle = wanted is not None and not wanted[stop : stop + size].any()
        if stop > start and (idle or stop + size - start > most):
            yield start, stop
            start = stop
        stop += size
        if idle:
            start = stop
    if stop > start:
        yield start, stop


def event_blocks(frames: da.Array, fewest: int = 1) -> list[tuple[int, int]]:
    """Cut the events into the blocks of tasks: whole chunks, or parts of them where those can be read, and even.

    ``fewest`` events are put together as far as they come in smaller chunks, where each block costs something; and a
    group at least, which costs reducers hardly more than one event.
    """
    n = frames.shape[0]
    most = min(MOST_EVENTS, max(fewest, GROUP, n // FEWEST_TASKS))
    step = Rule(frames).step
    return list(group_chunks(frames.chunks[0] if step is None else _even_sizes(0, n, step), most))


def unopened_blocks(batch: Batch, blocks: list[tuple[int, int]], name: str) -> da.Array:
    """Make the 1-D dask array of :class:`Unopened` objects, one to a chunk, that tasks are mapped over."""
    rules = rules_of(batch)
    shared = shared_of(rules, batch, blocks, f"shared-{name}")
    holders = _objects([Unopened(rules, start, stop) for start, stop in blocks], name)
    if shared is None:
        return holders
    meta = np.empty(0, dtype=object)
    return da.map_blocks(_attached_block, holders, shared=shared, dtype=object, meta=meta, name=f"attached-{name}")


def _attached_block(holder: npt.NDArray[np.object_], *, shared: Opaque) -> npt.NDArray[np.object_]:
    return _one_object(holder.item().attached(shared))


def map_chunks(
    function: Callable[..., Any],
    batch: Batch,
    *,
    name: str,
    dtype: Any,
    meta: npt.NDArray[Any],
    whole_events: bool = False,
    **options: Any,
) -> da.Array:
    """Map ``function(batch, first segment, ...)`` over the chunks of lazy frames, the ordinary blockwise way.

    Parameters
    ----------
    function
        Gets the :class:`Batch` of a chunk, in memory, with whole rows and columns, and the number of its first segment.
    batch
        Lazy frames, and what belongs to them.
    name
        Dask name of the result.
    dtype, meta
        What comes back, and an empty array of it.
    whole_events
        Give the function all segments of its events, rather than those that lie together; it returns one object for
        each chunk of events.
    **options
        Keyword arguments of ``function``.
    """
    sizes: dict[int, int] = {2: -1, 3: -1} | ({1: -1} if whole_events else {})
    chunks = batch.frames.rechunk(sizes).chunks
    lazy = {i: a.rechunk(chunks) for i, a in batch.lazy().items()}
    axes = tuple(range(len(chunks)))
    out = axes[:1] if whole_events else axes
    parts = _Parts(batch.put(dict.fromkeys(lazy)), chunks[:1] if whole_events else chunks[:2])
    arrays = [x for array in lazy.values() for x in (array, axes)]
    return da.blockwise(
        _call, out, parts, out[:2], *arrays, function=function, places=tuple(lazy), name=name, dtype=dtype, meta=meta,
        concatenate=True, align_arrays=False, adjust_chunks={0: (1,) * len(chunks[0])} if whole_events else None,
        **options,
    )  # fmt: skip


class _ChunkPart(NamedTuple):
    """What a chunk has that is not lazy, and the number of its first segment."""

    small: Batch
    first: int


class Opaque:
    """Something that dask leaves as it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Opaque, (self.value,)


class _Parts(ArrayBlockwiseDep):  # type: ignore[misc]
    """The rule that gives each chunk what is not lazy of it, when its task is made."""

    def __init__(self, small: Batch, chunks: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(chunks)
        self._small = small
        self._borders = [np.cumsum((0, *c)).tolist() for c in chunks]

    def __getitem__(self, idx: tuple[int, ...]) -> Opaque:
        spans = [slice(b[i], b[i + 1]) for i, b in zip(idx, self._borders, strict=True)]
        return Opaque(_ChunkPart(self._small.cut(*spans), spans[1].start if len(spans) > 1 else 0))


def _one_object(value: object) -> npt.NDArray[np.object_]:
    holder = np.empty(1, dtype=object)
    holder[0] = value
    return holder


def _objects(values: Sequence[object], name: str) -> da.Array:
    """Make a 1-D dask array of objects, one to a chunk."""
    holders = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        holders[i] = value
    return da.from_array(holders, chunks=1, name=name)


def _call(
    part: Opaque,
    *arrays: npt.NDArray[Any],
    function: Callable[..., Any],
    places: tuple[int, ...],
    **options: Any,
) -> Any:
    known: _ChunkPart = part.value
    small, first = known
    return function(small.put(dict(zip(places, arrays, strict=True))), first, **options)


def is_in_memory(array: da.Array) -> bool:
    """Tell whether every chunk is data already (persisted, here or on a cluster) rather than work to do."""
    layers = list(array.dask.layers.values())
    if len(layers) != 1 or not layers[0].is_materialized():  # asking a blockwise layer for its tasks would make them
        return False
    return all(_is_data(task) for task in layers[0].values())


def _is_data(value: object) -> bool:
    held = getattr(value, "value", value)  # dask wraps data in a DataNode
    return isinstance(held, np.ndarray) or _is_future(held)


def rests_on_futures(array: object) -> bool:
    """Tell whether a dask array is made of data that a cluster holds, which only its scheduler can bring."""
    if not isinstance(array, da.Array):
        return False
    known = [layer for layer in array.dask.layers.values() if layer.is_materialized()]
    return any(_is_future(getattr(task, "value", task)) for layer in known for task in layer.values())


def _is_future(held: object) -> bool:
    return type(held).__name__ == "Future"
