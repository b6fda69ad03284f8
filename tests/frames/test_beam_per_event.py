"""A beam that moves: distance, centre and tilts per event."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError

N = 5
DISTANCE = 0.1 + 1e-3 * np.arange(N)
X, Y = 1e-4 * np.arange(N), -2e-4 * np.arange(N)
TILT = 0.5 * np.arange(N)


@pytest.fixture(scope="module")
def raw() -> xr.DataArray:
    sim = xs.simulate(N, shape=(2, 16, 32), seed=1)
    return sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)


@pytest.mark.parametrize("name", ["radius", "azimuth", "two_theta", "q", "solid_angle"])
def test_each_event_has_the_pixels_of_its_own_beam(raw: xr.DataArray, name: str) -> None:
    moving = raw.sd.assign_beam(photon_energy=9500, distance=DISTANCE, center=(X, Y), tilt_x=TILT)
    found = moving.isel(row=slice(3, 9), segment=[1]).sd.pixel(name)
    assert found.dims == ("event", "segment", "row", "column")
    assert found.chunks is not None
    assert "event" in found.coords
    for i in range(N):
        still = raw.sd.assign_beam(photon_energy=9500, distance=DISTANCE[i], center=(X[i], Y[i]), tilt_x=TILT[i])
        expected = still.isel(row=slice(3, 9), segment=[1]).sd.pixel(name)
        np.testing.assert_array_equal(found.isel(event=i).values, expected.values)


def test_energies_may_differ_too(raw: xr.DataArray) -> None:
    energy = 9000 + 100.0 * np.arange(N)
    found = raw.sd.assign_beam(photon_energy=energy, distance=xr.DataArray(DISTANCE, dims="event")).sd.pixel("q")
    alone = raw.sd.assign_beam(photon_energy=energy[3], distance=DISTANCE[3]).sd.pixel("q")
    np.testing.assert_array_equal(found.isel(event=3).values, alone.values)


def test_an_event_whose_beam_is_not_known_is_nan(raw: xr.DataArray) -> None:
    distance = DISTANCE.copy()
    distance[2] = np.nan
    found = raw.sd.assign_beam(distance=distance).sd.pixel("two_theta").compute()
    assert np.isnan(found.isel(event=2)).all()
    assert np.isfinite(found.isel(event=1)).all()


def test_a_beam_that_is_the_same_in_all_events_stays_known_where_frames_are_lazy(raw: xr.DataArray) -> None:
    same = (
        raw.drop_attrs(deep=False)
        .astype("f4")
        .compute()
        .sd.assign_beam(photon_energy=np.full(N, 9500.0), distance=np.full(N, 0.1), center=(np.full(N, 1e-4), 0.0))
    )
    record = xs.azint(bins=20, split="box")
    for chunks in ({"event": 2}, {"event": (0, N, 0)}):
        xr.testing.assert_equal(same.chunk(chunks).sd.reduce({"q": record}).compute(), same.sd.reduce({"q": record}))


def test_nothing_is_computed_before_it_is_asked_for(
    raw: xr.DataArray, computing_is_forbidden: Callable[[], Any]
) -> None:
    with computing_is_forbidden():
        raw.sd.assign_beam(photon_energy=9500, distance=DISTANCE, center=(X, 0.0)).sd.pixel("q")


def test_reductions_that_need_one_beam_say_so(raw: xr.DataArray) -> None:
    for moving in (
        raw.sd.assign_beam(photon_energy=9500, distance=DISTANCE),
        raw.sd.assign_beam(photon_energy=9500, distance=0.1, center=(X, Y)),
    ):
        with pytest.raises(ParameterError, match="event"):
            moving.sd.azint(bins=10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"distance": DISTANCE * 1000}, "0.0925"),
        ({"center": (X + 5000, Y)}, "5000 um"),
        ({"distance": DISTANCE[:3]}, "does not fit the events"),
        ({"center": 3}, r"\(x, y\) in m"),
    ],
)
def test_values_of_another_unit_or_number_of_events_are_refused(raw: xr.DataArray, wrong: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        raw.sd.assign_beam(**wrong)


def test_energies_that_cannot_be_cost_their_events_and_a_wrong_unit_is_refused() -> None:
    frames = xr.DataArray(np.ones((4, 1, 2, 3)), dims=("event", "segment", "row", "column"))
    for stand_in in (0.0, -3.0, 1e9, np.inf, np.nan, 9.5):
        energies = xr.DataArray([9500.0, stand_in, 9400.0, 9500.0], dims="event", attrs={"units": "eV"})
        for given in (energies, energies.values):
            own = frames.sd.assign_beam(photon_energy=given)
            np.testing.assert_array_equal(own["photon_energy"], [9500, np.nan, 9400, 9500])
    with pytest.raises(ParameterError, match="outside the range"):
        frames.sd.assign_beam(photon_energy=[9.5, 9.4, 9500, 9.5])
    for unit, value in (("keV", [9500.0] * 4), ("keV", 9500.0)):
        with pytest.raises(ParameterError, match="another unit"):
            frames.sd.assign_beam(
                photon_energy=xr.DataArray(value, dims=("event",)[: np.ndim(value)], attrs={"units": unit})
            )
    with pytest.raises(ParameterError, match="another unit"):
        frames.sd.assign_beam(distance=xr.DataArray(0.1, attrs={"units": "mm"}))
