"""``reduce`` and ``apply``: labels, names, errors."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError, XsmallError
from xsmall.reductions.reduce import apply, reduce


def frames(**changes: Any) -> xr.DataArray:
    values = np.arange(3 * 2 * 4 * 6, dtype="f4").reshape(3, 2, 4, 6)
    obj = xr.DataArray(
        values,
        dims=("event", "segment", "row", "column"),
        coords={"event": np.arange(3).astype("M8[s]").astype("M8[ns]"), "delay": ("event", [1.0, 2, 3])},
        name="raw",
        attrs={"units": "keV", "source": "somewhere"},
    )
    return obj.assign_attrs(changes)


def test_reduce_prefixes_variables_and_keeps_event_coordinates() -> None:
    small = reduce(frames(), {"a": xs.projection("row"), "b": xs.roi(xs.Box(segment=1, row=(0, 2), column=(0, 3)))})
    assert {"a_projection", "a_n_valid", "b_sum", "b_mean", "b_max", "b_n_valid"} <= set(small.data_vars)
    assert "event" in small.xindexes
    assert "delay" in small.coords
    assert small.attrs["source"] == "somewhere"
    assert "Box" in small.attrs["parameters"]


def test_apply_uses_the_names_of_the_record() -> None:
    assert "projection" in apply(frames(), xs.projection("column"))


def test_dims_that_two_records_label_differently_are_prefixed() -> None:
    a, b = xs.Box(segment=0, row=(0, 2), column=(0, 3)), xs.Box(segment=1, row=(0, 2), column=(0, 3))
    small = reduce(frames(), {"one": xs.roi({"left": a}), "two": xs.roi({"left": a, "right": b})})
    assert small["one_sum"].dims == ("event", "one_roi")
    assert list(small["two_roi"].values) == ["left", "right"]


def test_dims_that_two_records_share_stay_one() -> None:
    small = reduce(frames(), {"one": xs.projection("row"), "two": xs.projection("row")})
    assert small["one_projection"].dims == small["two_projection"].dims


def test_integers_are_reduced_like_floats() -> None:
    raw = frames().astype("u2")
    xr.testing.assert_allclose(apply(raw, xs.projection("row")), apply(frames(), xs.projection("row")))


def test_the_bits_do_not_depend_on_how_frames_lie_in_memory() -> None:
    rng = np.random.default_rng(0)
    values, variance = (rng.gamma(1, 3, (5, 2, 3, 37)).astype("f4") for _ in range(2))
    records = {
        "roi": xs.roi(xs.Box(segment=1, row=(0, 3), column=(0, 37)), also=("min", "moment_row_column")),
        "rows": xs.projection("row"),
        "users": xs.record(lambda frame: {"sum": frame.sum()}),
    }

    def lying(change: Any) -> xr.Dataset:
        dims = ("event", "segment", "row", "column")
        pair = xs.with_variance(*(xr.DataArray(change(v), dims=dims, name="v") for v in (values, variance)))
        return pair.sd.reduce(records).drop_attrs(deep=False)

    plain = lying(lambda v: v)
    for change in (
        np.asfortranarray,
        lambda v: np.repeat(v, 2, axis=3)[..., ::2],
        lambda v: np.ascontiguousarray(v[:, :, ::-1])[:, :, ::-1],
        lambda v: np.ascontiguousarray(v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
        lambda v: v.astype(">f4"),
    ):
        xr.testing.assert_identical(lying(change), plain)


def test_what_is_not_present_is_not_counted() -> None:
    present = xr.DataArray([[True, True], [True, False], [True, True]], dims=("event", "segment"))
    obj = frames().astype("u2").assign_coords(present=present)
    n_valid = apply(obj, xs.roi(xs.Box(segment=1, row=(0, 4), column=(0, 6))))["n_valid"]
    assert n_valid.values.ravel().tolist() == [24, 0, 24]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.transpose("event", "row", "column", "segment"),
            r"transpose\('event', 'segment', 'row', 'column'\)",
        ),
        (lambda d: d.isel(segment=0), r"isel\(segment=\[0\]\)"),
        (lambda d: d.astype(str), "frames have to be numbers"),
        (lambda d: d.astype("c8"), r"abs\(frames\)"),
        (lambda d: d > 5, r"astype\('uint8'\)"),
        (lambda d: d.isel(row=slice(0, 0)), "no pixels"),
    ],
)
def test_wrong_frames_raise_one_error_that_says_what_to_type(change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        apply(change(frames()), xs.projection("row"))


@pytest.mark.parametrize("records", [{}, None, {"a": "azint"}, [xs.projection]])
def test_what_is_not_a_mapping_of_records_is_refused(records: Any) -> None:
    with pytest.raises(ParameterError, match=r"xs.azint\(bins=500\)"):
        reduce(frames(), records)


def test_a_dataset_of_two_detectors_has_to_be_chosen_from() -> None:
    two = xr.Dataset({"a": frames(), "b": frames()})
    with pytest.raises(DataError, match="one detector's frames"):
        apply(two, xs.projection("row"))


def test_zero_events_give_an_empty_result() -> None:
    empty = apply(frames().isel(event=slice(0, 0)), xs.projection("row"))
    assert empty["projection"].shape == (0, 2, 4) or empty["projection"].shape[0] == 0


def test_every_error_is_an_xsmall_error_and_a_value_error() -> None:
    assert issubclass(DataError, XsmallError)
    assert issubclass(XsmallError, ValueError)


def test_borders_follow_a_coordinate_that_is_renamed(placed: xr.DataArray) -> None:
    small = placed.sd.reduce({"wide": xs.azint(3), "fine": xs.azint(5), "around": xs.azint(2, quantity="radius")})
    for name in ("wide_q", "fine_q", "radius"):
        assert small[name].attrs["bounds"] == f"{name}_bounds"
        assert small[f"{name}_bounds"].dims == (name, "bin_edge")


def sum_at(name: str, value: float = 1.0) -> xs.Record:
    return xs.record(lambda frame: value * np.nansum(frame), outputs={name: "f8"})


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ({"a": sum_at("b_sum", 0.0), "a_b": xs.roi(xs.Box(segment=0))}, "a_b_sum"),
        ({"a_b": xs.roi(xs.Box(segment=0)), "a": sum_at("b_sum", 0.0)}, "a_b_sum"),
        ({"scan": sum_at("delay")}, "scan_delay"),
        ({"rows": xs.projection("row", xs.Box(segment=0)), "ro": sum_at("w")}, "ro_w"),
    ],
)
def test_no_variable_takes_the_place_of_another_or_of_a_coordinate(records: dict[str, xs.Record], name: str) -> None:
    obj = frames().assign_coords(scan_delay=("event", [4.0, 5, 6]), ro_w=3.0)
    with pytest.raises(ParameterError, match=f"two things would be called '{name}'") as raised:
        reduce(obj, records)
    typed = str(raised.value).split("do this:")[1].split('"')[1::2]
    small = reduce(obj, {typed[0] if key == typed[1] else key: record for key, record in records.items()})
    assert sum(str(v).endswith(("_sum", "_delay", "_w")) for v in small.data_vars) == len(records) - ("ro" in records)
    assert small["scan_delay"].values.tolist() == [4, 5, 6]


def test_a_dim_that_is_a_coordinate_of_the_events_does_not_take_its_place() -> None:
    obj = frames().assign_coords(laser_on=("event", [True, False, True]))
    rows = xs.projection("row")
    own = xr.ones_like(obj[0], dtype=float).drop_vars(["event", "delay"]).rename("delay")
    small = reduce(obj, {"total": xs.sums(by="laser_on"), "rows": rows, "angle": xs.azint([0, 2], quantity=own)})
    assert small["laser_on"].values.tolist() == [True, False, True]
    assert small["delay"].values.tolist() == [1, 2, 3]
    assert small["total_mean"].dims[0] == "total_laser_on"
    assert small["total_laser_on"].values.tolist() == [False, True]
    assert small["angle_intensity"].dims == ("event", "angle_delay")
    assert small["angle_delay"].attrs["bounds"] in small.coords
    assert apply(obj, xs.sums(by="laser_on"))["mean"].dims[0] == "laser_on"  # no events are left


def test_a_list_that_has_the_name_of_its_dim_is_no_dim() -> None:
    output = xs.Output(("delay",), (2,), np.dtype("f8"))
    small = reduce(frames(), {"a": xs.record(lambda frame: [1.0, 2.0], outputs={"delay": output})})
    assert small["a_delay"].dims == ("event", "a_delay_0")
    assert small["delay"].dims == ("event",)


@pytest.mark.parametrize("sparse_first", [True, False])
def test_sparse_frames_go_beside_records_that_have_other_rows(sparse_first: bool) -> None:
    box = xs.Box(segment=1, row=(1, 3), column=(2, 6))
    others = {
        "coarse": xs.rebin(2),
        "lines": xs.roi(box) | xs.projection("row"),
        "kept": xs.roi(box, area=True),
        "rows": xs.projection("row"),
    }
    photons = {"photons": xs.photon(20.0, sparse=True)}
    for name, record in others.items():
        one = {name: record}
        found = reduce(frames(), photons | one if sparse_first else one | photons)
        alone = reduce(frames(), one)
        for variable in alone.data_vars:
            np.testing.assert_array_equal(found[variable], alone[variable])
        assert found["used"].dims == ("segment", "row", "column")
        xr.testing.assert_equal(
            xs.dense(found).reset_coords(drop=True), xs.dense(reduce(frames(), photons)).reset_coords(drop=True)
        )
