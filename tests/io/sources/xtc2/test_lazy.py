"""Laziness of the XTC2 reader: what is read, when, and in how many reads."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.io.files import File, ReadWindow, identify

ROWS, COLUMNS = 64, 128
FRAME = ROWS * COLUMNS * 2


class Reads:
    """Counts the reads of files: how many, and how many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clear()
        pread, read_into = File.pread, File.read_into

        def counted_pread(file: File, n: int, offset: int) -> bytes:
            data = pread(file, n, offset)
            self.small += 1
            self.bytes += len(data)
            return data

        def counted_read_into(file: File, offset: int, buffers: list[np.ndarray]) -> None:
            self.vectored += 1
            self.bytes += sum(b.nbytes for b in buffers)
            self.places.append((offset, sum(b.nbytes for b in buffers)))
            read_into(file, offset, buffers)

        monkeypatch.setattr(File, "pread", counted_pread)
        monkeypatch.setattr(File, "read_into", counted_read_into)

    def clear(self) -> None:
        self.small = self.vectored = self.bytes = 0
        self.places: list[tuple[int, int]] = []


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def file(tmp_path: Path, xtc2: ModuleType) -> Callable[..., tuple[Path, np.ndarray]]:
    def write(n: int = 20, segments: int = 2) -> tuple[Path, np.ndarray]:
        data, frames = xtc2.plain_run(n, segments, ROWS, COLUMNS)
        path = tmp_path / f"{n}-{segments}.xtc2"
        path.write_bytes(data)
        return path, frames

    return write


def test_opening_reads_headers_only(file: Callable[..., tuple[Path, np.ndarray]], reads: Reads) -> None:
    path, frames = file()
    run = xs.open_run(path)
    configure = 6 * 2000  # the tables, read twice
    assert reads.bytes < configure + 20 * 2 * 1100
    assert reads.bytes < frames.nbytes / 10
    assert reads.vectored == 0
    assert run["det/raw"].chunks is not None


def test_a_second_opening_reads_no_header_again(file: Callable[..., tuple[Path, np.ndarray]], reads: Reads) -> None:
    path, _ = file()
    xs.open_run(path)
    reads.clear()
    xr.open_dataset(path, engine="xtc2")
    assert reads.bytes < 2000  # run information and steps


def test_nothing_computes_on_opening(
    file: Callable[..., tuple[Path, np.ndarray]], computing_is_forbidden: Callable[[], object]
) -> None:
    path, _ = file()
    with computing_is_forbidden():  # type: ignore[attr-defined]
        repr(xs.open_run(path))


@pytest.mark.parametrize("lazy", ["dask", "xarray"])
def test_frames_read_are_those_asked_for(file: Callable[..., tuple[Path, np.ndarray]], reads: Reads, lazy: str) -> None:
    path, frames = file()
    raw = xs.open_run(path)["det/raw"] if lazy == "dask" else xr.open_dataset(path, engine="xtc2").raw
    reads.clear()
    np.testing.assert_array_equal(raw[5:8].values, frames[5:8])
    assert reads.vectored == 1
    assert reads.bytes < 3 * 2 * FRAME + 3 * 300  # headers between the frames are read over
    reads.clear()
    np.testing.assert_array_equal(raw[3, 1].values, frames[3, 1])
    assert reads.bytes == FRAME
    reads.clear()
    np.testing.assert_array_equal(raw[3, 1, 10:12].values, frames[3, 1, 10:12])
    assert reads.bytes == 2 * COLUMNS * 2


def test_a_chunk_is_one_read_and_the_next_another(file: Callable[..., tuple[Path, np.ndarray]], reads: Reads) -> None:
    path, frames = file()
    raw = xs.open_run(path, chunks=5)["det/raw"]
    assert raw.chunks == ((5, 5, 5, 5), (2,), (ROWS,), (COLUMNS,))
    reads.clear()
    np.testing.assert_array_equal(raw.compute(scheduler="synchronous"), frames)
    assert reads.vectored == 4
    assert len(set(reads.places)) == 4


