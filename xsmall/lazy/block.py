"""Blocks of events: slices of a lazy array that a task carries unopened and reads in small batches.

The unit of a task is not the unit of reading. A task holds some hundred events as a slice of the lazy array; dask does
not look inside the wrapper, so nothing is read until the task walks it, batch by batch, each batch a few whole chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

BATCH_BYTES = 64 * 2**20
"""Raw bytes that a task reads at once, unless one chunk alone is larger."""

MOST_EVENTS = 1024
"""Events of one task at the most: a million events are then a thousand tasks."""

FEWEST_TASKS = 64
"""Tasks that a run is cut into as far as its chunks allow, so that all workers have something to do."""

Batch = tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]
"""Raw frames (event, segment, row, column) and which segments are there (event, segment), None where all are."""


class Unopened:
    """A slice of events of a lazy array (and of its ``present``), opaque to dask.

    Pickling keeps only the part of the graph that the slice needs.
    """

    __slots__ = ("_array", "_present", "_start", "_stop")

    def __init__(self, array: da.Array, present: npt.NDArray[np.bool_] | None, start: int, stop: int) -> None:
        self._array = array
        self._present = present
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __reduce__(self) -> tuple[Any, ...]:
        (array,) = dask.optimize(self._array[self._start : self._stop])
        present = None if self._present is None else self._present[self._start : self._stop]
        return Unopened, (array, present, 0, len(self))

    def batches(self, limit: int = BATCH_BYTES) -> Iterator[Batch]:
        """Read the events in order, whole chunks at a time, at most ``limit`` bytes unless a chunk is larger."""
        (array,) = dask.optimize(self._array[self._start : self._stop])
        bytes_per_event = max(1, array.nbytes // max(1, array.shape[0]))
        for start, stop in group_chunks(array.chunks[0], max(1, limit // bytes_per_event)):
            frames = array[start:stop].compute(scheduler="synchronous")
            here = slice(self._start + start, self._start + stop)
            yield frames, None if self._present is None else self._present[here]


def group_chunks(chunks: tuple[int, ...], most: int) -> Iterator[tuple[int, int]]:
    """Join neighbouring chunks to groups of at most ``most`` events; a larger chunk is a group of its own.

    Yields (start, stop) of each group that holds an event.
    """
    start = stop = 0
    for size in chunks:
        if stop > start and stop + size - start > most:
            yield start, stop
            start = stop
        stop += size
    if stop > start:
        yield start, stop


def event_blocks(chunks: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut the events into the blocks of tasks: whole chunks, as even as they allow."""
    most = min(MOST_EVENTS, max(1, sum(chunks) // FEWEST_TASKS))
    return list(group_chunks(chunks, most))


def unopened_blocks(
    array: da.Array, present: npt.NDArray[np.bool_] | None, blocks: list[tuple[int, int]], name: str
) -> da.Array:
    """Make the 1-D dask array of :class:`Unopened` objects, one to a chunk, that tasks are mapped over."""
    cells = np.empty(len(blocks), dtype=object)
    for i, (start, stop) in enumerate(blocks):
        cells[i] = Unopened(array, present, start, stop)
    return da.from_array(cells, chunks=1, name=name)


def is_in_memory(array: da.Array) -> bool:
    """Tell whether every chunk is data already (persisted, here or on a cluster) rather than work to do."""
    graph = array.__dask_graph__()
    layers = getattr(graph, "layers", {"": graph})
    if len(layers) != 1:
        return False
    values = list(next(iter(layers.values())).values())
    return all(_is_data(v) for v in values)


def _is_data(value: object) -> bool:
    held = getattr(value, "value", value)  # dask wraps data in a DataNode
    return isinstance(held, np.ndarray) or type(held).__name__ == "Future"
