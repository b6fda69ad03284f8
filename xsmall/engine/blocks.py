"""Blocks of events: slices of a lazy array that a task carries unopened and reads in small batches.

The unit of a task is not the unit of reading. A task holds some hundred events as a slice of the lazy array; dask does
not look inside the wrapper, so nothing is read until the task walks it, batch by batch, each batch a few whole chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

BATCH_BYTES = 64 * 2**20
"""Raw bytes that a task reads at once, unless one chunk alone is larger."""

LARGE_CHUNK_BYTES = 16 * 2**20
"""A chunk from this size on is read alone: joining it to its neighbours would only copy it."""

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

    def members(self) -> list[Any]:
        """All arrays, in a fixed order; None where there is none."""
        return [*self[:4], *self.beside]

    def lazy(self) -> dict[int, da.Array]:
        """The dask arrays by their place among the members."""
        return {i: m for i, m in enumerate(self.members()) if isinstance(m, da.Array)}

    def put(self, new: Mapping[int, Any]) -> Batch:
        """Replace members by their place."""
        members = [new.get(i, m) for i, m in enumerate(self.members())]
        frames, present, variance, energy, *beside = members
        return Batch(frames, present, variance, energy, tuple(beside))

    def cut(self, events: slice, segments: slice = slice(None)) -> Batch:
        """Cut every member down to some events and segments."""
        whole = enumerate(self.members())
        return self.put({i: _cut(m, events, segments) for i, m in whole if m is not None})

    def segment(self, events: slice, i: int) -> Any:
        """What a transform takes of segment number ``i`` of some events: frames, or a tuple with what lies beside."""
        frames = self.frames[events, i]
        return (frames, *(_cut(a, events, i) for a in self.beside)) if self.beside else frames

    def here(self, events: slice, i: int) -> npt.NDArray[np.bool_]:
        """Which of some events have segment number ``i``."""
        if self.present is None:
            return np.ones(len(self.frames[events]), dtype=bool)
        there: npt.NDArray[np.bool_] = self.present[events, i]
        return there


def _cut(member: Any, events: slice, segments: slice | int) -> Any:
    return member[events] if member.ndim == 1 else member[events, segments]


class Unopened:
    """A slice of events of lazy frames (and of what belongs to them), opaque to dask.

    Pickling keeps only the part of the graph that the slice needs.
    """

    __slots__ = ("_batch", "_start", "_stop")

    def __init__(self, batch: Batch, start: int, stop: int) -> None:
        self._batch = batch
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def _lazy(self) -> Batch:
        """Cut everything down to the slice, and the graphs of what is lazy to what it needs."""
        cut = self._batch.cut(slice(self._start, self._stop))
        lazy = cut.lazy()
        return cut.put(dict(zip(lazy, dask.optimize(*lazy.values()), strict=True)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Unopened, (self._lazy(), 0, len(self))

    def batches(self, limit: int = BATCH_BYTES) -> Iterator[Batch]:
        """Read the events in order, whole chunks at a time, at most ``limit`` bytes unless a chunk is larger."""
        for _, batch in self.pieces(limit=limit):
            yield batch

    def pieces(
        self, wanted: npt.NDArray[np.bool_] | None = None, limit: int = BATCH_BYTES
    ) -> Iterator[tuple[int, Batch]]:
        """Read as :meth:`batches`, with the first event of each batch; what holds no ``wanted`` event is not read."""
        lazy = self._lazy()
        frames: da.Array = lazy.frames
        bytes_per_event = max(1, frames.nbytes // max(1, frames.shape[0]))
        most = max(1, limit // bytes_per_event)
        if max(frames.chunks[0], default=0) * bytes_per_event >= LARGE_CHUNK_BYTES:
            most = 1
        for start, stop in group_chunks(frames.chunks[0], most, wanted):
            yield start, _read(lazy.cut(slice(start, stop)))


def _read(batch: Batch) -> Batch:
    """Compute what is lazy here and now, together; single chunks are handed out as they are: dask would copy them."""
    lazy = batch.lazy()
    parts: list[Any] = list(lazy.values())
    if all(a.npartitions == 1 for a in parts):
        parts = [a.to_delayed(optimize_graph=False).item() for a in parts]
    return batch.put(dict(zip(lazy, dask.compute(*parts, scheduler="synchronous"), strict=True)))


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


def event_blocks(chunks: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut the events into the blocks of tasks: whole chunks, as even as they allow."""
    most = min(MOST_EVENTS, max(1, sum(chunks) // FEWEST_TASKS))
    return list(group_chunks(chunks, most))


def unopened_blocks(batch: Batch, blocks: list[tuple[int, int]], name: str) -> da.Array:
    """Make the 1-D dask array of :class:`Unopened` objects, one to a chunk, that tasks are mapped over."""
    return _objects([Unopened(batch, start, stop) for start, stop in blocks], name)


def map_chunks(
    function: Callable[..., Any],
    batch: Batch,
    *,
    name: str,
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
    whole_events
        Whether a chunk has all segments of its events, rather than those that lie together.
    **options
        Of ``dask.array.map_blocks``, and keyword arguments of ``function``.
    """
    sizes: dict[int, int] = {2: -1, 3: -1} | ({1: -1} if whole_events else {})
    chunks = batch.frames.rechunk(sizes).chunks
    lazy = {i: a.rechunk(chunks) for i, a in batch.lazy().items()}
    small = batch.put(dict.fromkeys(lazy))
    events, segments = (list(pairwise(np.cumsum((0, *c)).tolist())) for c in chunks[:2])
    of_events = _objects([small.cut(slice(*e)) for e in events], f"{name}-events")
    of_segments = _objects(segments, f"{name}-segments")
    return da.map_blocks(
        _call, of_events[:, None, None, None], of_segments[None, :, None, None], *lazy.values(), function=function,
        places=tuple(lazy), name=name, **{"chunks": chunks, **options},
    )  # fmt: skip


def _objects(values: Sequence[object], name: str) -> da.Array:
    """Make a 1-D dask array of objects, one to a chunk."""
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        cells[i] = value
    return da.from_array(cells, chunks=1, name=name)


def _call(
    events: npt.NDArray[np.object_],
    segments: npt.NDArray[np.object_],
    *arrays: npt.NDArray[Any],
    function: Callable[..., Any],
    places: tuple[int, ...],
    **options: Any,
) -> Any:
    small: Batch = events.item()
    first, stop = segments.item()
    batch = small.cut(slice(None), slice(first, stop)).put(dict(zip(places, arrays, strict=True)))
    return function(batch, first, **options)


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
