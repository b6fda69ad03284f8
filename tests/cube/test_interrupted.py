"""Killed between any two things that a cube does to its folder, or a worker in the middle: the same bits in the end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.cube import lanes
from xsmall.errors import DataError, ParameterError

N = 1400  # eleven lanes: a group of eight, and three
WAIT = 240
"""Seconds after which a child that neither ends nor dies is a failure."""

KILLS = """
import json, os, signal, sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr
import xsmall as xs

base = sys.argv[1]
n = 1400  # eleven lanes: a group of eight, and three
times = np.datetime64("2026-01-01", "ns") + np.arange(n)
small = xr.Dataset({"on": ("event", np.arange(n) % 3 == 0)}, {"event": times})
made = np.random.default_rng(1).normal(5, 1, (n, 1, 8, 12)).astype(np.float32)
whole = xr.DataArray(made, dims=("event", "segment", "row", "column"), coords={"event": times})
lazy = whole.copy(data=da.from_array(made, (64, 1, 8, 12), name="frames"))
dask.config.set(scheduler="synchronous", num_workers=1)
bins = {"on": xs.categories()}
truth = small.sd.cube(bins, images={"j": whole})  # imports and compiles all that the children need

def same(found):
    return all(found[name].values.tobytes() == truth[name].values.tobytes() for name in truth.data_vars)

def child(folder, last):
    '''A process of its own, which dies at the last of its steps: each thing that it does to the folder is one.'''
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    steps = [0]
    def look(event, args):
        if event in ("open", "os.rename", "os.mkdir", "os.remove") and args and str(args[0]).startswith(folder):
            steps[0] += 1
            if steps[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(look)
    try:
        found = small.sd.cube(bins, images={"j": lazy}, store=xs.lane_store(folder)).compute()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    if not last:
        Path(f"{base}/steps").write_text(str(steps[0]))
    os._exit(0 if same(found) else 2)

assert child(f"{base}/whole", 0) == 0
steps = int(Path(f"{base}/steps").read_text())
when = [*range(1, 13), *range(13, steps + 1, 5)]
found = [[last, child(f"{base}/{last}", last), child(f"{base}/{last}", 0)] for last in when]
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_kill_between_any_two_steps_costs_nothing_but_time(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path)],
        check=True, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 20
    assert [last for last, died, _ in found if died != -signal.SIGKILL] == []
    assert [last for last, _, again in found if again != 0] == [], done.stderr


def frames(n: int, marker: str = "", at: int = -1) -> tuple[xr.Dataset, xr.DataArray]:
    """Events in two classes, and their frames; who makes those of event ``at`` dies, once."""
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)

    def made(block_info: Any = None) -> np.ndarray:
        start, stop = block_info[None]["array-location"][0]
        if start <= at < stop and not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write("dead")
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.default_rng(start).normal(5, 1, (stop - start, 1, 8, 12)).astype(np.float32)

    sizes = tuple(min(64, n - i) for i in range(0, n, 64))
    lazy = da.map_blocks(made, chunks=(sizes, (1,), (8,), (12,)), dtype=np.float32, meta=np.empty((0,) * 4, np.float32))
    small = xr.Dataset({"on": ("event", np.arange(n) % 3 == 0)}, {"event": times})
    return small, xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": times})


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_dies_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    bins = {"on": xs.categories()}
    small, whole = frames(N)
    truth = small.sd.cube(bins, images={"j": whole}).compute()
    marker = str(tmp_path / "dead")
    small, deadly = frames(N, marker, at=900)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": "1GB"}
    with distributed.LocalCluster(**options) as made, distributed.Client(made):
        found = small.sd.cube(bins, images={"j": deadly}, store=xs.lane_store(tmp_path / "parts")).compute()
    assert os.path.exists(marker)
    for name in truth.data_vars:
        assert found[name].values.tobytes() == truth[name].values.tobytes(), name
    assert int(found["count"].sum()) == N


