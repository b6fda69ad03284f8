"""A cube that is killed at any time goes on where it was, to the same bits; what is not the same cube is refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.cube import lanes
from xsmall.errors import ArgumentError, DataError, WriteError
from xsmall.io.stores.lanes import LaneStore

N = 1400  # eleven lanes of 128 events: a group of eight, and three

BINS = {"laser_on": xs.categories()}

MAKE = """
import sys, os, signal
import dask
import xsmall as xs
from xsmall.io.stores.lanes import LaneStore

def cube(run, store, memory=None):
    tree = xs.open_run(run)
    raw = tree["jungfrau/raw"]
    cal = raw.sd.calibrate(xs.open_constants(run + ".constants.h5"), variance=True, photon_energy=9500)
    return tree["events"].to_dataset().sd.cube(
        {"laser_on": xs.categories()}, images={"jungfrau": cal}, store=store, memory=memory)
"""

KILLED = (
    MAKE
    + """
import zarr

with dask.config.set(scheduler="synchronous", num_workers=1):  # imports and compiles what the children need
    sim = xs.simulate(20, shape=(2, 16, 24), seed=3)
    cal = sim.run["jungfrau/raw"].sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    images = {"jungfrau": cal.chunk(event=10)}
    sim.run["events"].to_dataset().sd.cube({"laser_on": xs.categories()}, images=images).compute()

def child(run, folder, puts, when):
    left = [int(puts)]
    whole = LaneStore._write if when == "while" else LaneStore.put

    def die(*args, **kwargs):
        left[0] -= 1
        if when == "after":
            whole(*args, **kwargs)
        if left[0] == 0:
            if when == "while":
                with open(str(args[1]) + ".half.part", "wb") as file:
                    file.write(b"PK")
            os.kill(os.getpid(), signal.SIGKILL)
        if when != "after":
            whole(*args, **kwargs)

    setattr(LaneStore, "_write" if when == "while" else "put", die)
    with dask.config.set(scheduler="threads", num_workers=2):
        xs.save(cube(run, xs.lane_store(folder)), f"{folder}.zarr")

for folder, puts, when in (case.split(":") for case in sys.argv[2:]):
    number = os.fork()
    if not number:
        try:
            child(sys.argv[1], folder, puts, when)
        finally:
            os._exit(3)  # it was to die before
    print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
"""
)

scope: dict[str, Any] = {}
exec(MAKE, scope)
cube: Callable[..., xr.Dataset] = scope["cube"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    sim = xs.simulate(N, shape=(2, 16, 24), seed=3)
    xs.save(sim.run, path)
    xs.save(sim.constants, f"{path}.constants.h5")
    return str(path)


@pytest.fixture(scope="module")
def truth(run: str) -> xr.Dataset:
    return cube(run, None).compute()


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lanes that are filled from frames."""
    seen: list[int] = []
    fill = lanes._fill_lane

    def noted(read: object, index: object, events: slice, *rest: Any) -> None:
        seen.append(events.start)
        fill(read, index, events, *rest)

    monkeypatch.setattr(lanes, "_fill_lane", noted)
    return seen


def parts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*.npz"))


CASES = [(1, "before"), (3, "after"), (5, "while"), (9, "before"), (9, "after"), (12, "after")]


