"""Variables whose values lie in finished blocks, lazy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from xsmall.engine.record import Output
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.schema import CHUNK_BYTES

__all__ = ["block_name", "stored_variable"]


def block_name(detector: str, number: int) -> str:
    """Name of a block among those of a run."""
    return f"{detector}-{number:06d}"


def stored_variable(
    store: BlockStore, detector: str, spans: Sequence[tuple[int, int]], key: str, output: Output
) -> da.Array:
    """One variable of all blocks, lazy: a task reads as many blocks as fill a chunk on disk, or one of lists.

    Parameters
    ----------
    store
        The finished blocks.
    detector
        The detector whose blocks they are.
    spans
        The events of each block.
    key
        Key of the variable among the arrays of a block.
    output
        What it is.
    """
    shape, dtype = output.array_shape, output.array_dtype
    if not spans:
        return da.from_array(np.empty((0, *shape), dtype))
    size, n = spans[0][1], spans[-1][1]
    blocks = 1 if output.is_ragged else max(1, CHUNK_BYTES // max(1, dtype.itemsize * math.prod(shape) * size))
    step = min(n, blocks * size)
    chunks = (*(step,) * (n // step), *((n % step,) if n % step else ()))
    return da.from_array(
        _Stored(store, detector, size, n, key, shape, dtype),
        chunks=(chunks, *((m,) for m in shape)),
        name=f"blocks-{detector}-{key}",  # so the order of tasks is the same always
        inline_array=True,
        getitem=_chunk_of,
        meta=np.empty((0,) * (1 + len(shape)), dtype),
    )


@dataclass(frozen=True)
class _Stored:
    """One variable of all blocks, as dask cuts it; it knows where a block lies by its events, and holds no table."""

    store: BlockStore
    detector: str
    size: int
    n: int
    key: str
    shape_of_event: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.n, *self.shape_of_event

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> npt.NDArray[Any]:
        start, stop, _ = index[0].indices(self.n)
        first = start // self.size
        names = [block_name(self.detector, i) for i in range(first, -(-stop // self.size))]
        begin = first * self.size
        return self.store.joined(names, self.key)[(slice(start - begin, stop - begin), *index[1:])]


def _chunk_of(stored: _Stored, chunk: tuple[slice, ...]) -> npt.NDArray[Any]:
    """What dask does for a chunk; a function of its own, so that what is picked from a chunk is picked after it."""
    return stored[chunk]
