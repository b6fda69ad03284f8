"""Reading raw frames from files: XTC2, raw HDF5, raw Zarr, beside reading the same bytes with the least effort."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import dask
import dask.array as da
import h5py
import numpy as np
import xarray as xr
import zarr
from dask.core import flatten

import xsmall as xs
from benchmarks import Case
from xsmall.io.files import identify
from xsmall.io.sources.xtc2.kept import forget
from xsmall.io.sources.xtc2.run_index import _make_index
from xsmall.io.sources.xtc2.walk import build
from xsmall.io.stores.runs import write_run

FOLDER = tempfile.TemporaryDirectory()  # lives as long as the process


def writer() -> ModuleType:
    """The writer of synthetic XTC2 bytes that the tests use."""
    path = Path(__file__).parents[1] / "tests" / "io" / "xtc2_writer.py"
    spec = importlib.util.spec_from_file_location("xtc2_writer", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def xtc2_file(name: str, events: int, segments: int, rows: int, columns: int) -> tuple[Path, np.ndarray]:
    """A run of ``events`` events whose frames repeat."""
    w, path = writer(), Path(FOLDER.name) / name
    tables, frames = [w.area(s) for s in range(segments)], w.frames(4, segments, rows, columns)
    with path.open("wb") as file:
        file.write(w.start(*tables))
        for k in range(events):
            file.write(w.event((2 << 32) + k, tables, frames[k % 4]))
    return path, frames


def by_offsets(path: Path, offsets: list[int], frames: np.ndarray) -> np.ndarray:
    """What one writes by hand for a file whose offsets are known: map it, copy frame by frame."""
    mapped = np.memmap(path, np.uint8, "r")
    out = np.empty((len(offsets), *frames.shape[1:]), np.uint16)
    for k, at in enumerate(offsets):
        out[k] = mapped[at : at + frames[0].nbytes].view(np.uint16).reshape(frames.shape[1:])
    return out


def one_read(path: Path) -> np.ndarray:
    """The same bytes by a single read into a new array: nothing can read them with less effort."""
    out = np.empty(path.stat().st_size, np.uint8)
    with path.open("rb") as file:
        assert os.preadv(file.fileno(), [out], 0) == out.size
    return out


def read_and_copied(path: Path) -> np.ndarray:
    """The same by one read and one copy, which is the least that reading chunks and joining them takes."""
    data = one_read(path)
    return np.concatenate([data[: data.size // 2], data[data.size // 2 :]])


def write_stream(folder: Path, name: str, start: bytes, block: bytes, events: int, step: int = 1) -> None:
    """Write a stream of events that are all alike but for their times, and its index file."""
    w, first, last = writer(), 2 << 32, 3 << 32
    (folder / "smalldata").mkdir(parents=True, exist_ok=True)
    end, size = w.datagram(w.END_RUN, last), len(block) + 24
    head = w.index_of(start)
    of_index = w.block(w.SMD_INFO, 0, size)
    for path, begin, body in (
        (folder / f"{name}.xtc2", start, block),
        (folder / "smalldata" / f"{name}.smd.xtc2", head, of_index),
    ):
        many = np.tile(np.frombuffer(w.datagram(w.L1, first, body), np.uint8), (events, 1))
        many[:, :4] = (np.arange(events, dtype="<u4") * step).view(np.uint8).reshape(-1, 4)
        if body is of_index:  # each offset, behind the headers
            many[:, 60:68] = (len(start) + size * np.arange(events, dtype="<u8")).view(np.uint8).reshape(-1, 8)
        path.write_bytes(begin + many.tobytes() + end)


def long_run(events: int) -> Path:
    """A folder with a run of two streams, every tenth event in both; small events, as a night has millions."""
    w, folder = writer(), Path(FOLDER.name) / "long"
    for stream, step in enumerate((1, 10)):
        table, frame = w.area(stream), w.frames(1, 1)[0]
        block = w.block(table, frame[0], 7, 0.5)
        write_stream(folder, f"abc12345-r0001-s{stream:03d}-c000", w.start(table), block, events // step, step)
    return folder


def _bytes_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("**/*.xtc2"))]


def open_anew(folder: Path) -> xr.DataTree:
    """Open a run of which this process knows nothing."""
    _make_index.cache_clear()
    forget()
    return xs.open_run(folder)


def open_unknown(folder: Path) -> xr.DataTree:
    """Open a run of which nobody has kept an index."""
    before = os.environ.get("XSMALL_CACHE")
    os.environ["XSMALL_CACHE"] = "0"
    try:
        return open_anew(folder)
    finally:
        os.environ.pop("XSMALL_CACHE")
        if before is not None:
            os.environ["XSMALL_CACHE"] = before


def open_kept(folder: Path) -> xr.DataTree:
    """Open a run whose index was kept, as in another process."""
    os.environ["XSMALL_CACHE"] = FOLDER.name
    return open_anew(folder)


def by_chunks(data: da.Array) -> int:
    """Read chunk by chunk, each into memory of its own, as a pass over a run does."""
    return sum(dask.get(data.dask, key).shape[0] for key in flatten(data.__dask_keys__()))


def cases(scale: float) -> list[Case]:
    """A Jungfrau of 0.5 Mpixel, and many small events for the index."""
    n, rows = max(4, int(128 * scale)), max(16, int(512 * scale))
    path, frames = xtc2_file("frames.xtc2", n, 1, rows, 1024)
    offsets = [at + 80 for at in build(identify(path)).offset.tolist()]
    raw = xs.open_run(path)["det/raw"].data
    many = max(50, int(20_000 * scale))
    events = max(100, int(1_000_000 * scale))
    folder = long_run(events)
    small, _ = xtc2_file("small.xtc2", many, 1, 4, 4)
    run = xr.DataTree.from_dict({"/det": xs.open_run(path)["det"].to_dataset()})
    hdf5 = write_run(run, Path(FOLDER.name) / "run.h5", compress=False)
    stored = write_run(run, Path(FOLDER.name) / "run.zarr", compress=False)
    compute = {"scheduler": "synchronous"}
    size = f"{rows * 1024 / 1e6:.1g} Mpixel"
    return [
        Case(
            f"XTC2 frames, {size}, as a pass reads them",
            lambda: by_chunks(raw),
            n,
            {
                "one preadv of the file": lambda: one_read(path),
                "memory map with known offsets": lambda: by_offsets(path, offsets, frames),
            },
            path.read_bytes,
        ),
        Case(
            f"XTC2 frames, {size}, joined by dask (synchronous)",
            partial(raw.compute, **compute),
            n,
            {"one preadv of the file": lambda: one_read(path), "and one copy": lambda: read_and_copied(path)},
            path.read_bytes,
        ),
        Case("opening an XTC2 run of two streams", lambda: open_unknown(folder), events, {}, lambda: _bytes_of(folder)),
        Case("opening it again, by the kept index", lambda: open_kept(folder), events, {}, lambda: _bytes_of(folder)),
        Case("XTC2 index, an event of 124 bytes", lambda: build(identify(small)), many, {}, small.read_bytes),
        *_beside_libraries(size, n, hdf5, stored),
    ]


def _beside_libraries(size: str, n: int, hdf5: Path, stored: Path) -> Iterator[Case]:
    """Raw HDF5 and raw Zarr beside their own libraries; zarr reads on threads, ours on one."""
    for name, path, library, theirs in (
        ("HDF5", hdf5, "h5py", lambda: h5py.File(hdf5)["det/raw"][:]),
        ("Zarr", stored, "zarr", lambda: zarr.open_group(stored, mode="r")["det/raw"][:]),
    ):
        data = xs.open_run(path)["det/raw"].data
        yield Case(f"raw {name} frames, {size}, as a pass reads them", partial(by_chunks, data), n, {library: theirs})
        joined = partial(data.compute, scheduler="synchronous")
        yield Case(f"raw {name} frames, {size}, joined by dask (synchronous)", joined, n, {library: theirs})
