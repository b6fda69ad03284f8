"""What a user does with a 4-Mpixel Jungfrau, through the accessor, beside the goals that were set for it.

Set ``OMP_NUM_THREADS=1``: pyFAI else takes all threads, and so does the decompression of Zarr.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import xarray as xr
import zarr
from dask import core

import xsmall as xs
from benchmarks import Call, Case, optional, read
from benchmarks.azint import COLUMNS, PIXEL, SEGMENTS, geometry_of
from xsmall.io.stores.runs import write_run
from xsmall.kernels.jit import njit

__all__ = ["cases"]


def frames_of(rows: int, n: int) -> xr.DataArray:
    """Float frames in memory, placed."""
    values = np.random.default_rng(0).normal(5, 1, (n, SEGMENTS, rows, COLUMNS)).astype(np.float32)
    cal = xr.DataArray(values, {"event": np.arange(n)}, ("event", "segment", "row", "column"), attrs={"units": "keV"})
    return cal.sd.assign_geometry(geometry_of(rows)).sd.assign_beam(photon_energy=9500, distance=0.1)


def raw_run(rows: int, n: int, photons: int = 2000) -> tuple[xr.DataArray, xr.Dataset]:
    """Raw frames with sparse photons, in memory, and their constants."""
    sim = xs.simulate(n, shape=(SEGMENTS, rows, COLUMNS), seed=1)
    raw, dark = sim.run["jungfrau"]["raw"].compute(), sim.constants.isel(gain_stage=0)
    rng = np.random.default_rng(0)
    pedestal, noise, gain = (dark[name].values.ravel() for name in ("pedestal", "noise", "gain"))
    for frame in raw.values.reshape(n, -1):  # the words of the simulation are those of bright rings
        words = pedestal + noise * rng.standard_normal(frame.size)
        hit = rng.choice(frame.size, min(photons, frame.size), replace=False)
        words[hit] += 9.5 * gain[hit]
        frame[:] = np.clip(np.rint(words), 0, 2**14 - 1)
    placed = raw.sd.assign_geometry(geometry_of(rows))
    return placed.sd.assign_beam(photon_energy=9500, distance=0.1), sim.constants


def pyfai(frame: np.ndarray, split: str) -> dict[str, tuple[Callable[[], object], int]]:
    """One frame through pyFAI's CSR integrator, as its users call it."""
    if optional("pyFAI") is None:
        return {}
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    flat = frame.reshape(-1, COLUMNS)
    integrator = AzimuthalIntegrator(
        dist=0.1, poni1=len(flat) * PIXEL / 2, poni2=COLUMNS * PIXEL / 2, wavelength=1.305e-10,
        detector=Detector(PIXEL, PIXEL, max_shape=flat.shape),
    )  # fmt: skip
    method = (split, "csr", "cython")
    return {"pyFAI CSR": (lambda: integrator.integrate1d(flat, 500, correctSolidAngle=False, method=method), 1)}


@njit
def brightest(frame):  # type: ignore[no-untyped-def]
    """What a user writes: the sum of a frame above a level, one pixel after the other."""
    total = 0.0
    for s in range(frame.shape[0]):
        for r in range(frame.shape[1]):
            for c in range(frame.shape[2]):
                v = frame[s, r, c]
                if v > 6.0:
                    total += v
    return total


def one_thread(lazy: xr.Dataset) -> Callable[[], object]:
    """Compute by one thread."""
    return lambda: lazy.compute(scheduler="synchronous")


def threads(lazy: xr.Dataset, n: int) -> Callable[[], object]:
    """Compute by some threads."""
    return lambda: lazy.compute(scheduler="threads", num_workers=n)


def stored(raw: xr.DataArray, path: Path) -> tuple[xr.DataArray, dict[str, Call | tuple[Call, int]]]:
    """Raw frames in a run on disk, compressed by LZ4, opened; and what decompressing them alone is."""
    write_run(xr.DataTree.from_dict({"/jungfrau": raw.to_dataset(name="raw")}), path, compress="lz4", chunk_events=1)
    opened = raw.copy(data=xs.open_run(path)["jungfrau"]["raw"].data)
    array = zarr.open_array(str(path / "jungfrau" / "raw"), mode="r")
    blocks = list(core.flatten(opened.data.__dask_keys__()))
    return opened, {
        "zarr-python": (lambda: [array[i] for i in range(len(raw))], len(raw)),
        "xs.open_run": (lambda: [dask.get(opened.data.dask, key) for key in blocks], len(raw)),
    }


