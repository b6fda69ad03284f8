"""Shots minus the nearest ones without laser: drifts go, and the errors are as large as the scatter of runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

BINS = {"delay": xs.bins(0, 4, n=4)}


def small(n: int = 1500, seed: int = 1, *, order: str = "fly", share: float = 0.75) -> xr.Dataset:
    """A change of 1 to 4 by delay, on a signal that drifts by more than that."""
    rng = np.random.default_rng(seed)
    on = rng.random(n) < share
    delay = np.sort(rng.random(n) * 4) if order == "step" else rng.random(n) * 4
    drift = 100 + 20 * np.sin(np.linspace(0, 0.6, n) + seed)
    signal = drift + np.where(on, np.floor(delay) + 1, 0) + rng.normal(0, 0.5, n)
    two = np.stack([signal, 2 * signal], 1)
    two[rng.random((n, 2)) < 0.1] = np.nan
    lit = rng.random(n) < 0.95
    return xr.Dataset(
        {
            "laser_on": ("event", on),
            "xray_on": ("event", lit),
            "delay": ("event", delay),
            "signal": ("event", np.where(lit, signal, 0.0), {"units": "keV"}),
            "two": (("event", "q"), np.where(lit[:, None], two, 0.0)),
        },
        coords={"event": np.datetime64("2026-01-01", "ns") + np.arange(n).astype("m8[ns]")},
    )


def test_it_is_what_one_writes_in_numpy() -> None:
    data = small(300)
    found = data.sd.nearest_off(BINS, n=5)
    kept = data.isel(event=data.xray_on.values)
    off = np.flatnonzero(~kept.laser_on.values)
    for k in range(4):
        d = []
        for e in np.flatnonzero(kept.laser_on.values & (np.floor(kept.delay.values) == k)):
            away = np.abs((kept.event.values[off] - kept.event.values[e]).astype(int))
            near = off[np.argsort(away, kind="stable")[:5]]
            with np.errstate(all="ignore"):
                d.append(kept.two.values[e] - np.nanmean(kept.two.values[near], axis=0))
        np.testing.assert_allclose(found["two"].isel(delay=k), np.nanmean(d, axis=0), rtol=1e-9)
        assert found["two_count"].isel(delay=k).values.tolist() == np.isfinite(d).sum(axis=0).tolist()
    assert found.attrs["n_dropped_shots"] == int((~data.xray_on).sum())
    assert found["signal"].attrs["units"] == "keV"


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("order", ["fly", "step"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_pulls_have_unit_width_though_neighbours_share_shots(order: str, share: float, relative: bool) -> None:
    pulls = []
    for seed in range(40):
        data = small(seed=seed, order=order, share=share)
        truth = np.arange(1, 5.0)
        found = data.sd.nearest_off(BINS, n=6, relative=relative)["signal"], data
        error = data.sd.nearest_off(BINS, n=6, relative=relative)["signal_stderr"]
        if relative:
            drift = 100 + 20 * np.sin(np.linspace(0, 0.6, data.sizes["event"]) + seed)
            lit = data.xray_on.values & data.laser_on.values
            base = [drift[lit & (np.floor(data.delay.values) == k)].mean() for k in range(4)]
            truth = truth / base
        pulls.append((found[0].values - truth) / error.values)
    assert abs(np.std(pulls) - 1) < 0.2  # 160 pulls
    assert abs(np.mean(pulls)) < 0.35


def test_a_drift_does_not_enter() -> None:
    plain = small().sd.cube({**BINS, "laser_on": xs.categories()}).sd.difference("laser_on")["signal_stderr"]
    assert (small().sd.nearest_off(BINS)["signal_stderr"] < plain / 2.5).all()


def test_lazy_data_stay_lazy_and_give_the_same_bits(computing_is_forbidden: Callable[[], Any]) -> None:
    data = small(400)
    lazy = data.assign(two=data.two.chunk(event=70))
    with computing_is_forbidden():
        made = lazy.sd.nearest_off(BINS)
    xr.testing.assert_identical(made.compute(), data.sd.nearest_off(BINS))


def test_it_is_a_result_that_does_not_merge_or_join() -> None:
    found = small().sd.nearest_off(BINS)
    with pytest.raises(DataError, match="not a mean with its spread"):
        xs.rebin_cube(found, delay=2)


def test_mistakes_are_said() -> None:
    data = small(100)
    with pytest.raises(ParameterError, match="cannot be binned by"):
        data.sd.nearest_off({"laser_on": xs.categories()})
    with pytest.raises(ParameterError, match="nearest shots"):
        data.sd.nearest_off(BINS, n=0)
    with pytest.raises(DataError, match="no shot without laser"):
        data.assign(laser_on=data.laser_on | True).sd.nearest_off(BINS)
    with pytest.raises(DataError, match="no shot with laser"):
        data.assign(laser_on=data.laser_on & False).sd.nearest_off(BINS)


def test_numbers_of_valid_pixels_are_not_subtracted() -> None:
    data = small(300).assign(n_valid=("event", np.full(300, 9)), spot_n_valid=("event", np.full(300, 9)))
    found = data.sd.nearest_off(BINS, n=5)
    assert not {"n_valid", "spot_n_valid"} & set(found.data_vars)
    assert {"n_valid", "spot_n_valid"} <= set(found.attrs["left_out"].split(", "))


@pytest.mark.parametrize("labels", ["float", "text", "number", "time"])
def test_nearest_goes_by_the_labels_of_whatever_kind(labels: str) -> None:
    rng = np.random.default_rng(3)
    n = 400
    place = rng.permutation(n)
    kinds = {"float": place * 0.5, "text": np.array([f"{k:04d}" for k in place]), "number": place,
             "time": place.astype("M8[ms]").astype("M8[ns]")}  # fmt: skip
    on = place % 3 != 0
    values = place**2 / 100 + np.where(on, 7.0, 0.0)  # far neighbours differ by hundreds
    small = xr.Dataset({"laser_on": ("event", on), "x": ("event", np.zeros(n)), "y": ("event", values)})
    found = small.assign_coords(event=kinds[labels]).sd.nearest_off({"x": xs.bins(-1, 1, n=1)}, n=2)
    assert float(found["y"][0]) == pytest.approx(7, abs=0.1)


def test_an_outlier_stays_with_its_neighbours() -> None:
    n = 600
    on = np.arange(n) % 3 != 0
    values = np.where(on, 12.0, 10.0)
    values[0] = 1e18
    small = xr.Dataset({"laser_on": ("event", on), "x": ("event", np.arange(n) // 300 * 1.0), "y": ("event", values)})
    for n_nearest in (1, 2, 7):
        found = small.sd.nearest_off({"x": xs.bins(-0.5, 1.5, n=2)}, n=n_nearest)
        assert float(found["y"][0]) < -1e12
        assert float(found["y"][1]) == 2.0


def test_events_without_a_label_have_no_neighbours_and_the_advice_works() -> None:
    times = np.arange(40).astype("M8[s]").astype("M8[ns]")
    times[3] = "NaT"
    on = np.arange(40) % 2 == 0
    small = xr.Dataset({"laser_on": ("event", on), "x": ("event", np.zeros(40))}, {"event": times})
    with pytest.raises(DataError, match=r"do this:  small\.isel\(event=small\.event\.notnull\(\)\.values\)"):
        small.sd.nearest_off({"x": xs.bins(-1, 1, n=1)})
    found = small.isel(event=small.event.notnull().values).sd.nearest_off({"x": xs.bins(-1, 1, n=1)})
    assert int(found["count"][0]) == 20
