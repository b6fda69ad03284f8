"""A photon energy per event: each event is binned by its own q."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

EDGES = np.linspace(0.31, 2.03, 38)


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(9, shape=(2, 32, 64), seed=4, chunks=4)


def calibrated(sim: Any, energy: Any) -> xr.DataArray:
    placed = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    return placed.sd.assign_beam(photon_energy=energy, distance=sim.beam.distance).sd.calibrate(sim.constants)


ENERGY = 9500 + 40.0 * np.arange(9)


@pytest.mark.parametrize("arguments", [{}, {"azimuth_bins": 5}, {"solid_angle": True}])
def test_each_event_equals_the_integral_at_its_own_energy(sim: Any, arguments: dict[str, Any]) -> None:
    found = calibrated(sim, xr.DataArray(ENERGY, dims="event")).sd.azint(EDGES, **arguments).compute()
    for i, energy in enumerate(ENERGY):
        alone = calibrated(sim, float(energy)).isel(event=[i]).sd.azint(EDGES, **arguments).compute()
        np.testing.assert_array_equal(found["n_valid"][i], alone["n_valid"][0])
        np.testing.assert_allclose(found["intensity"][i], alone["intensity"][0], rtol=1e-6)


def test_a_mask_and_the_same_bits_however_it_is_cut(sim: Any) -> None:
    mask = np.random.default_rng(1).random((2, 32, 64)) < 0.8
    cal = calibrated(sim, xr.DataArray(ENERGY, dims="event"))
    whole = cal.sd.azint(EDGES, mask=mask).compute()
    assert (whole["n_valid"].sum("q") <= mask.sum()).all()
    cut = xr.concat([cal.isel(event=slice(a, a + 3)).sd.azint(EDGES, mask=mask) for a in (0, 3, 6)], "event")
    in_memory = cal.compute().sd.azint(EDGES, mask=mask)
    persisted = cal.persist().sd.azint(EDGES, mask=mask)
    for other in (cut, in_memory, persisted):
        np.testing.assert_array_equal(other["intensity"].values, whole["intensity"].values)


def test_an_event_whose_energy_is_not_known_has_no_valid_pixel(sim: Any) -> None:
    energy = ENERGY.copy()
    energy[3] = np.nan
    found = calibrated(sim, xr.DataArray(energy, dims="event")).sd.azint(EDGES).compute()
    assert int(found["n_valid"][3].sum()) == 0
    assert np.isnan(found["intensity"][3]).all()
    assert (found["n_valid"].sum("q")[[2, 4]] > 0).all()


def test_energies_that_are_all_the_same_are_one_beam(sim: Any) -> None:
    same = calibrated(sim, xr.DataArray(np.full(9, 9500.0), dims="event")).sd.azint(EDGES).compute()
    one = calibrated(sim, 9500.0).sd.azint(EDGES).compute()
    np.testing.assert_array_equal(same["intensity"].values, one["intensity"].values)


def test_two_theta_does_not_ask_for_the_energy(sim: Any) -> None:
    cal = calibrated(sim, xr.DataArray(ENERGY, dims="event"))
    one = calibrated(sim, 9500.0)
    np.testing.assert_array_equal(
        cal.sd.azint(30, quantity="two_theta")["intensity"].values,
        one.sd.azint(30, quantity="two_theta")["intensity"].values,
    )


def test_building_it_computes_nothing(sim: Any, computing_is_forbidden: Callable[[], Any]) -> None:
    with computing_is_forbidden():
        calibrated(sim, xr.DataArray(ENERGY, dims="event")).sd.azint(EDGES)
