"""Production: event variables alone, the plan of a long run, a block with its writing; 1 to 64 workers by simulation.

``python -m benchmarks.production`` measures a block of 256 events and says how long a run of a million events takes on
1 to 64 workers: tasks of the real plan, each as long as the block that was measured, handed out one by one by a
scheduler that takes a millisecond for each, and the output written by the client at the end.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

import xsmall as xs
from benchmarks import Case
from xsmall.io.descriptions import seal
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.runs import write_run
from xsmall.run.block import Work, blocks_of
from xsmall.run.opened import plan_run
from xsmall.run.recipe import open_recipe

FOLDER = tempfile.TemporaryDirectory(prefix="xsmall-benchmark-")
SCHEDULER = 1e-3
"""Seconds of dask's scheduler for a task."""


def recipe_of(path: Path, constants: Path) -> dict[str, Any]:
    """A recipe of five reductions."""
    reductions = {
        "rows": {"kind": "projection", "onto": "row"},
        "columns": {"kind": "projection", "onto": "column"},
        "spot": {"kind": "roi", "places": {"segment": 0, "row": [2, 12], "column": [8, 24]}},
        "pixels": {"kind": "histogram", "of": 100, "range": ["-5 keV", "30 keV"]},
        "drops": {"kind": "droplet", "threshold": "4 keV"},
    }
    return {"source": str(path), "detectors": {"jungfrau": {"constants": str(constants), "reductions": reductions}}}


def long_run(events: int) -> tuple[Path, Path]:
    """A run of many events of 4 Mpixel, none of which was stored, and its constants."""
    path, constants = (Path(FOLDER.name) / f"{what}{events}.zarr" for what in ("long", "constants"))
    if path.exists():
        return path, constants
    sim = xs.simulate(2, shape=(8, 512, 1024), seed=1)
    xs.save(sim.constants, constants)
    short = write_run(sim.run, Path(FOLDER.name) / f"short{events}.zarr", chunk_events=1)
    short.rename(path)
    labels = sim.run["jungfrau"]["event"].values[0] + np.arange(events) * np.timedelta64(8_333_333, "ns")
    zarr.consolidate_metadata(path)
    root, frame_dims = zarr.open_group(path, mode="r+", use_consolidated=False), sim.run["jungfrau"]["raw"].ndim
    for name, array in root.members(max_depth=None):
        if not isinstance(array, zarr.Array) or "event" not in (array.metadata.dimension_names or ()):
            continue
        if array.ndim == frame_dims:
            array.resize((events, *array.shape[1:]))
            continue
        attributes, dims, shape = dict(array.attrs), array.metadata.dimension_names, (events, *array.shape[1:])
        data = labels.astype("i8") if array.basename == "event" else np.resize(array[:], shape)
        root.create_array(  # in large chunks: one for each event would be a file for each
            name,
            data=data,
            chunks=(65536, *shape[1:]),
            dimension_names=dims,
            attributes=attributes,
            overwrite=True,
        )
    groups = [name for name, member in root.members(max_depth=None) if isinstance(member, zarr.Group)]
    for group in (*sorted(groups, reverse=True), None):  # each has copies of what is below it
        zarr.consolidate_metadata(path, path=group)
    seal(path)  # as the writer does, for it was changed on purpose
    return path, constants


def block_case(events: int, rows: int) -> tuple[Work, BlockStore]:
    """Open a run, and what computes a block of it."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER.name))
    sim = xs.simulate(events, shape=(1, rows, 1024), seed=1, chunks=16)
    path = write_run(sim.run, folder / "raw.zarr", chunk_events=16)
    constants = Path(xs.save(sim.constants, folder / "constants.zarr"))
    plan = plan_run(open_recipe(recipe_of(path, constants)), 1)
    store = BlockStore(folder / "blocks")
    store.begin({})
    return Work(plan.detectors["jungfrau"]), store


def event_variables(events: int) -> Path:
    """A run of event variables alone."""
    path = Path(FOLDER.name) / f"scalars{events}.zarr"
    if not path.exists():
        label = np.datetime64("2026-01-01", "ns") + np.arange(events) * np.timedelta64(8_333_333, "ns")
        values = {f"diode{i}": ("event", np.random.default_rng(i).normal(size=events)) for i in range(20)}
        write_run(xr.DataTree.from_dict({"/events": xr.Dataset(values, {"event": label})}), path)
    return path


def cases(scale: float) -> list[Case]:
    """A block of 0.5 Mpixel, and long runs."""
    n, rows = max(4, int(256 * scale)), max(16, int(512 * scale))
    work, store = block_case(n, rows)
    block = work.compute(0, n)
    many, scalars = max(2, int(1_000_000 * scale**2)), max(100, int(200_000 * scale))
    run = event_variables(scalars)
    long = open_recipe(recipe_of(*long_run(many)))
    computing = partial(work.compute, 0, n)
    produce = partial(xs.produce, {"source": str(run)}, 1, Path(FOLDER.name) / "out", overwrite=True)
    write = partial(store.write, "jungfrau-000000", block.arrays, block.note)
    return [
        Case(f"block of five reductions, {rows * 1024 / 1e6:.1g} Mpixel", computing, n),
        Case("its writing", write, n, {"computing": computing}, goals={"computing": 0.1}),
        Case(f"{scalars} events of 20 variables", produce, scalars, goals={"ms": 0.02}),
        Case(f"plan of {many} events, 4 Mpixel", partial(plan_run, long, 1), goals={"ms": 5000.0}),
    ]


def makespan(tasks: int, seconds: float, workers: int) -> float:
    """Seconds until the last of equal tasks is done; the scheduler hands them out one after the other."""
    free, last = [0.0] * workers, 0.0
    for i in range(tasks):
        begin = max(heapq.heappop(free), i * SCHEDULER)
        last = max(last, begin + seconds)
        heapq.heappush(free, begin + seconds)
    return last


def main() -> None:
    """Print the scaling."""
    work, store = block_case(256, 512)
    block = work.compute(0, 256)
    start = time.process_time()
    block = work.compute(0, 256)
    store.write("jungfrau-000000", block.arrays, block.note)
    seconds = (time.process_time() - start) / 256 * 1024
    tasks = len(blocks_of(1_000_000))
    one = makespan(tasks, seconds, 1)
    print(f"{tasks} tasks of {seconds:.1f} s")
    for workers in (1, 2, 4, 8, 16, 32, 64):
        took = makespan(tasks, seconds, workers)
        print(f"{workers:3d} workers: {took / 60:7.1f} min, {one / took:5.1f} x one, {one / took / workers:.0%}")


if __name__ == "__main__":
    main()
