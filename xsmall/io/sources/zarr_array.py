"""Arrays of Zarr stores, read with zarr-python from arrays that each process opens once."""

import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.io.descriptions import DESCRIPTION
from xsmall.io.files import Identity
from xsmall.io.sources.stored_array import ChunkNumber, ChunkSlices, StoredArray
from xsmall.io.sources.straight import shared
from xsmall.io.sources.zarr_chunks import Packing, packing_of, unpack

__all__ = ["ZarrArray", "open_array"]

_lock = threading.Lock()


@lru_cache(maxsize=256)
def _open_zarr_array(identity: Identity, name: str) -> Any:
    import zarr

    return zarr.open_array(str(Path(identity.path).parent / name.strip("/")), mode="r", zarr_format=3)


def open_array(identity: Identity, name: str) -> Any:
    """Give the array of this process."""
    with _lock:
        return _open_zarr_array(identity, name)


@lru_cache(maxsize=256)
def _packing(identity: Identity, name: str) -> Packing | None:
    return packing_of(open_array(identity, name))


class ZarrArray(StoredArray):
    """An array of a Zarr store; ``identity`` is that of the store's root description."""

    @property
    def path(self) -> str:
        """Path of the store."""
        return os.path.dirname(self.identity.path)

    def missing_chunks(self) -> list[ChunkNumber]:
        """Chunks that are not in the store; there may be many, so what is the same for all is made once."""
        key_of, folder = open_array(self.identity, self.name).metadata.encode_chunk_key, self._folder()
        return [place for place in self.places() if _size_and_time(f"{folder}/{key_of(place)}") is None]

    def _read(self, region: ChunkSlices) -> npt.NDArray[Any]:
        packing = _packing(self.identity, self.name)
        if packing is not None:
            return self._unpacked(region, packing)
        for place in self.places(region):  # zarr would read zeros
            if self._state(place) is None:
                raise FileNotFoundError(self.chunk_name(place))
        data: npt.NDArray[Any] = np.asarray(open_array(self.identity, self.name)[region])
        return data

    def _unpacked(self, region: ChunkSlices, packing: Packing) -> npt.NDArray[Any]:
        """Read chunk by chunk: a whole one to where it belongs, others by way of a chunk in memory."""
        out = np.empty(tuple(s.stop - s.start for s in region), open_array(self.identity, self.name).dtype)
        chunk: npt.NDArray[Any] | None = None
        for place in self.places(region):
            part = self.part(place)
            wanted = shared(part, region)
            into = out[_counted_from(region, wanted)]
            if into.shape == self.chunks and into.flags.c_contiguous:
                unpack(self._file(place), packing, into)
            else:
                chunk = np.empty(self.chunks, out.dtype) if chunk is None else chunk
                unpack(self._file(place), packing, chunk)
                into[...] = chunk[_counted_from(part, wanted)]
        return out

    def _folder(self) -> str:
        return os.path.join(self.path, self.name.strip("/"))

    def _file(self, place: ChunkNumber) -> str:
        return os.path.join(self._folder(), open_array(self.identity, self.name).metadata.encode_chunk_key(place))

    def _state(self, place: ChunkNumber) -> object:
        return _size_and_time(self._file(place))

    def chunk_name(self, place: ChunkNumber) -> str:
        """Name the file of the chunk inside the store."""
        return self._file(place).removeprefix(self.path + os.sep)

    def check_same(self) -> None:
        """Compare the description of the root: a run that was replaced has another one."""
        try:
            now = os.stat(self.identity.path)
            found = f"{now.st_size} bytes, changed at {now.st_mtime_ns} ns"
            same = (now.st_size, now.st_mtime_ns) == (self.identity.size, self.identity.mtime_ns)
        except FileNotFoundError:
            found, same = "nothing", False
        if not same:
            raise FileFormatError(
                f"{self.path}: the run has changed since it was opened",
                found=f"{DESCRIPTION}: {found}",
                expected=f"{self.identity.size} bytes, changed at {self.identity.mtime_ns} ns",
                fix="open the run again",
            )


def _size_and_time(file: str) -> tuple[int, int] | None:
    """What changes when a chunk is written anew; None where it is not there."""
    try:
        now = os.stat(file)
    except FileNotFoundError:
        return None
    return now.st_size, now.st_mtime_ns


def _counted_from(region: ChunkSlices, wanted: ChunkSlices) -> ChunkSlices:
    return tuple(slice(w.start - r.start, w.stop - r.start) for w, r in zip(wanted, region, strict=True))
