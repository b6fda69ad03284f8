"""The one writer: runs, constants, small data and cubes are complete under their name or not there."""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import dask
import dask.array as da
import h5py
import xarray as xr
from dask.base import compute_as_if_collection
from dask.highlevelgraph import HighLevelGraph
from dask.utils import format_bytes

from xsmall.errors import DamagedDataWarning, ParameterError, WriteError
from xsmall.io.stores import hdf5_store, zarr_store
from xsmall.io.stores.place import OwnedPath, taken
from xsmall.io.stores.ragged import Lists, arrays_of, lists_of
from xsmall.io.stores.schema import CHUNK_BYTES, Schema, SchemaArray, schema_of
from xsmall.vocabulary import LAYOUT

__all__ = ["ENDINGS", "write"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_CLOSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM)


class Store(Protocol):
    """A file or folder that is being written."""

    def create(self) -> None: ...
    def add(self, arrays: Sequence[SchemaArray]) -> None: ...
    def sink(self, array: SchemaArray) -> Any: ...
    def missing(self, array: SchemaArray) -> int: ...
    def written(self, array: SchemaArray) -> tuple[int, int]: ...
    def finish(self, attrs: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


_Maker = Callable[[OwnedPath, Schema, str | None], Store]
_HDF5: Final[tuple[_Maker, tuple[str, ...]]] = (hdf5_store.Hdf5Store, hdf5_store.COMPRESSIONS)
_FORMATS: Final[Mapping[str, tuple[_Maker, tuple[str, ...]]]] = {
    ".zarr": (zarr_store.ZarrStore, zarr_store.COMPRESSIONS),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".nc": _HDF5,
}
ENDINGS: Final = tuple(_FORMATS)


def write(
    nodes: Mapping[str, xr.Dataset],
    path: str | os.PathLike[str],
    *,
    layout: str,
    marks: Mapping[str, Any] | Callable[[Sequence[str]], Mapping[str, Any]],
    overwrite: bool,
    compress: bool | str,
    whole_events: bool = False,
    chunk_events: int | None = None,
    add: Callable[[h5py.File], None] | None = None,
    in_order: bool = False,
) -> Path:
    """Write the nodes of a tree to Zarr or HDF5.

    Parameters
    ----------
    nodes
        Datasets by their path, ``/`` among them.
    path
        Where to: the ending says the format.
    layout
        Name and number of the layout; it is written last and says that the file is complete.
    marks
        Other attributes of the root that are written last; or a function that makes them of what could not be read
        while the values were computed.
    overwrite
        Replace what is there.
    compress
        True for the default of the format, False for none, or its name.
    whole_events
        Keep all pixels of an event in one chunk.
    chunk_events
        Frames in one chunk; None for about 8 MiB.
    add
        Adds what another program wants to find in an HDF5 file, such as links and classes; then the file is HDF5
        whatever its ending.
    in_order
        Compute one lazy array after the other, in this thread, so that chunks lie in an HDF5 file in the same order
        each time; else all together, so that what they share is computed once.

    Returns
    -------
    The path. It is on the disk, not only in memory, when this returns.

    Raises
    ------
    ParameterError
        An unknown ending or compression, no such folder, or something is there and is not to be replaced.
    DataError
        Something that no file can hold.
    WriteError
        Another job is writing there, the disk is full, or nothing can be written there.
    """
    target = Path(path).expanduser()
    make, compression = _format(target, compress, _HDF5 if add is not None else None)
    if chunk_events is not None and (isinstance(chunk_events, bool) or chunk_events < 1):
        raise ParameterError("a chunk holds at least one event", found=chunk_events, expected="chunk_events=1 or more")
    try:
        with taken(target, overwrite=overwrite) as place:
            plain, lists = lists_of(nodes, place.part / "lists")
            schema = schema_of(plain, whole_events=whole_events, chunk_events=chunk_events)
            store = make(place, schema, compression)
            try:
                store.create()
                store.add(schema.arrays)
                with _noted() as unreadable:
                    _write_arrays(store, schema.arrays, lists, in_order)
                arrays = [*schema.arrays, *_write_lists(store, lists, nodes, in_order)]
                _check_complete(target, store, arrays)
                if add is not None:
                    assert isinstance(store, hdf5_store.Hdf5Store)
                    store.extend(add)
                last = marks(unreadable) if callable(marks) else marks
                store.finish({**last, LAYOUT: layout})
            except OSError as error:
                raise _why_not_written(error, target, *_progress(store, schema)) from error
            finally:
                store.close()
            place.land()
    except OSError as error:
        raise _why_not_written(error, target, 0, 0) from error
    return target


def _format(
    target: Path, compress: bool | str, given: tuple[_Maker, tuple[str, ...]] | None
) -> tuple[_Maker, str | None]:
    if given is None and target.suffix not in _FORMATS:
        raise ParameterError(
            "the ending of the path says the format",
            found=target.name,
            expected=" ".join(ENDINGS),
            fix=f"{target.stem or 'small'}.zarr",
        )
    make, known = given or _FORMATS[target.suffix]
    if isinstance(compress, bool):
        return make, known[0] if compress else None
    if compress not in known:
        raise ParameterError(
            f"no compression of {target.suffix} files",
            found=f"compress={compress!r}",
            expected=", ".join(("True", "False", *map(repr, known))),
        )
    return make, compress


# ---- values ----------------------------------------------------------------------------------------------------------


def _write_arrays(store: Store, arrays: Sequence[SchemaArray], lists: Sequence[Lists], in_order: bool) -> None:
    """Write what is held at once, and compute what is lazy in one pass, so that what it shares is computed once."""
    sources, sinks = [], []
    for array in arrays:
        if not array.is_lazy:
            _write_held(store.sink(array), array, array.data)
        elif array.data.size:
            sources.append(_aligned(array))
            sinks.append(store.sink(array))
    for one in lists:
        Path(one.folder).mkdir(parents=True)
        sources.append(one.data if hasattr(one.data, "dask") else da.from_array(one.data, chunks=-1))
        sinks.append(one.sink())
    if in_order:
        for source, sink in zip(sources, sinks, strict=True):
            _compute_into([source], [sink], scheduler="synchronous")
    elif sources:
        _compute_into(sources, sinks)


def _compute_into(sources: Sequence[da.Array], sinks: Sequence[Any], **options: Any) -> None:
    """Compute arrays and write each chunk where it was computed; nothing but that it was done comes back.

    By ``compute=True`` dask would add tasks that put all chunks together, for which workers wait for each other.
    """
    stored = da.store(sources, sinks, compute=False, lock=False)
    arrays = stored if isinstance(stored, tuple) else (stored,)
    graph = HighLevelGraph.merge(*(array.dask for array in arrays))
    compute_as_if_collection(da.Array, graph, [array.__dask_keys__() for array in arrays], **options)


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Note each part of a file that cannot be read while values are computed; the warnings of it come as always."""
    reasons: list[str] = []
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always", DamagedDataWarning)
        yield reasons
    reasons += dict.fromkeys(str(w.message) for w in met if issubclass(w.category, DamagedDataWarning))
    for w in met:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno, source=w.source)


def _write_held(sink: Any, array: SchemaArray, values: Any) -> None:
    if values.size and (array.is_text or not array.shape):
        sink[tuple(map(slice, (0,) * values.ndim, values.shape))] = values
    elif values.size:
        rows = max(1, CHUNK_BYTES * array.shape[0] // max(1, array.nbytes))
        step = max(1, rows // array.chunks[0]) * array.chunks[0]
        _in_threads(partial(_write_rows, sink, values), range(0, array.shape[0], step), step)


def _write_rows(sink: Any, values: Any, start: int, step: int) -> None:
    part = values[start : start + step]
    sink[(slice(start, start + len(part)), *map(slice, (0,) * (part.ndim - 1), part.shape[1:]))] = part


def _in_threads(write_rows: Callable[[int, int], None], starts: Iterable[int], step: int) -> None:
    with ThreadPoolExecutor(_workers()) as pool:
        for _ in pool.map(lambda start: write_rows(start, step), starts):
            pass


def _workers() -> int:
    return dask.config.get("num_workers", None) or os.cpu_count() or 1


def _aligned(array: SchemaArray) -> da.Array:
    """Cut a lazy array at the borders of chunks on disk, so that no two blocks write one of them."""
    held = array.data.chunks
    cut = []
    for blocks, chunk in zip(held, array.chunks, strict=True):
        whole = all(n % chunk == 0 for n in blocks[:-1])
        cut.append(blocks if whole else max(1, max(blocks) // chunk) * chunk)
    return array.data if tuple(cut) == held else array.data.rechunk(tuple(cut))


def _write_lists(
    store: Store, lists: Sequence[Lists], nodes: Mapping[str, xr.Dataset], in_order: bool
) -> list[SchemaArray]:
    """Write what is known only now that all blocks of lists are there."""
    arrays = list(arrays_of(lists, nodes))
    store.add(arrays)
    _write_arrays(store, arrays, (), in_order)
    return arrays


def _check_complete(target: Path, store: Store, arrays: Iterable[SchemaArray]) -> None:
    """A worker that sees another disk under this path would leave holes."""
    missing = {array.path: n for array in arrays if (n := store.missing(array))}
    if missing:
        raise WriteError(
            f"{target}: workers did not write it whole",
            found=", ".join(f"{n} chunks of {name} missing" for name, n in missing.items()),
            expected="a folder that all workers see under the same path",
            fix="save to a shared file system",
        )


# ---- errors ----------------------------------------------------------------------------------------------------------


def _progress(store: Store, schema: Schema) -> tuple[int, int]:
    """Bytes on the disk, and about how many were still to come, if the rest compresses as what is written did."""
    try:
        done = [store.written(array) for array in schema.arrays]
    except OSError:
        done = []
    before, after = (sum(column) for column in zip(*done, strict=True)) if done else (0, 0)
    ratio = after / before if before else 1.0
    return after, int((schema.nbytes - before) * ratio)


def _why_not_written(error: OSError, target: Path, written: int, to_come: int) -> Exception:
    """Say what kept a file from being written; other errors, as of reading what was to be saved, stay what they are."""
    if error.errno in _FULL:
        free = shutil.disk_usage(target.parent).free
        return WriteError(
            f"{target}: the disk is full",
            found=f"{format_bytes(free)} free, {format_bytes(written)} were written",
            expected=f"about {max(1, to_come - free)} bytes more ({format_bytes(max(1, to_come - free))})",
            fix="free some space, or save to another disk; nothing was left behind",
        )
    if error.errno == errno.EFBIG:
        return WriteError(
            f"{target}: a file may not become that large here",
            found=f"{format_bytes(written)} were written",
            expected=f"about {max(1, to_come)} bytes more ({format_bytes(max(1, to_come))})",
            fix="raise the limit (ulimit -f), or save to .zarr, which has many small files; nothing was left behind",
        )
    if error.errno in _CLOSED and _concerns(error, target):
        return WriteError(
            f"{target}: nothing can be written here",
            found=os.strerror(error.errno or 0),
            expected=f"a folder that this user may write to: {target.parent}",
            fix="save to another folder",
        )
    return error


def _concerns(error: OSError, target: Path) -> bool:
    return error.filename is None or str(error.filename).startswith(str(target.resolve()))
