"""What a user does with a 4-Mpixel Jungfrau, through the accessor, beside the goals that were set for it.

Set ``OMP_NUM_THREADS=1``: pyFAI else takes all threads, and so does the decompression of Zarr.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr
import zarr

import xsmall as xs
from benchmarks import Case, optional, read
from benchmarks.azint import COLUMNS, PIXEL, SEGMENTS, geometry_of
from xsmall.kernels.jit import njit

__all__ = ["cases", "frames_of", "raw_run"]


def frames_of(rows: int, n: int) -> xr.DataArray:
    """Float frames in memory, placed."""
    values = np.random.default_rng(0).normal(5, 1, (n, SEGMENTS, rows, COLUMNS)).astype(np.float32)
    cal = xr.DataArray(values, {"event": np.arange(n)}, ("event", "segment", "row", "column"), attrs={"units": "keV"})
    return cal.sd.assign_geometry(geometry_of(rows)).sd.assign_beam(photon_energy=9500, distance=0.1)


def raw_run(rows: int, n: int) -> tuple[xr.DataArray, xr.Dataset]:
    """Raw frames with sparse photons, in memory, and their constants."""
    sim = xs.simulate(n, shape=(SEGMENTS, rows, COLUMNS), seed=1)
    raw = sim.run["jungfrau"]["raw"].compute().sd.assign_geometry(geometry_of(rows))
    return raw.sd.assign_beam(photon_energy=9500, distance=0.1), sim.constants


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


def one_thread(make: Callable[[], xr.Dataset]) -> Callable[[], object]:
    """Compute by one thread."""
    return lambda: make().compute(scheduler="synchronous")


def threads(make: Callable[[], xr.Dataset], n: int) -> Callable[[], object]:
    """Compute by some threads."""
    return lambda: make().compute(scheduler="threads", num_workers=n)


def stored(raw: xr.DataArray, folder: Path) -> tuple[xr.DataArray, Callable[[], object]]:
    """Compressed raw frames on disk, opened; and what decompressing them alone is."""
    path = folder / "raw.zarr"
    whole = zarr.create_array(
        str(path),
        shape=raw.shape,
        chunks=(1, *raw.shape[1:]),
        dtype=raw.dtype,
        compressors=zarr.codecs.BloscCodec(cname="lz4"),
    )
    whole[...] = raw.values
    opened = raw.copy(data=dask.array.from_zarr(str(path)))
    array = zarr.open_array(str(path), mode="r")
    return opened, lambda: [array[i] for i in range(len(raw))]


def cases(scale: float) -> list[Case]:
    """Each goal a line: its name says what it is, the ratio what it came to."""
    rows, n = max(16, int(512 * scale)), max(4, int(16 * scale))
    cal = frames_of(rows, n)
    varying = cal.assign_coords(photon_energy=("event", 9500 + 10.0 * np.arange(n)))
    values, floor = cal.values, read(cal.values)
    raw, constants = raw_run(rows, n)
    lazy = raw.chunk(event=4)
    records = {
        "azint": xs.azint(bins=500),
        "roi": xs.roi(xs.Box(segment=2, row=(2, rows // 2), column=(300, 580))),
        "rows": xs.projection("row"),
        "drops": xs.droplet(4.75, 2.4),
    }
    keep = tempfile.TemporaryDirectory()
    cases.keep = keep  # type: ignore[attr-defined]  # until the process ends
    disk, decompress = stored(raw, Path(keep.name))

    def chain(mode: object) -> Callable[[], xr.Dataset]:
        return lambda: lazy.sd.calibrate(constants, common_mode=mode).sd.reduce(records)

    size = f"{cal[0].size / 1e6:.2g} Mpixel"
    return [
        Case(f"azint {size} (1.6x reading, 1/25 pyFAI)", lambda: cal.sd.azint(bins=500), n, pyfai(values[0], "no"), floor),
        Case(
            f"azint {size}, box (1/10 pyFAI)", lambda: cal.sd.azint(bins=500, split="box"), n, pyfai(values[0], "bbox"), floor
        ),
        Case(f"azint {size}, energy per event (5x fixed)", lambda: varying.sd.azint(bins=500), n,
             {"fixed": lambda: cal.sd.azint(bins=500)}, floor),
        Case(f"image {size}, by area (20 ms)", lambda: cal.sd.image(method="area"), n, {}, floor),
        Case(f"raw {size} to 4 results, 2 threads (5 ms)", threads(chain(None), 2), n, {}, read(raw.values)),
        Case("the same, common mode 7 (8.3 ms)", threads(chain(7), 2), n, {}, read(raw.values)),
        Case("the same from compressed Zarr, 1 thread", one_thread(lambda: disk.sd.calibrate(constants).sd.reduce(records)), n,
             {"decompressing alone (1/1.3)": decompress}, read(raw.values)),
        Case("azint from compressed Zarr, 1 thread", one_thread(lambda: disk.sd.calibrate(constants).sd.azint(bins=500)), n,
             {"decompressing alone (1/1.3)": decompress}, read(raw.values)),
        Case("own numba function (1.1x a loop)", lambda: cal.sd.apply(brightest), n,
             {"bare loop": lambda: [brightest(f) for f in values]}, floor),
        Case("sums of pixels", lambda: cal.sd.sums(), n, {"NumPy mean, std": lambda: (values.mean(0), values.std(0))}, floor),
        Case("peaks", lambda: cal.sd.peaks(12.0), n, {}, floor),
    ]  # fmt: skip
