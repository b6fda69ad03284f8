"""Selecting events: named cuts, who is waived, what is told."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError


def small(n: int = 1200) -> xr.Dataset:
    data: xr.Dataset = xs.simulate(n, shape=(1, 8, 16), seed=2).run["events"].to_dataset()
    return data.assign(hits=("event", np.arange(n, dtype=np.int32)))


def told(obj: Any) -> Any:
    return json.loads(obj.attrs["selection"])


def test_limits_take_both_ends_and_dtypes_stay() -> None:
    data = small(40)
    found = data.sd.select(hits=(3, 7))
    assert found.hits.values.tolist() == [3, 4, 5, 6, 7]
    for name in data.variables:
        assert found[name].dtype == data[name].dtype
    assert data.sd.select(hits=(38, None)).sizes["event"] == 2
    assert data.sd.select(hits=xs.cut(high=1)).sizes["event"] == 2


def test_cuts_on_the_time_tool_never_drop_shots_without_laser() -> None:
    data = small()
    found = data.sd.select(tt_amplitude=(0.3, None))
    off = ~data.laser_on
    assert int((~found.laser_on).sum()) == int(off.sum()) > 300
    on = data.isel(event=(data.laser_on & data.xray_on).values)
    lit = found.laser_on & found.xray_on
    assert int(lit.sum()) == int((on.tt_amplitude >= 0.3).sum()) < on.sizes["event"]  # a missing fit does not pass
    stage = told(found)[0]
    assert stage["cuts"]["tt_amplitude"]["n_waived"] == int((off | ~data.xray_on).sum())
    assert stage["n_laser_off"] == stage["n_laser_off_passed"]
    assert stage["n_dropped_shots"] == 24
    all_judged = data.sd.select(tt=xs.cut("tt_amplitude", 0.3, laser_off=True))
    assert not (~all_judged.laser_on & all_judged.xray_on).any()


def test_pass_counts_are_told_jointly_and_one_by_one() -> None:
    data = small()
    cuts = {"i0": (0.9, 1.1), "laser_on": True, "early": xs.cut("delay", high=1.0)}
    found = data.sd.select(**cuts)
    a, b, c = (data.i0 >= 0.9) & (data.i0 <= 1.1), data.laser_on, data.delay <= 1.0
    stage = told(found)[0]
    assert found.sizes["event"] == stage["n_passed"] == int((a & b & c).sum())
    assert [t["n_passed_alone"] for t in stage["cuts"].values()] == [int(x.sum()) for x in (a, b, c)]
    assert [t["n_passed_so_far"] for t in stage["cuts"].values()] == [int(x.sum()) for x in (a, a & b, a & b & c)]
    assert stage["cuts"]["early"]["n_failed_this_only"] == int((a & b & ~c).sum())
    assert stage["cuts"]["early"]["n_missing"] == int(np.isnan(data.delay).sum())


def test_selections_follow_each_other_and_stay_with_cubes() -> None:
    data = small()
    one = data.sd.select(i0=(0.8, None), laser_on=True)
    two = data.sd.select(i0=(0.8, None)).sd.select(laser_on=True)
    xr.testing.assert_equal(one, two)
    assert len(told(two)) == 2
    assert told(two)[1]["n_events"] == told(two)[0]["n_passed"]
    assert "0.8 <= i0" in repr(two.sd)
    bins = {"delay": xs.bins(-3, 6, n=3)}
    cubes = [data.isel(event=part).sd.select(i0=(0.8, None)).sd.cube(bins) for part in (slice(600), slice(600, None))]
    assert told(cubes[0])[0]["n_events"] == 600
    whole = data.sd.select(i0=(0.8, None)).sd.cube(bins)
    assert told(xs.merge_cubes(*cubes)) == told(whole)
    other = data.isel(event=slice(600, None)).sd.select(i0=(0.9, None)).sd.cube(bins)
    with pytest.warns(UserWarning, match="selected by other cuts"):
        both = xs.merge_cubes(cubes[0], other)
    assert len(told(both)) == 2


def test_robust_outliers_are_judged_among_shots_with_xrays() -> None:
    data = small()
    data["i0"][100] = 1e6
    found = data.sd.select(i0=xs.cut(robust=6))
    assert 1e6 not in found.i0.values
    lit = data.i0.where(data.xray_on).values
    middle = np.nanmedian(lit)
    sigma = 1.4826 * np.nanmedian(np.abs(lit - middle))
    assert int(found.xray_on.sum()) == int((np.abs(lit - middle) <= 6 * sigma).sum())
    assert int((~found.xray_on).sum()) == 24
    with pytest.raises(DataError, match="no robust spread"):
        data.assign(flat=("event", np.ones(1200))).sd.select(flat=xs.cut(robust=5))


def test_true_or_false_of_the_user_joins_by_label() -> None:
    data = small(50)
    mine = (data.hits % 5 == 0).isel(event=np.random.default_rng(0).permutation(50))
    assert data.sd.select(mine=mine).hits.values.tolist() == list(range(0, 50, 5))
    with pytest.raises(DataError, match="other events"):
        data.sd.select(mine=mine.isel(event=slice(10)))


def test_frames_are_selected_lazily(computing_is_forbidden: Callable[[], Any]) -> None:
    sim = xs.simulate(60, shape=(1, 8, 16), seed=2)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    with computing_is_forbidden():
        chosen = cal.sd.select(xray_on=True, i0=(0.9, None))
    assert chosen.chunks is not None
    keep = (cal.xray_on & (cal.i0 >= 0.9)).values
    np.testing.assert_array_equal(chosen.values, cal.values[keep])
    assert "selection" in chosen.sd.roi(xs.Box(segment=0, row=(0, 4), column=(0, 4))).attrs
    assert "selected" in repr(chosen.sd)


@pytest.mark.parametrize(
    ("cuts", "error", "message"),
    [
        ({}, ParameterError, "nothing to select by"),
        ({"i00": (0, 1)}, ParameterError, "no variable to select by"),
        ({"i0": (2, 1)}, ParameterError, "no value lies"),
        ({"i0": (None, None)}, ParameterError, "one condition"),
        ({"i0": 3}, ParameterError, "no cut"),
        ({"i0": (500, 900)}, ParameterError, "not one event passes"),
        ({"laser_on": (0.5, None)}, DataError, "no limits"),
        ({"two": (0, 1)}, ParameterError, "several values"),
        ({"i0": ("a", "b")}, ParameterError, "are numbers"),
    ],
)
def test_mistakes_are_said(cuts: dict[str, Any], error: type[Exception], message: str) -> None:
    data = small(20).assign(two=(("event", "k"), np.zeros((20, 2))))
    with pytest.raises(error, match=message):
        data.sd.select(**cuts)


def test_advice_for_a_misspelt_name_names_the_right_one() -> None:
    with pytest.raises(ParameterError, match=r"do this:  tt_amplitude=\.\.\."):
        small(20).sd.select(tt_amplitud=(0.3, None))


@pytest.mark.parametrize("limit", [0.3, np.float64(0.3), np.float32(0.3)])
@pytest.mark.parametrize("wide", [False, True])
def test_a_value_of_float32_reaches_the_limit_that_one_writes(limit: Any, wide: bool) -> None:
    values = np.array([0.1, 0.3, 0.5], np.float32)  # 0.3 of float32 is above 0.3
    data = xr.Dataset({"i0": ("event", values.astype(np.float64) if wide else values), "n": ("event", [1, 2, 3])})
    assert data.sd.select(i0=(None, limit)).n.values.tolist() == [1, 2]
    assert data.sd.select(i0=(limit, None)).n.values.tolist() == [2, 3]
    assert data.sd.select(i0=xs.cut(equals=limit)).n.values.tolist() == [2]


def test_whole_numbers_are_compared_exactly_however_large() -> None:
    data = xr.Dataset({"ticks": ("event", 2**60 + np.arange(4)), "byte": ("event", np.arange(4, dtype=np.uint8))})
    assert (data.sd.select(ticks=(np.int64(2**60 + 1), 2**60 + 2)).ticks.values - 2**60).tolist() == [1, 2]
    assert data.sd.select(ticks=(None, 10**400)).sizes["event"] == 4
    assert data.sd.select(byte=(-1, 2)).byte.values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("equals", [[1, 2], np.array([1, 2, 3]), float("nan"), xs])
def test_a_cut_compares_with_one_value(equals: Any) -> None:
    with pytest.raises(ParameterError, match="compares with one value"):
        xs.cut("n", equals=equals)


@pytest.mark.parametrize(
    ("name", "equals"), [("n", "a"), ("n", True), ("text", 1), ("raw", "a"), ("seen", 1), ("text", True)]
)
def test_what_can_never_be_equal_is_said(name: str, equals: Any) -> None:
    data = xr.Dataset(
        {
            "n": ("event", [1, 2]),
            "text": ("event", ["a", "b"]),
            "raw": ("event", [b"a", b"b"]),
            "seen": ("event", np.array(["2026-01-01", "2026-01-02"], "M8[ns]")),
        }
    )
    with pytest.raises(DataError, match=f"{name} cannot be"):
        data.sd.select(any=xs.cut(name, equals=equals))


def test_true_is_one_and_a_time_or_a_text_may_be_wanted() -> None:
    seen = np.array(["2026-01-01", "2026-01-02", "NaT"], "M8[ns]")
    text = np.array(["a", None, "a"], object)
    data = xr.Dataset(
        {
            "on": ("event", [0.0, 1.0, np.nan]),
            "seen": ("event", seen),
            "text": ("event", text),
            "n": ("event", [1, 2, 3]),
        }
    )
    assert data.sd.select(on=True).n.values.tolist() == [2]
    by_time = data.sd.select(seen=xs.cut(equals=seen[1]))
    assert by_time.n.values.tolist() == [2]
    assert told(by_time)[0]["cuts"]["seen"]["n_missing"] == 1
    assert told(data.sd.select(text="a"))[0]["cuts"]["text"]["n_missing"] == 1


def test_advice_for_true_or_false_without_labels_and_for_one_number_works() -> None:
    data = small(20)
    with pytest.raises(ParameterError, match=r'do this:  own=xr\.DataArray\(own, dims="event"\)'):
        data.sd.select(own=data.hits.values > 3)
    assert data.sd.select(own=xr.DataArray(data.hits.values > 3, dims="event")).sizes["event"] == 16
    with pytest.raises(ParameterError, match=r"do this:  hits=xs\.cut\(equals=3\)"):
        data.sd.select(hits=3)
    assert data.sd.select(hits=xs.cut(equals=3)).hits.values.tolist() == [3]
    with pytest.raises(ParameterError, match=r"do this:  frames\.assign_coords"):
        xr.DataArray(np.zeros((3, 2)), dims=("event", "q")).sd.select(i0=(0, 1))


def test_a_cut_of_ones_own_is_told_by_its_name() -> None:
    small = xr.Dataset({"i0": ("event", [0.1, 1.0, 1.2])})
    chosen = small.sd.select(bright=small.i0 > 0.5)
    assert "alone bright, true or false of the user: 2" in " ".join(repr(chosen.sd).split())
