"""From raw words in memory to small data: calibrate and reduce in one pass, beside one pass for each result."""

from __future__ import annotations

import numpy as np
import xarray as xr

import xsmall as xs
from benchmarks import Case, read
from xsmall.engine.record import Record

ENERGY = 9.5


def numpy_way(raw: np.ndarray, constants: object, index: np.ndarray, n: int) -> object:
    """Calibrate with select over the three gain stages, average in bins with bincount: what one writes in NumPy."""
    pedestal, gain, bad = constants
    code = raw >> 14
    stage = np.where(code == 3, 2, code)
    words = (raw & 0x3FFF).astype(np.float32)
    values = np.select([stage == i for i in range(3)], [(words - pedestal[i]) / gain[i] for i in range(3)])
    values[:, bad] = np.nan
    out = []
    for frame in values:
        good = np.isfinite(frame)
        total = np.bincount(index[good], frame[good], minlength=n)
        out.append(total / np.bincount(index[good], minlength=n))
    return out


def cases(scale: float) -> list[Case]:
    """Thirty-two events of a Jungfrau of 0.5 Mpixel."""
    n, rows = max(4, int(32 * scale)), max(16, int(512 * scale))
    sim = xs.simulate(n, shape=(1, rows, 1024), seed=1)
    raw = sim.run["jungfrau"]["raw"].compute().sd.assign_geometry(sim.geometry)
    raw = raw.sd.assign_beam(photon_energy=sim.beam.photon_energy, distance=sim.beam.distance)
    records: dict[str, Record] = {
        "azint": xs.azint(bins=300),
        "roi": xs.roi(xs.Box(segment=0, row=(2, rows // 2), column=(300, 580))),
        "droplet": xs.droplet(ENERGY / 2, ENERGY / 4),
    }
    lazy = raw.chunk(event=8).sd.calibrate(sim.constants)
    cal = lazy.compute()
    q = raw.sd.pixel("q").values
    edges = np.linspace(q.min(), q.max(), 301)
    index = np.clip(np.digitize(q, edges) - 1, 0, 299)
    constants = sim.constants["pedestal"].values, sim.constants["gain"].values, sim.constants["status"].values[0] != 0
    values = raw.values

    def compute(*results: xr.Dataset) -> object:
        return [r.compute(scheduler="synchronous") for r in results]

    def one_pass() -> object:
        return compute(lazy.sd.reduce(records))

    def each_by_itself() -> object:
        return compute(*(lazy.sd.reduce({k: r}) for k, r in records.items()))

    def from_floats() -> object:
        return cal.sd.reduce(records)

    size = f"{raw[0].size / 1e6:.1g} Mpixel"
    return [
        Case(
            f"raw to azint + roi + droplet, {size}",
            one_pass,
            n,
            {"one pass each": each_by_itself, "from floats in memory": from_floats},
            read(values),
        ),
        Case(
            f"raw to azint, {size}",
            lambda: compute(lazy.sd.azint(bins=300)),
            n,
            {"NumPy select and bincount": lambda: numpy_way(values, constants, index, 300)},
            read(values),
        ),
    ]
