"""Variances of results on simulated runs whose truth is known: pulls, (value - truth) / error, of mean 0 and width 1.

A value's own variance stands in for the true one, which no one knows: with N photons in it the mean of the pulls is
-1 / (2 sqrt(N)), and that much is allowed for. There are no single photons that share their charge here, so that each
pixel counts for itself.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import xsmall as xs
from xsmall.simulation import Simulation
from xsmall.simulation.detector import tables

EVENTS, ENERGY = 160, 9500.0


@cache
def simulation() -> Simulation:
    """A run whose pulses are all alike, without laser and without charge sharing."""
    return xs.simulate(
        EVENTS, shape=(2, 128, 256), seed=4, photon_energy=ENERGY, line_density=0.0, laser_off_every=1,
        xray_off_every=0, i0_jitter=0.0, missing=0.0,
    )  # fmt: skip


@cache
def photons() -> npt.NDArray[np.float64]:
    """True mean number of photons (segment, row, column)."""
    recipe = simulation().recipe
    return tables(recipe).mean.reshape(recipe.shape).astype(np.float64)


@cache
def calibrated() -> xr.Dataset:
    """Calibrated frames with their variance and geometry, lazy."""
    sim = simulation()
    raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    placed = raw.sd.assign_beam(photon_energy=ENERGY, distance=sim.beam.distance)
    both = placed.sd.calibrate(sim.constants, variance=True)
    assert isinstance(both, xr.Dataset)
    return both


def truth() -> xr.DataArray:
    """What the frames would be without noise and counting, NaN where they are."""
    frames = calibrated()["calibrated"].compute()
    return frames.copy(data=np.where(np.isnan(frames), np.nan, photons() * ENERGY / 1e3))


def check(pulls: npt.NDArray[np.float64], n_photons: float) -> None:
    """Mean and width of pulls: four standard deviations, and what the data's own variance does to them."""
    values = pulls[np.isfinite(pulls)]
    assert values.size > 200
    own = 0.5 / np.sqrt(n_photons)
    assert abs(values.mean()) < own + 4 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 2 / n_photons + 4 / np.sqrt(2 * values.size)


@pytest.mark.parametrize(
    ("stage", "low", "high"), [(0, 14, 18), (1, 60, 600), (3, 1200, np.inf)], ids=["first", "second", "third"]
)
def test_pulls_of_pixels_have_unit_width_in_every_gain_stage(stage: int, low: float, high: float) -> None:
    chosen = (photons() >= low) & (photons() < high)
    values, variance = (calibrated()[v].values[:, chosen] for v in ("calibrated", "calibrated_variance"))
    codes = simulation().run["jungfrau"]["raw"].values[:, chosen] >> 14
    assert (codes[np.isfinite(values)] == stage).mean() > 0.99
    check((values - photons()[chosen] * ENERGY / 1e3) / np.sqrt(variance), low)


def test_errors_of_pixels_without_photons_are_never_too_small() -> None:
    empty = photons() < 1e-3
    both = calibrated().sd.average().compute()
    pulls = both["calibrated"].values[empty] / np.sqrt(both["calibrated_variance"].values[empty])
    width = np.nanstd(pulls)
    assert 0.9 < width < 1.01  # noise beyond three sigma is taken for photons, which makes errors a little too large


def test_pulls_of_sums_centres_and_projections_have_unit_width() -> None:
    boxes = {f"{s} {i} {j}": xs.Box(segment=s, row=(32 * i, 32 * i + 32), column=(64 * j, 64 * j + 64))
             for s in range(2) for i in range(4) for j in range(4)}  # fmt: skip
    records = {"roi": xs.roi(boxes), "rows": xs.projection("row"), "columns": xs.projection("column")}
    found = calibrated().sd.reduce(records).compute()
    true = truth().sd.reduce(records)
    bright = true["roi_sum"].values / ENERGY * 1e3 > 1000
    assert bright.mean() > 0.5
    for name in ("roi_sum", "roi_mean", "roi_com_row", "roi_com_column"):
        pulls = ((found[name] - true[name]) / np.sqrt(found[f"{name}_variance"])).values
        check(pulls[bright], 1000)
    for name in ("rows_projection", "columns_projection"):
        pulls = ((found[name] - true[name]) / np.sqrt(found[f"{name}_variance"])).values
        check(pulls[true[name].values / ENERGY * 1e3 > 100], 100)


def test_pulls_of_rings_have_unit_width() -> None:
    integrate = xs.azint(60, range=(0.3, 2.4))
    found, true = xs.apply(calibrated(), integrate).compute(), xs.apply(truth(), integrate)
    pulls = ((found["intensity"] - true["intensity"]) / np.sqrt(found["intensity_variance"])).values
    n = (true["intensity"] * true["n_valid"]).values / ENERGY * 1e3
    check(pulls[n > 200], 200)


def test_pulls_of_the_means_of_a_cube_have_unit_width() -> None:
    events = simulation().run["events"].to_dataset().assign(half=("event", np.arange(EVENTS) % 2 == 0))
    cube = events.sd.cube({"half": xs.categories()}, images={"jungfrau": calibrated()}).compute()
    true = photons() * ENERGY / 1e3
    pulls = ((cube["jungfrau"] - true) / np.sqrt(cube["jungfrau_variance"])).values
    check(pulls[:, photons() > 1.5], 1.5 * EVENTS / 2)
    change = cube.sd.difference("half")
    pulls = (change["jungfrau"] / np.sqrt(change["jungfrau_variance"])).values
    check(pulls[photons() > 1.5], 1.5 * EVENTS / 2)
    relative = cube.sd.difference("half", relative=True)
    pulls = (relative["jungfrau"] / np.sqrt(relative["jungfrau_variance"])).values
    check(pulls[photons() > 8], 8 * EVENTS / 2)
    stderr = cube["jungfrau_stderr"].values[:, photons() > 1.5]
    propagated = np.sqrt(cube["jungfrau_variance"].values[:, photons() > 1.5])
    assert abs(np.nanmean(stderr / propagated) - 1) < 0.01  # two ways to the same error


def test_pulls_of_pictures_have_unit_width() -> None:
    both = calibrated().isel(event=slice(0, 40)).sd.average().compute()[["calibrated", "calibrated_variance"]]
    true = both["calibrated"].copy(data=photons() * ENERGY / 1e3).where(both["calibrated"].notnull())
    for make, name in ((lambda a: a.sd.image(method="area", pixel_size=3e-4), "calibrated"),
                       (lambda a: a.sd.polar(n_radius=60, n_azimuth=90), "intensity")):  # fmt: skip
        found, ideal = make(both), make(true)
        ideal = ideal if isinstance(ideal, xr.DataArray) else ideal[name]
        pulls = ((found[name] - ideal) / np.sqrt(found[f"{name}_variance"])).values
        check(pulls[ideal.values * 40 * 1e3 / ENERGY > 100], 100)


def test_pulls_of_speckle_have_unit_width() -> None:
    box = xs.Box(segment=0, row=(40, 70), column=(60, 100))
    found = calibrated().sd.autocorrelation(box, max_lag=4).compute()
    true = truth().sd.autocorrelation(box, max_lag=4)["autocorrelation"]
    pulls = ((found["autocorrelation"] - true) / np.sqrt(found["autocorrelation_variance"])).values
    n_photons = photons()[0, 40:70, 60:100].mean()
    away = np.ones((9, 9), bool)
    away[4, 4] = False  # where the noise of a pixel meets itself
    values = pulls[:, away]
    assert n_photons > 1.5
    assert abs(values.std() - 1) < 0.15 + 0.5 / n_photons
