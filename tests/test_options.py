"""Nothing is accepted and ignored: every option changes the result or is refused, alone and beside every other one."""

import hashlib
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

SIMULATION = xs.simulate(12, shape=(2, 32, 64), seed=5)
BOX = xs.Box(segment=1, row=(4, 20), column=(8, 50))


@cache
def raw() -> xr.DataArray:
    placed = SIMULATION.run["jungfrau"]["raw"].compute().sd.assign_geometry(SIMULATION.geometry)
    return placed.sd.assign_beam(photon_energy=9500, distance=0.1)


@cache
def constants() -> xr.Dataset:
    made = SIMULATION.constants.copy(deep=True)
    made["status"][:, 0, 3, 5] = 1
    made["status"][1, 0, 3, 6] = 4
    return made


@cache
def frames() -> xr.Dataset:
    return raw().sd.calibrate(SIMULATION.constants, variance=True, photon_energy=9500).compute()


def of_pixels(name: str) -> xr.DataArray:
    values = np.random.default_rng(1).uniform(0.1, 1.0, (2, 32, 64))
    labels = {dim: raw()[dim] for dim in ("segment", "row", "column")}
    return xr.DataArray(values, labels, ("segment", "row", "column"), name, {"units": "mm"})


MASK = of_pixels("mask") > 0.3
NOISE = (SIMULATION.constants["noise"] / SIMULATION.constants["gain"]).isel(gain_stage=0, drop=True)
I0 = xr.DataArray(np.linspace(0.5, 1.5, 12), {"event": SIMULATION.run["events"]["event"].values}, "event")
FILTERS = {"mask": MASK, "threshold": 5.0, "noise": NOISE}
BINS = {"bins": 20, "range": (0.2, 1.0), "width": 0.05}
CORRECTIONS = {"solid_angle": True, "polarization_plane": 0.0, "polarization_fraction": 0.9, "i0": I0}
PHOTONS = {"method": "fit", "cloud": 0.4, "thr_fraction": 0.5, "max_k": 1, "mask": MASK, "image": True, "also": ["x"]}
WORDS = {"status_bits": 4, "gain_stage": raw(), "gain_control": MASK.astype("u1"), "saturation": {"high": 3000}}


def record(make: Callable[..., Any], *given: Any) -> Callable[..., xr.Dataset]:
    return lambda **options: frames().sd.reduce({"a": make(*given, **options)})


def of_droplets(**options: Any) -> xr.Dataset:
    return frames().sd.reduce({"a": xs.droplet(4.0, 1.0) | xs.photon(9.5, **options)})


