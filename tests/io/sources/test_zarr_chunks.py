"""Chunks that are decoded here are what zarr-python reads, and other bytes are refused."""

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from xsmall.errors import DamagedDataError
from xsmall.io.descriptions import DESCRIPTION
from xsmall.io.files import identify
from xsmall.io.sources.zarr_array import ZarrArray
from xsmall.io.sources.zarr_chunks import Packing, packing_of

SHAPE, CHUNKS = (11, 6, 5), (4, 6, 2)

OURS: dict[str, dict[str, Any]] = {
    "checksum": {"compressors": (Crc32cCodec(),)},
    "nothing": {"compressors": None},
    "blosc": {"compressors": (BloscCodec(cname="lz4"),)},
    "blosc and checksum": {"compressors": (BloscCodec(cname="zstd", shuffle="bitshuffle"), Crc32cCodec())},
}
OTHERS: dict[str, dict[str, Any]] = {
    "gzip": {"compressors": (GzipCodec(), Crc32cCodec())},
    "zstd": {"compressors": (ZstdCodec(),)},
    "checksum first": {"compressors": (Crc32cCodec(), BloscCodec())},
    "shards": {"compressors": (BloscCodec(), Crc32cCodec()), "shards": (8, 6, 4)},
    "another order of bytes": {"serializer": BytesCodec(endian="big"), "compressors": (BloscCodec(),)},
    "another order of dims": {"filters": (TransposeCodec(order=(2, 1, 0)),), "compressors": (BloscCodec(),)},
}


def stored(folder: Path, dtype: str = "u2", shape: tuple[int, ...] = SHAPE, **how: Any) -> tuple[Any, ZarrArray]:
    """An array by zarr, and by us."""
    group = zarr.create_group(folder / "a.zarr", overwrite=True, zarr_format=3)
    made = group.create_array("x", shape=shape, dtype=dtype, **({"chunks": CHUNKS} | how))
    made[...] = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    identity = identify(folder / "a.zarr" / DESCRIPTION)
    return made, ZarrArray(identity, "/x", made.shape, made.dtype, made.shards or made.chunks)


@pytest.mark.parametrize("how", [*OURS, *OTHERS])
def test_any_part_is_what_zarr_reads(tmp_path: Path, how: str) -> None:
    for dtype in ("u2", "f4", "?", "c8"):
        if how == "another order of bytes" and dtype == "?":
            continue
        theirs, ours = stored(tmp_path, dtype, **(OURS | OTHERS)[how])
        whole = theirs[...]
        assert packing_of(theirs) == (Packing("blosc" in how, "checksum" in how) if how in OURS else None)
        for a, b in itertools.combinations_with_replacement(range(0, 12, 3), 2):
            for part in (slice(a, b), (slice(a, b), slice(None), slice(1, 4)), (slice(a, b), 3)):
                found = ours[part]
                np.testing.assert_array_equal(found, whole[part])
                assert found.dtype == whole.dtype


def cut(data: bytes) -> bytes:
    return data[:-3]


def longer(data: bytes) -> bytes:
    return data + bytes(1000)


def says_more(data: bytes) -> bytes:
    return data[:4] + (10**6).to_bytes(4, "little") + data[8:]


def says_less(data: bytes) -> bytes:
    return data[:4] + (8).to_bytes(4, "little") + data[8:]


def longer_than_it_is(data: bytes) -> bytes:
    return data[:12] + (10**5).to_bytes(4, "little") + data[16:]


def nothing(data: bytes) -> bytes:
    return data[:0]


@pytest.mark.parametrize("harm", [cut, longer, says_more, says_less, longer_than_it_is, nothing])
@pytest.mark.parametrize("how", OURS)
def test_other_bytes_are_refused_and_the_rest_is_read(tmp_path: Path, how: str, harm: Callable[[bytes], bytes]) -> None:
    if harm.__name__.startswith(("says", "longer_than")) and how == "nothing":
        pytest.skip("there is no header, and nothing that checks values")
    theirs, ours = stored(tmp_path, **OURS[how])
    whole = theirs[...]
    file = tmp_path / "a.zarr" / "x" / "c" / "1" / "0" / "0"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(DamagedDataError, match="c/1/0/0"):
        ours[:]
    np.testing.assert_array_equal(ours[:4], whole[:4])
    np.testing.assert_array_equal(ours[8:], whole[8:])


@pytest.mark.parametrize("how", OURS)
def test_a_large_chunk_is_decoded_where_it_is_wanted(tmp_path: Path, how: str) -> None:
    shape = 64, 512, 256
    theirs, ours = stored(tmp_path, "u2", shape, **(OURS[how] | {"chunks": shape}))
    packed = (tmp_path / "a.zarr" / "x" / "c" / "0" / "0" / "0").stat().st_size
    ours[:1]  # what imports hold is no matter
    tracemalloc.start()
    found = ours[:]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.05 * found.nbytes + packed * ("blosc" in how)
    assert found.sum() == theirs[...].sum()