OFTEN = 6


def often(frames: xr.DataArray) -> xr.DataArray:
    """The same events some times: a run of them, of which no more has to be in memory."""
    again = [frames.assign_coords(event=frames.event + np.timedelta64(i, "D")) for i in range(OFTEN)]
    return xr.concat(again, "event")


def cases(scale: float) -> list[Case]:
    """The goals: as functions of frames in memory, and of raw frames in memory and on disk."""
    rows, n = max(16, int(512 * scale)), max(4, int(16 * scale))
    return [*of_frames(rows, n), *of_raw(rows, n)]


def of_frames(rows: int, n: int) -> list[Case]:
    """One reduction of float frames in memory."""
    cal = frames_of(rows, n)
    varying = cal.assign_coords(photon_energy=("event", 9500 + 10.0 * np.arange(n)))
    values = cal.values
    floor, size = read(values), f"{cal[0].size / 1e6:.2g} Mpixel"
    fixed = {"fixed energy": lambda: cal.sd.azint(bins=500)}
    loop = {"bare loop": lambda: [brightest(f) for f in values]}
    moments = {"NumPy mean, std": lambda: (values.mean(0), values.std(0))}
    return [
        Case(f"azint {size}", lambda: cal.sd.azint(bins=500), n, pyfai(values[0], "no"), floor,
             {"floor": 1.6, "pyFAI CSR": 1 / 25}),
        Case(f"azint {size}, split in boxes", lambda: cal.sd.azint(bins=500, split="box"), n,
             pyfai(values[0], "bbox"), floor, {"pyFAI CSR": 1 / 10}),
        Case(f"azint {size}, energy per event", lambda: varying.sd.azint(bins=500), n, fixed, floor,
             {"fixed energy": 5}),
        Case(f"image {size}, by area", lambda: cal.sd.image(method="area"), n, {}, floor, {"ms": 20}),
        Case("a numba function of a user", lambda: cal.sd.apply(brightest), n, loop, floor, {"bare loop": 1.1}),
        Case("sums of pixels", lambda: cal.sd.sums(), n, moments, floor),
        Case("peaks", lambda: cal.sd.peaks(12.0), n, {}, floor),
    ]  # fmt: skip


def of_raw(rows: int, n: int) -> list[Case]:
    """Raw words to four results in one pass."""
    raw, constants = raw_run(-(-rows // 256) * 256, n)  # common mode works on whole chips
    lazy, words = often(raw.chunk(event=4)), (read(raw.values), n)
    box = xs.Box(segment=2, row=(2, rows // 2), column=(300, 580))
    records = {"azint": xs.azint(bins=500), "roi": xs.roi(box), "rows": xs.projection("row"),
               "drops": xs.droplet(4.75, 2.4)}  # fmt: skip
    keep = tempfile.TemporaryDirectory()
    atexit.register(keep.cleanup)
    disk, alone = stored(raw, Path(keep.name) / "raw.zarr")
    packed, goal = often(disk), {"zarr-python": 1.3, "xs.open_run": 1.3}

    def chain(frames: xr.DataArray, mode: object = None) -> xr.Dataset:
        return frames.sd.calibrate(constants, common_mode=mode).sd.reduce(records)

    size, many = f"{raw[0].size / 1e6:.2g} Mpixel", n * OFTEN
    return [
        Case("raw to 4 results: asking, once per run", lambda: chain(lazy), 1),
        Case(f"raw {size} to 4 results, 2 threads", threads(chain(lazy), 2), many, {}, words, {"ms": 1000 / 200}, 2),
        Case("the same, common mode 7", threads(chain(lazy, 7), 2), many, {}, words, {"ms": 1000 / 120}, 2),
        Case("4 results of compressed Zarr", one_thread(chain(packed)), many, alone, words, goal),
        Case("azint of compressed Zarr", one_thread(packed.sd.calibrate(constants).sd.azint(bins=500)), many, alone,
             words, goal),
    ]  # fmt: skip
