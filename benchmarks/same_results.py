"""Results of two checkouts side by side, bit for bit: ``python -m benchmarks.same_results OTHER_CHECKOUT``.

For changes that are to change nothing: ``git worktree add ../before COMMIT``, then give ``../before``. Each checkout
computes the same results (calibration and flags of every detector, reductions, images, cubes) in a process of its own;
the table says which are equal to the last bit, and how far apart the others are. The exit code is 1 where one differs.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import xsmall as xs
from xsmall.errors import XsmallError

PIXELS = ("segment", "row", "column")
DIMS = ("event", *PIXELS)
CONTROLS = {"epixuhr": [16, 48, 32, 40, 1]}
"""Values of the bits that choose a gain, for those detectors whose values are not the usual ones."""

Made = Iterator[tuple[str, Callable[[], Any]]]


def _types() -> list[Any]:
    """Types of detectors, which the first version kept in another folder."""
    try:
        module = importlib.import_module("xsmall.detector.types")
    except ImportError:
        module = importlib.import_module("xsmall.detector.calibration.types")
    return sorted(set(module.DETECTOR_TYPES.values()), key=lambda t: str(t.name))


def _constants(kind: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> xr.Dataset:
    """Constants with holes, zeros and infinities in them."""
    cells = [0, 4, 8] if kind.memory_cell else []
    full = (*((len(cells),) if cells else ()), kind.n_stages, *shape)
    dims = (*(("memory_cell",) if cells else ()), "gain_stage", *PIXELS)
    pedestal = rng.normal(200 if kind.adc_max < 4096 else 2000, 20, full).astype("f4")
    gain = rng.uniform(5, 40, full).astype("f4")
    pedestal[..., 0, 0, 3], gain[..., 1, 2, 5], gain[..., 0, 4, 4] = np.nan, 0, np.inf
    made = {
        "pedestal": (dims, pedestal),
        "gain": (dims, gain, {"units": "ADU/keV"}),
        "noise": (dims, rng.uniform(2, 9, full).astype("f4")),
        "offset": (dims, rng.normal(0, 2, full).astype("f4")),
        "status": (dims, (rng.random(full) < 0.02).astype("u8") * 4),
    }
    constants = xr.Dataset(made, attrs={"detector_type": kind.name})
    return constants.assign_coords(memory_cell=cells) if cells else constants


def calibrations() -> Made:
    """Every detector: calibrated, with variances, lazily, with common mode; flags; darks."""
    for kind in _types():
        rng = np.random.default_rng(5)
        shape = (2, *(kind.segment_shape or (48, 96)))
        constants = _constants(kind, rng, shape)
        words = rng.integers(0, 2**16, (3, *shape)).astype("u2")
        if kind.decoding.value == "fixed":
            words &= np.uint16(kind.adc_max)
        raw = xr.DataArray(words, dims=DIMS, attrs={"detector_type": kind.name})
        raw = raw.assign_coords(present=(DIMS[:2], rng.random((3, 2)) < 0.9))
        raw = raw.assign_coords(damage=(DIMS[:2], (rng.random((3, 2)) < 0.1).astype("u1")))
        beside: dict[str, Any] = {}
        if kind.decoding.name == "CONTROL":
            beside["gain_control"] = rng.choice(CONTROLS.get(kind.name, [0, 16, 28, 12, 8]), shape).astype("u1")
        if kind.memory_cell:
            raw = raw.assign_coords(memory_cell=("event", [0, 8, 4]))
            beside["gain_stage"] = raw.copy(data=rng.choice([0, 0, 1, 2, 3], words.shape).astype("u1"))
        mask = rng.random(shape) < 0.95
        lazy = {k: v.chunk(event=2) if isinstance(v, xr.DataArray) else v for k, v in beside.items()}
        chunked = raw.copy(data=raw.chunk(event=2).data)
        named = f"{kind.name}: "
        calibrate = partial(xs.calibrate, raw, constants, mask=mask, **beside)
        yield named + "calibrate", calibrate
        yield named + "with variance", partial(calibrate, variance=True, photon_energy=9500)
        yield named + "common mode", partial(calibrate, common_mode="recommended")
        yield named + "trust", partial(xs.trust, raw, constants, mask=mask, **beside)
        photons = {"unit": "photon", "photon_energy": 9500}
        yield named + "lazily, in photons", partial(xs.calibrate, chunked, constants.chunk(), **photons, **lazy)
        if not kind.memory_cell:
            yield named + "dark", partial(xs.dark, raw, **beside)


def reductions() -> Made:
    """Reductions, images, masks and cubes of simulated frames, whole, cut and lazy, with variances and energies."""
    sim = xs.simulate(20, shape=(3, 32, 64), seed=5)
    raw = sim.run["jungfrau"]["raw"].compute()
    raw = raw.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    rng = np.random.default_rng(0)
    mask = xr.DataArray(rng.random((3, 32, 64)) > 0.1, dims=PIXELS, coords={d: raw[d] for d in PIXELS})
    noise = (sim.constants["noise"] / sim.constants["gain"]).isel(gain_stage=0)
    cal = raw.sd.calibrate(sim.constants)
    both = raw.sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    box = xs.Box(segment=1, row=(4, 20), column=(8, 50))
    in_first = "box" in inspect.signature(xs.projection).parameters  # the first version had no chains
    columns = {"statistic": "mean", "box": box} if in_first else {"statistic": "mean"}
    column = xs.projection("column", **columns)
    records = {
        "roi": xs.roi({"a": box, "b": xs.Box(segment=2)}, mask=mask),
        "row": xs.projection("row", mask=mask),
        "column": column if in_first else xs.roi(box) | column,
        "azint": xs.azint(30, mask=mask),
        "sectors": xs.azint(20, quantity="two_theta", azimuth_bins=6, solid_angle=True),
        "autocorrelation": xs.autocorrelation(box, max_lag=4, mask=mask),
        "sigma": xs.droplet(xs.sigma(5), xs.sigma(2.5), noise=noise, mask=mask, max_droplets=300),
        "droplet": xs.droplet(4.0, 1.0, max_droplets=300),
    }
    frames = {
        "whole": cal,
        "with variance": both,
        "cut": cal.isel(segment=[2, 1], row=slice(3, 30), column=slice(2, 60)),
        "lazy": raw.chunk(event=6).sd.calibrate(sim.constants),
    }
    for name, of in frames.items():
        yield f"reduce, {name}", lambda f=of: f.sd.reduce(records)
    energies = cal.assign_coords(photon_energy=("event", 9500 + 10.0 * np.arange(20), {"units": "eV"}))
    yield "azint, energies of events", lambda: energies.sd.azint(25)
    for method in ("nearest", "area"):
        yield f"image, {method}", lambda m=method: cal.sd.image(method=m)
        yield f"image, {method}, with variance", lambda m=method: both.sd.image(method=m)
    yield "polar", lambda: cal.sd.polar(n_radius=20, n_azimuth=12)
    yield "average", lambda: cal.sd.average()
    flags = xs.mask(raw, edges=1, user=mask, status=sim.constants)
    yield "mask", lambda: flags
    yield "image of a mask", lambda: flags.sd.image()
    event = next(d for d in ("event", "timestamp") if d in cal.coords)  # the label of an event was called timestamp
    delay = xr.Dataset({"delay": ("event", np.arange(20) % 5 * 1.0)}, coords={event: cal[event]})
    cubes = {"delay": xs.bins(-0.5, 4.5, n=5)}
    yield "cube of images", lambda: delay.sd.cube(cubes, images={"jungfrau": cal})


def write(path: Path) -> None:
    """Compute all results of the xsmall that is imported and keep their numbers."""
    found: dict[str, Any] = {}
    for made in (calibrations(), reductions()):
        for name, make in made:
            try:
                result = make().compute()
            except XsmallError as error:  # a refusal is a result too
                result = xr.DataArray(type(error).__name__)
            one = result if isinstance(result, xr.Dataset) else result.to_dataset(name="value")
            for variable, values in one.data_vars.items():
                found[f"{name}: {variable}"] = values.values
    np.savez(path, **found)


def _apart(a: Any, b: Any) -> str:
    """How far two arrays are apart."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype} {a.shape} beside {b.dtype} {b.shape}"
    if a.tobytes() == b.tobytes():
        return ""
    differ = (a != b) & ~((a != a) & (b != b))
    count = f"{np.count_nonzero(differ)} of {a.size} values"
    if a.dtype.kind != "f" or not np.isfinite(a[differ] - b[differ]).all():
        return count
    return f"{count}, by {np.abs(a - b)[differ].max(initial=0) / np.nanmax(np.abs(a)):.1e} of the largest"


