"""What a plan is made for: this process by its limits, or the workers of a cluster; and the plan, told and kept."""

import re
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Self

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.engine.machine import Machine, machine, threads_here
from xsmall.engine.team import Team, my_turn
from xsmall.errors import DataError, ParameterError, PlanError

distributed = pytest.importorskip("distributed")

TIMES = np.datetime64("2026-01-01", "ns") + np.arange(640)


def ask(*before: str) -> Machine:
    """The machine that another process sees after ``before``."""
    code = "; ".join((*before, "from xsmall.engine.machine import *", "print(machine())", "print(repr(machine()))"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return eval(out.splitlines()[1], {"Machine": Machine})


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_RSS"])
def test_limits_of_this_process_are_kept(kind: str) -> None:
    limit = 4 * 10**9
    if 0 <= resource.getrlimit(getattr(resource, kind))[1] < limit:
        pytest.skip("this process has less")
    found = ask("import resource", f"resource.setrlimit(resource.{kind}, ({limit}, {limit}))")
    assert found.limit == limit
    assert found.memory == found.free == limit // 2
    assert found.workers == 1


def test_cores_that_this_process_may_not_use_do_not_count() -> None:
    assert ask("import os", "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])").threads == 1


def test_what_the_user_says_of_memory_and_threads_goes() -> None:
    with dask.config.set(num_workers=7):
        assert machine(3e9) == Machine(3 * 10**9, 7, said=True, limit=machine().limit, free=machine().free)
    for wrong in (0, -1, True, "8GB", float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="memory is a number of bytes"):
            machine(wrong)


def test_threads_are_those_of_the_scheduler_that_runs_the_task() -> None:
    ask_threads = dask.delayed(threads_here, pure=False)
    assert threads_here() == 1
    for n in (1, 3):
        assert ask_threads().compute(scheduler="threads", num_workers=n) == n
    assert ask_threads().compute(scheduler="synchronous") == 1


def test_a_team_shares_items_in_their_order_and_raises_the_first_error() -> None:
    team = Team(3)
    seen: set[int] = set()

    def work(i: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.005)
        if i == 99:
            raise RuntimeError("ninety-nine")
        return i * i

    assert team.map(work, range(20)) == [i * i for i in range(20)]
    assert len(seen) == 3
    with pytest.raises(RuntimeError, match="ninety-nine"):
        team.map(work, [1, 99, 2, 3])
    team.end()


def test_one_task_has_its_turn_and_what_it_calls_does_not_wait_for_it() -> None:
    inside, most = [0], [0]

    def task(i: int, *, nested: bool = True) -> int:
        with my_turn() as team:
            inside[0] += nested
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            if nested:
                again = [dask.delayed(task)(n, nested=False) for n in range(3)]
                assert dask.compute(*again, scheduler="threads") == (0, 1, 2)
                assert team.map(lambda n: task(n, nested=False), range(4)) == [0, 1, 2, 3]
            inside[0] -= nested
        return i

    assert dask.compute(*map(dask.delayed(task), range(4)), scheduler="threads", num_workers=3) == (0, 1, 2, 3)
    assert most[0] == 1


def frames(lazy: bool = True) -> xr.DataArray:
    values = np.arange(640 * 2 * 64 * 64, dtype="u4").reshape(640, 2, 64, 64)
    data = da.from_array(values, chunks=(20, 1, 64, 64)) if lazy else values
    return xr.DataArray(data, dims=("event", "segment", "row", "column"), coords={"event": TIMES}, name="camera")


def test_a_plan_tells_what_is_read_and_is_kept_by_what_is_made_of_it(computing_is_forbidden) -> None:
    with computing_is_forbidden():
        mean = frames().sd.average(memory=1e9)
        small = frames().sd.roi(xs.Box(segment=0))
        told = xs.plan(mean)
        assert len(told) == 1
        assert told.bytes_to_read == frames().nbytes
        assert told[0].result_bytes == 28 * 2 * 64 * 64
        assert 0 < told.peak_bytes <= 1e9
        for word in ("640 events in 1 bins of 2 x 64 x 64", "to read", "tasks", "peak per process", "planned for"):
            assert word in repr(told)
        assert (mean * 2 + 1).sd.plan() == told
        both = xs.plan(mean, small, mean["camera"])
        assert len(both) == 2
        assert both.bytes_to_read == 2 * frames().nbytes
        assert both.tasks == both[0].tasks + both[1].tasks
        assert "roi of 640 events" in repr(both)
    assert "nothing to read" in repr(xs.plan(frames(lazy=False).sd.average()))
    with pytest.raises(DataError, match="only results have a plan"):
        xs.plan("run42.h5")


def test_tiles_that_are_read_again_count_in_the_plan() -> None:
    data = frames().chunk(segment=2)
    whole = data.sd.average(memory=1e9)
    with pytest.raises(PlanError) as refused:
        data.sd.average(memory=1e6)
    tiled = data.sd.average(memory=int(re.search(r"memory=(\d+)", str(refused.value))[1]))
    assert xs.plan(whole).bytes_to_read == data.nbytes
    assert xs.plan(tiled).bytes_to_read > data.nbytes
    assert xs.plan(tiled).peak_bytes < xs.plan(whole).peak_bytes
    xr.testing.assert_identical(tiled.compute(), whole.compute())


def cluster(limit: str, threads: int = 1, n: int = 1):
    return distributed.LocalCluster(
        n_workers=n, threads_per_worker=threads, memory_limit=limit, dashboard_address=":0", processes=True
    )


def made_anywhere(n: int, rows: int) -> da.Array:
    def make(block_id=None) -> np.ndarray:
        return np.full((16, 1, rows, 1024), block_id[0], "f4")

    return da.map_blocks(
        make, chunks=((16,) * (n // 16), (1,), (rows,), (1024,)), dtype="f4", meta=np.empty((0,) * 4, "f4")
    )


def fly_scan(n: int, n_bins: int) -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset({"x": ("event", rng.integers(0, n_bins, n) + 0.5)}, coords={"event": TIMES[0] + np.arange(n)})


def images(n: int, rows: int) -> xr.DataArray:
    times = {"event": TIMES[0] + np.arange(n)}
    return xr.DataArray(made_anywhere(n, rows), dims=("event", "segment", "row", "column"), coords=times)


class Watch:
    """Records the most memory that a worker used above what it had at first."""

    def __init__(self, client) -> None:
        self.client, self.peak, self.stop = client, 0, threading.Event()
        self.base = max(self.now())
        self.thread = threading.Thread(target=self.look)

    def now(self) -> list[int]:
        def used(dask_worker) -> int:
            return dask_worker.monitor.proc.memory_info().rss

        return list(self.client.run(used).values())

    def look(self) -> None:
        while not self.stop.wait(0.02):
            self.peak = max(self.peak, *self.now())

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("n", [512, 1024])  # two lanes, and four
def test_a_cube_is_planned_for_small_workers_and_stays_within_the_plan(n: int) -> None:
    n_bins, rows = 100, 128
    small, bins = fly_scan(n, n_bins), {"x": xs.bins(0, n_bins, n=n_bins)}
    local = small.sd.cube(bins, images={"j": images(n, rows)})[["j"]].compute()
    with cluster("900MB") as made, distributed.Client(made) as client:
        client.run(lambda: __import__("xsmall.cube.tasks").cube.tasks and None)
        lazy = small.sd.cube(bins, images={"j": images(n, rows)})[["j"]]
        plan = xs.plan(lazy)
        assert "1 workers with 1 threads and 858.31 MiB" in plan[0].machine
        assert plan.peak_bytes < 900e6
        assert plan.tasks == 2  # tiles
        warm = small.isel(event=slice(64)).sd.cube(bins, images={"j": images(64, rows)})[["j"]]
        warm.compute()  # what is compiled and imported is no memory of the cube
        with Watch(client) as watch:
            found = lazy.compute()
        assert watch.peak - watch.base < 1.2 * plan.peak_bytes
        assert "KilledWorker" not in str(client.get_worker_logs())
    xr.testing.assert_identical(found, local)


@pytest.mark.usefixtures("forked_workers")
def test_workers_that_take_groups_of_lanes_stay_within_the_plan() -> None:
    n, n_bins, rows = 8192, 100, 32
    small, bins = fly_scan(n, n_bins), {"x": xs.bins(0, n_bins, n=n_bins)}
    local = small.sd.cube(bins, images={"j": images(n, rows)})[["j"]].compute()
    with cluster("1200MB", n=2) as made, distributed.Client(made) as client:
        client.run(lambda: __import__("xsmall.cube.tasks").cube.tasks and None)
        lazy = small.sd.cube(bins, images={"j": images(n, rows)})[["j"]]
        plan = xs.plan(lazy)
        assert plan.tasks == 2
        small.isel(event=slice(64)).sd.cube(bins, images={"j": images(64, rows)})[["j"]].compute()
        with Watch(client) as watch:
            found = lazy.compute()
        assert watch.peak - watch.base < 1.2 * plan.peak_bytes
    xr.testing.assert_identical(found, local)


@pytest.mark.parametrize(
    ("n", "n_bins", "rows", "memory"), [(1024, 50, 64, 2e9), (1024, 50, 64, 1.4e8), (256, 4, 128, 2e9)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_this_process_stays_within_the_plan(n: int, n_bins: int, rows: int, memory: float, threads: int) -> None:
    def made(n: int) -> list[xr.Dataset]:
        frames = images(n, rows)
        cube = fly_scan(n, n_bins).sd.cube({"x": xs.bins(0, n_bins, n=n_bins)}, images={"j": frames}, memory=memory)
        return [cube[["j", "j_std", "j_stderr", "j_count"]], frames.sd.reduce({"rows": xs.projection("row")})]

    with dask.config.set(scheduler="threads", num_workers=threads):
        dask.compute(*made(64))  # what is compiled and imported is no memory of theirs
        for result in made(n):
            tracemalloc.start()
            found = result.compute()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 1.2 * xs.plan(result).peak_bytes
            assert found.sizes


@pytest.mark.parametrize("n", [1024, 3072])  # lanes, and groups of them
def test_this_process_stays_within_the_plan_while_it_keeps_lanes(n: int, tmp_path: Path) -> None:
    frames, bins = images(n, 64), {"x": xs.bins(0, 50, n=50)}
    with dask.config.set(scheduler="threads", num_workers=1):
        cube = fly_scan(n, 50).sd.cube(bins, images={"j": frames}, store=xs.lane_store(tmp_path / "parts"))[["j"]]
        frames.isel(event=slice(64)).sd.average().compute()  # what is compiled and imported is no memory of it
        tracemalloc.start()
        cube.compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 0.8 * xs.plan(cube).peak_bytes < peak < xs.plan(cube).peak_bytes


@pytest.mark.usefixtures("forked_workers")
def test_a_cube_planned_elsewhere_is_refused_by_a_worker_that_would_be_killed_and_the_advice_works() -> None:
    n, n_bins, rows = 256, 60, 256
    small, bins = fly_scan(n, n_bins), {"x": xs.bins(0, n_bins, n=n_bins)}
    before = small.sd.cube(bins, images={"j": images(n, rows)}, memory=20e9)[["j"]]
    with cluster("700MB") as made, distributed.Client(made):
        with pytest.raises(PlanError, match="build the cube again while the client"):
            before.compute()
        again = small.sd.cube(bins, images={"j": images(n, rows)})[["j"]]
        assert len(again["j"].data.numblocks) == 4
        assert float(again["j"].mean().compute()) > 0


@pytest.mark.usefixtures("forked_workers")
def test_workers_that_are_too_small_are_refused_at_once_with_the_limit_that_is_enough() -> None:
    n, n_bins, rows = 256, 400, 512
    small, bins = fly_scan(n, n_bins), {"x": xs.bins(0, n_bins, n=n_bins)}
    with cluster("450MB") as made, distributed.Client(made), pytest.raises(PlanError, match="memory_limit=") as refused:
        small.sd.cube(bins, images={"j": images(n, rows)})
    assert "1 workers with 1 threads" in str(refused.value)
