"""Bins of a cube, and an average, go where frames go: each as if it were an event, with its variance."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError

BOX = xs.Box(segment=0, row=(2, 20), column=(3, 40))
RECORDS = {"q": xs.azint(bins=20), "spot": xs.roi(BOX), "rows": xs.projection("row")}


def made(lazy: bool = False) -> xr.Dataset:
    sim = xs.simulate(300, shape=(2, 32, 64), seed=1)
    raw = sim.run["jungfrau/raw"].sd.assign_geometry(sim.geometry)
    both = raw.sd.assign_beam(photon_energy=9500, distance=sim.beam.distance).sd.calibrate(sim.constants, variance=True)
    bins = {"delay": xs.bins(-2, 5, n=3), "laser_on": xs.categories()}
    cube = sim.run["events"].to_dataset().sd.cube(bins, images={"j": both})
    return cube if lazy else cube.compute()


@pytest.mark.parametrize("variance", [False, True])
def test_each_bin_is_reduced_as_an_event_would_be(variance: bool) -> None:
    cube = made()
    pictures = cube[["j", "j_variance"]] if variance else cube["j"]
    found = pictures.sd.reduce(RECORDS)
    assert found["q_intensity"].dims == ("delay", "laser_on", "q")
    assert found["rows_projection"].dims == ("delay", "laser_on", "segment", "row")
    assert ("spot_sum_variance" in found) == variance
    for name in {"delay", "laser_on", "delay_bounds"} & set(pictures.coords):
        xr.testing.assert_identical(found[name].variable.to_base_variable(), cube[name].variable.to_base_variable())
    for i in range(3):
        for k in range(2):
            one = pictures.isel(delay=i, laser_on=k).drop_vars(["delay", "laser_on"]).expand_dims(event=[0])
            alone = one.sd.reduce(RECORDS).isel(event=0)
            for name in alone.data_vars:
                np.testing.assert_array_equal(found[name].isel(delay=i, laser_on=k).values, alone[name].values, name)


def test_any_reduction_of_bins_is_lazy_where_they_are(computing_is_forbidden: Callable) -> None:
    lazy, held = made(lazy=True), made()
    with computing_is_forbidden():
        rings = lazy["j"].sd.azint(bins=20)
    xr.testing.assert_identical(rings.compute(), held["j"].sd.azint(bins=20))
    found = held["j"].sd.droplet(6.0, 4.0)
    assert found["n_droplets"].dims == ("delay", "laser_on")
    assert len(found["sum"].values[1, 1]) == int(found["n_droplets"][1, 1])
    brightest = held["j"].sd.apply(np.nanmax)["value"]
    np.testing.assert_array_equal(brightest, held["j"].max(("segment", "row", "column")))


def test_one_picture_is_reduced_to_one_value_of_each() -> None:
    cube = made()
    one = cube[["j", "j_variance"]].isel(delay=1, laser_on=0)
    found = one.sd.roi(BOX)
    assert found["sum"].dims == ("roi",)
    assert float(found["delay"]) == float(cube["delay"][1])
    many = cube[["j", "j_variance"]].sd.roi(BOX).isel(delay=1, laser_on=0)
    np.testing.assert_array_equal(found["sum_variance"], many["sum_variance"])


def test_what_has_no_pixels_is_still_refused() -> None:
    with pytest.raises(DataError):
        made()["j"].isel(row=0).sd.roi(BOX)
    with pytest.raises(DataError, match="may not be the variance"):
        (made()[["j", "j_variance"]] * 2).sd.roi(BOX)