def fine_image(**options: Any) -> Any:
    """Of points that are not those of the pixels, so that methods differ."""
    return xs.image(**{"pixel_size": 1.1e-4, **options})


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "azint": (
        record(xs.azint),
        {**BINS, **FILTERS, **CORRECTIONS, "quantity": "two_theta", "azimuth_bins": 4, "split": "full", "clip": 2.0}
        | {"statistic": "median", "norm": True, "efficiency": of_pixels("flat")},
    ),
    "anisotropy": (record(xs.anisotropy, 10.0), {**BINS, **FILTERS, **CORRECTIONS, "orders": (0, 2)}),
    "roi of a box": (record(xs.roi, BOX), {**FILTERS, "saturation": 9.0, "area": True}),
    "roi in space": (record(xs.roi, xs.Circle((0, 0), 0.002)), {**FILTERS, "saturation": 9.0, "area": True}),
    "projection": (record(xs.projection, "row"), {**BINS, **FILTERS, "place": BOX, "statistic": "mean"}),
    "projection onto q": (record(xs.projection, "q"), {**BINS, **FILTERS, "place": BOX, "statistic": "mean"}),
    "histogram": (record(xs.histogram, 10), {**FILTERS, "range": (0.0, 10.0), "bins": 20, "place": BOX}),
    "lineout": (record(xs.lineout, "row", 5), {"segment": 1, "width": 3, "mask": MASK}),
    "rebin": (record(xs.rebin, 2), {**FILTERS, "statistic": "mean"}),
    "image": (record(fine_image), {"method": "area", "pixel_size": 2e-4, "x": (-1e-3, 1e-3), "mask": MASK}),
    "droplet": (
        record(xs.droplet, 5.0),
        {"threshold_low": 1.0, "noise": NOISE, "mask": MASK, "neighbours": 8, "grow": "flood", "sums": (5.0, 50.0)}
        | {"sizes": (2, 5), "also": ["max"], "max_droplets": 5},
    ),
    "photon": (record(xs.photon, 9.5), {**PHOTONS, "regions": {"a": BOX}}),
    "photons of droplets": (of_droplets, {**PHOTONS, "regions": {"a": BOX}}),
    "calibrate": (
        lambda **options: xs.calibrate(raw(), constants(), **options),
        {**WORDS, "mask": MASK, "trust": ["missing"], "unit": "photon", "photon_energy": 9000.0, "variance": "noise"},
    ),
    "trust": (lambda **options: xs.trust(raw(), constants(), **options), {**WORDS, "mask": MASK}),
    "mask": (
        lambda **options: xs.mask(raw(), **options),
        {"edges": 2, "status": constants(), "status_bits": 4, "status_convention": "psana1", "gain_stages": [0]}
        | {"neighbours": 2, "user": MASK, "shadow": MASK},
    ),
    "constants": (
        lambda **options: xs.constants("jungfrau", np.zeros((3, 2, 32, 64)), **options),
        {"noise": np.ones((3, 2, 32, 64)), "gain": np.ones((3, 2, 32, 64)), "gain_unit": "1", "segment": [2, 3]},
    ),
    "g2": (
        lambda **options: xs.g2(frames()["calibrated"], {"a": BOX}, **options),
        {"mask": MASK, "lags": [0.001, 0.02], "blocks": 4, "like": frames()["calibrated"]},
    ),
    "simulate": (
        lambda **options: xs.simulate(12, shape=(2, 32, 64), **options).run,
        {"seed": 1, "scan": "fly", "delay_range": (-1.0, 2.0), "n_steps": 5, "laser_off_every": 2}
        | {"xray_off_every": 5, "delay_jitter": 0.3, "i0_jitter": 0.3, "missing": 0.3},
    ),
}


def digest(result: Any) -> str:
    """Of all values, labels and units."""
    found = hashlib.sha256()

    def put(array: Any) -> None:
        if array.dtype == object:
            for one in array.ravel():
                put(np.asarray(one))
        else:
            found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())

    parts = [node.to_dataset() for node in result.subtree] if isinstance(result, xr.DataTree) else [result]
    for part in parts:
        part = part.to_dataset(name="values") if isinstance(part, xr.DataArray) else part
        for name, variable in sorted(part.compute().variables.items(), key=lambda item: str(item[0])):
            found.update(f"{name}{variable.dims}{variable.attrs.get('units')}".encode())
            put(variable.values)
    return found.hexdigest()


def without_effect(name: str) -> list[str]:
    call, options = CALLS[name]
    known: dict[frozenset[str], str | None] = {}

    def outcome(*names: str) -> str | None:
        """What comes back with these options, None where they are refused."""
        key = frozenset(names)
        if key not in known:
            try:
                known[key] = digest(call(**{n: options[n] for n in names}))
            except xs.XsmallError:
                known[key] = None
        return known[key]

    alone = [n for n in options if outcome() is not None and outcome(n) == outcome()]
    pairs = [
        f"{other} beside {one}"
        for one, other in itertools.permutations(options, 2)
        if outcome(one) is not None and outcome(one, other) == outcome(one) and other not in alone
    ]
    return alone + pairs


@pytest.mark.filterwarnings("ignore:lists of droplets are cut")
@pytest.mark.parametrize("name", CALLS)
def test_every_option_changes_the_result_or_is_refused(name: str) -> None:
    assert without_effect(name) == []
