"""How a cube is cut into tasks on a cluster: one task for all lanes of few workers, and the same bits whoever works."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.cube import lanes, plan, tasks
from xsmall.engine.machine import Machine

N, N_BINS = 2048, 50
LANE, LONG_LANE = 128, 256  # of few and of many events in random order
BINS = {"scan": xs.bins(0, N_BINS, n=N_BINS)}
MORE = {"weights": "i0", "statistics": ["min", "max", "sum", "ratio"]}
Cluster = Callable[..., None]


def run_of(
    order: str, dtype: str = "f4", segments: int = 1, chunk: int = 16, n: int = N
) -> tuple[xr.Dataset, xr.DataArray]:
    rng = np.random.default_rng(5)
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)
    place = rng.integers(0, N_BINS, n) + 0.5
    scan = np.sort(place) if order == "scan" else place
    small = xr.Dataset({"scan": ("event", scan), "i0": ("event", rng.gamma(9, 1 / 9, n))}, {"event": times})
    values = rng.normal(900, 100, (n, segments, 3, 4)).astype(dtype)
    if dtype == "f4":
        values[rng.random(values.shape) < 0.02] = np.nan

    def read(block_info: Any = None) -> np.ndarray:
        (start, stop), (s, t), *_ = block_info[None]["array-location"]
        return np.array(values[start:stop, s:t])

    chunks = da.core.normalize_chunks((chunk, 1, 3, 4), values.shape)
    lazy = da.map_blocks(read, chunks=chunks, dtype=dtype, meta=np.empty((0,) * 4, dtype), name=f"{order}-{chunk}-{n}")
    return small, xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": times}, name="j")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Say how many workers there are, and what memory each has."""

    def say(n: int, memory: float = 1e9) -> None:
        who = Machine(int(memory), 1, n, cluster=True, limit=int(memory), free=int(memory))
        monkeypatch.setattr(tasks, "machine", lambda memory: who)

    return say


def made(order: str = "random", options: dict[str, Any] | None = None, **how: Any) -> xr.Dataset:
    small, images = run_of(order, **how)
    return small.sd.cube(BINS, images={"j": images}, **(options or {}))


@pytest.mark.parametrize(
    ("order", "by_workers"),
    [("random", {1: 1, 2: 2, 4: 2, 8: 16, 16: 16}), ("scan", {1: 16, 2: 16, 3: 16, 16: 16})],
)
def test_few_workers_do_few_tasks_where_each_lane_meets_all_bins(
    workers: Cluster, order: str, by_workers: dict[int, int]
) -> None:
    for n, expected in by_workers.items():
        workers(n)
        assert xs.plan(made(order)).tasks == expected, n


def test_each_of_some_workers_takes_groups_of_lanes_of_many_events(workers: Cluster) -> None:
    for n, expected in ((1, 1), (2, 4), (3, 4), (4, 4), (8, 4), (16, 32)):
        workers(n)
        assert xs.plan(made(n=32 * LONG_LANE)).tasks == expected, n
        assert xs.plan(made("scan", n=32 * LONG_LANE)).tasks == 64, n
    workers(2)
    assert xs.plan(made(n=16 * LONG_LANE)).tasks == 2
    assert xs.plan(made(n=20 * LONG_LANE)).tasks == 3  # the last group is shorter
    small, images = run_of("random", n=32 * LONG_LANE)
    with_reduction = small.merge(images.sd.reduce({"lines": xs.projection("row")}).reset_coords(drop=True))
    for n, expected in ((1, 1), (2, 4), (3, 32)):  # a group more than workers is one that the others wait for
        workers(n)
        assert xs.plan(with_reduction.sd.cube(BINS, images={"j": images})).tasks == expected, n


