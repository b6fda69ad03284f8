"""Reductions and a cube of images of the same frames, in one computation: every frame is read and calibrated once."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError

N = 400
BINS = {"delay": xs.bins(-2, 5, width=1)}
SIM = xs.simulate(N, shape=(2, 16, 24), seed=1)
EVENTS = SIM.run["events"].to_dataset()
RAW = np.asarray(SIM.run["jungfrau/raw"].data)

DISKS: dict[int, Any] = {}


class Source:
    """Frames on a disk that counts how often each event is read."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.lock = frames, Lock()
        self.shape, self.dtype, self.ndim = frames.shape, frames.dtype, frames.ndim
        self.read: Counter[int] = Counter()
        self.rotten = range(0)

    def __getitem__(self, where: Any) -> np.ndarray:
        events = range(self.shape[0])[where[0]]
        with self.lock:
            self.read.update(events)
        lost = [event in self.rotten for event in events]
        frames = self.frames[where]
        if any(lost):
            rot = DamagedDataError("run.h5, chunk 3: cannot be read", found="rot")
            frames = frames.copy()
            frames[lost] = unreadable(rot, self.dtype)
        return frames

    def __dask_tokenize__(self) -> str:
        return "frames"

    def __reduce__(self) -> tuple[Any, ...]:
        DISKS[id(self)] = self  # of this process, whatever is pickled
        return disk_of, (id(self),)


def disk_of(number: int) -> Any:
    return DISKS[number]


@pytest.fixture
def disk() -> Iterator[Source]:
    """The source of the frames, read by two threads."""
    with dask.config.set(scheduler="threads", num_workers=2):
        yield Source(RAW)


