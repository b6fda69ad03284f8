"""Writing HDF5, dressed as netCDF-4: one process writes the file, all processes compress its chunks.

HDF5 allows one writer. So workers do not open the file and need no lock, which a worker that is killed could keep:
they compress chunks and hand them over, in memory or, from other processes, as small files that the writer takes up.
"""

import io
import itertools
import math
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import h5py
import numpy as np
import numpy.typing as npt

from xsmall.engine.pairs import FILL_VALUE, PAIR
from xsmall.io.layout import HDF5_VERSION
from xsmall.io.stores.owner import writing
from xsmall.io.stores.place import OwnedPath, sync
from xsmall.io.stores.schema import CHUNK_BYTES, Schema, SchemaArray

__all__ = ["COMPRESSIONS", "Hdf5Store"]

COMPRESSIONS: Final = ("zlib",)
_LEVEL: Final = 1
_NO_VARIABLE: Final = "This is a netCDF dimension but not a netCDF variable."
_BOOL: Final = {"dtype": "bool"}  # netCDF has no truth: xarray marks bytes as such
_CHECKSUM_BYTES: Final = 4
_PIECE: Final = 2**22
"""Bytes that are shuffled at a time."""
_MOST_COMPACT: Final = 2**15
"""Bytes of the largest scalar that lies in its own description."""
_POLL: Final = 0.2
"""Seconds between two looks for chunks that other processes have finished."""

_writers: Final[dict[str, "Hdf5Store"]] = {}
"""Files that this process is writing, by a token: a sink that comes to another process finds nothing under it."""


class Hdf5Store:
    """An HDF5 file that is being written."""

    def __init__(self, place: OwnedPath, schema: Schema, compression: str | None) -> None:
        self._path = place.content
        self._owner = place.owner_file
        self._spool = place.part / "chunks"
        self._schema = schema
        self._compress = compression is not None
        self._token = uuid4().hex
        self._lock = threading.Lock()
        self._bytes: dict[str, dict[tuple[int, ...], int]] = {}
        self._collector = _Collector(self)

    def create(self) -> None:
        """Open the file, and write the description of all groups."""
        self._spool.mkdir()
        self._raw = _WrittenFile(self._path)
        self._file = h5py.File(self._raw, "w", libver=HDF5_VERSION, track_order=True)
        for path, attrs in self._schema.groups.items():
            group = self._file if path == "/" else self._file.create_group(path, track_order=True)
            _write_attrs(group, attrs)
        self._scales: dict[tuple[str, str], Any] = {}
        _writers[self._token] = self
        self._collector.start()
        self._raw.check()

    def add(self, arrays: Sequence[SchemaArray]) -> None:
        """Write the description of arrays, which then take values."""
        with self._lock:
            for array in arrays:
                if array.dims == (array.name,):  # a variable named like its dim is that dim, as netCDF-4 keeps it
                    scale = self._scales[array.group, array.name] = self._create(array)
                    scale.make_scale(array.name)
            for array in arrays:
                if array.dims != (array.name,):
                    dataset = self._create(array)
                    for axis, (dim, n) in enumerate(zip(array.dims, array.shape, strict=True)):
                        dataset.dims[axis].attach_scale(self._scale(array.group, dim, n))
            self._raw.check()

    def _scale(self, group: str, dim: str, n: int) -> Any:
        """Give what holds the length of a dim: where no variable has its name, netCDF-4 wants a place holder."""
        if (group, dim) not in self._scales:
            limit = (n or None,)
            chunks = None if n else (1,)
            holder = self._file[group].create_dataset(dim, shape=(n,), maxshape=limit, chunks=chunks, dtype=">f4")
            holder.make_scale(f"{_NO_VARIABLE}{n:10d}")
            self._scales[group, dim] = holder
        return self._scales[group, dim]

    def _create(self, array: SchemaArray) -> Any:
        dtype = _stored_type(array)
        if not array.shape:
            dataset = _create_compact(self._file, array, dtype)
        else:
            limits = tuple(n or None for n in array.shape)
            options: dict[str, Any] = {} if array.is_text else {"fillvalue": _fill(array)}
            options |= {"chunks": _fitting(array.chunks, dtype.itemsize), "fletcher32": True}
            options |= {"maxshape": limits} if None in limits else {}
            if self._compress:
                options |= {"shuffle": not array.is_text, "compression": "gzip", "compression_opts": _LEVEL}
            dataset = self._file.create_dataset(array.path, shape=array.shape, dtype=dtype, **options)
        _write_attrs(dataset, {**array.attrs, **_BOOL} if array.dtype == bool else array.attrs)
        if array.pair:
            dataset.attrs[FILL_VALUE] = dtype.type(PAIR)
        self._bytes[array.path] = {}
        return dataset

    def sink(self, array: SchemaArray) -> "Hdf5Sink | _Whole":
        """Give what takes the values of an array."""
        if array.is_text or not array.shape:
            return _Whole(self, array.path)
        return Hdf5Sink(self._token, str(self._spool), str(self._owner), array, self._compress)

    def put(self, path: str, index: tuple[int, ...], chunk: bytes | bytearray) -> None:
        """Write a finished chunk; the same one may come twice, from a task that was computed again."""
        with self._lock:
            chunks = self._file[path].chunks
            origin = tuple(i * c for i, c in zip(index, chunks, strict=True))
            self._file[path].id.write_direct_chunk(origin, chunk)
            self._bytes[path][index] = len(chunk)
            self._raw.check()

    def put_whole(self, path: str, values: Any) -> None:
        """Write text or a scalar."""
        with self._lock:
            dataset = self._file[path]
            if not dataset.shape:
                dataset[()] = _bytes_of(values, dataset.dtype) if values.dtype.kind in "OU" else values[()]
            else:
                for start in range(0, dataset.shape[0], dataset.chunks[0]):
                    rows = slice(start, start + dataset.chunks[0])
                    dataset[rows] = _bytes_of(values[rows], dataset.dtype)
            self._raw.check()

    def missing(self, array: SchemaArray) -> int:
        """Count chunks of an array that were not handed over."""
        if array.is_text or not array.shape:
            return 0
        self._collector.collect()
        n = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
        return n - len(self._bytes[array.path])

    def written(self, array: SchemaArray) -> tuple[int, int]:
        """Bytes of an array that are written, before and after compression."""
        sizes = self._bytes.get(array.path, {})
        whole = math.prod(array.chunks) * array.dtype.itemsize
        return min(len(sizes) * whole, array.nbytes), sum(sizes.values())

    def extend(self, add: Callable[[h5py.File], None]) -> None:
        """Add what another program wants to find in the file."""
        with self._lock:
            add(self._file)
            self._raw.check()

    def finish(self, attrs: Mapping[str, Any]) -> None:
        """Add the attributes that say it is complete, and bring the file to the disk."""
        _write_attrs(self._file, attrs)
        self.close()
        self._raw.check()
        sync(self._path)

    def close(self) -> None:
        """Close the file; after an error nothing more is written."""
        self._collector.stop()
        _writers.pop(self._token, None)
        with self._lock:
            if hasattr(self, "_file"):
                self._file.close()
                self._raw.close()


