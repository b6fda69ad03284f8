"""Production: parts of a block, two processes beside one, event variables alone; 1 to 64 workers by simulation.

``python -m benchmarks production`` compares a block with the sum of its parts, and its writing with both.
``python -m benchmarks.production processes [FOLDER [FORMAT]]`` makes small data of raw Zarr and XTC2 with one and with
two processes.
``python -m benchmarks.production scaling [FOLDER]`` walks the real graphs of a million events with times of tasks and
of the scheduler that it measures here, and writes the table of the docs. ``benchmarks.growth`` has the planning.
"""

from __future__ import annotations

import heapq
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.diagnostics import Profiler
from dask.order import order
from numpy.typing import NDArray

import xsmall as xs
from benchmarks import Case
from benchmarks.csv_table import DOCS, write_table
from benchmarks.growth import SEGMENTS, asked, from_nowhere, recipe_of, unstored_run
from benchmarks.reading import writer
from xsmall.engine.record import Record
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.runs import write_run
from xsmall.run.block import FEWEST_EVENTS, BlockResult, Work, blocks_of
from xsmall.run.opened import plan_run
from xsmall.run.output import save_run
from xsmall.run.recipe import open_recipe
from xsmall.run.stored import block_name

FOLDER = tempfile.TemporaryDirectory(prefix="xsmall-benchmark-")
FORMATS = {"zarr": (0, "jungfrau"), "xtc2": (1, "det")}
COLUMNS = ("what", "events", "tasks", "scheduler_ms", "workers", "minutes", "work_minutes")
PASS, STORED = "pass", "store-map"
"""Tasks of this name work on frames, and write chunks."""
GAIN = 41.5
"""ADU for a keV, about."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)
RECORDS: dict[str, Record] = {
    "rows": xs.projection("row"),
    "columns": xs.projection("column"),
    "spot": xs.roi(xs.Box(segment=0, row=(2, 12), column=(8, 24))),
    "pixels": xs.histogram(100, range=(-5, 30)),
    "drops": xs.droplet(4.0),
}


def frames_on_disk(folder: Path, events: int, rows: int) -> tuple[Path, Path, Path]:
    """Frames that repeat, noise and single photons of one Jungfrau module, as raw Zarr and as XTC2; and constants."""
    folder.mkdir(parents=True, exist_ok=True)
    few = xs.simulate(16, shape=(1, rows, 1024), seed=1, missing=0.0, xray_off_every=1)
    raw, constants = few.run["jungfrau"]["raw"].compute(), folder / "constants.zarr"
    with_photons(raw.values)
    if constants.exists():
        return folder / "raw.zarr", folder / "raw.xtc2", constants
    labels = raw.event.values[0] + np.arange(events) * np.timedelta64(8_333_333, "ns")
    many = xr.concat([raw.chunk(event=16)] * -(-events // 16), "event").isel(event=slice(0, events))
    plain = xr.DataArray(many.data, {"event": labels}, raw.dims, "raw", raw.attrs).to_dataset()
    write_run(xr.DataTree.from_dict({"/jungfrau": plain}), folder / "raw.zarr", chunk_events=16)
    w = writer()
    tables = [w.area(0)]
    with (folder / "raw.xtc2").open("wb") as file:
        file.write(w.start(*tables))
        for k in range(events):
            file.write(w.event((2 << 32) + k * 8_333_333, tables, raw.values[k % 16]))
    xs.save(few.constants, constants)
    return folder / "raw.zarr", folder / "raw.xtc2", constants


def with_photons(words: NDArray[np.uint16]) -> None:
    """Add photons to frames of noise, one on a pixel in a thousand."""
    words[np.random.default_rng(1).random(words.shape) < 1e-3] += np.uint16(GAIN * 9.5)


def opened(path: Path, constants: Path, detector: str = "jungfrau") -> tuple[Work, BlockStore]:
    """What computes blocks of a run, and where they go."""
    store = BlockStore(Path(tempfile.mkdtemp(dir=FOLDER.name)) / "blocks")
    store.begin({})
    return Work(plan_run(open_recipe(recipe_of(path, constants, detector)), 1).detectors[detector]), store


def parts(path: Path, constants: Path) -> list[Any]:
    """The parts of a block by themselves: reading, calibrating, and each record of floats in memory."""
    raw, known = xs.open_run(path)["jungfrau"]["raw"], xs.open_constants(constants)
    words = raw.compute()
    lazy, floats = words.chunk(event=16).sd.calibrate(known), words.sd.calibrate(known).compute()

    def read() -> None:
        for key in raw.data.__dask_keys__():
            dask.get(raw.data.dask, key)

    def calibrate() -> None:
        for i in range(0, lazy.sizes["event"], 16):
            lazy[i : i + 16].compute(scheduler="synchronous")

    return [read, calibrate, *(partial(floats.sd.apply, record) for record in RECORDS.values())]


def event_variables(events: int) -> Path:
    """A run of event variables alone."""
    path = Path(FOLDER.name) / f"scalars{events}.zarr"
    if not path.exists():
        label = np.datetime64("2026-01-01", "ns") + np.arange(events) * np.timedelta64(8_333_333, "ns")
        values = {f"diode{i}": ("event", np.random.default_rng(i).normal(size=events)) for i in range(20)}
        write_run(xr.DataTree.from_dict({"/events": xr.Dataset(values, {"event": label})}), path)
    return path


def cases(scale: float) -> list[Case]:
    """A block of 0.5 Mpixel beside its parts, its writing, and event variables alone."""
    n, rows = max(4, int(128 * scale)), max(16, int(512 * scale))
    path, _, constants = frames_on_disk(Path(tempfile.mkdtemp(dir=FOLDER.name)), n, rows)
    work, store = opened(path, constants)
    block, alone = work.compute(0, n), parts(path, constants)
    scalars = max(100, int(200_000 * scale))
    run = event_variables(scalars)
    computing = partial(work.compute, 0, n)
    produce = partial(xs.produce, {"source": str(run)}, 1, Path(FOLDER.name) / "out", overwrite=True)
    write = partial(store.write, "jungfrau-000000", block.arrays, block.note)
    return [
        Case(
            f"block of five reductions, {rows * 1024 / 1e6:.1g} Mpixel",
            computing,
            n,
            {"reading, calibration and each record alone": lambda: [part() for part in alone]},
            goals={"reading, calibration and each record alone": 1.2},
        ),
        Case("its writing", write, n, {"computing": computing}, goals={"computing": 0.1}),
        Case(f"{scalars} events of 20 variables", produce, scalars, goals={"ms": 0.02}),
    ]


# ---- processes -------------------------------------------------------------------------------------------------------


def processes(folder: Path, sizes: tuple[int, int], rows: int, formats: Sequence[str]) -> Iterator[str]:
    """Produce runs of each format by one and by two processes that are there already; then without production.

    Two sizes tell what an event takes beside what is paid once. Processes that share nothing, neither a file nor a
    client, tell what the machine has to give.
    """
    from distributed import Client, LocalCluster

    runs = {n: frames_on_disk(folder / str(n), n, rows) for n in (FEWEST_EVENTS, *sizes)}
    for format_ in formats:
        at, detector = FORMATS[format_]
        yield f"{format_}: " + alone(runs[sizes[0]][at], runs[sizes[0]][2], detector, sizes[0])
        took: dict[int, list[float]] = {}
        for workers in (1, 2):
            options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": None}
            with LocalCluster(**options) as cluster, Client(cluster) as client:
                for run in runs.values():  # the first one warms up
                    begun = time.perf_counter()
                    recipe = recipe_of(run[at], run[2], detector)
                    [state] = xs.produce(recipe, 1, Path(FOLDER.name) / f"{workers}", scheduler=client, overwrite=True)
                    took.setdefault(workers, []).append(time.perf_counter() - begun)
                    assert state.state == "done", state.why
        (one, once), (two, _) = (line(sizes, (seconds[1], seconds[2])) for seconds in (took[1], took[2]))
        whole = took[1][2] / took[2][2]
        yield (
            f"{format_}: {sizes[1]} events, one process {took[1][2]:.2f} s, two {took[2][2]:.2f} s: {whole:.2f}x; "
            f"an event {one * 1e3:.2f} ms and {two * 1e3:.2f} ms: {one / two:.2f}x; paid once {once:.2f} s"
        )


def alone(path: Path, constants: Path, detector: str, events: int) -> str:
    """Compute blocks by one process, and by two at once that know nothing of each other."""
    context = get_context("spawn")
    seconds = []
    for n in (1, 2):
        begin, told = context.Barrier(n), context.Queue()
        given = (path, constants, detector, events, begin, told)
        workers = [context.Process(target=one_alone, args=given) for _ in range(n)]
        for worker in workers:
            worker.start()
        seconds.append(max(told.get() for _ in workers))
        for worker in workers:
            worker.join()
    return f"blocks alone {seconds[0] / events * 1e3:.2f} ms/event, two processes {2 * seconds[0] / seconds[1]:.2f}x"


def one_alone(path: Path, constants: Path, detector: str, events: int, begin: Any, told: Any) -> None:
    """Compute a block when all are ready, and tell how long it took."""
    work, _ = opened(path, constants, detector)
    with dask.config.set(scheduler="synchronous"):
        work.compute(0, FEWEST_EVENTS)
        begin.wait()
        begun = time.perf_counter()
        work.compute(0, events)
    told.put(time.perf_counter() - begun)


# ---- the scaling by simulation ---------------------------------------------------------------------------------------

Graph = Mapping[Hashable, set[Any]]


def makespan(needs: Graph, seconds: Mapping[Hashable, float], workers: int, overhead: float) -> float:
    """Seconds until the last task is done: the first in order that is ready goes to the first worker that is free.

    Parameters
    ----------
    needs
        Which tasks each task needs.
    seconds
        How long each takes.
    workers
        How many there are.
    overhead
        Seconds of the scheduler for a task; it deals with one after the other.
    """
    waits = {key: len(deps) for key, deps in needs.items()}
    users: dict[Hashable, list[Hashable]] = {key: [] for key in needs}
    for key, deps in needs.items():
        for dep in deps:
            users[dep].append(key)
    first = {key: i for i, key in enumerate(needs)}
    names = list(needs)
    ready = [first[key] for key, n in waits.items() if not n]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = scheduler = 0.0
    idle = workers
    while ready or running:
        while ready and idle:
            key = heapq.heappop(ready)
            scheduler = max(scheduler, now) + overhead
            heapq.heappush(running, (scheduler + seconds[names[key]], key))
            idle -= 1
        now, done = heapq.heappop(running)
        idle += 1
        for user in users[names[done]]:
            waits[user] -= 1
            if not waits[user]:
                heapq.heappush(ready, first[user])
    return now


def in_order(graph: Mapping[Hashable, Any]) -> Graph:
    """What each task of a graph needs; tasks come in dask's own order."""
    needs = {key: set(task.dependencies) if hasattr(task, "dependencies") else set() for key, task in graph.items()}
    rank = order(dict(graph))
    return {key: needs[key] for key in sorted(needs, key=rank.__getitem__)}


