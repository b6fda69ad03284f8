"""Writing Zarr (format 3): arrays of chunks that each carry a checksum, written from any process."""

import base64
import itertools
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.engine.pairs import FILL_VALUE, PAIR
from xsmall.io.descriptions import seal
from xsmall.io.layout import quiet
from xsmall.io.stores.owner import writing
from xsmall.io.stores.place import OwnedPath, sync, sync_all
from xsmall.io.stores.schema import Schema, SchemaArray

__all__ = ["COMPRESSIONS", "ZarrStore"]

COMPRESSIONS: Final = ("zstd", "lz4", "zlib")
_CONFIG: Final = {"write_empty_chunks": True}
"""Chunks of zeros are written too: then one that is not there was lost."""

_PAIR: Final = {FILL_VALUE: base64.b64encode(struct.pack("<d", PAIR)).decode()}
"""The mark of a value and its variance, as xarray writes in Zarr what a float is filled with."""

_SYNCED: Final = 2**20
"""Bytes from which each write is brought to the disk by itself, which takes some milliseconds."""


class ZarrStore:
    """A Zarr group that is being written, with one file a chunk."""

    def __init__(self, place: OwnedPath, schema: Schema, compression: str | None) -> None:
        self._root = place.content
        self._owner = place.owner_file
        self._schema = schema
        self._compression = compression

    def create(self) -> None:
        """Write the description of all groups."""
        from zarr import create_group

        with quiet():
            for path, attrs in self._schema.groups.items():
                create_group(self._root, path=path.strip("/"), attributes=dict(attrs), zarr_format=3)

    def add(self, arrays: Sequence[SchemaArray]) -> None:
        """Write the description of arrays, which then take values."""
        from zarr import create_array

        with quiet():
            for array in arrays:
                create_array(
                    self._root,
                    name=array.path.strip("/"),
                    shape=array.shape,
                    dtype=str if array.dtype == object else array.dtype,
                    chunks=array.chunks,
                    compressors=self._codecs(array),
                    fill_value=array.fill,
                    attributes={**array.attrs, **(_PAIR if array.pair else {})},
                    dimension_names=array.dims,
                    zarr_format=3,
                    config=_CONFIG,
                )

    def _codecs(self, array: SchemaArray) -> tuple[Any, ...]:
        from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

        checksum = Crc32cCodec()  # of the compressed bytes: decompressing broken ones may give anything
        if self._compression is None:
            return (checksum,)
        if self._compression == "zlib":
            return (GzipCodec(level=1), checksum)
        if array.is_text:
            return (ZstdCodec(level=1), checksum)
        return (BloscCodec(cname=self._compression, clevel=1, shuffle="bitshuffle"), checksum)

    def sink(self, array: SchemaArray) -> "ZarrSink":
        """Give what takes the values of an array."""
        return ZarrSink(str(self._root), str(self._owner), array.path.strip("/"), array.chunks)

    def missing(self, array: SchemaArray) -> int:
        """Count chunks of an array that are not there."""
        counts = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
        opened = _open_to_write(str(self._root), array.path.strip("/"))
        return sum(
            not os.path.exists(_file_of(opened, index)) for index in itertools.product(*(range(n) for n in counts))
        )

    def written(self, array: SchemaArray) -> tuple[int, int]:
        """Bytes of an array that are written, before and after compression."""
        folder = self._root / array.path.strip("/")
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "zarr.json"]
        whole = int(np.prod(array.chunks, dtype=np.int64)) * array.dtype.itemsize
        return min(len(sizes) * whole, array.nbytes), sum(sizes)

    def finish(self, attrs: Mapping[str, Any]) -> None:
        """Add the attributes that say it is complete, and gather all descriptions at the root of each group."""
        from zarr import consolidate_metadata, open_group

        with quiet():
            open_group(self._root, mode="r+", zarr_format=3).attrs.update(attrs)
            for group in sorted(self._schema.groups, key=len, reverse=True):  # plain xarray opens each in one read
                consolidate_metadata(str(self._root), path=group.strip("/") or None, zarr_format=3)
        seal(self._root)
        sync_all(self._root)

    def close(self) -> None:
        """Nothing stays open."""


class ZarrSink:
    """Takes blocks of an array, in any process, and brings them to the disk chunk by chunk."""

    def __init__(self, root: str, owner: str, name: str, chunks: tuple[int, ...]) -> None:
        self.root = root
        self.owner = owner
        self.name = name
        self.chunks = chunks

    def __setitem__(self, key: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        array = _open_to_write(self.root, self.name)
        if not key:
            array[...] = block
            return
        for rows in _cut_at_chunks(key[0], self.chunks[0]):
            part = (rows, *key[1:])
            values = block[rows.start - key[0].start : rows.stop - key[0].start]
            with writing(self.owner):
                array[part] = values
                if values.nbytes >= _SYNCED:  # here, for workers on other hosts; small ones all at once at the end
                    for index in itertools.product(*map(_indices, part, self.chunks)):
                        sync(Path(_file_of(array, index)))


def _cut_at_chunks(rows: slice, chunk: int) -> Iterator[slice]:
    """Cut rows at the borders of chunks."""
    start = rows.start
    while start < rows.stop:
        stop = min(start - start % chunk + chunk, rows.stop)
        yield slice(start, stop)
        start = stop


def _indices(part: slice, chunk: int) -> range:
    return range(part.start // chunk, -(-part.stop // chunk))


def _file_of(array: Any, index: tuple[int, ...]) -> str:
    return str(array.store.root / array.path / array.metadata.encode_chunk_key(index))


@lru_cache(maxsize=256)
def _open_to_write(root: str, name: str) -> Any:
    from zarr import open_array

    with quiet():
        return open_array(root, path=name, mode="r+", zarr_format=3).with_config(_CONFIG)