def compare(before: Path, now: Path) -> bool:
    """Print the table; return whether everything that both have is the same."""
    with np.load(before) as a, np.load(now) as b:
        shared = [name for name in a.files if name in b.files]
        apart = {name: _apart(a[name], b[name]) for name in shared}
        alone = sorted({*a.files} ^ {*b.files})
    differ = {name: how for name, how in apart.items() if how}
    print(f"{len(shared)} results, {len(shared) - len(differ)} the same to the last bit")
    for name, how in differ.items():
        print(f"  {name}: {how}")
    if alone:
        print(f"in one of the two only: {len(alone)}, such as {', '.join(alone[:: max(1, len(alone) // 5)][:5])}")
    return not differ


def main() -> None:
    """Compute in both checkouts and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_results", description=__doc__)
    parser.add_argument("other", type=Path, help="root of the other checkout")
    other = parser.parse_args().other.resolve()
    if not (other / "xsmall" / "__init__.py").is_file():
        parser.error(f"{other} holds no xsmall: give the root of a checkout, made by git worktree add ../before COMMIT")
    with tempfile.TemporaryDirectory() as folder:
        paths = {other: Path(folder, "before.npz"), Path(xs.__file__).parents[1]: Path(folder, "now.npz")}
        for root, path in paths.items():
            code = f"import sys, runpy; runpy.run_path({__file__!r}, run_name='child')['write'](sys.argv[1])"
            command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
            subprocess.run(command, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(root)})
        same = compare(*paths.values())
    sys.exit(not same)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
