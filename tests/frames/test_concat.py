"""Runs behind each other: right types, labels and flags, and a refusal where two series would look like one."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

HOUR = np.timedelta64(1, "h")
ONE = xs.simulate(8, shape=(2, 16, 32), seed=1)
TWO = xs.simulate(6, shape=(2, 16, 32), seed=2)


def later(tree: xr.DataTree) -> xr.DataTree:
    """The same run an hour later: simulated runs share their times."""
    return tree.map_over_datasets(lambda ds: ds.assign_coords(event=ds.event + HOUR) if "event" in ds.coords else ds)


def raws() -> list[xr.DataArray]:
    return [ONE.run["jungfrau/raw"], later(TWO.run)["jungfrau/raw"]]


def test_frames_keep_their_type_flags_and_laziness(computing_is_forbidden: Callable[[], object]) -> None:
    one, two = (raw.chunk(event=3) for raw in raws())
    two = two.drop_vars("present")
    with computing_is_forbidden():  # type: ignore[attr-defined]
        both = xs.concat([one, two], run=[3, 4])
    assert both.dtype == np.uint16
    assert both.name == "raw"
    assert both["present"].dtype == bool
    np.testing.assert_array_equal(both.values, np.concatenate([one.values, two.values]))
    np.testing.assert_array_equal(both["run"], [3] * 8 + [4] * 6)
    np.testing.assert_array_equal(both["event"], np.concatenate([one["event"], two["event"]]))
    assert both["present"].values[8:].all()
    reduced = both.sd.calibrate(ONE.constants).sd.projection("row").compute()
    apart = [x.sd.calibrate(ONE.constants).sd.projection("row").compute() for x in (one, two)]
    for name in reduced.data_vars:
        np.testing.assert_array_equal(reduced[name], np.concatenate([x[name] for x in apart]))


def test_whole_runs_are_joined_node_by_node() -> None:
    one, two = ONE.run.copy(), later(TWO.run)
    one.attrs.update(run=1, missing_chunks=2, source="a.zarr")
    two.attrs.update(run=2, missing_chunks=1, source="b.zarr")
    both = xs.concat([one, two])
    assert both.attrs["missing_chunks"] == 3
    assert both.attrs["source"] == "a.zarr; b.zarr"
    assert both["events"].sizes["event"] == 14
    np.testing.assert_array_equal(both["events/run"], [1] * 8 + [2] * 6)
    np.testing.assert_array_equal(both["jungfrau/run"], both["events/run"])
    np.testing.assert_array_equal(both["jungfrau/raw"].values[8:], TWO.run["jungfrau/raw"].values)


def test_small_data_of_two_runs_make_one_cube() -> None:
    small = [x.sd.calibrate(ONE.constants).sd.reduce({"r": xs.projection("row")}).compute() for x in raws()]
    both = xs.concat(small, run=[1, 2])
    cube = both.sd.cube({"run": xs.categories()})
    assert cube["count"].values.tolist() == [8, 6]
    np.testing.assert_allclose(cube["r_projection"].values[0], small[0]["r_projection"].mean("event"))


def test_a_beam_that_differs_is_kept_per_event() -> None:
    one, two = raws()
    one = one.sd.assign_beam(photon_energy=9500, distance=0.1)
    two = two.sd.assign_beam(photon_energy=9600, distance=0.1)
    both = xs.concat([one, two])
    assert both["distance"].ndim == 0
    np.testing.assert_array_equal(both["photon_energy"], [9500] * 8 + [9600] * 6)
    assert both["photon_energy"].attrs["units"] == "eV"
    only = xs.concat([one, two.drop_vars("photon_energy")])
    assert "photon_energy: not in all runs" in only.attrs["left_out"]
    assert "photon_energy" not in only.coords


def test_the_geometry_stays_and_another_one_is_refused() -> None:
    one, two = (x.sd.assign_geometry(ONE.geometry) for x in raws())
    both = xs.concat([one, two])
    assert both["geometry"].item() == one["geometry"].item()
    np.testing.assert_array_equal(both["x"], one["x"])
    moved = two.drop_vars(["geometry", "x", "y", "z"])
    with pytest.raises(DataError, match=r"(?s)another geometry.*no geometry.*assign_geometry"):
        xs.concat([one, moved])


REFUSED: dict[str, tuple[Callable[[xr.DataArray], xr.DataArray], str]] = {
    "another unit": (lambda x: x.assign_attrs(units="keV"), "units of"),
    "another detector": (lambda x: x.assign_attrs(detector_type="epix10ka"), "detector_type of"),
    "other rows": (lambda x: x.assign_coords(row=x.row + 1), "'row'"),
    "fewer rows": (lambda x: x.isel(row=slice(0, 8)), "row"),
    "another type": (lambda x: x.astype("f4"), "another kind"),
    "wider words": (lambda x: x.astype("u4"), "another kind"),
    "other dims": (lambda x: x.transpose("event", "row", "segment", "column"), "another kind"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_one_series_is_refused(kind: str) -> None:
    change, message = REFUSED[kind]
    one, two = raws()
    with pytest.raises(DataError, match=message):
        xs.concat([one, change(two)])


def test_the_same_events_twice_and_events_without_labels_are_refused() -> None:
    one, two = raws()
    with pytest.raises(DataError, match=r"(?s)same events twice.*8 labels"):
        xs.concat([one, two, one])
    with pytest.raises(DataError, match="no labels"):
        xs.concat([one, two.drop_vars("event")])
    with pytest.raises(ParameterError, match="one kind"):
        xs.concat([one, ONE.run])
    with pytest.raises(ParameterError, match="one kind"):
        xs.concat([])
    with pytest.raises(ParameterError, match="a number for each run"):
        xs.concat([one, two], run=[1])


def test_what_only_some_have_is_left_out_by_name() -> None:
    one, two = raws()
    both = xs.concat([one, two.drop_vars("laser_on").assign_coords(extra=("event", np.arange(6)))])
    assert "laser_on" not in both.coords
    assert "laser_on: not in all runs" in both.attrs["left_out"]
    assert "extra: not in all runs" in both.attrs["left_out"]


@pytest.mark.parametrize("new", [False, True])
def test_it_survives_the_coming_defaults_of_xarray(new: bool) -> None:
    with xr.set_options(use_new_combine_kwarg_defaults=new):
        assert xs.concat(raws()).sizes["event"] == 14


def test_labels_of_another_zone_or_resolution_are_the_same_instants() -> None:
    one = xs.simulate(6, shape=(1, 4, 8), seed=1).run["jungfrau/raw"].compute()
    later = pd.DatetimeIndex(one["event"].values + np.timedelta64(3600_000_000, "us"))
    for times in (later.tz_localize("UTC").tz_convert("Asia/Tokyo"), later.round("us").as_unit("us")):
        joined = xs.concat([one, one.assign_coords(event=times)])
        found = np.asarray(joined["event"].values[6:], "M8[us]")
        assert joined["event"].dtype == "M8[ns]"
        instants = times if times.tz is None else times.tz_convert(None)
        np.testing.assert_array_equal(found, instants.to_numpy().astype("M8[us]"))
    with pytest.raises(DataError, match="the same events twice"):
        xs.concat([one, one.assign_coords(event=pd.DatetimeIndex(one["event"].values).tz_localize("UTC"))])