@pytest.mark.parametrize("options", [{}, MORE])
@pytest.mark.parametrize("n", [17 * LONG_LANE, 32 * LONG_LANE])
def test_groups_of_lanes_and_lanes_are_the_same_bits(workers: Cluster, options: dict[str, Any], n: int) -> None:
    truth = made(n=n, options=options).compute()
    seen = set()
    for who in (1, 2, 3, 16):
        workers(who)
        found = made(n=n, options=options)
        seen.add(xs.plan(found).tasks)
        xr.testing.assert_identical(found.compute(), truth)
    assert seen == {1, -(-n // (8 * LONG_LANE)), n // LONG_LANE}


def test_groups_that_some_workers_kept_are_taken_by_others(workers: Cluster, tmp_path: Path, filled: list[int]) -> None:
    how: dict[str, Any] = {"n": 20 * LONG_LANE, "options": {"store": xs.lane_store(tmp_path / "parts")}}
    truth = made(n=20 * LONG_LANE).compute()
    filled.clear()
    for n, n_tasks in ((2, 3), (16, 3), (1, 1), (3, 3)):
        workers(n)
        cube = made(**how)
        assert xs.plan(cube).tasks == n_tasks
        xr.testing.assert_identical(cube.compute(), truth)
        assert len(filled) == 20
    next((tmp_path / "parts").rglob("lanes-8-15.npz")).unlink()
    workers(2)
    xr.testing.assert_identical(made(**how).compute(), truth)
    assert len(filled) == 28


def test_what_takes_more_work_than_its_moments_is_shared_by_fewer_workers(workers: Cluster) -> None:
    workers(8)
    assert xs.plan(made(dtype="u2")).tasks == 2  # half the bytes of frames to the same moments
    assert xs.plan(made(options=MORE)).tasks == 16  # more moments, but more to gather too
    workers(1)
    small, images = run_of("random")
    assert xs.plan(images.sd.average()).tasks == 16
    with_reduction = small.merge(images.sd.reduce({"lines": xs.projection("row")}).reset_coords(drop=True))
    found = []
    for n, expected in ((1, 1), (3, 16)):  # reductions of the same frames are work that three share
        workers(n)
        cube = with_reduction.sd.cube(BINS, images={"j": images})
        assert len(xs.plan(cube)) == 1
        assert xs.plan(cube).tasks == expected
        found.append(cube.compute())
    xr.testing.assert_identical(*found)


def test_tiles_are_done_at_once_by_as_many_workers(workers: Cluster) -> None:
    for n, expected in ((1, 4), (3, 4), (4, 4), (8, 8), (16, 8), (64, 64)):
        workers(n)
        assert xs.plan(made(segments=4)).tasks == expected, n
    workers(4)
    assert xs.plan(made("scan", segments=4)).tasks == 64


def test_frames_that_workers_hold_are_not_brought_to_one_of_them(workers: Cluster) -> None:
    small, images = run_of("random")
    workers(1)
    assert xs.plan(small.sd.cube(BINS, images={"j": images.persist()})).tasks == 16


def job(**more: Any) -> plan.CubeJob:
    said = {"raw_bytes": 4, "float_bytes": 0, "events_read": 1, "batch": 256, "n_lanes": 64, "met": 50, "lane": 512}
    return plan.CubeJob(30_000, 50, (1, 512, 1024), segments_read=1, **said | more)


def test_one_task_that_does_not_fit_leaves_several() -> None:
    asked = job()
    one, several = (
        replace(asked, task_lanes=n).working_bytes(1, 512, Machine(0, 1, 1, cluster=True)) for n in (asked.n_lanes, 1)
    )
    assert several < one < 1.5 * several
    for memory, is_one in ((one, True), (one - 1, False), (several, False)):
        who = Machine(memory, 1, 1, cluster=True)
        found = plan.in_few_tasks(asked, who, {1: 2.0, 64: 0.1})
        assert (found.n_units == 1) == is_one
        assert len(plan.tiles(found, who)) == 1


def test_one_task_may_fit_where_several_do_not() -> None:
    asked = job(n_lanes=8)
    one, several = (
        replace(asked, task_lanes=n).working_bytes(1, 512, Machine(0, 1, 1, cluster=True)) for n in (asked.n_lanes, 1)
    )
    assert one < several
    who = Machine(one, 1, 1, cluster=True)
    assert len(plan.tiles(asked, who)) > len(plan.tiles(plan.in_few_tasks(asked, who, {1: 2.0, 8: 0.1}), who)) == 1


def test_memory_of_tasks_of_several_lanes_counts_what_waits_to_be_merged() -> None:
    who = Machine(0, 1, 2, cluster=True)
    whole = 20 * 50 * 512 * 1024
    by_lanes = [replace(job(met=10), task_lanes=n).working_bytes(1, 512, who) for n in (1, 2, 8)]
    assert by_lanes == [3 * whole + whole // 5, 3 * whole + 2 * whole // 5, 4 * whole]


def test_a_plan_for_one_task_on_a_worker_is_that_of_a_process(
    workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(1)
    on_worker = xs.plan(made())[0]
    here = Machine(10**9, 1, 1, limit=10**9, free=10**9)
    monkeypatch.setattr(tasks, "machine", lambda memory: here)
    alone = xs.plan(made())[0]
    assert on_worker.tasks == alone.tasks == 1
    assert on_worker.peak_bytes == alone.peak_bytes


@pytest.mark.parametrize("options", [{}, MORE])
@pytest.mark.parametrize(
    ("order", "chunk", "expected"), [("random", 16, {1, 2, 16}), ("scan", 16, {16}), ("random", 700, {2})]
)
def test_any_number_of_workers_makes_the_same_bits(
    workers: Cluster, order: str, chunk: int, expected: set[int], options: dict[str, Any]
) -> None:
    truth = made(order, options, chunk=chunk).compute()
    seen = set()
    for n in (1, 2, 3, 8):
        workers(n)
        found = made(order, options, chunk=chunk)
        seen.add(xs.plan(found).tasks)
        xr.testing.assert_identical(found.compute(), truth)
    assert seen == expected


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each lane that is filled from frames, its first event, counted from that of its task."""
    seen: list[int] = []
    fill = lanes._fill_lane
    monkeypatch.setattr(lanes, "_fill_lane", lambda *args: (seen.append(args[2].start), fill(*args)))
    return seen


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("n_lanes", [8, 9, 12])
def test_lanes_that_one_task_kept_are_taken_by_many_and_the_other_way_round(
    workers: Cluster, n_lanes: int, segments: int, tmp_path: Path, filled: list[int]
) -> None:
    how: dict[str, Any] = {"n": n_lanes * LANE, "segments": segments}
    truth = made(**how).compute()
    filled.clear()
    options = {"store": xs.lane_store(tmp_path / "parts")}
    of_many = {8: 8, 9: 2, 12: 2}[n_lanes]  # a group that is kept is one task
    for n, n_tasks in ((1, 1), (16, of_many), (1, 1)):
        workers(n)
        cube = made(options=options, **how)
        assert xs.plan(cube).tasks == n_tasks * segments
        xr.testing.assert_identical(cube.compute(), truth)
        assert len(filled) == n_lanes * segments
    xs.lane_store(tmp_path / "parts").clear()
    for n in (16, 1, 16):
        workers(n)
        xr.testing.assert_identical(made(options=options, **how).compute(), truth)
        assert len(filled) == 2 * n_lanes * segments


def test_what_is_missing_of_kept_lanes_is_filled_by_any_number_of_workers(
    workers: Cluster, tmp_path: Path, filled: list[int]
) -> None:
    how: dict[str, Any] = {"n": 20 * LONG_LANE, "options": {"store": xs.lane_store(tmp_path / "parts")}}
    truth = made(n=20 * LONG_LANE).compute()
    workers(1)
    made(**how).compute()
    for n, lost, n_tasks, n_filled in ((16, "lanes-8-15", 10, 8), (1, "lane-11", 1, 1), (16, "lanes-0-7", 10, 8)):
        next((tmp_path / "parts").rglob(f"{lost}.npz")).unlink()
        filled.clear()
        workers(n)
        cube = made(**how)
        assert xs.plan(cube).tasks == n_tasks
        xr.testing.assert_identical(cube.compute(), truth)
        assert len(filled) == n_filled
    next((tmp_path / "parts").rglob("lanes-8-15.npz")).write_bytes(b"PK")  # found damaged when the task is run
    filled.clear()
    cube = made(**how)
    assert xs.plan(cube).tasks == 10
    xr.testing.assert_identical(cube.compute(), truth)
    assert filled == [i * LONG_LANE for i in range(8)]


def test_workers_of_a_cluster_do_what_is_planned() -> None:
    distributed = pytest.importorskip("distributed")
    truth = made().compute()
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    for n, expected in ((1, 1), (2, 2), (8, 16)):
        with distributed.Client(n_workers=n, **options):
            found = made()
            assert xs.plan(found).tasks == expected
            xr.testing.assert_identical(found.compute(), truth)
