"""Lists per event on their way to a file: kept block by block as they are computed, then joined in order of events."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

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

    def __setitem__(self, key: tuple[slice, ...], block: npt.NDArray[np.object_]) -> None:
        """Keep a block, from any process."""
        flat = [np.empty(0, self.dtype), *block.ravel()]
        draft = Path(self.folder, f".{os.getpid()}-{key[0].start}-{id(block)}")
        with draft.open("wb") as file:
            np.save(file, counts_of(block))
            np.save(file, np.concatenate(flat).astype(self.dtype, copy=False))
        draft.rename(Path(self.folder, str(key[0].start)))

    def _blocks(self) -> list[Path]:
        return sorted(Path(self.folder).glob("[0-9]*"), key=lambda file: int(file.name))

    def counts(self) -> npt.NDArray[np.int64]:
        """Lengths of all lists, of the shape of the variable."""
        blocks = []
        for path in self._blocks():
            with path.open("rb") as file:
                blocks.append(np.load(file))
        return np.concatenate([np.empty((0, *self.shape[1:]), np.int64), *blocks])

    def pieces(self, size: int) -> Iterator[npt.NDArray[Any]]:
        """Yield all values in the order of events, ``size`` of them at a time."""
        held = np.empty(0, self.dtype)
        for path in self._blocks():
            with path.open("rb") as file:
                np.load(file)
                held = np.concatenate([held, np.load(file)])
            whole = len(held) - len(held) % size
            yield from (held[k : k + size] for k in range(0, whole, size))
            held = held[whole:]
        if held.size:
            yield held


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


def arrays_of(lists: Iterable[Lists], nodes: Mapping[str, xr.Dataset]) -> Iterator[tuple[SchemaArray, Any]]:
    """Yield the arrays that a file holds for lists, each with its values piece by piece.

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
        total = int(n.sum())
        chunk = max(1, min(total, CHUNK_BYTES // one.dtype.itemsize))
        label = {COORDINATES: _parent_dim(one.dim)} if _has_labels(nodes[one.group], one.dims) else {}
        array = SchemaArray(
            one.group, one.name, (one.dim,), (total,), one.dtype, (chunk,), {**one.attrs, **label}, None
        )
        yield array, one.pieces(chunk)
    for (group, dim), (one, n) in counts.items():
        yield from _count_arrays(nodes[group], group, dim, one.dims, n)


def _count_arrays(
    node: xr.Dataset, group: str, dim: str, dims: tuple[str, ...], n: npt.NDArray[np.int64]
) -> Iterator[tuple[SchemaArray, Iterable[Any]]]:
    """The count of each event, as CF wants it, and for each value the event it belongs to."""
    there = [x for x in node.data_vars.values() if x.attrs.get(SAMPLE_DIMENSION) == dim]
    name = str(there[0].name) if there else f"{N_PREFIX}{dim}s"
    attrs = {UNITS: DIMENSIONLESS} | (there[0].attrs if there else {}) | {SAMPLE_DIMENSION: dim}
    counted = encoded(group, name, xr.Variable(dims, n, attrs))
    yield counted, [counted.data]
    if _has_labels(node, dims):
        per_event = n.sum(axis=tuple(range(1, n.ndim)))
        yield _label_pieces(group, _parent_dim(dim), xr.Variable((dim,), node[EVENT].values), per_event)


def _label_pieces(
    group: str, name: str, labels: xr.Variable, n: npt.NDArray[np.int64]
) -> tuple[SchemaArray, Iterable[Any]]:
    """Each label as often as its event has values, made chunk by chunk: there may be more than memory holds."""
    few = encoded(group, name, labels)
    if few.is_text:
        whole = encoded(group, name, labels[np.repeat(np.arange(n.size), n)])
        return whole, [whole.data]
    ends, values = np.cumsum(n), few.data
    total = int(ends[-1]) if n.size else 0
    chunk = max(1, min(total, CHUNK_BYTES // few.dtype.itemsize))

    def pieces() -> Iterator[Any]:
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            first, last = np.searchsorted(ends, [start, stop - 1], side="right")
            owners = np.repeat(np.arange(first, last + 1), n[first : last + 1])
            yield values[owners[start - (ends[first] - n[first]) :][: stop - start]]

    return replace(few, shape=(total,), chunks=(chunk,), data=None), pieces()


def _has_labels(node: xr.Dataset, dims: tuple[str, ...]) -> bool:
    return dims[:1] == (EVENT,) and EVENT in node.coords


def _parent_dim(dim: str) -> str:
    return f"{dim}_{EVENT}"
