"""Joined bins are the bins one would have made."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError


def small(seed: int = 0, n: int = 300) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    signal = rng.normal(3, 1, (n, 2))
    signal[rng.random((n, 2)) < 0.2] = np.nan
    made = xr.Dataset(
        {
            "delay": ("event", rng.normal(1.5, 2, n), {"units": "ps"}),
            "on": ("event", rng.random(n) < 0.5),
            "signal": (("event", "q"), signal, {"units": "keV"}),
            "signal_variance": (("event", "q"), rng.uniform(1, 2, (n, 2))),
        }
    )
    return paired(made)


@settings(max_examples=30)
@given(st.integers(0, 100), st.sampled_from([1, 2, 3, 6]), st.booleans())
def test_joined_bins_are_those_of_all_events(seed: int, factor: int, lazy: bool) -> None:
    data = small(seed)
    fine = (data.chunk(event=70) if lazy else data).sd.cube({"delay": xs.bins(-2, 4, n=12), "on": xs.categories()})
    wide, exact = (
        fine.sd.rebin(delay=factor),
        data.sd.cube({"delay": xs.bins(-2, 4, n=12 // factor), "on": xs.categories()}),
    )
    assert (wide["signal"].chunks is not None) == lazy
    assert set(wide.variables) == set(exact.variables)
    for name in exact.variables:
        np.testing.assert_allclose(wide[name].values, exact[name].values, rtol=1e-12, err_msg=str(name))
        assert wide[name].dims == exact[name].dims
        assert wide[name].attrs.get("units") == exact[name].attrs.get("units")
    assert wide["delay"].attrs["n_below"] == exact["delay"].attrs["n_below"]


def test_logarithmic_bins_keep_geometric_centres() -> None:
    data = small().assign(t=("event", np.geomspace(0.1, 99.9, 300)))
    wide = data.sd.cube({"t": xs.bins(0.1, 100, n=6, log=True)}).sd.rebin(t=2)
    np.testing.assert_allclose(wide["t"], data.sd.cube({"t": xs.bins(0.1, 100, n=3, log=True)})["t"])


def test_what_cannot_be_joined_is_refused_and_the_advice_works() -> None:
    cube = small().sd.cube({"delay": xs.bins(-2, 4, n=7), "on": xs.categories()})
    with pytest.raises(ParameterError, match="cannot be joined") as refused:
        cube.sd.rebin(delay=2)
    advice = str(refused.value).split("do this:")[1].strip()
    assert eval(advice, {"cube": cube}).sizes["delay"] == 3
    for wrong, message in (
        ({"on": 2}, "categories"),
        ({"q": 2}, "no dim of bins"),
        ({"delay": 0}, "joined"),
        ({}, "needs"),
    ):
        with pytest.raises(ParameterError, match=message):
            cube.sd.rebin(**wrong)
    with pytest.raises(ParameterError, match="do not touch"):
        cube.isel(delay=[0, 2, 3, 4]).sd.rebin(delay=2)
    with pytest.raises(DataError, match="pooled"):
        cube.assign(mine=cube["signal"] * 2).sd.rebin(delay=7)
