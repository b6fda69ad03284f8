"""Chunks of HDF5 that are stored as they are: read straight from the file, the same numbers as h5py reads."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import Fletcher32

import xsmall as xs
from xsmall.errors import DamagedDataError
from xsmall.io.files import identify
from xsmall.io.sources import straight
from xsmall.io.sources.hdf5_array import Hdf5Array
from xsmall.io.sources.stored_array import StoredArray
from xsmall.io.stores.runs import write_run
from xsmall.kernels.fletcher import fletcher32
from xsmall.kernels.reference.fletcher import fletcher32 as reference
from xsmall.vocabulary import FRAME_DIMS

SHAPE = (11, 3, 8, 10)
VALUES = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
CHUNKS = [(4, 1, 8, 10), (1, 3, 8, 10), (3, 2, 8, 10), (4, 1, 5, 10), (4, 3, 8, 4), (2, 2, 3, 7), SHAPE]


def by_hdf5(path: Path, chunks: tuple[int, ...] | None, values: Any = VALUES, **options: Any) -> Hdf5Array:
    with h5py.File(path, "w", **{k: options.pop(k) for k in ("userblock_size",) if k in options}) as file:
        item = file.create_dataset("a/b", data=values, chunks=chunks, **options)
        return Hdf5Array(identify(path), "a/b", item.shape, item.dtype, item.chunks)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces are read straight too."""
    monkeypatch.setattr(straight, "_SMALLEST", 1)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read by a library."""

    def never(*_: object) -> None:
        raise AssertionError("read by a library")

    monkeypatch.setattr(Hdf5Array, "_read", never)


def spans() -> st.SearchStrategy[tuple[slice, ...]]:
    def span(n: int) -> st.SearchStrategy[slice]:
        ends = st.lists(st.integers(0, n), min_size=2, max_size=2).map(sorted)
        return st.one_of(st.just(slice(None)), ends.map(lambda e: slice(*e)))

    return st.tuples(*map(span, SHAPE))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[StoredArray]:
    folder = tmp_path_factory.mktemp("straight")
    made: list[StoredArray] = [by_hdf5(folder / "whole.h5", None)]
    return [*made, *(by_hdf5(folder / f"{k}.h5", chunks) for k, chunks in enumerate(CHUNKS))]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, len(CHUNKS)), key=spans())
@pytest.mark.usefixtures("small_pieces", "no_library")
def test_any_block_of_any_chunks(arrays: list[StoredArray], which: int, key: tuple[slice, ...]) -> None:
    np.testing.assert_array_equal(arrays[which][key], VALUES[key])


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("values", "options"),
    [
        (VALUES, {"compression": "gzip", "shuffle": True}),
        (VALUES, {"fletcher32": True, "compression": "gzip"}),
        (VALUES, {"userblock_size": 512}),
        (VALUES.astype(">u2"), {}),
        (VALUES > 30000, {}),
    ],
)
def test_what_is_stored_otherwise_is_read_by_hdf5(tmp_path: Path, values: Any, options: dict[str, Any]) -> None:
    array = by_hdf5(tmp_path / "a.h5", (4, 1, 8, 10), values, **options)
    assert array._stored((0, 0, 0, 0)) is None
    np.testing.assert_array_equal(array[1:9], values[1:9])


def test_frames_of_a_run_are_read_straight(tmp_path: Path, no_library: None) -> None:
    words = np.random.default_rng(2).integers(0, 60000, (8, 2, 64, 128)).astype(np.uint16)
    run = xr.DataTree.from_dict({"/jungfrau": xr.Dataset({"raw": (FRAME_DIMS, words)}, {"event": np.arange(8)})})
    opened = xs.open_run(write_run(run, tmp_path / "run.h5", compress=False, chunk_events=4))["jungfrau/raw"]
    np.testing.assert_array_equal(opened, run["jungfrau/raw"])
    np.testing.assert_array_equal(opened[4:8], words[4:8])


def test_a_last_chunk_that_is_checked_with_what_lies_beyond_is_left_to_the_library(tmp_path: Path) -> None:
    values = np.arange(7 * 64 * 128, dtype=np.uint16).reshape(7, 1, 64, 128)
    array = by_hdf5(tmp_path / "a.h5", (3, 1, 64, 128), values, fletcher32=True)
    assert array._straight((slice(0, 7), slice(0, 1), slice(0, 64), slice(0, 128))) is not None
    assert array._straight((slice(6, 7), slice(0, 1), slice(0, 64), slice(0, 128))) is None
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[6:], values[6:])


@pytest.mark.parametrize("key", [slice(None), (slice(1, 3), 1), (slice(None), 0, slice(3, 9))])
def test_a_checksum_that_differs_is_told(tmp_path: Path, key: Any) -> None:
    values = np.arange(6 * 2 * 64 * 128, dtype=np.uint16).reshape(6, 2, 64, 128)
    path = tmp_path / "a.h5"
    array = by_hdf5(path, (2, 2, 64, 128), values, fletcher32=True)
    at = path.read_bytes().index(values[2].tobytes()) + 1000
    np.testing.assert_array_equal(array[key], values[key])
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(array[:2], values[:2])
    with pytest.raises(DamagedDataError, match=r"a\.h5"):
        array[2:4]


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257, 5000])
@pytest.mark.parametrize("fill", [None, 0, 65535, 1])
def test_the_checksum_of_hdf5(n: int, fill: int | None) -> None:
    words = np.full(n, fill, np.uint16) if fill is not None else np.random.default_rng(n).integers(0, 65536, n)
    words = words.astype(np.uint16)
    expected = int.from_bytes(bytes(Fletcher32().encode(words.tobytes()))[-4:], "little") if n else 0
    assert fletcher32(words) == reference(words) == expected


def test_a_file_that_lost_its_end_is_damaged_where_it_is_read(tmp_path: Path) -> None:
    values = np.arange(4 * 64 * 128, dtype=np.uint16).reshape(4, 1, 64, 128)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        item = file.create_dataset("b", data=values, chunks=(1, 1, 64, 128))
        shape, dtype, chunks = item.shape, item.dtype, item.chunks
    array = Hdf5Array(identify(path), "b", shape, dtype, chunks)
    np.testing.assert_array_equal(array[:1], values[:1])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - math.prod(chunks))
    with pytest.raises(xs.XsmallError, match=r"a\.h5"):
        array[:]


def test_other_threads_run_during_the_checksum(lets_others_run: Callable[..., bool]) -> None:
    words = np.ones(1 << 24, np.uint16)
    fletcher32(words[:1])
    assert lets_others_run(lambda: [fletcher32(words) for _ in range(20)])
