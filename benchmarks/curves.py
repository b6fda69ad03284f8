"""Time of reductions against events, pixels, bins and photons: ``python -m benchmarks.curves`` writes the docs' table.

Times are of the processor, for one thread, so that a busy machine does little to them; each is the least of a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

import xsmall as xs
from benchmarks.azint import geometry_of
from benchmarks.csv_table import DOCS, write_table

__all__ = ["main", "points"]

SEGMENTS, COLUMNS = 8, 1024
Point = tuple[str, str, int, float]


def frames_of(events: int, rows: int, photons: int = 1000) -> xr.DataArray:
    """Float frames of noise and photons, placed."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.3, (events, SEGMENTS, rows, COLUMNS)).astype(np.float32)
    flat = values.reshape(events, -1)
    for frame in flat:
        frame[rng.choice(frame.size, min(photons, frame.size), replace=False)] += 9.5
    cal = xr.DataArray(values, {"event": np.arange(events)}, ("event", "segment", "row", "column"))
    placed = cal.assign_attrs(units="keV").sd.assign_geometry(geometry_of(rows))
    return placed.sd.assign_beam(photon_energy=9500, distance=0.1)


def least(call: Callable[[], xr.Dataset], repeats: int) -> float:
    """Milliseconds of the processor that a call takes, after one to warm up."""
    call().compute(scheduler="synchronous")
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call().compute(scheduler="synchronous")
        taken.append(time.process_time() - start)
    return min(taken) * 1e3


def points(scale: float = 1.0, repeats: int = 3) -> Iterator[Point]:
    """Give (what, against what, how many, milliseconds): of the whole run against events, else of an event."""
    rows = max(2, int(64 * scale))
    box = xs.Box(segment=2, row=(0, rows), column=(300, 580))
    records = {
        "azint": xs.azint(bins=500), "roi": xs.roi(box), "projection": xs.projection("row"),
        "droplet": xs.droplet(4.75, 2.4), "photon": xs.photon(9.5),
    }  # fmt: skip
    for n in (16, 32, 64, 128):
        cal = frames_of(n, rows)
        for name, record in records.items():
            yield name, "events", n, least(lambda cal=cal, r=record: xs.apply(cal, r), repeats)
    for factor in (1, 2, 4, 8):
        cal = frames_of(4, rows * factor)
        for name, record in records.items():
            yield name, "pixels", cal[0].size, least(lambda cal=cal, r=record: xs.apply(cal, r), repeats) / 4
    cal = frames_of(8, rows)
    for bins in (10, 100, 1000, 10000):
        yield "azint", "bins", bins, least(lambda b=bins: xs.apply(cal, xs.azint(bins=b)), repeats) / 8
    for photons in (100, 1000, 10000, 30000):
        cal = frames_of(8, rows, photons)
        for name in ("droplet", "photon"):
            yield name, "photons", photons, least(lambda c=cal, r=records[name]: xs.apply(c, r), repeats) / 8


def main() -> None:
    """Write the table."""
    write_table(
        __doc__,
        DOCS / "performance.csv",
        ("what", "against", "size", "ms"),
        lambda quick: points(0.05, 1) if quick else points(),
    )


if __name__ == "__main__":
    main()