def test_any_number_of_reductions_reads_every_frame_once(
    file: Callable[..., tuple[Path, np.ndarray]], reads: Reads
) -> None:
    path, frames = file(30)
    raw = xs.open_run(path, chunks=10)["det/raw"].assign_attrs(detector_type="camera")  # words without gain bits
    small = raw.sd.reduce(
        {
            "one": xs.roi(xs.Box(segment=1, row=(0, 9), column=(3, 70))),
            "all": xs.projection("row"),
            "x": xs.projection("column"),
        }
    )
    reads.clear()
    small.compute(scheduler="synchronous")
    assert reads.vectored == len(set(reads.places)) == 3
    assert reads.bytes < frames.nbytes * 1.02


def test_one_segment_of_many_events_leaves_the_others_unread(
    file: Callable[..., tuple[Path, np.ndarray]], reads: Reads
) -> None:
    data = file(8, 8)
    path, frames = data
    raw = xs.open_run(path)["det/raw"]
    reads.clear()
    np.testing.assert_array_equal(raw[:, 3].values, frames[:, 3])
    assert reads.vectored == 8
    assert reads.bytes == 8 * FRAME


@pytest.mark.parametrize(
    "key",
    [
        (slice(None, None, -1),),
        (slice(2, 15, 4), slice(None), slice(5, 60, 7), slice(None, None, -3)),
        ([7, 2, 2, 19], 1),
        (3, [1, 0], 5),
        (slice(0, 0),),
        (slice(None), 0, -1, -1),
        ([1, 4], slice(None), [60, 2, 2], slice(3, 9)),
        (np.arange(20) % 3 == 0,),
    ],
    ids=str,
)
def test_every_way_of_indexing_gives_what_numpy_gives(
    file: Callable[..., tuple[Path, np.ndarray]], key: tuple[object, ...]
) -> None:
    path, frames = file()
    expected = xr.DataArray(frames, dims=("event", "segment", "row", "column"))[key]
    for raw in (xs.open_run(path, chunks=7)["det/raw"], xr.open_dataset(path, engine="xtc2").raw):
        np.testing.assert_array_equal(raw[key].values, expected.values)


def test_the_lazy_array_is_small_wherever_it_travels(file: Callable[..., tuple[Path, np.ndarray]]) -> None:
    path, frames = file(40)
    raw = xs.open_run(path)["det/raw"]
    assert len(pickle.dumps(raw.data)) < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raw)).values, frames)
    lazy = xr.open_dataset(path, engine="xtc2", cache=False).raw
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).values, frames)


def test_two_openings_of_a_file_are_the_same_array(file: Callable[..., tuple[Path, np.ndarray]]) -> None:
    path, _ = file()
    assert xs.open_run(path)["det/raw"].data.name == xs.open_run(path)["det/raw"].data.name
    assert xs.open_run(path)["det/raw"].data.name != xs.open_run(path, chunks=3)["det/raw"].data.name


def test_threads_read_side_by_side(file: Callable[..., tuple[Path, np.ndarray]]) -> None:
    path, frames = file()
    raw = xs.open_run(path, chunks=1)["det/raw"]
    np.testing.assert_array_equal(raw.compute(scheduler="threads", num_workers=8), frames)


def test_reading_works_without_vectored_reads(
    file: Callable[..., tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, frames = file()
    monkeypatch.delattr("os.preadv")
    np.testing.assert_array_equal(xs.open_run(path)["det/raw"].values, frames)


def test_reading_survives_reads_that_stop_early(
    file: Callable[..., tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path, frames = file()
    whole, single = os.preadv, os.pread
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: whole(fd, [buffers[0][:100]], at))
    monkeypatch.setattr(os, "pread", lambda fd, n, at: single(fd, min(n, 1000), at))
    np.testing.assert_array_equal(xs.open_run(path)["det/raw"].values, frames)


def test_the_window_reads_small_datagrams_together(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    path = tmp_path / "a"
    path.write_bytes(data)
    file, count = File(identify(path)), 0

    def counted(n: int, offset: int, pread: Callable[[int, int], bytes] = file.pread) -> bytes:
        nonlocal count
        count += 1
        return pread(n, offset)

    file.pread = counted  # type: ignore[method-assign]
    window = ReadWindow(file)
    for at in range(0, 200_000 - 24, 60):
        assert window.read(at, 24) == data[at : at + 24]
    assert count < 20
    assert window.read(100, 3) == data[100:103]
    assert window.read(len(data) - 5, 5) == data[-5:]