@pytest.fixture(scope="module")
def killed(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of processes that were killed, one for each case; they are forked, so that nothing is imported twice."""
    base = tmp_path_factory.mktemp("killed")
    cases = [f"{base / f'{puts}-{when}' / 'parts'}:{puts}:{when}" for puts, when in CASES]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, run, *cases], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(CASES), done.stderr
    return base


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(("puts", "when"), CASES)
def test_after_a_kill_the_rest_is_done_and_the_bits_are_the_same(
    run: str, truth: xr.Dataset, killed: Path, puts: int, when: str, filled: list[int]
) -> None:
    tmp_path = killed / f"{puts}-{when}"
    kept = len(parts(tmp_path / "parts"))
    again = cube(run, xs.lane_store(tmp_path / "parts")).compute()
    xr.testing.assert_identical(again, truth)
    assert len(filled) < 11 or kept == 0
    xs.save(cube(run, xs.lane_store(tmp_path / "parts")), tmp_path / "parts.zarr")  # that died while it was made
    with xr.open_zarr(tmp_path / "parts.zarr", consolidated=False) as saved:
        xr.testing.assert_equal(saved.compute(), truth)
    filled.clear()
    xr.testing.assert_identical(cube(run, xs.lane_store(tmp_path / "parts")).compute(), truth)
    assert not filled
    assert parts(tmp_path / "parts") == ["lanes-0-7.npz", "lanes-8-10.npz"]


def test_who_asks_save_to_resume_is_told_what_does(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = xs.open_run(run)
    scope = {"xs": xs, "small": tree["events"].to_dataset(), "cal": tree["jungfrau/raw"], "bins": BINS, "path": "c.h5"}
    for call in (lambda: xs.save(xr.Dataset(), "c.h5", resume=True), lambda: scope["small"].sd.cube(BINS, resume=True)):
        with pytest.raises(ArgumentError, match="lane_store") as told:
            call()
    advice = str(told.value).partition("do this:")[2].partition(": after")[0]
    for line in advice.strip().split(", then "):
        exec(line, scope)
    assert (tmp_path / "c.h5").exists()
    assert parts(tmp_path / "parts") == ["lanes-0-7.npz", "lanes-8-10.npz"]


@pytest.mark.usefixtures("forked_workers")
def test_what_the_workers_of_a_cluster_kept_is_taken_by_whoever_goes_on(
    run: str, truth: xr.Dataset, tmp_path: Path, filled: list[int]
) -> None:
    distributed = pytest.importorskip("distributed")
    store = xs.lane_store(tmp_path / "parts")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": "1GB"}
    with distributed.LocalCluster(**options) as made, distributed.Client(made):
        xr.testing.assert_identical(cube(run, store).compute(), truth)
    assert parts(tmp_path / "parts") == ["lanes-0-7.npz", "lanes-8-10.npz"]
    next((tmp_path / "parts").rglob("lanes-8-10.npz")).unlink()
    filled.clear()
    xr.testing.assert_identical(cube(run, store).compute(), truth)
    assert filled == [8 * 128, 9 * 128, 10 * 128]


def test_a_damaged_part_is_made_again(run: str, truth: xr.Dataset, tmp_path: Path, filled: list[int]) -> None:
    store = xs.lane_store(tmp_path / "parts")
    cube(run, store).compute()
    one = next((tmp_path / "parts").rglob("lanes-0-7.npz"))
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)
    filled.clear()
    xr.testing.assert_identical(cube(run, store).compute(), truth)
    assert len(filled) == 8
    one.write_bytes(data[: len(data) // 3])
    xr.testing.assert_identical(cube(run, store).compute(), truth)


@pytest.mark.filterwarnings("ignore:raw words:xsmall.errors.GainBitsWarning")
def test_what_differs_is_named(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = xs.open_run(run)
    raw, events = tree["jungfrau/raw"], tree["events"].to_dataset()
    store = xs.lane_store(tmp_path / "parts")
    constants = xs.open_constants(f"{run}.constants.h5")
    cal = raw.sd.calibrate(constants)
    events.sd.cube(BINS, images={"j": cal}, store=store)
    other = constants.assign(pedestal=constants["pedestal"] + 1)
    for made, message in (
        (lambda: events.sd.cube({"delay": xs.bins(-2, 5, n=7)}, images={"j": cal}, store=store), "bins: .* -> .*delay"),
        (lambda: events.sd.cube(BINS, images={"j": raw.sd.calibrate(other)}, store=store), "calibration: "),
        (lambda: events.sd.cube(BINS, images={"j": raw}, store=store), "made by: "),
        (lambda: events.sd.cube(BINS, images={"j": cal.isel(row=slice(8))}, store=store), "frames: "),
        (lambda: events.isel(event=slice(99)).sd.cube(BINS, images={"j": cal}, store=store), "bins of events: "),
    ):  # fmt: skip
        with pytest.raises(DataError, match=rf"keeps parts of another cube\n.*{message}"):
            made()
    monkeypatch.setattr("xsmall.cube.cube.__version__", "0.0.1")
    with pytest.raises(DataError, match=r"xsmall: .* -> 0\.0\.1"):
        events.sd.cube(BINS, images={"j": cal}, store=store)
    store.clear()  # as the error says
    events.sd.cube(BINS, images={"j": cal}, store=store)


def test_a_folder_of_something_else_is_left_alone(run: str, tmp_path: Path) -> None:
    (tmp_path / "cube-jungfrau").mkdir()
    (tmp_path / "cube-jungfrau" / "thesis.tex").write_text("all my work")
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        cube(run, xs.lane_store(tmp_path))
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        xs.lane_store(tmp_path).clear()
    assert (tmp_path / "cube-jungfrau" / "thesis.tex").read_text() == "all my work"


def test_a_full_disk_is_told_and_what_is_finished_stays(
    run: str, truth: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, saved = xs.lane_store(tmp_path / "parts"), np.savez
    left = [4]

    def full(file: Any, **arrays: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            file.write(b"x" * 100)
            raise OSError(28, "No space left on device")
        saved(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr("xsmall.io.stores.lanes.np.savez", full)
        with pytest.raises(WriteError, match="No space left"):
            cube(run, store).compute()
    assert len(parts(tmp_path / "parts")) == 4
    assert not list((tmp_path / "parts").rglob("*.part"))
    xr.testing.assert_identical(cube(run, store).compute(), truth)


def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = LaneStore(str(tmp_path))
    arrays = {
        "bins": np.array([3, 5]),
        "n": np.arange(6, dtype=np.uint32).reshape(2, 3),
        "mean": np.full((2, 3), np.nan),
    }
    store.put("a/b", arrays)
    found = store.get("a/b")
    assert found is not None
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    store.drop(["a/b", "a/b"])
    assert store.get("a/b") is None
    assert os.listdir(tmp_path / "a") == []


class Stopped(Exception):
    """What stands for a kill inside of one process."""


@pytest.mark.parametrize("with_variance", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "i0"},
        {"statistics": ("min",)},
        {"weights": "i0", "statistics": ("ratio",)},
        {"weights": "i0", "statistics": ("min", "max", "sum", "ratio")},
    ],
)
def test_whatever_is_gathered_is_the_same_after_stops_anywhere(
    options: dict[str, Any], with_variance: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(3, 1, (N, 1, 3, 4)).astype(np.float32)
    values[rng.random(values.shape) < 0.02] = np.nan
    frames = xr.DataArray(values, dims=("event", "segment", "row", "column"), coords={"event": np.arange(N)}, name="jf")
    images: Any = xs.with_variance(frames, np.abs(frames) + 1) if with_variance else frames
    small = xr.Dataset(
        {"step": ("event", rng.integers(0, 3, N)), "i0": ("event", rng.normal(5, 1, N))}, {"event": np.arange(N)}
    )

    def make(**more: Any) -> xr.Dataset:
        return small.sd.cube({"step": xs.categories()}, images={"jf": images}, **options, **more).compute()

    expected = make()
    keep, left = LaneStore.put, 0

    def put(store: LaneStore, name: str, arrays: Any) -> None:
        nonlocal left
        if left == 0:
            raise Stopped
        left -= 1
        keep(store, name, arrays)

    monkeypatch.setattr(LaneStore, "put", put)
    stops = 0
    while True:
        left = 2
        try:
            found = make(store=xs.lane_store(tmp_path))
            break
        except Stopped:
            stops += 1
    assert stops >= 5
    xr.testing.assert_identical(found, expected)
