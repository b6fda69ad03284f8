"""Time and memory against events and pixels: ``python -m benchmarks.growth`` writes the table of the docs.

Two things are measured, each point in a process of its own:

* planning: from lazy frames, or from a run on disk and a recipe, to tasks on the scheduler of a cluster that has no
  workers yet. Seconds, bytes sent, tasks, and the most memory of the process that plans, with all that it holds.
* computing: the memory of a pass over frames on one thread, above what the process held before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr

import xsmall as xs
from benchmarks.csv_table import DOCS, write_table
from xsmall.io.descriptions import seal
from xsmall.io.stores.runs import write_run

__all__ = ["main", "points"]

COLUMNS = ("doing", "what", "events", "pixels", "seconds", "memory_mb", "sent_mb", "tasks")
SEGMENTS, WIDTH = 8, 1024
WHAT = ("five records", "cube")
PRODUCTION = "production"
PLANNED = [(n, rows) for rows in (64, 512) for n in (10_000, 100_000, 1_000_000)]
COMPUTED = [(128, 64), (256, 64), (512, 64), (1024, 64), (128, 128), (128, 256), (128, 512)]
"""Events, and rows of each of the segments."""
BINS_PLANNED, BINS_COMPUTED = 50, 10

Found = dict[str, float]


class FromNowhere:
    """Frames that are made when they are read, so that no file and no other frames count."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint16), len(shape)
        self.chunks = (1, *shape[1:])

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        frame = np.random.default_rng(0).integers(0, 200, (1, *self.shape[1:]), np.uint16)
        return np.repeat(frame, len(range(self.shape[0])[key[0]]), axis=0)


def asked(what: str, raw: xr.DataArray, like: Any, constants: xr.Dataset, n_bins: int) -> xr.Dataset:
    """Five records, or a cube, of raw frames that are placed and calibrated."""
    det = raw.sd.assign_geometry(like.geometry).sd.assign_beam(photon_energy=9500, distance=like.beam.distance)
    cal = det.sd.calibrate(constants)
    if what == WHAT[1]:
        n = raw.sizes["event"]
        small = xr.Dataset({"delay": ("event", np.arange(n) % n_bins + 0.5)}, {"event": raw["event"]})
        return small.sd.cube({"delay": xs.edges(np.arange(n_bins + 1.0))}, images={"j": cal}, memory=16e9)
    return cal.sd.reduce({
        "azint": xs.azint(bins=500), "roi": xs.roi(xs.Box(segment=0)), "projection": xs.projection("row"),
        "droplet": xs.droplet(4.0), "strip": xs.roi(xs.Box(segment=0, row=(0, 8))),
    })  # fmt: skip


def recipe_of(path: Path, constants: Path, detector: str = "jungfrau") -> dict[str, Any]:
    """A recipe of five reductions, without an average."""
    reductions = {
        "rows": {"kind": "projection", "onto": "row"},
        "columns": {"kind": "projection", "onto": "column"},
        "spot": {"kind": "roi", "places": {"segment": 0, "row": [2, 12], "column": [8, 24]}},
        "pixels": {"kind": "histogram", "of": 100, "range": ["-5 keV", "30 keV"]},
        "drops": {"kind": "droplet", "threshold": "4 keV"},
    }
    table = {"constants": str(constants), "average": False, "reductions": reductions}
    return {"source": str(path), "detectors": {detector: table}}


