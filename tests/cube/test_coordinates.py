"""A cube is of what was asked for: data variables, the weight, what is binned by, and coordinates by name."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError

BINS = {"delay": xs.bins(0, 1, n=2), "laser_on": xs.categories()}


def small(n: int = 400) -> xr.Dataset:
    rng = np.random.default_rng(5)
    return xr.Dataset(
        {"signal": (("event", "q"), rng.normal(5, 1, (n, 3)))},
        {
            "event": np.datetime64("2026-01-01", "ns") + np.arange(n).astype("m8[ns]"),
            "delay": ("event", rng.random(n), {"units": "ps"}),
            "laser_on": ("event", np.arange(n) % 3 > 0),
            "i0": ("event", rng.normal(1, 0.1, n)),
            "photon_energy": ("event", rng.normal(9500, 5, n), {"units": "eV"}),
            "hutch": ("event", np.full(n, "xpp")),
        },
    )


def means(cube: xr.Dataset) -> set[str]:
    """What has a mean: each has its spread beside it."""
    return {str(name).removesuffix("_std") for name in cube.data_vars if str(name).endswith("_std")}


WAYS: dict[str, Any] = {
    "cube": lambda data, **options: data.sd.cube(BINS, **options),
    "bootstrap": lambda data, **options: data.sd.bootstrap(BINS, n=3, **options),
    "weighted": lambda data, **options: data.sd.cube(BINS, weights="i0", **options),
}


@pytest.mark.parametrize(("way", "there"), [
    ("cube", {"signal", "delay_mean"}),
    ("bootstrap", {"signal", "delay_mean"}),
    ("weighted", {"signal", "delay_mean", "i0", "signal_weight"}),
])  # fmt: skip
def test_coordinates_of_events_are_averaged_where_they_are_asked_for(way: str, there: set[str]) -> None:
    call = WAYS[way]
    assert means(call(small())) == there
    assert means(call(small(), coordinates=["photon_energy"])) >= there | {"photon_energy"}
    everything = call(small(), coordinates=True)
    assert means(everything) >= there | {"photon_energy", "i0"}
    same = call(small().reset_coords(["photon_energy", "i0"]))
    for name in ("photon_energy", "photon_energy_stderr", "i0"):
        xr.testing.assert_equal(everything[name].variable, same[name].variable)
    assert everything["photon_energy"].attrs["units"] == "eV"


def test_those_that_are_not_asked_for_are_named() -> None:
    plain, asked = small().sd.cube(BINS), small().sd.cube(BINS, coordinates="i0")
    assert set(plain.attrs["left_out"].split(", ")) == {"i0", "photon_energy", "hutch"}
    assert set(asked.attrs["left_out"].split(", ")) == {"photon_energy", "hutch"}
    assert "coordinates" in asked.attrs["parameters"]


def test_nearest_off_takes_them_too() -> None:
    bins = {"delay": BINS["delay"]}
    plain = small().sd.nearest_off(bins)
    assert {str(name) for name in plain.data_vars} == {"count", "signal", "signal_stderr", "signal_count"}
    found = small().sd.nearest_off(bins, coordinates=["photon_energy"])
    same = small().reset_coords("photon_energy").sd.nearest_off(bins)
    xr.testing.assert_equal(found["photon_energy"].variable, same["photon_energy"].variable)


@pytest.mark.parametrize("way", ["cube", "bootstrap"])
@pytest.mark.parametrize(("asked", "message"), [
    (["photon_enrgy"], r"no coordinate 'photon_enrgy'\n(.|\n)*coordinates=\['photon_energy'\]"),
    (["temperature"], "coordinates=True"),
    (["hutch"], "hutch has no mean"),
    (["q"], "no coordinate 'q'"),
])  # fmt: skip
def test_names_that_are_not_there_are_said(way: str, asked: list[str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        WAYS[way](small(), coordinates=asked)
