"""Photons of each pixel are frames to what follows: as when they are kept first, in one pass."""

import pickle
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError

PHOTONS = {
    "droplets": lambda: xs.droplet(4.0, 1.0) | xs.photon(9.5, image=True),
    "pixels": lambda: xs.photon(9.5, thr_fraction=0.8, image=True),
}
FOLLOWING: dict[str, Callable[[], Any]] = {
    "projection": lambda: xs.projection("row"),
    "roi": lambda: xs.roi({"a": xs.Box(segment=1, row=(2, 9)), "b": xs.Band("radius", 0, 1e-3)}, also=["x", "min"]),
    "thresholds": lambda: xs.roi(xs.Box(segment=0), threshold=2.0),
    "roi of lines": lambda: xs.roi(xs.Box(segment=0)) | xs.projection("column"),
    "azint": lambda: xs.azint(bins=9),
    "image": lambda: xs.image(),
    "histogram": lambda: xs.histogram(np.arange(-0.5, 6)),
    "function": lambda: xs.record(lambda frame: {"n": int((frame > 1).sum()), "sum": float(np.nansum(frame))}),
    "sums of lines": lambda: xs.projection("row") | xs.sums(),
    "autocorrelation": lambda: xs.autocorrelation(xs.Box(segment=0), max_lag=2),
}


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(9, shape=(2, 16, 24), seed=2)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.assign_geometry(sim.geometry)
    energies = xr.DataArray(9400.0 + 30 * np.arange(9), dims="event")
    return cal.sd.assign_beam(photon_energy=energies, distance=0.1).compute()


@pytest.mark.parametrize("way", PHOTONS)
@pytest.mark.parametrize("name", FOLLOWING)
def test_it_is_what_is_found_in_the_pictures(
    cal: xr.DataArray, name: str, way: str, computing_is_forbidden: Callable[[], Any]
) -> None:
    pictures = cal.sd.apply(PHOTONS[way]())["photons"]
    expected = pictures.sd.apply(FOLLOWING[name]())
    chain = PHOTONS[way]() | FOLLOWING[name]()
    with computing_is_forbidden():
        lazy = cal.copy(data=da.from_array(cal.values, chunks=(2, 2, 16, 24))).sd.reduce(
            {"x": chain, "rows": xs.projection("row")}
        )
    found = lazy.compute()
    assert {str(v) for v in found.data_vars if v.startswith("x_")} == {f"x_{v}" for v in expected.data_vars}
    for variable, values in expected.data_vars.items():
        made = found[f"x_{variable}"]
        assert made.dtype == values.dtype
        np.testing.assert_array_equal(made, values, err_msg=str(variable))
        assert made.attrs.get("units") == values.attrs.get("units")
    np.testing.assert_array_equal(found["rows_projection"], cal.sd.projection("row")["projection"])


def test_it_can_be_sent_is_grouped_from_either_side_and_goes_into_a_recipe(cal: xr.DataArray) -> None:
    chain = xs.droplet(4.0, 1.0) | xs.photon(9.5, image=True) | xs.projection("row")
    other = xs.droplet(4.0, 1.0) | (xs.photon(9.5, image=True) | xs.projection("row"))
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain == other
    assert hash(again) == hash(chain)
    recipe = {"detectors": {"epix": {"reductions": {"rows": [
        {"kind": "droplet", "threshold": "4 keV", "threshold_low": "1 keV"},
        {"kind": "photon", "per_photon": "9.5 keV", "image": True},
        {"kind": "projection", "onto": "row"},
    ]}}}}  # fmt: skip
    xs.open_recipe(recipe)


def test_pictures_that_are_not_kept_are_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    large = xr.DataArray(
        np.zeros((1, 1, 600, 600), "f4"), dims=("event", "segment", "row", "column"), attrs={"units": "keV"}
    )
    chain = xs.photon(9.5, image=True) | xs.projection("row")
    assert int(large.sd.apply(chain)["n_valid"].sum()) == 360_000
    assert not [w for w in recwarn if "keeps" in str(w.message)]
    with pytest.warns(UserWarning, match="keeps"):
        large.sd.apply(xs.photon(9.5, image=True))


def test_lists_are_not_projected_and_what_is_to_be_typed_works(cal: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="photons are lists") as raised:
        xs.droplet(4.0, 1.0) | xs.photon(9.5) | xs.projection("row")
    typed = eval(str(raised.value).split("do this:")[1].strip(), {"xs": xs})
    assert cal.sd.apply(xs.droplet(4.0, 1.0) | typed)["projection"].attrs["units"] == "photon"
    summed = cal.sd.apply(xs.photon(9.5, image=True) | xs.sums())
    assert "photons_mean" in summed
    counted = cal.sd.apply(xs.photon(9.5) | xs.histogram("row", np.arange(0.0, 17.0)))
    assert int(counted["histogram"].sum()) > 0
