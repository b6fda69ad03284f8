"""Reading HDF5 files, whoever wrote them: errors that name the file, filters, and what is not there."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError, MissingDependency, XsmallError

__all__ = [
    "Chunks",
    "check_filters",
    "chunk_offsets",
    "chunk_sizes",
    "missing_sources",
    "open_hdf5",
    "read_whole",
    "stacks_in",
]

_MOST_RATIO: Final = 1000
_MOST_DECLARED: Final = 256 * 2**20
_SMALLEST_IMAGE: Final = 8
_FILTERS: Final = {
    32008: "bitshuffle", 32004: "LZ4", 32001: "Blosc", 32026: "Blosc2", 32015: "Zstandard", 307: "bzip2",
    32013: "ZFP", 32017: "SZ", 32024: "SZ3", 32000: "LZF",
}  # fmt: skip


@contextmanager
def open_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file for reading; whatever HDF5 stumbles over while it is open becomes an error that names the file."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except XsmallError:
        raise
    except (OSError, KeyError, RuntimeError, MemoryError, ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(
            f"{path}: cannot be read", found=f"{type(error).__name__}: {error}", expected="an HDF5 file that is whole"
        ) from error


def stacks_in(file: Any) -> list[str]:
    """Names of the datasets that look like frames: numbers of three or four dims, the last two of an image."""
    found: list[str] = []

    def note(name: str, item: Any) -> None:
        is_stack = isinstance(item, h5py.Dataset) and item.ndim in (3, 4) and item.dtype.kind in "iuf"
        if is_stack and min(item.shape[-2:]) >= _SMALLEST_IMAGE:
            found.append(f"/{name}")

    file.visititems(note)
    return found


def chunk_sizes(dataset: Any) -> dict[tuple[int, ...], int]:
    """Bytes of each chunk that is in the file, by its number along each dim; of one piece, if it is not chunked."""
    if dataset.chunks is None:
        stored = dataset.id.get_storage_size()
        there = bool(stored) or bool(dataset.external) or dataset.is_virtual
        return {(0,) * dataset.ndim: stored} if there else {}
    sizes: dict[tuple[int, ...], int] = {}

    def note(info: Any) -> None:
        sizes[tuple(o // c for o, c in zip(info.chunk_offset, dataset.chunks, strict=True))] = info.size

    if dataset.id.get_num_chunks():
        dataset.id.chunk_iter(note)
    return sizes


class Chunks(NamedTuple):
    """Where the chunks of a dataset lie whose bytes are its numbers."""

    offsets: npt.NDArray[np.int64]
    """Byte of the file at which each begins, by its number along each dim; -1 where it is not there."""
    checked: bool
    """Whether Fletcher's checksum stands behind each."""


def chunk_offsets(dataset: Any) -> Chunks | None:
    """Say where chunks lie; None where they are not stored as they are: filters, values in other files, a head."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    whole = math.prod(dataset.chunks or dataset.shape) * dataset.dtype.itemsize
    checked = filters == [h5py.h5z.FILTER_FLETCHER32] and whole % 2 == 0
    elsewhere = dataset.is_virtual or dataset.external or dataset.file.userblock_size or dataset.file.driver != "sec2"
    if not dataset.ndim or elsewhere or (filters and not checked):
        return None
    if dataset.chunks is None:  # in one piece; a small one may lie inside its description
        start = dataset.id.get_offset()
        return Chunks(np.full((1,) * dataset.ndim, -1 if start is None else start), checked=False)
    stored = whole + 4 * checked
    grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    offsets = np.full(grid, -1, np.int64)

    def note(info: Any) -> None:
        place = tuple(o // c for o, c in zip(info.chunk_offset, dataset.chunks, strict=True))
        within = all(k < n for k, n in zip(place, grid, strict=True))
        if within and info.byte_offset is not None and info.size == stored and not info.filter_mask:
            offsets[place] = info.byte_offset

    if dataset.id.get_num_chunks():
        dataset.id.chunk_iter(note)
    return Chunks(offsets, checked)


def missing_sources(dataset: Any) -> list[str]:
    """Files that a virtual dataset is made of and that are not there: HDF5 would read its fill value."""
    if not dataset.is_virtual:
        return []
    folder = Path(dataset.file.filename).parent
    names = {source.file_name for source in dataset.virtual_sources()} - {"."}
    return sorted(name for name in names if not (folder / name).exists() and "%" not in name)


def check_filters(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Raise where data are compressed with a filter that this HDF5 does not have; hdf5plugin is used where it is.

    Raises
    ------
    MissingDependency
        Names the filter, and what brings it.
    """
    properties = dataset.id.get_create_plist()
    codes = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    lacking = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if lacking:
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401 # it registers its filters
        lacking = [code for code in lacking if not h5py.h5z.filter_avail(code)]
    if lacking:
        names = ", ".join(f"{_FILTERS.get(code, 'filter')} ({code})" for code in lacking)
        raise MissingDependency.of(
            "hdf5plugin", "hdf5", f"{path}: {dataset.name} is compressed with {names}; reading it"
        )


def read_whole(dataset: Any, path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read a dataset that is small enough to be held.

    Raises
    ------
    FileFormatError
        Not a dataset, a part of it was never written, or it declares far more than is stored.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise FileFormatError(f"{path}: {dataset.name} is a group", expected="a dataset")
    check_filters(dataset, path)
    if dataset.shape and not dataset.is_virtual:
        sizes, declared = chunk_sizes(dataset), math.prod(dataset.shape) * dataset.dtype.itemsize
        chunks = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks or dataset.shape, strict=True) if c)
        stored = sum(sizes.values())
        if declared > max(_MOST_DECLARED, _MOST_RATIO * stored) and not dataset.external:
            raise FileFormatError(
                f"{path}: {dataset.name} declares more than is there", found=f"{stored} bytes", expected=declared
            )
        if len(sizes) < chunks and declared:
            raise FileFormatError(
                f"{path}: a part of {dataset.name} was never written",
                found=f"{len(sizes)} chunks",
                expected=f"{chunks} chunks",
            )
    gone = missing_sources(dataset)
    if gone:
        raise FileFormatError(f"{path}: {dataset.name} is made of files that are not there", found=", ".join(gone))
    values: npt.NDArray[Any] = np.asarray(dataset[()])
    return values
