"""Figures of calibration show what they are given."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.dark.dark import dark
from xsmall.errors import DataError
from xsmall.plot.calibration import plot_common_modes, plot_dark

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures() -> object:
    yield
    mpl.pyplot.close("all")


def test_a_dark_figure_has_a_row_for_each_gain_stage_that_was_seen() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for code in (0, 1):
        words = rng.normal(3000, 4, (120, 2, 8, 16)).round().astype(np.uint16) | np.uint16(code << 14)
        runs.append(
            xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "jungfrau"})
        )
    with pytest.warns(UserWarning, match="G2"):
        constants = dark(runs)
    figure = plot_dark(constants, segment=1)
    titles = [ax.get_title() for ax in figure.axes]
    assert {"G0: pedestal, segment 1", "G1: noise, segment 1"} <= set(titles)
    assert not any("G2" in title for title in titles)
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_allclose(pictures[0], constants["pedestal"][0, 1].where(constants["status"][0, 1] == 0))


def test_a_common_mode_figure_has_a_tick_for_each_mode() -> None:
    noise = np.random.default_rng(0).uniform(2, 3, (3, 10, 2))
    fraction = np.ones((3, 10, 2))
    fraction[2] = 0.4
    comparison = xr.Dataset(
        {
            "noise": (("mode", "event", "segment"), noise),
            "fraction_corrected": (("mode", "event", "segment"), fraction),
        },
        coords={"mode": ["none", "7", "71"]},
    )
    ax = plot_common_modes(comparison)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["none", "7", "71\n(40% of units)"]


def test_something_else_is_refused() -> None:
    with pytest.raises(DataError, match="dark runs"):
        plot_dark(xr.Dataset())
    with pytest.raises(DataError, match="comparison"):
        plot_common_modes(xr.Dataset())
