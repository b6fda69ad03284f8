"""Differences with errors, and cubes of several runs merged into one."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.cube.bins import bins, categories
from xsmall.cube.compare import difference
from xsmall.cube.cube import cube
from xsmall.cube.merge import merge_cubes
from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError

BINS = {"delay": bins(-2, 2, n=4), "laser_on": categories()}


def small(n: int = 400, seed: int = 1) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    on = rng.random(n) < 0.5
    signal = rng.normal(10, 1, (n, 3)) + 2.0 * on[:, None]
    signal[rng.random((n, 3)) < 0.1] = np.nan
    made = xr.Dataset(
        {
            "delay": ("event", rng.uniform(-3, 3, n)),
            "laser_on": ("event", on),
            "signal": (("event", "q"), signal, {"units": "keV"}),
            "signal_variance": (("event", "q"), rng.uniform(0.5, 2, (n, 3)), {"units": "keV2"}),
            "hits": ("event", rng.integers(0, 5, n)),
        }
    )
    return paired(made)


def test_a_difference_is_on_minus_off_with_the_errors_of_both() -> None:
    made = cube(small(), BINS)
    found = difference(made, "laser_on")
    on, off = made.sel(laser_on=True), made.sel(laser_on=False)
    np.testing.assert_allclose(found["signal"], on["signal"].values - off["signal"].values)
    np.testing.assert_allclose(
        found["signal_stderr"], np.hypot(on["signal_stderr"].values, off["signal_stderr"].values)
    )
    np.testing.assert_allclose(found["signal_variance"], on["signal_variance"].values + off["signal_variance"].values)
    assert found["signal"].dims == ("delay", "q")
    assert "signal_std" not in found
    assert "signal_count" not in found
    assert found["count"].equals(made["count"])
    assert found["signal"].attrs["units"] == "keV"


def test_true_minus_false_whatever_the_order_of_the_bins_and_it_says_so() -> None:
    one = difference(cube(small(), BINS), "laser_on")
    two = difference(cube(small(), {**BINS, "laser_on": categories([True, False])}), "laser_on")
    np.testing.assert_array_equal(one["signal"], two["signal"])
    assert one.attrs["difference"] == two.attrs["difference"] == "laser_on: True - False"
    named = xr.Dataset({"laser": ("event", ["on", "off", "on"]), "s": ("event", [1.0, 2.0, 3.0])})
    three = difference(cube(named, {"laser": categories(["on", "off"])}), "laser", relative=True)
    assert three.attrs["difference"] == "laser: off - on, relative to on"
    assert float(three["s"]) == 0.0


def test_errors_of_relative_differences_are_as_large_as_the_scatter_they_describe() -> None:
    rng = np.random.default_rng(3)
    on = np.arange(60) % 2 == 0
    signal = rng.normal(10, 1, (60, 3000)) + 2.0 * on[:, None]  # each column a run of its own
    signal[rng.random(signal.shape) < 0.1] = np.nan
    data = xr.Dataset({"laser_on": ("event", on), "signal": (("event", "q"), signal, {"units": "keV"})})
    one = difference(cube(data, {"laser_on": categories()}), "laser_on", relative=True)
    assert float(one["signal"].mean()) == pytest.approx(0.2, abs=0.005)
    assert float(one["signal_stderr"].mean()) == pytest.approx(float(one["signal"].std()), rel=0.05)
    assert one["signal"].attrs["units"] == "1"


def test_a_difference_to_an_empty_bin_is_nan_and_so_is_one_relative_to_zero() -> None:
    data = xr.Dataset({"on": ("event", [False, False, True, True]), "s": ("event", [0.0, 0.0, 1.0, 2.0])})
    assert np.isnan(difference(cube(data, {"on": categories()}), "on", relative=True)["s"])
    alone = cube(data.isel(event=slice(2, None)), {"on": categories()})
    assert np.isnan(difference(alone, "on")["s"])


@pytest.mark.parametrize(
    ("dim", "error", "message"), [("lazer", ParameterError, "no dim"), ("delay", ParameterError, "two bins")]
)
def test_a_difference_needs_two_bins(dim: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        difference(cube(small(), BINS), dim)


def test_a_difference_needs_a_cube() -> None:
    with pytest.raises(DataError, match="standard error"):
        difference(xr.Dataset({"a": ("on", [1.0, 2.0])}), "on")


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), min_size=1, max_size=3), seed=st.integers(0, 50))
def test_merged_cubes_are_the_cube_of_all_events(cuts: list[int], seed: int) -> None:
    data = small(200, seed)
    borders = [0, *sorted(cuts), 200]
    kept = [slice(a, b) for a, b in pairwise(borders) if b - a > 20]  # fewer may all be outside, which raises
    if not kept:
        return
    merged = merge_cubes(*(cube(data.isel(event=part), BINS) for part in kept))
    whole = cube(xr.concat([data.isel(event=s) for s in kept], "event"), BINS)
    assert set(merged.variables) == set(whole.variables)
    for name in whole.variables:
        np.testing.assert_allclose(merged[name].values, whole[name].values, rtol=1e-12, atol=1e-12, err_msg=str(name))
    assert merged["delay"].attrs == whole["delay"].attrs
    assert merged.attrs["n_events"] == whole.attrs["n_events"]
    assert merged.attrs["n_outside"] == whole.attrs["n_outside"]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 50))
def test_merging_is_associative(seed: int) -> None:
    a, b, c = (cube(small(100, seed + k), BINS) for k in range(3))
    one, two = merge_cubes(merge_cubes(a, b), c), merge_cubes(a, merge_cubes(b, c))
    for name in one.variables:
        np.testing.assert_allclose(one[name].values, two[name].values, rtol=1e-12, atol=1e-12)


def test_cubes_that_do_not_belong_together_are_not_merged() -> None:
    made = cube(small(), BINS)
    with pytest.raises(ParameterError, match="bins of delay differ"):
        merge_cubes(made, cube(small(), {"delay": bins(-2.5, 1.5, n=4), "laser_on": categories()}))
    with pytest.raises(ParameterError, match=r"other variables\n.*the first only: \['hits'\]\n.*\n.*drop_vars"):
        merge_cubes(made, made.drop_vars("hits"))
    with pytest.raises(ParameterError, match=r"other bins\n.*\('delay', 'laser_on'\) and \('delay',\)"):
        merge_cubes(made, cube(small(), {"delay": BINS["delay"]}))
    with pytest.raises(ParameterError, match="another shape"):
        merge_cubes(made, made.isel(q=slice(2)))
    with pytest.raises(ParameterError, match="only cubes"):
        merge_cubes(small(), small())
