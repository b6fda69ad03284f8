"""Blocks of events: slices of a lazy array that a task carries unopened and reads in small batches.

The unit of a task is not the unit of reading. A task holds some hundred events as a slice of the lazy array; dask does
not look inside the wrapper, so nothing is read until the task walks it, batch by batch, each batch a few whole chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """Frames (event, segment, row, column) that were read together."""

    frames: npt.NDArray[Any]
    present: npt.NDArray[np.bool_] | None
    """Which segments are there (event, segment); None where all are."""
    variance: npt.NDArray[Any] | None = None
    """Variance of each value, where it is read rather than made by the transform."""
    energy: npt.NDArray[np.float64] | None = None
    """Photon energy of each event in eV, where it differs between them."""


class Unopened:
    """A slice of events of lazy frames (their presence, variance and photon energy), opaque to dask.

    Pickling keeps only the part of the graph that the slice needs.
    """

    __slots__ = ("_energy", "_frames", "_present", "_start", "_stop", "_variance")

    def __init__(
        self,
        frames: da.Array,
        present: npt.NDArray[np.bool_] | None,
        variance: da.Array | None,
        start: int,
        stop: int,
        energy: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._frames = frames
        self._present = present
        self._variance = variance
        self._energy = energy
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def _lazy(self) -> tuple[da.Array, ...]:
        """Cut the frames, and their variance where there is one, down to the slice."""
        arrays = [self._frames] if self._variance is None else [self._frames, self._variance]
        lazy: tuple[da.Array, ...] = dask.optimize(*(a[self._start : self._stop] for a in arrays))
        return lazy

    def __reduce__(self) -> tuple[Any, ...]:
        frames, *variance = self._lazy()
        here = slice(self._start, self._stop)
        present, energy = _cut(self._present, here), _cut(self._energy, here)
        return Unopened, (frames, present, variance[0] if variance else None, 0, len(self), energy)

    def batches(self, limit: int = BATCH_BYTES) -> Iterator[Batch]:
        """Read the events in order, whole chunks at a time, at most ``limit`` bytes unless a chunk is larger."""
        for _, batch in self.pieces(limit=limit):
            yield batch

    def pieces(
        self, wanted: npt.NDArray[np.bool_] | None = None, limit: int = BATCH_BYTES
    ) -> Iterator[tuple[int, Batch]]:
        """Read as :meth:`batches`, with the first event of each batch; what holds no ``wanted`` event is not read."""
        lazy = self._lazy()
        bytes_per_event = max(1, lazy[0].nbytes // max(1, lazy[0].shape[0]))
        most = max(1, limit // bytes_per_event)
        if max(lazy[0].chunks[0], default=0) * bytes_per_event >= LARGE_CHUNK_BYTES:
            most = 1
        for start, stop in group_chunks(lazy[0].chunks[0], most, wanted):
            read = _read([a[start:stop] for a in lazy])
            here = slice(self._start + start, self._start + stop)
            variance = read[1] if len(read) > 1 else None
            yield start, Batch(read[0], _cut(self._present, here), variance, _cut(self._energy, here))


def _cut(values: npt.NDArray[Any] | None, events: slice) -> Any:
    return None if values is None else values[events]


def _read(arrays: list[da.Array]) -> tuple[npt.NDArray[Any], ...]:
    """Compute arrays here and now, together; single chunks are handed out as they are, where dask would copy them."""
    parts = arrays
    if all(a.npartitions == 1 for a in arrays):
        parts = [a.to_delayed(optimize_graph=False).item() for a in arrays]
    values: tuple[npt.NDArray[Any], ...] = dask.compute(*parts, scheduler="synchronous")
    return values


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


def unopened_blocks(
    frames: da.Array,
    present: npt.NDArray[np.bool_] | None,
    variance: da.Array | None,
    energy: npt.NDArray[np.float64] | None,
    blocks: list[tuple[int, int]],
    name: str,
) -> da.Array:
    """Make the 1-D dask array of :class:`Unopened` objects, one to a chunk, that tasks are mapped over."""
    cells = np.empty(len(blocks), dtype=object)
    for i, (start, stop) in enumerate(blocks):
        cells[i] = Unopened(frames, present, variance, start, stop, energy)
    return da.from_array(cells, chunks=1, name=name)


def is_in_memory(array: da.Array) -> bool:
    """Tell whether every chunk is data already (persisted, here or on a cluster) rather than work to do."""
    layers = list(array.dask.layers.values())
    if len(layers) != 1 or not layers[0].is_materialized():  # asking a blockwise layer for its tasks would make them
        return False
    return all(_is_data(task) for task in layers[0].values())


def _is_data(value: object) -> bool:
    held = getattr(value, "value", value)  # dask wraps data in a DataNode
    return isinstance(held, np.ndarray) or type(held).__name__ == "Future"
