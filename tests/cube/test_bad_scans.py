"""Scans as they come: constant, decreasing, full of holes, missing; and orders that must not matter."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import ParameterError, XsmallError

N = 60


def small() -> xr.Dataset:
    rng = np.random.default_rng(3)
    return xr.Dataset(
        {
            "motor": ("event", np.repeat(np.arange(6.0), 10)),
            "on": ("event", np.arange(N) % 2 == 0),
            "i0": ("event", rng.uniform(0.5, 1.5, N)),
            "xray_on": ("event", np.arange(N) % 10 != 7),
            "signal": (("event", "q"), rng.normal(5, 1, (N, 3))),
        },
        coords={"event": np.datetime64("2026-01-01", "ns") + np.arange(N).astype("m8[ns]")},
    )


def test_a_decreasing_scan_is_the_same_cube_as_an_increasing_one() -> None:
    data = small().drop_vars("xray_on")
    down = data.assign(motor=data.motor[::-1].variable).isel(event=slice(None, None, -1))
    for bins in (xs.steps(tolerance=0.1), xs.bins(-0.5, 5.5, n=6), xs.quantiles(3)):
        up, fallen = data.sd.cube({"motor": bins}), data.assign(motor=down.motor.variable).sd.cube({"motor": bins})
        np.testing.assert_array_equal(up["motor"], fallen["motor"])
        np.testing.assert_array_equal(up["count"], fallen["count"])


def test_a_constant_scan_is_one_step_and_no_quantiles() -> None:
    data = small().assign(motor=("event", np.full(N, 2.0)))
    one = data.sd.cube({"motor": xs.steps(tolerance=0.1)})
    assert one["motor"].values.tolist() == [2.0]
    with pytest.raises(ParameterError, match="too few different values"):
        data.sd.cube({"motor": xs.quantiles(3)})


def test_holes_in_a_scan_are_counted() -> None:
    data = small()
    data["motor"][::10] = np.nan  # none of them a dropped shot
    cube = data.sd.cube({"motor": xs.bins(0, 3, n=3)})
    assert cube["motor"].attrs["n_missing"] == 6
    assert cube["motor"].attrs["n_above"] == 3 * 8
    assert cube["motor"].attrs["n_below"] == 0
    lost = sum(cube["motor"].attrs[k] for k in ("n_missing", "n_above", "n_below", "n_between"))
    assert int(cube["count"].sum()) + lost + cube.attrs["n_dropped_shots"] == N


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ({"moter": xs.steps(tolerance=0.1)}, "no variable of events"),
        ({"motor": xs.bins(100, 200, n=3)}, "cover no event"),
        ({"on": xs.categories(["open"])}, "categories"),
        ({"motor": xs.categories([17])}, "cover no event"),
        ({"signal": xs.quantiles(3)}, "several values"),
    ],
)
def test_bins_that_cannot_be_are_refused(bins: dict[str, Any], message: str) -> None:
    with pytest.raises(XsmallError, match=message):
        small().sd.cube(bins)


@pytest.mark.parametrize("edges", [[1, 0, 2], [0, 0, 1], [0, np.nan, 2], [1]])
def test_edges_out_of_order_are_refused(edges: list[float]) -> None:
    with pytest.raises(XsmallError):
        small().sd.cube({"motor": edges})


def cubes_of(data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    bins = {"motor": xs.steps(tolerance=0.1), "on": xs.categories()}
    return data.sd.cube(bins, weights="i0"), data.sd.select(i0=(0.7, None)).sd.cube(bins)


@cache
def in_order() -> tuple[xr.Dataset, xr.Dataset]:
    return cubes_of(small())


@settings(max_examples=30)
@given(st.permutations(range(N)))
def test_the_order_of_events_changes_nothing_but_the_last_digits(order: list[int]) -> None:
    for one, two in zip(in_order(), cubes_of(small().isel(event=order)), strict=True):
        for name in one.data_vars:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-12, atol=1e-12, err_msg=str(name))
        assert one.attrs["n_dropped_shots"] == two.attrs["n_dropped_shots"]
