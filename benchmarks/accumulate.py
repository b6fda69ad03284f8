"""Cubes beside reading: time and peak memory of each way in a process of its own, all in one run.

``python -m benchmarks.accumulate`` makes frames of 0.5 Mpixel (float32) on the fly and compares with summing them:
a cube in 50 bins in random and in scan order, an average, flox and xarray; one and two threads; one and two workers of
a cluster; other numbers of bins and of events. ``--quick`` runs everything once, small.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
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


def one(name: str, n: int, rows: int, n_bins: int, threads: int, workers: int) -> dict[str, float]:
    """Seconds and GB of one way, here; GB above what has been imported and compiled, or of a worker all it has."""
    import resource

    warnings.simplefilter("ignore")
    few = max(1, rows // 16)
    if workers:
        from distributed import Client, LocalCluster

        options = {"dashboard_address": ":0", "memory_limit": "4GB"}
        with LocalCluster(n_workers=workers, threads_per_worker=threads, **options) as made, Client(made) as client:
            client.run(lambda: [way(name, 64, few, 4)() for _ in range(1)] and None)
            seconds = min(_seconds(way(name, n, rows, n_bins)) for _ in range(REPEATS))
            peaks = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return {"seconds": seconds, "gb": max(peaks.values()) / 1e6}
    with dask.config.set(scheduler="threads", num_workers=threads):
        way(name, 64, few, 4)()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        repeats = REPEATS if n <= 2048 and not name.startswith(("flox", "xarray")) else 1
        seconds = min(_seconds(way(name, n, rows, n_bins)) for _ in range(repeats))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "gb": (after - before) / 1e6}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(
    name: str, n: int, rows: int, n_bins: int = N_BINS, threads: int = 2, workers: int = 0
) -> dict[str, float]:
    """The same in a process of its own, whose memory has seen nothing else."""
    said = json.dumps([name, n, rows, n_bins, threads, workers])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accumulate", "--one", said], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(n: int, rows: int, only: str = "") -> Iterator[str]:
    """Yield the lines of the table as they come."""
    yield f"{n} frames of {rows * 1024 / 1e6:.2g} Mpixel, {N_BINS} bins; GB above what was there before"
    yield f"{'':40s} {'s':>7s} {'x reading':>10s} {'GB':>6s}"
    base = measured("reading", n, rows)["seconds"]
    few = max(32, n // 8)
    lines: list[tuple[str, int, dict[str, Any]]] = [
        ("reading", n, {}), ("cube random", n, {}), ("cube scan", n, {}), ("average", n, {}),
        ("reading", n, {"threads": 1}), ("cube random", n, {"threads": 1}), ("cube scan", n, {"threads": 1}),
        ("cube random", n, {"n_bins": 10}), ("cube random", n, {"n_bins": 100}), ("cube random", 2 * n, {}),
        ("reading", n, {"workers": 1, "threads": 1}), ("cube random", n, {"workers": 1, "threads": 1}),
        ("cube random", n, {"workers": 2, "threads": 1}), ("cube scan", n, {"workers": 1, "threads": 1}),
        ("cube scan", n, {"workers": 2, "threads": 1}),
        *([("flox random", few, {}), ("flox scan", few, {})] if optional("flox") else []), ("xarray random", few, {}),
    ]  # fmt: skip
    for name, events, said in lines:
        if only not in name:
            continue
        found = measured(name, events, rows, **said)
        what = ", ".join([name, *(f"{v} {k.removeprefix('n_')}" for k, v in said.items())])
        what += f", {events} events" if events != n else ""
        ratio = found["seconds"] / base * n / events
        yield f"{what:40s} {found['seconds']:7.2f} {ratio:10.2f} {found['gb']:6.2f}"


def main() -> None:
    """Print the table, or measure one way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accumulate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: shows that everything runs")
    parser.add_argument("--only", default="", help="lines that have this in their name")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    for line in table(*((64, 16) if options.quick else (2048, 512)), options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
