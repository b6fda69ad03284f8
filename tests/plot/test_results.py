"""Pictures of results show the numbers, their errors and their units."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.events.ragged import object_array, ragged_attrs

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


@pytest.fixture
def small() -> xr.Dataset:
    rng = np.random.default_rng(0)
    n = 60
    delay = xr.DataArray(np.arange(n) % 6 + 0.5, dims="event", attrs={"units": "ps"})
    lists = object_array([np.arange(i % 4, dtype="f4") for i in range(n)])
    return xr.Dataset(
        {
            "signal": ("event", rng.normal(5, 1, n), {"units": "keV"}),
            "spectrum": (("event", "q"), rng.normal(3, 1, (n, 20)), {"units": "photon", "long_name": "intensity"}),
            "energy": ("event", lists, ragged_attrs("droplet", "f4") | {"units": "keV"}),
            "text": ("event", np.array(["a"] * n)),
        },
        coords={
            "event": np.arange(n),
            "q": ("q", np.linspace(1, 2, 20), {"units": "angstrom-1"}),
            "delay": delay,
            "laser_on": ("event", np.arange(n) // 6 % 2 == 0),
        },
    )


def cube_of(small: xr.Dataset) -> xr.Dataset:
    both = small.drop_vars(["energy", "text"])
    return both.sd.cube({"delay": xs.bins(0, 6, n=6), "laser_on": xs.categories()})


def test_a_value_per_event_is_points_in_the_order_of_events(small: xr.Dataset) -> None:
    ax = small.sd.plot("signal")
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), small.signal)
    assert ax.get_ylabel() == "signal (keV)"


def test_a_correlation_shows_the_events_that_are_cut_in_grey(small: xr.Dataset) -> None:
    ax = small.sd.plot("signal", against="delay", where=small.laser_on)
    grey, used = ax.lines
    np.testing.assert_array_equal(used.get_xdata(), small.delay[small.laser_on])
    np.testing.assert_array_equal(grey.get_ydata(), small.signal[~small.laser_on])
    assert ax.get_xlabel() == "delay (ps)"


def test_a_spectrum_is_its_mean_with_its_error(small: xr.Dataset) -> None:
    ax = small.sd.plot("spectrum")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), small.spectrum.mean("event"))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    error = small.spectrum.std("event", ddof=1) / np.sqrt(60)
    assert band.max() == pytest.approx(float((small.spectrum.mean("event") + error).max()))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("q (angstrom-1)", "intensity (photon)")


def test_lists_are_one_histogram_of_all_values(small: xr.Dataset) -> None:
    ax = small.sd.plot("energy", bins=3)
    heights = [patch.get_height() for patch in ax.patches]
    assert heights == [45, 30, 15]  # 0, 1 and 2 of lists of up to three
    assert small.sd.plot("energy", where=small.laser_on).get_title().endswith("of 30 events")


def test_a_cube_is_curves_with_error_bars_one_for_each_category(small: xr.Dataset) -> None:
    cube = cube_of(small)
    ax = cube.sd.plot("signal")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["laser_on False", "laser_on True"]
    line, _, (bars,) = ax.containers[1]
    np.testing.assert_allclose(line.get_ydata(), cube.signal.sel(laser_on=True))
    half = [(s[1][1] - s[0][1]) / 2 for s in bars.get_segments()]
    np.testing.assert_allclose(half, cube.signal_stderr.sel(laser_on=True))
    assert ax.get_xlabel() == "delay (ps)"


def test_a_difference_is_a_map_with_colours_about_zero(small: xr.Dataset) -> None:
    change = cube_of(small).sd.difference("laser_on")
    ax = change.sd.plot("spectrum")
    (mesh,) = ax.collections
    low, high = mesh.get_clim()
    assert low == -high
    np.testing.assert_allclose(mesh.get_array(), change.spectrum.transpose("q", "delay"))
    assert ax.get_title() == "laser_on: True - False"


def test_pixels_are_the_detector_in_the_lab() -> None:
    sim = xs.simulate(8, shape=(2, 32, 64), seed=1)
    cal = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.calibrate(sim.constants)
    assert cal.sd.average().sd.plot("calibrated").get_xlabel() == "x (mm)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.sd.plot(), "which variable"),
        (lambda s: s.sd.plot("sigma"), "no such variable"),
        (lambda s: s.sd.plot("signal", against="text"), "no such variable of one number"),
        (lambda s: s.sd.plot("signal", where=s.delay), "which events"),
        (lambda s: s.sd.plot("text"), "no numbers"),
        (lambda s: s.expand_dims(mode=3).sd.plot("spectrum"), "more dims"),
        (lambda s: cube_of(s).sd.plot("signal", against="time"), "no such dim"),
        (lambda s: cube_of(s).sd.plot("spectrum"), "no curve and no map"),
    ],
)
def test_what_cannot_be_drawn_says_what_to_type(small: xr.Dataset, make: Any, message: str) -> None:
    with pytest.raises(xs.XsmallError, match=message):
        make(small)


def test_the_advice_for_too_many_dims_works(small: xr.Dataset) -> None:
    cube = cube_of(small)
    with pytest.raises(xs.XsmallError) as raised:
        cube.sd.plot("spectrum")
    advice = str(raised.value).split("do this:")[1].strip()
    assert eval(f"cube{advice}").get_ylabel()
    assert advice.startswith(".isel(")