class _Whole:
    """Takes the values of text or of a scalar, in the process that writes the file."""

    def __init__(self, store: Hdf5Store, path: str) -> None:
        self._store, self._path = store, path

    def __setitem__(self, key: tuple[slice, ...], values: Any) -> None:
        self._store.put_whole(self._path, values)


class Hdf5Sink:
    """Takes blocks of an array, in any process, and hands them over as finished chunks."""

    def __init__(self, token: str, spool: str, owner: str, array: SchemaArray, compress: bool) -> None:
        self.token = token
        self.spool = spool
        self.owner = owner
        self.path = array.path
        self.shape = array.shape
        self.chunks = array.chunks
        self.dtype = np.dtype("i1") if array.dtype == bool else array.dtype
        self.fill = _fill(array)
        self.compress = compress

    def __setitem__(self, key: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        ranges = [range(k.start // c, -(-k.stop // c)) for k, c in zip(key, self.chunks, strict=True)]
        for index in itertools.product(*ranges):
            with writing(self.owner):
                chunk = self._packed(block[tuple(map(_part_of_chunk, index, self.chunks, key))])
                writer = _writers.get(self.token)
                if writer is not None:
                    writer.put(self.path, index, chunk)
                else:
                    _hand_over_chunk(Path(self.spool), self.path, index, chunk)

    def _packed(self, values: npt.NDArray[Any]) -> bytearray:
        """Give a chunk as HDF5 stores it: its bytes shuffled, compressed, and with their checksum."""
        from numcodecs import Fletcher32

        whole = np.ascontiguousarray(values, dtype=self.dtype)
        if whole.shape != self.chunks:  # at the upper edge: a chunk is always whole
            whole = np.full(self.chunks, self.fill, self.dtype)
            whole[tuple(map(slice, values.shape))] = values
        flat, packed = whole.reshape(-1).view(np.uint8), bytearray()
        if self.compress:
            squeeze = zlib.compressobj(_LEVEL)
            for plane in flat.reshape(whole.size, self.dtype.itemsize).T:  # all first bytes, then all second ones ...
                for start in range(0, plane.size, _PIECE):
                    packed += squeeze.compress(np.ascontiguousarray(plane[start : start + _PIECE]).data)
            packed += squeeze.flush()
        else:
            packed += flat.data
        packed += Fletcher32().encode(packed)[-_CHECKSUM_BYTES:]
        return packed


def _stored_type(array: SchemaArray) -> np.dtype[Any]:
    """The type in the file: text is as wide as its longest, for of text of free length HDF5 keeps no checksum."""
    if array.is_text:
        width = max((len(str(value).encode()) for value in np.asarray(array.data).ravel()), default=0)
        text: np.dtype[Any] = h5py.string_dtype("utf-8", max(2, width))  # netCDF takes text of one byte for a letter
        return text
    return np.dtype("i1") if array.dtype == bool else array.dtype


def _bytes_of(values: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Text as bytes of one width."""
    told = np.asarray(values)
    held = np.empty(told.shape, f"S{dtype.itemsize}")
    held[...] = np.array([str(value).encode() for value in told.ravel()], held.dtype).reshape(told.shape)
    return held.astype(dtype)


def _fitting(chunks: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of no more than about 8 MiB, also where text is wide."""
    rows = max(1, CHUNK_BYTES // max(1, itemsize * math.prod(chunks[1:])))
    return (min(chunks[0], rows), *chunks[1:])


def _create_compact(file: h5py.File, array: SchemaArray, dtype: np.dtype[Any]) -> Any:
    """Create a scalar that lies in its description, which has a checksum, if it is small enough for that."""
    if dtype.itemsize > _MOST_COMPACT:
        return file.create_dataset(array.path, shape=(), dtype=dtype)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    properties.set_attr_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    space, kind = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.py_create(dtype, logical=True)
    h5py.h5d.create(file.id, array.path.encode(), kind, space, properties)
    return file[array.path]


def _part_of_chunk(i: int, chunk: int, key: slice) -> slice:
    return slice(i * chunk - key.start, min((i + 1) * chunk, key.stop) - key.start)


def _fill(array: SchemaArray) -> Any:
    return 0 if array.dtype == bool else array.fill


def _hand_over_chunk(spool: Path, path: str, index: tuple[int, ...], chunk: bytes | bytearray) -> None:
    """Leave a chunk as a file, which is there as a whole or not at all."""
    name = f"{path.replace('/', '|')}@{'.'.join(map(str, index))}"
    draft = spool / f".{uuid4().hex}"
    draft.write_bytes(chunk)
    draft.rename(spool / name)


class _Collector:
    """A thread of the writer that takes up what other processes have left."""

    def __init__(self, store: Hdf5Store) -> None:
        self._store = store
        self._over = threading.Event()
        self._one = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="xsmall-collector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_POLL):
            try:
                self._take_up()
            except OSError as error:  # told to the job when it asks
                self._error = error
                return

    def collect(self) -> None:
        """Take up all that is there now."""
        if self._error is not None:
            raise self._error
        self._take_up()

    def _take_up(self) -> None:
        with self._one:
            for file in self._store._spool.iterdir():
                if not file.name.startswith("."):
                    path, _, index = file.name.rpartition("@")
                    where = tuple(map(int, index.split(".")))
                    self._store.put(path.replace("|", "/"), where, file.read_bytes())
                    file.unlink()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()


class _WrittenFile(io.RawIOBase):
    """A file that HDF5 writes through. An error is kept for :meth:`check` and not told to HDF5, which could then
    neither go on nor close what it has open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._path = path
        self._at = 0
        self._end = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error that writing met, if it met one."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self._path))

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = os.pread(self._fd, len(view), self._at)
        view[: len(found)] = found
        if self._error is not None:  # what could not be written reads as anything
            found = found.ljust(len(view), b"\0")
        self._at += len(found)
        return len(found)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._error is None:
                done += os.pwrite(self._fd, view[done:], self._at + done)
        except OSError as error:
            self._error = error
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        if self._error is None:
            try:
                os.ftruncate(self._fd, self._end)
            except OSError as error:
                self._error = error
        return self._end

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _write_attrs(node: Any, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        held = np.asarray(value)
        if held.dtype.kind == "U":  # of one width: of text of free length HDF5 keeps no checksum
            width = max((len(text.encode()) for text in held.ravel().tolist()), default=0)
            held = _bytes_of(held, h5py.string_dtype("utf-8", max(1, width)))
        node.attrs.create(name, held)
