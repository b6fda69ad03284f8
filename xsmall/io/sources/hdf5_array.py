"""Arrays of HDF5 files, read with h5py from files that each process opens once."""

import os
import threading
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.io.files import Identity, open_file
from xsmall.io.hdf5 import Chunks, check_filters, chunk_offsets, chunk_sizes, missing_sources
from xsmall.io.sources.stored_array import ChunkNumber, ChunkSlices, StoredArray
from xsmall.io.sources.straight import StoredChunk, can_be_read_straight

__all__ = ["Hdf5Array", "open_dataset"]

_lock = threading.Lock()


@lru_cache(maxsize=32)
def _open_hdf5_file(identity: Identity) -> Any:
    open_file(identity)  # says so if the file has changed since it was opened
    try:
        return h5py.File(identity.path, "r")
    except OSError as error:
        raise FileFormatError(f"{identity.path}: this HDF5 file cannot be read", found=error) from error


def open_dataset(identity: Identity, name: str) -> Any:
    """Give the dataset of this process."""
    with _lock:
        file = _open_hdf5_file(identity)
    try:
        dataset = file[name]
    except KeyError:
        raise FileFormatError(f"{identity.path}: no dataset {name}") from None
    check_filters(dataset, identity.path)  # on a worker too
    return dataset


@lru_cache(maxsize=64)
def _offsets(identity: Identity, name: str) -> Chunks | None:
    """Where each chunk begins in the file; None where chunks are not stored as they are."""
    dataset = open_dataset(identity, name)
    return chunk_offsets(dataset) if can_be_read_straight(dataset.dtype) else None


def _fletcher(data: npt.NDArray[np.uint8]) -> int:
    from xsmall.kernels.fletcher import fletcher32  # numba, where it is needed

    return int(fletcher32(data.view("<u2")))


class Hdf5Array(StoredArray):
    """A dataset of an HDF5 file."""

    lost_sources: frozenset[str] = frozenset()
    """Files that a virtual dataset is made of and that were not there when it was opened."""

    def _read(self, region: ChunkSlices) -> npt.NDArray[Any]:
        data = np.empty(tuple(s.stop - s.start for s in region), self.dtype)
        dataset = open_dataset(self.identity, self.name)
        gone = set(missing_sources(dataset)) - self.lost_sources
        if gone:  # HDF5 would read its fill value
            raise FileNotFoundError(", ".join(sorted(gone)))
        dataset.read_direct(data, region)
        return data

    def _stored(self, place: ChunkNumber) -> StoredChunk | None:
        known = _offsets(self.identity, self.name)
        start = -1 if known is None else int(known.offsets[place])
        if known is None or start < 0:
            return None
        file = open_file(self.identity)
        checksum = _fletcher if known.checked else None
        return StoredChunk(lambda offset, buffers: file.read_into(start + offset, buffers), checksum)

    def _state(self, place: ChunkNumber) -> object:
        del place
        return 0  # another file has another identity

    def missing_chunks(self) -> list[ChunkNumber]:
        """Chunks that were never written."""
        there = chunk_sizes(open_dataset(self.identity, self.name))
        return [place for place in self.places() if place not in there]

    def chunk_name(self, place: ChunkNumber) -> str:
        """Name the dataset and the chunk's first element."""
        first = tuple(s.start for s in self.part(place))
        return f"{self.name}, chunk at {first}"

    def check_same(self) -> None:
        """Compare the file that is open with the one that was opened first."""
        with _lock:
            file = _open_hdf5_file(self.identity)
        now = os.fstat(int(file.id.get_vfd_handle()))
        if now.st_size < self.identity.size or (
            now.st_size == self.identity.size and now.st_mtime_ns != self.identity.mtime_ns
        ):
            raise FileFormatError(
                f"{self.path}: the file has changed since it was opened",
                found=f"{now.st_size} bytes, changed at {now.st_mtime_ns} ns",
                expected=f"{self.identity.size} bytes, changed at {self.identity.mtime_ns} ns",
                fix="open the run again",
            )
