"""Reading raw frames from files: XTC2, raw HDF5, raw Zarr, beside reading the same bytes with the least effort."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import xarray as xr
import zarr

import xsmall as xs
from benchmarks import Case
from xsmall.io.files import identify
from xsmall.io.sources.xtc2.kept import forget
from xsmall.io.sources.xtc2.run_index import _run
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


def long_run(events: int) -> Path:
    """A folder with a run of two streams, every tenth event in both; small events, as a night has millions."""
    w, folder = writer(), Path(FOLDER.name) / "long"
    folder.mkdir(exist_ok=True)
    for stream, step in enumerate((1, 10)):
        table, frame = w.area(stream), w.frames(1, 1)[0]
        one = np.frombuffer(w.event(2 << 32, [table], frame), np.uint8)
        many = np.tile(one, (events // step, 1))
        many[:, :4] = (np.arange(len(many), dtype="<u4") * step).view(np.uint8).reshape(-1, 4)
        data = w.start(table) + many.tobytes() + w.datagram(w.END_RUN, (2 << 32) + events)
        (folder / f"abc12345-r0001-s{stream:03d}-c000.xtc2").write_bytes(data)
    return folder


def _bytes_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def open_anew(folder: Path) -> xr.DataTree:
    """Open a run of which this process knows nothing."""
    _run.cache_clear()
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
    from_hdf5, from_zarr = xs.open_run(hdf5)["det/raw"].data, xs.open_run(stored)["det/raw"].data
    compute = {"scheduler": "synchronous"}
    size = f"{rows * 1024 / 1e6:.1g} Mpixel"
    return [
        Case(
            f"XTC2 frames, {size}",
            partial(raw.compute, **compute),
            n,
            {
                "one preadv of the file": lambda: one_read(path),
                "memory map with known offsets": lambda: by_offsets(path, offsets, frames),
            },
            path.read_bytes,
        ),
        Case(
            f"XTC2 frames, {size}, chunk by chunk as a pass reads them",
            lambda: [raw.blocks[k].compute(**compute).shape for k in range(raw.numblocks[0])],
            n,
            {"one preadv of the file": lambda: one_read(path)},
            path.read_bytes,
        ),
        Case("opening an XTC2 run of two streams", lambda: open_unknown(folder), events, {}, lambda: _bytes_of(folder)),
        Case("opening it again, by the kept index", lambda: open_kept(folder), events, {}, lambda: _bytes_of(folder)),
        Case("XTC2 index, an event of 124 bytes", lambda: build(identify(small)), many, {}, small.read_bytes),
        Case(
            f"raw HDF5 frames, {size}",
            partial(from_hdf5.compute, **compute),
            n,
            {"h5py": lambda: h5py.File(hdf5)["det/raw"][:]},
            hdf5.read_bytes,
        ),
        Case(
            f"raw Zarr frames, {size}",
            partial(from_zarr.compute, **compute),
            n,
            {"zarr": lambda: zarr.open_group(stored, mode="r")["det/raw"][:]},
            path.read_bytes,
        ),
    ]
