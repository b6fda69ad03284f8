"""Cubes beside reading: time and peak memory of each way in a process of its own, all in one run.

``python -m benchmarks.accumulate`` makes frames of 0.5 Mpixel (float32) on the fly and compares with summing them:
a cube in 50 bins in random and in scan order, and an average; by one and two threads, and by two processes that share
nothing, which is what the memory of the machine allows; by one and two workers of a cluster; in 10, 100 and 1000 bins
and of more events; flox and xarray. Beside seconds stand those of the processor, for the program and for the system,
which gives fresh memory; and copying of as many bytes, which tells what the memory can do.
Last, how many of 16 workers read.
``--only threads`` does one group, ``--only "workers average"`` some lines of one, ``--quick`` runs everything once,
small.

A virtual machine may give memory that nobody holds back to its host, and wait long to get it again: so another process
touches some, and lets it go, before each timing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

import xsmall as xs
from benchmarks import optional

CHUNK = 16
N_BINS = 50
REPEATS = 3
FETCHED = 2.5e9
"""Bytes that the machine has at hand when a timing begins, or those of the frames."""


def frames(n: int, rows: int, seed: int = 0) -> da.Array:
    """Lazy frames of 1024 columns: a picture times the intensity of its shot, and a background that drifts."""
    rng = np.random.default_rng(seed)
    picture, background = rng.normal(10, 2, (2, 1, 1, rows, 1024)).astype(np.float32)
    intensity, drift = rng.gamma(9, 1 / 9, (2, n)).astype(np.float32)

    def made(block_info: Any = None) -> np.ndarray:
        start, stop = block_info[None]["array-location"][0]
        a, b = (x[start:stop, None, None, None] for x in (intensity, drift))
        return np.asarray(picture * a + background * b)

    sizes = tuple(min(CHUNK, n - i) for i in range(0, n, CHUNK))
    meta = np.empty((0,) * 4, np.float32)
    return da.map_blocks(made, chunks=(sizes, (1,), (rows,), (1024,)), dtype=np.float32, meta=meta)


def run_of(n: int, rows: int, n_bins: int, order: str) -> tuple[xr.Dataset, xr.DataArray]:
    """Small data with a scan in random order or in that of the bins, and the frames of the same events."""
    place = np.random.default_rng(1).integers(0, n_bins, n)
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)
    small = xr.Dataset({"scan": ("event", (np.sort(place) if order == "scan" else place) + 0.5)}, {"event": times})
    dims = ("event", "segment", "row", "column")
    return small, xr.DataArray(frames(n, rows), dims=dims, coords={"event": times}, name="image")


def way(name: str, n: int, rows: int, n_bins: int) -> Callable[[], object]:
    """What is timed, by its name."""
    small, image = run_of(n, rows, n_bins, "scan" if name.endswith("scan") else "random")
    if name == "copying":
        return copying(n * rows * 4096, dask.config.get("num_workers", 1))
    if name == "reading":
        return lambda: image.data.sum(dtype=np.float32).compute()
    if name == "average":
        return lambda: image.sd.average().compute()
    if name.startswith("cube"):
        binned = {"scan": xs.bins(0, n_bins, n=n_bins)}
        return lambda: small.sd.cube(binned, images={"image": image}).compute()
    edges = np.arange(n_bins + 1.0)

    def grouped() -> object:
        with xr.set_options(use_flox=name.startswith("flox")):
            by = image.drop_vars("event").groupby_bins(small["scan"].drop_vars("event"), edges, right=False)
            return xr.Dataset({"mean": by.mean("event"), "std": by.std("event", ddof=1)}).compute()

    return grouped


def copying(n_bytes: int, threads: int) -> Callable[[], object]:
    """Copy as many bytes as all frames have, by so many threads, each between two arrays that no cache holds."""
    size = min(1 << 28, max(1, n_bytes // threads))
    pairs = [np.ones((2, size), np.uint8) for _ in range(threads)]

    def of_thread(pair: np.ndarray) -> None:
        for _ in range(max(1, n_bytes // threads // size)):
            np.copyto(pair[0], pair[1])

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(of_thread, pairs))

    return run


def one(name: str, n: int, rows: int, n_bins: int, threads: int, workers: int, twins: int) -> dict[str, float]:
    """Seconds and GB of one way, here; GB above what has been imported and compiled, or of a worker all it has.

    Of ``twins`` each waits for the others before it begins.
    """
    warnings.simplefilter("ignore")
    few = max(1, rows // 16)
    if workers:
        from distributed import Client, LocalCluster

        options = {"dashboard_address": ":0", "memory_limit": "4GB"}
        cluster = LocalCluster(n_workers=workers, threads_per_worker=threads, **options)
        with cluster, Client(cluster, direct_to_workers=True) as client:
            client.run(lambda: [way(name, 64, few, 4)() for _ in range(1)] and None)
            seconds, _, _ = min(_seconds(way(name, n, rows, n_bins), n, rows) for _ in range(REPEATS))
            peaks = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return {"seconds": seconds, "gb": max(peaks.values()) / 1e6}
    with dask.config.set(scheduler="threads", num_workers=threads):
        way(name, 64, few, 4)()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        repeats = 1 if twins > 1 or name.startswith(("flox", "xarray")) else REPEATS
        if twins > 1:
            print("ready", flush=True)
            sys.stdin.readline()
        times = [_seconds(way(name, n, rows, n_bins), n, rows) for _ in range(repeats)]
        seconds, user, system = map(min, zip(*times, strict=True))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "gb": (after - before) / 1e6, "user": user, "system": system}


def _seconds(call: Callable[[], object], n: int, rows: int) -> tuple[float, float, float]:
    """Seconds of the clock, and of the processor for the program and for the system."""
    touched = int(min(FETCHED, n * rows * 4096.0))
    subprocess.run([sys.executable, "-c", f"import numpy; numpy.ones({touched}, numpy.uint8)"], check=True)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    call()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime


def measured(
    name: str, n: int, rows: int, n_bins: int = N_BINS, threads: int = 2, workers: int = 0, twins: int = 1
) -> dict[str, float]:
    """The same in a process of its own, whose memory has seen nothing else; or the slowest of several at once."""
    said = json.dumps([name, n, rows, n_bins, threads, workers, twins])
    command = [sys.executable, "-m", "benchmarks.accumulate", "--one", said]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(twins)]
    if twins > 1:
        for process in running:
            process.stdout.readline()  # type: ignore[union-attr]
    for process in running:  # all of them are told before the first is waited for
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return {key: max(answer[key] for answer in answers) for key in answers[0]}


SEEN: set[str] = set()
"""Workers of this process that have read frames."""


def noted(block: np.ndarray) -> np.ndarray:
    """The same frames, and a note of who reads them."""
    from distributed import get_worker

    SEEN.add(get_worker().address)
    time.sleep(0.002)  # nobody is done before the others have begun
    return block


def busy(order: str, workers: int, n: int, rows: int, n_bins: int) -> int:
    """How many workers of one thread read frames of a cube; all in this process, for the count alone."""
    from distributed import Client, LocalCluster

    from benchmarks import accumulate  # what is run as a program is another module than what workers import

    small, image = run_of(n, rows, n_bins, order)
    accumulate.SEEN.clear()
    lazy = image.data.map_blocks(accumulate.noted, dtype=np.float32, meta=image.data._meta)
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": 1}
    with LocalCluster(n_workers=workers, **options) as made, Client(made):
        cube = small.sd.cube({"scan": xs.bins(0, n_bins, n=n_bins)}, images={"image": image.copy(data=lazy)})
        cube.compute()
    return len(accumulate.SEEN)


Line = tuple[str, int, int, dict[str, Any]]


def groups(n: int, rows: int) -> dict[str, list[Line]]:
    """The lines of the table by group: what is timed, events, rows of a frame, and how."""
    few, narrow = max(32, n // 8), max(1, rows // 16)
    ways = ("reading", "cube random", "cube scan", "average")
    ours = ways[1:]
    one_thread, one_worker, two_workers = (
        {"threads": 1}, {"workers": 1, "threads": 1}, {"workers": 2, "threads": 1}
    )  # fmt: skip
    flox = ("flox random", "flox scan") if optional("flox") else ()
    return {
        "speed": [(name, n, rows, {}) for name in ("copying", *ours)],
        "threads": [(name, n, rows, one_thread) for name in ("copying", *ways)],
        "twins": [(name, n, rows, {"threads": 1, "twins": 2}) for name in ways],
        "workers": [(name, n, rows, how) for name in ways for how in (one_worker, two_workers)],
        "bins": [("cube random", 4 * n, narrow, {"n_bins": bins}) for bins in (10, 100, 1000)],
        "events": [(name, events, rows, {}) for name in ours[:2] for events in (n // 2, 2 * n)],
        "others": [(name, few, rows, {}) for name in ("cube random", "cube scan", *flox, "xarray random")],
    }


def table(n: int, rows: int, only: str = "") -> Iterator[str]:
    """Yield the lines of the table as they come."""
    yield f"frames of 1024 columns, 2 threads, {N_BINS} bins where not said; GB above what was there before"
    yield f"{'':64s} {'s':>7s} {'x reading':>10s} {'GB':>6s} {'user s':>7s} {'x':>5s} {'system s':>8s}"
    read: dict[tuple[int, int], dict[str, float]] = {}
    for group, lines in groups(n, rows).items():
        for name, events, height, how in lines:
            if only not in f"{group} {name}":
                continue
            if (events, height) not in read:
                read[events, height] = of = measured("reading", events, height)
                yield _line(f"reading, {events} events, {height} rows", of, of)
            found = measured(name, events, height, **how)
            what = ", ".join([name, *(f"{v} {k.removeprefix('n_')}" for k, v in how.items())])
            what += f", {events} events, {height} rows"
            yield _line(what, found, read[events, height])
    for order in ("random", "scan") if only in "busy" else ():
        yield f"{order} order: {busy(order, 16, 2000, 4, N_BINS)} of 16 workers read frames, 2000 events, {N_BINS} bins"


def _line(what: str, found: dict[str, float], reading: dict[str, float]) -> str:
    """One line of the table; what workers take of the processor is not known here."""
    times = f"{found['seconds']:7.2f} {found['seconds'] / reading['seconds']:10.2f} {found['gb']:6.2f}"
    user = found.get("user")
    of_cpu = "" if user is None else f" {user:7.2f} {user / reading['user']:5.2f} {found['system']:8.2f}"
    return f"{what:64s} {times}{of_cpu}"


def main() -> None:
    """Print the table, or measure one way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accumulate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: shows that everything runs")
    parser.add_argument("--only", default="", help="lines with this in their group and name: threads, workers average")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    for line in table(*((64, 16) if options.quick else (2048, 512)), options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