def memory(of: str) -> float:
    """Megabytes of this process: ``VmRSS`` now, ``VmHWM`` the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of)) * 1024 / 1e6


def unstored_run(folder: Path, events: int, rows: int, segments: int = SEGMENTS) -> tuple[Path, Path]:
    """A run of many events, of whose frames the first chunk alone was stored, and its constants."""
    path, constants = (folder / f"{what}{events}x{rows}.zarr" for what in ("long", "constants"))
    if path.exists():
        return path, constants
    few = xs.simulate(16, shape=(segments, rows, WIDTH), seed=1)
    xs.save(few.constants, constants)
    write_run(few.run, path, chunk_events=16)
    labels = few.run["jungfrau"]["event"].values[0].astype("i8") + np.arange(events) * 8_333_333
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, array in root.members(max_depth=None):
        dims = array.metadata.dimension_names if isinstance(array, zarr.Array) else ()
        if not isinstance(array, zarr.Array) or "event" not in (dims or ()):
            continue
        if array.ndim > 2:
            array.resize((events, *array.shape[1:]))
            continue
        values = labels if array.basename == "event" else np.resize(array[...], (events, *array.shape[1:]))
        root.create_array(
            name, data=values.astype(array.dtype), chunks=(65536, *array.shape[1:]), dimension_names=dims,
            attributes=dict(array.attrs), overwrite=True,
        )  # fmt: skip
    for group in (*root.group_keys(), ""):  # each group has copies of the descriptions below it
        zarr.consolidate_metadata(path / group)
    seal(path)
    return path, constants


def plan(what: str, events: int, rows: int, address: str, constants: str) -> Found:
    """Bring the tasks of a run to the scheduler."""
    from distributed import Client
    from distributed.protocol import dumps

    begin = production(Path(constants).parent, events, rows) if what == PRODUCTION else None
    if begin is None:
        sim, opened = xs.simulate(events, shape=(SEGMENTS, rows, WIDTH)), xs.open_constants(constants)
        raw = sim.run["jungfrau/raw"]
    with Client(address) as client:
        sent, send = [0], client._send_to_scheduler

        def counted(message: dict[str, Any]) -> None:
            if message.get("op") == "update-graph":
                sent[0] += sum(map(len, dumps(message)))
            send(message)

        client._send_to_scheduler = counted
        start = time.perf_counter()
        held = begin(client) if begin else [client.persist(asked(what, raw, sim, opened, BINS_PLANNED))]
        while client.run_on_scheduler(_n_tasks) < len(held):
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        tasks = client.run_on_scheduler(_n_tasks)
        del held
    return {"seconds": seconds, "memory_mb": memory("VmHWM"), "sent_mb": sent[0] / 1e6, "tasks": tasks}


def production(folder: Path, events: int, rows: int) -> Callable[[Any], list[Any]]:
    """What opens a run of a recipe and hands its blocks to a scheduler."""
    from xsmall.run.job import RunJob
    from xsmall.run.opened import plan_run
    from xsmall.run.pool import Pool
    from xsmall.run.recipe import open_recipe

    recipe = open_recipe(recipe_of(*unstored_run(folder, events, rows)))

    def begin(client: Any) -> list[Any]:
        job = RunJob(recipe, 1, folder, Pool(client), lambda _: None, resume=False, overwrite=True, join=False)
        job.store.clear()  # as `overwrite` does
        plan = plan_run(recipe, 1)
        job._begin(plan)
        return [job.pool.submit(task) for task in job._tasks(plan)]

    return begin


def _n_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def from_nowhere(events: int, rows: int) -> tuple[xr.DataArray, Any, xr.Dataset]:
    """Raw frames that are made when they are read; what they are like, and its constants."""
    like = xs.simulate(16, shape=(SEGMENTS, rows, WIDTH), seed=1)
    few = like.run["jungfrau/raw"]
    frames = da.from_array(FromNowhere((events, *few.shape[1:])), chunks=(4, *few.shape[1:]))
    times = np.datetime64("2026-01-01", "ns") + np.arange(events)
    return xr.DataArray(frames, {"event": times}, few.dims, "raw", few.attrs), like, like.constants


def compute(what: str, events: int, rows: int) -> Found:
    """Compute a pass over frames from nowhere."""
    frames = from_nowhere(events, rows)
    few = from_nowhere(16, rows)
    with dask.config.set(scheduler="threads", num_workers=1):
        asked(what, *few, BINS_COMPUTED).compute()  # what is compiled and imported is no memory of the pass
        made = asked(what, *frames, BINS_COMPUTED)
        before, start = memory("VmRSS"), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")  # the most from here on
        made.compute()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "memory_mb": memory("VmHWM") - before, "sent_mb": 0.0, "tasks": 0}


def apart(call: str, *arguments: object) -> Found:
    """Measure in a process of its own."""
    code = f"import json; from benchmarks import growth; print(json.dumps(growth.{call}(*{arguments!r})))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def planned_once(what: str, events: int, rows: int, constants: str) -> Found:
    """Measure planning with a scheduler that has nothing else to do."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster:
        return apart("plan", what, events, rows, cluster.scheduler_address, constants)


def points(planned: list[tuple[int, int]], computed: list[tuple[int, int]]) -> Iterator[dict[str, object]]:
    """Give the rows of the table, as they come."""
    folder = tempfile.TemporaryDirectory()
    constants = {rows: f"{folder.name}/{rows}.zarr" for _, rows in planned}
    for rows, path in constants.items():
        xs.save(xs.simulate(1, shape=(SEGMENTS, rows, WIDTH)).constants, path)
    for what in (*WHAT, PRODUCTION):
        for n, rows in planned:
            if what == PRODUCTION:
                unstored_run(Path(folder.name), n, rows)
            found = min(
                (planned_once(what, n, rows, constants[rows]) for _ in range(2)), key=lambda one: one["seconds"]
            )
            yield {"doing": "plan", "what": what, "events": n, "pixels": SEGMENTS * rows * WIDTH, **found}
        for n, rows in computed if what in WHAT else []:
            found = apart("compute", what, n, rows)
            yield {"doing": "compute", "what": what, "events": n, "pixels": SEGMENTS * rows * WIDTH, **found}


def main() -> None:
    """Write the table."""

    def rows(quick: bool) -> Iterator[list[object]]:
        asked = ([(1000, 8)], [(32, 8)]) if quick else (PLANNED, COMPUTED)
        return ([point[column] for column in COLUMNS] for point in points(*asked))

    write_table(__doc__, DOCS / "growth.csv", COLUMNS, rows)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