DRIVER = """
import os, signal, sys, threading, time
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
import xsmall as xs

def cube(folder, last=None):
    n, times = 1400, np.datetime64("2026-01-01", "ns") + np.arange(1400)
    def made(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        if start >= 900 and last:  # the worker waits for its driver to die
            Path(last).touch()
            time.sleep(60)
        return np.random.default_rng(start).normal(5, 1, (stop - start, 1, 8, 12)).astype(np.float32)
    sizes = (*[64] * 21, 56)
    lazy = da.map_blocks(made, chunks=(sizes, (1,), (8,), (12,)), dtype=np.float32,
                         meta=np.empty((0,) * 4, np.float32), name="frames")
    small = xr.Dataset({"on": ("event", np.arange(n) % 3 == 0)}, {"event": times})
    image = xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": times})
    return small.sd.cube({"on": xs.categories()}, images={"j": image}, store=folder and xs.lane_store(folder))

def die(folder, last):
    while not os.path.exists(last) or not list(Path(folder).rglob("lane-*.npz")):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    from distributed import Client, LocalCluster
    folder, last = sys.argv[1:]
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": "1GB"}
    with LocalCluster(**options) as made, Client(made):
        threading.Thread(target=die, args=(folder, last), daemon=True).start()
        cube(folder, last).compute()
"""


def test_a_driver_that_dies_with_its_cluster_is_taken_up_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "driver.py").write_text(DRIVER)
    folder = str(tmp_path / "parts")
    died = subprocess.run(
        [sys.executable, "-W", "ignore", str(tmp_path / "driver.py"), folder, str(tmp_path / "last")],
        check=False, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    scope: dict[str, Any] = {"__name__": "driver"}
    exec(DRIVER, scope)
    kept = len(list((tmp_path / "parts").rglob("lane-*.npz")))
    assert 0 < kept < 11
    filled: list[object] = []
    fill = lanes._fill_lane
    monkeypatch.setattr(lanes, "_fill_lane", lambda *args: (filled.append(args[2]), fill(*args))[1])
    found, truth = scope["cube"](folder).compute(), scope["cube"](None)
    assert len(filled) == 11 - kept
    for name, values in truth.compute().data_vars.items():
        assert found[name].values.tobytes() == values.values.tobytes(), name
    assert int(found["count"].sum()) == N


def test_a_store_of_something_else_is_left_alone(tmp_path: Path) -> None:
    small, whole = frames(200)
    bins = {"on": xs.categories()}
    cube = small.sd.cube(bins, images={"j": whole})
    xs.save(cube.compute(), tmp_path / "cube.zarr")
    (tmp_path / "file").write_text("all my work")
    before = sorted(p.name for p in (tmp_path / "cube.zarr").iterdir())
    for place in ("cube.zarr", "file"):
        with pytest.raises(DataError, match="no folder of parts of a cube"):
            small.sd.cube(bins, images={"j": whole}, store=xs.lane_store(tmp_path / place))
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        xs.lane_store(tmp_path / "cube.zarr").clear()
    assert sorted(p.name for p in (tmp_path / "cube.zarr").iterdir()) == before
    assert (tmp_path / "file").read_text() == "all my work"


@pytest.mark.parametrize("text", ["", '{"kind": "xsm', "[]", "3", "{}", "\x00\xff"])
def test_a_manifest_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    small, whole = frames(200)
    store = xs.lane_store(tmp_path / "parts")
    small.sd.cube({"on": xs.categories()}, images={"j": whole}, store=store)
    next((tmp_path / "parts").rglob("manifest.json")).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        small.sd.cube({"on": xs.categories()}, images={"j": whole}, store=store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "parts"}, r"store=xs\.lane_store\("),
        ({"weights": xr.DataArray([1.0])}, "by its name"),
        ({"coordinates": 3}, "coordinates are given by name"),
        ({"bins": None}, "bins by variable"),
        ({"bins": ["on"]}, "bins by variable"),
        ({"bins": {}}, "bins by variable"),
        ({"memory": "4GB"}, "memory is a number of bytes"),
    ],
)
def test_things_of_another_kind_are_named(options: dict[str, Any], message: str) -> None:
    small, whole = frames(200)
    with pytest.raises(ParameterError, match=message):
        small.sd.cube(**{"bins": {"on": xs.categories()}, "images": {"j": whole}, **options})


def test_images_of_another_time_are_refused() -> None:
    small, whole = frames(200)
    late = whole.assign_coords(event=whole["event"] + np.timedelta64(1, "D"))
    with pytest.raises(DataError, match="no event in common"):
        small.sd.cube({"on": xs.categories()}, images={"j": late})
