"""Droplets and photons by classes of events: spectra, cubes and images of lists, without frames of them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

DIMS = ("event", "segment", "row", "column")
EDGES = np.array([0.0, 8.0, 12.0, 25.0])


@pytest.fixture
def cal() -> xr.DataArray:
    values = 10.0 * np.random.default_rng(1).poisson(0.03, (20, 2, 16, 20))
    values[7] = 0
    times = np.arange(20).astype("M8[s]").astype("M8[ns]")
    return xr.DataArray(values.astype("f4"), {"event": times}, DIMS, attrs={"units": "keV"})


@pytest.fixture
def laser_on(cal: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(np.arange(20) % 3 == 0, {"event": cal.event}, "event", name="laser_on")


def expected(cal: xr.DataArray, classes: xr.DataArray, on: bool) -> np.ndarray:
    """The spectrum of all droplets of a class, from the lists."""
    chosen = cal.sd.droplet(4.0).isel(event=np.flatnonzero(classes.values == on))
    return np.histogram(np.concatenate(chosen["sum"].values), EDGES)[0]


def test_spectra_of_droplets_add_up_by_class(cal: xr.DataArray, laser_on: xr.DataArray) -> None:
    chain = xs.droplet(4.0) | xs.histogram("sum", EDGES)
    summed = xs.apply(cal, chain | xs.sums(by=laser_on))
    small = cal.sd.reduce({"drops": xs.droplet(4.0), "spectrum": chain}).assign(laser_on=laser_on)
    cube = small.sd.cube({"laser_on": xs.categories()}, statistics="sum").compute()
    for i, on in enumerate((False, True)):
        spectrum = expected(cal, laser_on, on)
        np.testing.assert_allclose(cube["spectrum_histogram_sum"].sel(laser_on=on), spectrum)
        total = summed["histogram_mean"] * summed["histogram_count"]
        np.testing.assert_allclose(total.isel(laser_on=i), spectrum)
    assert "drops_sum" in cube.attrs["left_out"]


def test_images_of_photons_add_up_by_class(cal: xr.DataArray, laser_on: xr.DataArray) -> None:
    kept = xs.apply(cal, xs.droplet(4.0) | xs.photon(10.0, sparse=True))
    small = xr.Dataset({"laser_on": laser_on})
    cube = small.sd.cube({"laser_on": xs.categories()}, images={"photons": kept}, statistics="sum").compute()
    for on in (False, True):
        chosen = kept.isel(event=np.flatnonzero(laser_on.values == on))
        np.testing.assert_allclose(cube["photons_sum"].sel(laser_on=on), xs.dense(chosen).sum("event"))


@pytest.mark.parametrize("ending", [".zarr", ".h5"])
def test_lists_of_two_runs_are_saved_opened_joined_and_counted(
    cal: xr.DataArray, laser_on: xr.DataArray, tmp_path: Path, ending: str
) -> None:
    opened = []
    for i, part in enumerate((slice(0, 8), slice(8, 20))):
        small = cal.isel(event=part).sd.reduce({"drops": xs.droplet(4.0)}).assign(laser_on=laser_on[part])
        path = xs.save(small, tmp_path / f"run{i}{ending}")
        with xr.open_dataset(path, engine="zarr" if ending == ".zarr" else "netcdf4") as flat:
            opened.append(xs.lists(flat).load())
    both = xs.concat(opened)
    whole = cal.sd.droplet(4.0)
    assert both["drops_n_droplets"].values.tolist() == whole["n_droplets"].values.tolist()
    for mine, theirs in zip(both["drops_sum"].values, whole["sum"].values, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    table = xs.to_pandas(both.drop_vars("laser_on"))
    assert len(table) == int(both["drops_n_droplets"].sum())
    on = laser_on.to_series().reindex(table.index.get_level_values(0)).values
    column = next(c for c in table.columns if str(c).endswith("sum"))
    np.testing.assert_array_equal(np.histogram(table[column][on], EDGES)[0], expected(cal, laser_on, True))