def graph_of(result: xr.Dataset) -> Graph:
    """The graph of a lazy result as the scheduler gets it."""
    (optimized,) = dask.optimize(result)
    return in_order(dict(optimized.__dask_graph__()))


def kind(key: Hashable) -> str:
    """The first part of the name of a task."""
    return str(key[0] if isinstance(key, tuple) else key).rsplit("-", 1)[0]


def seconds_by_kind(result: xr.Dataset) -> dict[str, list[float]]:
    """Compute a result by one thread, and say how long tasks of each kind take."""
    found: dict[str, list[float]] = {}
    with Profiler() as profile:
        result.compute(scheduler="synchronous", optimize_graph=False)
    for task in profile.results:
        found.setdefault(kind(task.key), []).append(task.end_time - task.start_time)
    return found


def overhead_of_scheduler(n: int) -> float:
    """Seconds of the scheduler for a task that does nothing, with the worker that answers it."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.gather(client.map(abs, range(10)))
        begun = time.process_time()
        client.gather(client.map(abs, range(n), pure=False, key=[f"nothing-{i}" for i in range(n)]))
        return (time.process_time() - begun) / n


class Walk:
    """A scheduler of dask that keeps the graphs that it is given, and computes each by one thread, or stops there."""

    def __init__(self, *, stops: bool = False) -> None:
        self.needs: list[Graph] = []
        self.seconds: list[float] = []
        self._stops = stops

    def __call__(self, graph: Any, keys: Any, **_: Any) -> Any:
        self.needs.append(in_order(graph))
        if self._stops:
            raise Walked
        begun = time.process_time()
        done = dask.get(graph, keys)
        self.seconds.append(time.process_time() - begun)
        return done


class Walked(Exception):
    """The graph of an output is known."""


def writing(folder: Path, events: int, rows: int, block: BlockResult, walk: Walk) -> float:
    """Write the output of so many events by a scheduler; returns the seconds of all of it.

    One block stands for all: it lies there once, under many names.
    """
    plan = plan_run(open_recipe(recipe_of(*unstored_run(folder, events, rows, 1))), 1)
    store = BlockStore(folder / f"blocks{events}")
    store.begin({})
    ((name, spans),) = plan.blocks.items()
    for i, (start, stop) in enumerate(spans):
        if i in (0, len(spans) - 1):
            of_size = {key: np.resize(x, (stop - start, *x.shape[1:])) for key, x in block.arrays.items()}
            store.write(block_name(name, i), of_size, block.note)
        else:
            for ending in ("npz", "json"):
                os.link(
                    store.folder / f"{block_name(name, 0)}.{ending}", store.folder / f"{block_name(name, i)}.{ending}"
                )
    begun = time.process_time()
    with suppress(Walked):
        save_run(
            folder / f"out{events}.zarr", plan.events, plan.detectors, plan.blocks, store,
            recipe=plan.recipe, request=plan.request, overwrite=True, scheduler=walk,
        )  # fmt: skip
    return time.process_time() - begun


def production(folder: Path, events: int, timed: int, rows: int) -> tuple[Graph, dict[Any, float]]:
    """The tasks of a production of so many events, and their seconds.

    Blocks; then what workers write, by the real graph of the output, and lists once their lengths are known; then what
    the one who has asked does alone. The latter three are measured at two sizes, whose difference tells the time for an
    event, and the rest what is paid once; so is the number of tasks for lists, which depends on their lengths.
    """
    path, _, constants = frames_on_disk(folder, timed, rows)
    work, store = opened(path, constants)
    begun = time.process_time()
    block = work.compute(0, timed)
    store.write("jungfrau-000000", block.arrays, block.note)
    per_event = (time.process_time() - begun) / timed
    few, many = 16 * timed, 64 * timed
    writing(folder, timed, rows, block, Walk())  # what is imported once
    found = []
    for n in (few, many):
        walk = Walk()
        whole = writing(folder, n, rows, block, walk)
        found.append((*walk.seconds, len(walk.needs[1]), whole - sum(walk.seconds)))
    (by_workers, _), (lists, _), (tasks_of_lists, some), (alone, once) = (
        line((few, many), both) for both in zip(*found, strict=True)
    )
    walk = Walk(stops=True)
    writing(folder, events, rows, block, walk)
    blocks = {("block", i): (stop - start) * per_event for i, (start, stop) in enumerate(blocks_of(events))}
    (written,) = walk.needs
    sinks = [key for key in written if kind(key).startswith(STORED)]
    joins = [("lists", i) for i in range(max(1, round(tasks_of_lists * events + some)))]
    tasks = {**blocks, **dict.fromkeys(written, 0.0), **dict.fromkeys(sinks, by_workers * events / len(sinks))}
    tasks |= dict.fromkeys(joins, lists * events / len(joins))
    needs: dict[Any, set[Any]] = {key: set() for key in blocks}
    needs |= {key: deps or {"computed"} for key, deps in written.items()}
    needs |= {"computed": set(blocks), "written": set(written), "rest": set(joins)} | {
        key: {"written"} for key in joins
    }
    return needs, {**tasks, "computed": 0.0, "written": 0.0, "rest": alone * events + once}


def line(sizes: tuple[int, int], seconds: tuple[float, float]) -> tuple[float, float]:
    """Seconds for an event, and what is paid once, by two sizes."""
    slope = max(0.0, (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]))
    return slope, max(0.0, seconds[0] - slope * sizes[0])


def notebook(events: int, timed: int, rows: int) -> tuple[Graph, dict[Any, float]]:
    """The graph of ``reduce`` of so many events, and the seconds of its tasks.

    Those that work on frames take so long as they have events, as a run of few events tells; others are as they are
    there, and what is data in the graph takes no time.
    """
    (small,) = dask.optimize(asked("five records", *from_nowhere(timed, rows), 10))
    told = {name: sum(found) / len(found) for name, found in seconds_by_kind(small).items()}
    needs = graph_of(asked("five records", *from_nowhere(events, rows), 10))
    blocks = sum(kind(key) == PASS for key in needs)
    passes = sum(kind(key) == PASS for key in small.__dask_graph__())
    told[PASS] *= (events / blocks) / (timed / passes)
    return needs, {key: told.get(kind(key), 0.0) for key in needs}


def scaling(folder: Path, events: int, timed: int, rows: int) -> Iterator[tuple[Any, ...]]:
    """Give the rows of the table."""
    overhead = overhead_of_scheduler(2000)
    for what, (needs, seconds) in {
        "produce": production(folder, events, timed, rows),
        "reduce": notebook(events, 4 * timed, rows // SEGMENTS),
    }.items():
        work = sum(seconds.values()) / 60
        for workers in WORKERS:
            took = makespan(needs, seconds, workers, overhead) / 60
            yield what, events, len(needs), overhead * 1e3, workers, took, work


def main(what: str, *words: str) -> None:
    """Print figures, or write the table of the docs; a folder keeps the runs for the next time."""
    kept, words = (
        (Path(words[0]), words[1:]) if words[:1] and not words[0].startswith("-") else (Path(FOLDER.name), words)
    )
    if what == "processes":
        for line in processes(kept, (512, 8192), 512, words or FORMATS):
            print(line, flush=True)
    elif what == "scaling":
        sizes = {True: (2000, 32, 64), False: (1_000_000, 256, 512)}
        write_table(__doc__, DOCS / "scaling.csv", COLUMNS, lambda quick: scaling(kept, *sizes[quick]), words)
    else:
        raise SystemExit(f"{what}: processes or scaling")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(*sys.argv[1:])
