"""Lists per event on their way to a file: kept block by block as they are computed, then joined in order of events."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import get_ident
from typing import Any, ClassVar, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError
from xsmall.events.ragged import check_flat, counts_of, is_ragged
from xsmall.io.stores.schema import CHUNK_BYTES, SchemaArray, encoded
from xsmall.io.stores.storable import storable_attrs
from xsmall.vocabulary import DIMENSIONLESS, EVENT, N_PREFIX, RAGGED_DIM, RAGGED_DTYPE, SAMPLE_DIMENSION, UNITS

__all__ = ["Lists", "arrays_of", "lists_of"]

COORDINATES: Final = "coordinates"  # CF attribute: names of what labels a variable
_TOLD: Final = (RAGGED_DIM, RAGGED_DTYPE)
_VALUES, _COUNTS = "values.npy", "counts.npy"
"""What is kept of each block, after the number of its first event."""
_ENDS, _ENDS_OF_EVENTS, _LABELS = "ends.npy", "ends_of_events.npy", "labels.npy"
"""What is kept of all blocks: where values of blocks and of events end, and labels of events."""


@dataclass(frozen=True)
class ListSink:
    """Keeps blocks of lists as files. It travels with each block and holds no lazy array, which dask would compute."""

    folder: str
    dtype: np.dtype[Any]

    def __setitem__(self, key: tuple[slice, ...], block: npt.NDArray[np.object_]) -> None:
        """Keep a block, from any process."""
        flat = [np.empty(0, self.dtype), *block.ravel()]
        self._keep(f"{key[0].start}.{_VALUES}", np.concatenate(flat).astype(self.dtype, copy=False))
        self._keep(f"{key[0].start}.{_COUNTS}", counts_of(block))  # it says that the values are there

    def _keep(self, name: str, values: npt.NDArray[Any]) -> None:
        draft = Path(self.folder, f".{name}-{os.getpid()}-{get_ident()}")
        with draft.open("wb") as file:
            np.save(file, values)
        draft.rename(Path(self.folder, name))


@dataclass(frozen=True, eq=False)
class Lists:
    """A variable of lists that is being written: its blocks lie as files until all lengths are known."""

    group: str
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dim: str
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]
    data: Any
    folder: str

    def sink(self) -> ListSink:
        """Give what keeps blocks."""
        return ListSink(self.folder, self.dtype)

    def _blocks(self) -> list[Path]:
        """Counts of all blocks, in the order of events."""
        return sorted(Path(self.folder).glob(f"[0-9]*.{_COUNTS}"), key=_first_event)

    def counts(self) -> npt.NDArray[np.int64]:
        """Lengths of all lists, of the shape of the variable."""
        return np.concatenate([np.empty((0, *self.shape[1:]), np.int64), *map(np.load, self._blocks())])

    def joined(self) -> tuple[int, da.Array]:
        """Say how many values fill a chunk on disk, and return all values in the order of events, lazy."""
        sizes = [int(np.load(file).sum()) for file in self._blocks()]
        starts = np.array([_first_event(file) for file in self._blocks()], np.int64)
        np.save(Path(self.folder, _ENDS), np.stack([starts, np.cumsum(sizes, dtype=np.int64)]))
        return _cut_for_disk(_JoinedLists(self.folder, sum(sizes), self.dtype))


def _first_event(file: Path) -> int:
    return int(file.name.partition(".")[0])


@dataclass(frozen=True)
class _JoinedLists:
    """Values of all lists behind each other, as dask cuts them: a chunk opens the files that it lies in."""

    folder: str
    size: int
    dtype: np.dtype[Any]
    ndim: ClassVar[int] = 1

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def __getitem__(self, index: tuple[slice]) -> npt.NDArray[Any]:
        start, stop, _ = index[0].indices(self.size)
        starts, ends = np.load(Path(self.folder, _ENDS))
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        parts = []
        for i in range(first, last + 1):
            begin = ends[i - 1] if i else 0
            held = np.load(Path(self.folder, f"{starts[i]}.{_VALUES}"), mmap_mode="r" if ends[i] > begin else None)
            parts.append(held[max(0, start - begin) : stop - begin])
        return np.concatenate(parts)


@dataclass(frozen=True)
class _LabelsOfLists(_JoinedLists):
    """A label of each value: each one as often as its event has values; there may be more than memory holds."""

    def __getitem__(self, index: tuple[slice]) -> npt.NDArray[Any]:
        start, stop, _ = index[0].indices(self.size)
        ends = np.load(Path(self.folder, _ENDS_OF_EVENTS), mmap_mode="r")
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        upto = np.minimum(ends[first : last + 1], stop)
        repeats = np.diff(upto, prepend=start)
        return np.repeat(np.load(Path(self.folder, _LABELS), mmap_mode="r")[first : last + 1], repeats)


def _cut_for_disk(values: _JoinedLists) -> tuple[int, da.Array]:
    """Cut values into chunks as they lie on disk."""
    chunk = max(1, min(values.size, CHUNK_BYTES // values.dtype.itemsize))
    cut = da.from_array(
        values, chunks=chunk, inline_array=True, getitem=operator.getitem, meta=np.empty(0, values.dtype)
    )
    return chunk, cut


def lists_of(nodes: Mapping[str, xr.Dataset], folder: Path) -> tuple[dict[str, xr.Dataset], list[Lists]]:
    """Take the variables of lists, and the counts that follow from them, out of the nodes."""
    plain: dict[str, xr.Dataset] = {}
    found: list[Lists] = []
    for group, node in nodes.items():
        check_flat(node)
        ragged = {str(name): x for name, x in node.data_vars.items() if is_ragged(x)}
        dims = {str(x.attrs[RAGGED_DIM]) for x in ragged.values()}
        counts = [name for name, x in node.data_vars.items() if x.attrs.get(SAMPLE_DIMENSION) in dims]
        plain[group] = node.drop_vars([*ragged, *counts])
        for name, x in ragged.items():
            attrs = storable_attrs({k: a for k, a in x.attrs.items() if k not in _TOLD})
            place = folder / str(len(found))
            dtype = np.dtype(x.attrs[RAGGED_DTYPE])
            dim = str(x.attrs[RAGGED_DIM])
            if name == dim:
                raise DataError(f"{name!r} has the name of its list dim", fix=f'.rename({name}="{name}_value")')
            data = x.data.rechunk(dict.fromkeys(range(1, x.ndim), -1)) if x.chunks else x.data
            where = tuple(map(str, x.dims)), tuple(x.shape)
            found.append(Lists(group, name, *where, dim, dtype, attrs, data, str(place)))
    return plain, found


def arrays_of(lists: Iterable[Lists], nodes: Mapping[str, xr.Dataset]) -> Iterator[SchemaArray]:
    """Yield the arrays that a file holds for lists whose blocks are kept: long ones are lazy.

    Raises
    ------
    DataError
        Lists of one list dim with different lengths in the same event.
    """
    counts: dict[tuple[str, str], tuple[Lists, npt.NDArray[np.int64]]] = {}
    for one in lists:
        n = one.counts()
        first, known = counts.setdefault((one.group, one.dim), (one, n))
        if not np.array_equal(known, n):
            raise DataError(
                f"lists of {one.dim!r} that do not go together",
                found=f"{one.name!r} and {first.name!r} have lists of different lengths",
                expected="one length per event",
                fix=f"keep one of them: .drop_vars({one.name!r})",
            )
        chunk, values = one.joined()
        label = {COORDINATES: _parent_dim(one.dim)} if _has_labels(nodes[one.group], one.dims) else {}
        attrs = {**one.attrs, **label}
        yield SchemaArray(one.group, one.name, (one.dim,), values.shape, one.dtype, (chunk,), attrs, values)
    for (group, _), (one, n) in counts.items():
        yield from _count_arrays(nodes[group], one, n)


def _count_arrays(node: xr.Dataset, one: Lists, n: npt.NDArray[np.int64]) -> Iterator[SchemaArray]:
    """The count of each event, as CF wants it, and for each value the event it belongs to."""
    there = [x for x in node.data_vars.values() if x.attrs.get(SAMPLE_DIMENSION) == one.dim]
    name = str(there[0].name) if there else f"{N_PREFIX}{one.dim}s"
    attrs = {UNITS: DIMENSIONLESS} | (there[0].attrs if there else {}) | {SAMPLE_DIMENSION: one.dim}
    yield encoded(one.group, name, xr.Variable(one.dims, n, attrs))
    if _has_labels(node, one.dims):
        yield _labels_of_values(one, node[EVENT].values, n.sum(axis=tuple(range(1, n.ndim))))


def _labels_of_values(one: Lists, labels: npt.NDArray[Any], n: npt.NDArray[np.int64]) -> SchemaArray:
    """Each label as often as its event has values, made chunk by chunk."""
    name = _parent_dim(one.dim)
    few = encoded(one.group, name, xr.Variable((one.dim,), labels))
    if few.is_text:
        return encoded(one.group, name, xr.Variable((one.dim,), np.repeat(labels, n)))
    np.save(Path(one.folder, _ENDS_OF_EVENTS), np.cumsum(n))
    np.save(Path(one.folder, _LABELS), few.data)
    chunk, values = _cut_for_disk(_LabelsOfLists(one.folder, int(n.sum()), few.dtype))
    return replace(few, shape=values.shape, chunks=(chunk,), data=values)


def _has_labels(node: xr.Dataset, dims: tuple[str, ...]) -> bool:
    return dims[:1] == (EVENT,) and EVENT in node.coords


def _parent_dim(dim: str) -> str:
    return f"{dim}_{EVENT}"
