"""The order of events, segments, rows, columns or dims of anything handed in: results change by the same permutation.

Every reduction, calibration and join, with each thing that is handed to it turned by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import XsmallError

N, SHAPE = 12, (2, 8, 64)
PIXELS = ("segment", "row", "column")
TURNED = ("event", *PIXELS, "delay", "laser_on", "q")
BOX = xs.Box(segment=1, row=(1, 7), column=(2, 9))
RNG = np.random.default_rng(0)
SIM = xs.simulate(N, shape=SHAPE, seed=3, missing=0)
RAW = SIM.run["jungfrau/raw"].compute()
PLACED = RAW.sd.assign_geometry(SIM.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
CAL = PLACED.sd.calibrate(SIM.constants).compute()
LABELS = {dim: CAL[dim] for dim in PIXELS}
EVENT = {"event": CAL["event"]}
MASK = xr.DataArray(RNG.random(SHAPE) > 0.3, dims=PIXELS, coords=LABELS)
NUMBERS = xr.DataArray(RNG.uniform(0.5, 2, SHAPE), dims=PIXELS, coords=LABELS)
CLASSES = xr.DataArray(RNG.integers(0, 3, SHAPE), dims=PIXELS, coords=LABELS)
OF_EVENTS = xr.DataArray(RNG.random((N, *SHAPE)) > 0.3, dims=("event", *PIXELS), coords=EVENT | LABELS)
WEIGHT = xr.DataArray(RNG.gamma(5, 1, N), dims="event", coords=EVENT)
KIND = xr.DataArray(RNG.integers(0, 3, N), dims="event", coords=EVENT)
TABLE = SIM.run["events"].to_dataset().compute()[["i0", "delay", "laser_on", "tt_amplitude"]]
SPARSE = CAL.sd.photon(9.5, sparse=True)
WIDTHS = xs.bins(-2, 5, n=3)
COMMON = xs.CommonMode((xs.Subtract(name="row", rows=1, columns=64, min_count=5),))
SCOPE = xr.DataArray(
    RNG.normal(0, 1, (N, 1, 40)) + 20 * (np.arange(40) == 12),
    dims=("event", "channel", "sample"),
    coords=EVENT | {"channel": [0], "sample": np.arange(40) * 1e-9},
)


def with_mask(make: Callable[[Any], Any]) -> Callable[..., Any]:
    """Frames reduced with something that the record is handed."""
    return lambda frames, given: frames.sd.reduce({"a": make(given)})


def reduced(record: Any) -> Callable[..., Any]:
    return lambda frames: frames.sd.reduce({"a": record})


def pair(frames: xr.DataArray, variance: xr.DataArray) -> xr.Dataset:
    return xs.with_variance(frames.rename("v"), variance)


def cube(table: xr.Dataset) -> xr.Dataset:
    made: xr.Dataset = table[["i0", "delay", "laser_on"]].sd.cube({"delay": WIDTHS, "laser_on": xs.categories()})
    return made


HALVES = [cube(TABLE.isel(event=part)) for part in (slice(0, 6), slice(6, None))]
RINGS = [CAL.isel(segment=[k]).sd.azint(np.linspace(0.03, 0.18, 5)) for k in range(2)]

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "roi": (with_mask(lambda m: xs.roi(BOX, mask=m)), (CAL, MASK)),
    "roi, mask of events": (with_mask(lambda m: xs.roi(BOX, mask=m)), (CAL, OF_EVENTS)),
    "roi, region": (with_mask(lambda m: xs.roi({"r": m})), (CAL, MASK)),
    "projection": (with_mask(lambda m: xs.projection("row", mask=m)), (CAL, MASK)),
    "projection, mask of events": (with_mask(lambda m: xs.projection("row", BOX, mask=m)), (CAL, OF_EVENTS)),
    "projection onto": (with_mask(lambda m: xs.projection(m.rename("u"), bins=4)), (CAL, NUMBERS)),
    "lineout": (reduced(xs.lineout("row", 5, segment=1)), (CAL,)),
    "azint": (with_mask(lambda m: xs.azint(5, mask=m)), (CAL, MASK)),
    "azint, mask of events": (with_mask(lambda m: xs.azint(5, mask=m)), (CAL, OF_EVENTS)),
    "azint, i0": (with_mask(lambda w: xs.azint(5, i0=w)), (CAL, WEIGHT)),
    "azint, quantity": (with_mask(lambda m: xs.azint(5, quantity=m.rename("u"))), (CAL, NUMBERS)),
    "azint, efficiency": (with_mask(lambda m: xs.azint(5, efficiency=m)), (CAL, NUMBERS)),
    "anisotropy": (with_mask(lambda m: xs.anisotropy(0.0, bins=3, mask=m)), (CAL, MASK)),
    "anisotropy, i0": (with_mask(lambda w: xs.anisotropy(0.0, bins=3, i0=w)), (CAL, WEIGHT)),
    "autocorrelation": (with_mask(lambda m: xs.autocorrelation(BOX, max_lag=2, mask=m)), (CAL, MASK)),
    "autocorrelation, light": (with_mask(lambda m: xs.autocorrelation(BOX, max_lag=2, illumination=m)), (CAL, NUMBERS)),
    "droplet": (with_mask(lambda m: xs.droplet(4.0, 1.0, mask=m)), (CAL, MASK)),
    "droplet, noise": (with_mask(lambda m: xs.droplet(xs.sigma(3), noise=m)), (CAL, NUMBERS)),
    "photon": (with_mask(lambda m: xs.photon(9.5, mask=m, max_k=3)), (CAL, MASK)),
    "photon, regions": (with_mask(lambda m: xs.photon(9.5, regions={"a": m == 1, "b": m == 2})), (CAL, CLASSES)),
    "photons of droplets": (with_mask(lambda m: xs.droplet(4.0, 1.0, mask=m) | xs.photon(9.5)), (CAL, MASK)),
    "peaks": (with_mask(lambda m: xs.peaks(2.0, mask=m, snr=3)), (CAL, MASK)),
    "histogram": (with_mask(lambda m: xs.histogram(9, range=(-5, 20), mask=m)), (CAL, MASK)),
    "rebin": (with_mask(lambda m: xs.rebin(2, mask=m)), (CAL, MASK)),
    "sums": (with_mask(lambda m: xs.sums(mask=m, also=("max",))), (CAL, MASK)),
    "sums by kind": (with_mask(lambda k: xs.sums(by=k)), (CAL, KIND)),
    "user function": (
        lambda c, w: xs.apply(c, lambda frame, w: {"s": np.nansum(frame) * w}, w=w), (CAL, WEIGHT)
    ),
    "rows beside frames": (
        lambda c, r: xs.apply(c, lambda frame, r: {"s": np.nansum(np.nansum(frame, axis=(0, 2)) * r)}, r=r),
        (CAL, NUMBERS.isel(segment=0, column=0, drop=True) * WEIGHT),
    ),
    "frames beside frames": (
        lambda c, d: xs.apply(c, lambda frame, d: {"s": np.nansum(frame * d)}, d=d), (CAL, CAL * 2)
    ),
    "g2": (lambda c, r, m: xs.g2(c, {"a": r == 1, "b": r == 2}, mask=m), (CAL, CLASSES, MASK)),
    "two_time": (lambda c, r: xs.two_time(c, {"a": r == 1}), (CAL, CLASSES)),
    "image": (with_mask(lambda m: xs.image(mask=m)), (CAL, MASK)),
    "image by area": (with_mask(lambda m: xs.image(mask=m, method="area")), (CAL, MASK)),
    "polar": (lambda c: xs.polar(c, n_radius=3, n_azimuth=4), (CAL,)),
    "at": (lambda c: xs.at(c, [0.0001, 0.0003], [0.0001, -0.0002]), (CAL,)),
    "average": (lambda c: c.sd.average(), (CAL,)),
    "sparse, roi": (lambda s, m: s.sd.roi(BOX, mask=m), (SPARSE, MASK)),
    "sparse, azint": (lambda s, m: s.sd.reduce({"a": xs.azint(4, mask=m)}), (SPARSE, MASK)),
    "sparse, g2": (lambda s, r: xs.g2(s, {"a": r == 1}), (SPARSE, CLASSES)),
    "sparse, dense": (lambda s: xs.dense(s), (SPARSE,)),
    "sparse, cube": (lambda s, t: t.sd.cube({"delay": WIDTHS}, images={"j": s}), (SPARSE, TABLE)),
    "energy of events": (
        lambda c, w: c.sd.assign_beam(photon_energy=w * 100 + 9000).sd.azint(bins=np.linspace(0.01, 0.2, 4)),
        (CAL, WEIGHT),
    ),
    "calibrate": (lambda r, k, m: xs.calibrate(r, k, mask=m), (RAW, SIM.constants.compute(), MASK)),
    "common mode": (lambda r, m: xs.calibrate(r, SIM.constants, mask=m, common_mode=COMMON), (RAW, MASK)),
    "trust": (lambda r, m: xs.trust(r, SIM.constants, mask=m), (RAW, MASK)),
    "dark": (lambda r: xs.dark(r), (RAW,)),
    "ghost": (lambda c, f: xs.subtract_ghost(c, f * 0.01, offset=f), (CAL, NUMBERS)),
    "with variance": (pair, (CAL, abs(CAL) + 1)),
    "scale": (lambda c, w: xs.scale(pair(c, abs(c) + 1), w), (CAL, WEIGHT)),
    "add": (lambda c, d: xs.add(pair(c, abs(c) + 1), pair(d, abs(d) + 1)), (CAL, CAL * 2)),
    "cube": (lambda t, c: t.sd.cube({"delay": WIDTHS}, images={"j": c}), (TABLE, CAL)),
    "bootstrap": (lambda t: xs.bootstrap(t, {"laser_on": xs.categories()}, n=3), (TABLE,)),
    "nearest off": (lambda t: xs.nearest_off(t, {"delay": WIDTHS}, n=2), (TABLE,)),
    "select": (lambda t, w: t.sd.select(a=w > 5), (TABLE, WEIGHT)),
    "integrate": (
        lambda t, s: xs.integrate(t[["i0"]], s), (TABLE, TABLE[["i0"]].isel(event=slice(2, None, 3)).rename(i0="x"))
    ),
    "difference": (lambda c: c.sd.difference("laser_on", relative=True), (cube(TABLE),)),
    "merge cubes": (lambda a, b: xs.merge_cubes(a, b), tuple(HALVES)),
    "rebin cube": (lambda c: c.sd.rebin(delay=3), (cube(TABLE),)),
    "ratio": (lambda c: xs.ratio(c), (TABLE.sd.cube({"laser_on": xs.categories()}, weights="i0"),)),
    "merge azint": (lambda a, b: xs.merge_azint(a, b), tuple(RINGS)),
    "concat": (lambda a, b: xs.concat([a, b]), (CAL.isel(event=slice(0, 6)), CAL.isel(event=slice(6, None)))),
    "waveforms": (lambda s: s.sd.reduce({"a": xs.waveform_integral((8, 20))}), (SCOPE,)),
    "flatten": (lambda d: xs.lists(xs.flatten(d)), (CAL.sd.droplet(4.0, 1.0),)),
}  # fmt: skip
JOINS = ("with variance", "add", "scale", "concat", "merge cubes", "merge azint")
REFUSED = {(case, k) for case in JOINS for k in range(2)} | {("ghost", 0), ("common mode", 0)}
"""(case, number of what is handed in) that may be refused in another order; all else is taken in any."""


def turned(given: Any, seed: int) -> Any:
    """The same values in another order of labels; of what is no frame also in another order of dims."""
    rng = np.random.default_rng(seed)
    mixed = given.isel({dim: rng.permutation(n) for dim, n in given.sizes.items() if dim in TURNED})
    if isinstance(mixed, xr.DataArray) and mixed.ndim < 4:
        mixed = mixed.transpose(*rng.permutation(mixed.dims))
    return mixed


def check_same(found: Any, plain: Any) -> None:
    found, plain = (x.to_dataset(name="value") if isinstance(x, xr.DataArray) else x for x in (found, plain))
    assert set(found.data_vars) == set(plain.data_vars)
    for name in plain.data_vars:
        ours, theirs = found[name].reset_coords(drop=True), plain[name].reset_coords(drop=True)
        for dim in theirs.indexes:
            at = ours.indexes[dim].get_indexer(theirs.indexes[dim])
            assert len(at) == ours.sizes[dim]
            assert (at >= 0).all(), (name, dim)
            ours = ours.isel({dim: at})
        ours = ours.transpose(*theirs.dims)
        if theirs.dtype == object:
            for a, b in zip(ours.values.ravel(), theirs.values.ravel(), strict=True):
                np.testing.assert_allclose(np.sort(a), np.sort(b), rtol=1e-6, err_msg=str(name))
        elif theirs.dtype.kind in "bUM":
            np.testing.assert_array_equal(ours.values, theirs.values, err_msg=str(name))
        else:
            np.testing.assert_allclose(ours.values, theirs.values, rtol=2e-5, atol=1e-6, err_msg=str(name))


@pytest.mark.filterwarnings("ignore::xsmall.calibration.dark.dark.DarkWarning")
@pytest.mark.parametrize("case", CASES)
def test_another_order_is_the_same_result_in_that_order(case: str) -> None:
    make, given = CASES[case]
    plain = make(*given).compute()
    for k, one in enumerate(given):
        args = [*given[:k], turned(one, seed=k + 1), *given[k + 1 :]]
        try:
            found = make(*args)
        except XsmallError:
            assert (case, k) in REFUSED
            continue
        check_same(found.compute(), plain)