def both(disk: Source, kind: str = "calibrated", **options: Any) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Small data, the cube of it with its images, and what both are together where each is made by itself."""
    lazy = SIM.run["jungfrau/raw"].copy(data=da.from_array(disk, chunks=(50, 2, 16, 24), asarray=False))
    frames: Any
    rings: dict[str, Any] = {}
    if kind == "floats":
        frames = lazy.copy(data=(lazy.data & 0x3FFF).astype(np.float32))
    else:
        variance = {"variance": True, "photon_energy": 9500} if kind == "variance" else {}
        frames = lazy.sd.calibrate(SIM.constants, **variance)
    if kind == "energies":
        placed = lazy.sd.assign_geometry(SIM.geometry)
        energy = xr.DataArray(9500 + np.arange(N) % 50, dims="event", attrs={"units": "eV"})
        frames = placed.sd.assign_beam(photon_energy=energy, distance=SIM.beam.distance).sd.calibrate(SIM.constants)
        rings = {"waxs": xs.azint(bins=7)}
    if kind == "missing":
        present = np.random.default_rng(0).random((N, 2)) > 0.1
        frames = frames.assign_coords(present=(("event", "segment"), present))
    box = xs.Box(segment=1, row=(2, 9), column=(3, 20))
    reduced = frames.sd.reduce(
        {"lines": xs.projection("row"), "spot": xs.roi(box), "bright": xs.droplet(threshold=3), **rings}
    )
    small = EVENTS.merge(reduced.reset_coords(drop=True), compat="override")
    cube = small.sd.cube(BINS, images={"jungfrau": frames}, **options)
    apart = xr.merge(
        [
            small.compute().sd.cube(BINS, **options),
            EVENTS.sd.cube(BINS, images={"jungfrau": frames}, **options).compute(),
        ],
        compat="override",
    )
    disk.read.clear()
    return small, cube, apart


def once(disk: Source) -> bool:
    """Whether every event was read, and none twice."""
    return disk.read == Counter(range(N))


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    for name in found.data_vars:
        a, b = found[name].values, expected[name].values
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes() if a.dtype != object else str(a) == str(b), name


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("calibrated", None), ("calibrated", "i0"), ("variance", "i0"), ("missing", None), ("floats", "i0")],
)
def test_what_is_computed_together_reads_every_frame_once(disk: Source, kind: str, weights: str | None) -> None:
    small, cube, apart = both(disk, kind, weights=weights)
    alone = small.compute()
    assert once(disk)
    disk.read.clear()
    found, binned = dask.compute(small, cube)
    assert once(disk)
    same(found, alone)
    same(binned, apart)
    assert set(binned.data_vars) >= {"jungfrau", "lines_projection", "spot_sum", "bright_n_droplets"}
    disk.read.clear()
    same(cube.compute(scheduler="synchronous"), apart)
    assert once(disk)


def test_the_other_order_is_right_too(disk: Source) -> None:
    small, cube, apart = both(disk)
    binned, found = dask.compute(cube, small)
    same(binned, apart)
    same(found, small.compute())


def test_cuts_and_parts_of_the_small_data_are_taken_from_the_same_pass(disk: Source) -> None:
    small, cube, _ = both(disk)
    frames = SIM.run["jungfrau/raw"].copy(data=da.from_array(disk, chunks=(50, 2, 16, 24), asarray=False))
    cal = frames.sd.calibrate(SIM.constants)
    few = small[["delay", "xray_on", "spot_sum"]].isel(event=slice(3, None, 2))
    cube = few.sd.cube(BINS, images={"jungfrau": cal})
    disk.read.clear()
    found = cube.compute()
    assert once(disk)
    same(found[["spot_sum", "spot_sum_std"]], few.compute().sd.cube(BINS))


def test_what_does_not_go_together_is_two_passes_and_right(disk: Source, tmp_path: Path) -> None:
    _, cube, apart = both(disk, store=xs.lane_store(tmp_path / "parts"))
    same(cube.compute(), apart)  # lanes that are kept are not read again: nobody could reduce them
    _, cube, apart = both(disk, memory=17_000_000)
    assert len(xs.plan(cube)) == 2
    same(cube.compute(), apart)


@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_what_cannot_be_read_is_lost_to_both(disk: Source) -> None:
    disk.rotten = range(100, 150)
    small, cube, apart = both(disk)
    found, binned = dask.compute(small, cube)
    same(binned, apart)
    assert 30 < int((binned["count"] - binned["jungfrau_count"].max(("segment", "row", "column"))).sum()) <= 50
    assert (found["spot_n_valid"].values[100:150] == 0).all()


@pytest.mark.parametrize("end", ["zarr", "h5"])
def test_a_cube_that_is_saved_reads_every_frame_once(disk: Source, tmp_path: Path, end: str) -> None:
    _, cube, apart = both(disk)
    xs.save(cube, tmp_path / f"cube.{end}")
    assert once(disk)
    same(xs.open_result(tmp_path / f"cube.{end}")[list(apart.data_vars)], apart)


def test_the_plan_tells_the_pass_once(disk: Source) -> None:
    small, cube, _ = both(disk)
    assert xs.plan(cube).bytes_to_read == xs.plan(small).bytes_to_read == RAW.nbytes
    assert xs.plan(small, cube).bytes_to_read == RAW.nbytes
    assert len(xs.plan(cube)) == len(xs.plan(small, cube)) == len(xs.plan(small["spot_sum"].mean(), cube)) == 1
    assert "spot" in xs.plan(cube)[0].what
    assert xs.plan(cube, small).bytes_to_read == 2 * RAW.nbytes  # dask keeps the layer of the last graph
    dask.compute(cube, small)
    assert [disk.read[event] for event in range(N)] == [2] * N


def test_a_part_of_a_lazy_cube_costs_one_pass_and_no_more(disk: Source) -> None:
    _, cube, _ = both(disk)
    images = cube["jungfrau"]
    for part in (images.isel(delay=3), images.isel(segment=0, row=slice(0, 4)), images.mean(("segment", "row"))):
        for lazy in (part, dask.optimize(part)[0]):
            disk.read.clear()
            lazy.compute()
            assert once(disk)
    disk.read.clear()
    dask.compute(images.isel(delay=1), images.isel(delay=2), cube["jungfrau_std"])
    assert once(disk)


def test_workers_of_a_cluster_do_both(disk: Source) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.Client(**options):
        small, cube, apart = both(disk, "energies")
        assert xs.plan(cube).tasks == 4
        found, binned = dask.compute(small, cube)
        assert once(disk)
        same(binned, apart)
        same(found, small.compute())
