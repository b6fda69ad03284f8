"""Lists per event: to the form of files and back, and to other packages."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError
from xsmall.events.ragged import object_array, ragged_attrs

LENGTHS = [3, 0, 2, 0, 1]


@pytest.fixture
def small() -> xr.Dataset:
    """Five events with two lists of one kind, one of another, and something that is no list."""
    rng = np.random.default_rng(1)
    sums = object_array([rng.random(n).astype("f4") for n in LENGTHS])
    rows = object_array([rng.random(n) for n in LENGTHS])
    peaks = object_array([np.arange(n, dtype="i4") for n in LENGTHS[::-1]])
    return xr.Dataset(
        {
            "sum": ("event", sums, {"units": "keV", **ragged_attrs("droplet", "f4")}),
            "row": ("event", rows, ragged_attrs("droplet", "f8")),
            "height": ("event", peaks, ragged_attrs("peak", "i4")),
            "i0": ("event", rng.random(5)),
        },
        coords={"event": np.arange(5).astype("M8[s]").astype("M8[ns]")},
    )


def test_flat_lists_are_contiguous_ragged_arrays_of_cf(small: xr.Dataset) -> None:
    flat = xs.flatten(small)
    assert flat["sum"].dims == ("droplet",)
    assert flat["sum"].dtype == "f4"
    assert flat["sum"].attrs == {"units": "keV"}
    assert flat["n_droplets"].values.tolist() == LENGTHS
    assert flat["n_droplets"].attrs["sample_dimension"] == "droplet"
    assert flat["n_peaks"].values.tolist() == LENGTHS[::-1]
    np.testing.assert_array_equal(flat["droplet_event"], np.repeat(small["event"], LENGTHS))
    np.testing.assert_array_equal(flat["row"], np.concatenate(small["row"].values))


def test_there_and_back_is_the_same(small: xr.Dataset) -> None:
    again = xs.lists(xs.flatten(small))
    for name in ("sum", "row", "height"):
        assert again[name].attrs == small[name].attrs
        for a, b in zip(again[name].values, small[name].values, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    xr.testing.assert_identical(again["i0"], small["i0"])


def test_events_are_selected_sorted_and_joined_as_any_other_variable(small: xr.Dataset) -> None:
    twice = xr.concat([small.isel(event=[4, 2]), small.isel(event=[0])], "event")
    assert xs.flatten(twice)["n_droplets"].values.tolist() == [1, 2, 3]
    assert xs.flatten(small.isel(event=[1, 3]))["sum"].shape == (0,)
    assert xs.flatten(small.isel(event=[]))["sum"].dtype == "f4"


def test_lists_of_events_per_segment_keep_their_dims() -> None:
    values = object_array([np.arange(n) for n in (1, 2, 0, 3)], (2, 2))
    small = xr.Dataset({"time": (("event", "segment"), values, ragged_attrs("hit", "i8"))})
    flat = xs.flatten(small)
    assert flat["n_hits"].values.tolist() == [[1, 2], [0, 3]]
    assert [v.tolist() for v in xs.lists(flat)["time"].values.ravel()] == [[0], [0, 1], [], [0, 1, 2]]


def test_lists_that_do_not_go_together_are_refused(small: xr.Dataset) -> None:
    small["row"].values[0] = np.zeros(7)
    with pytest.raises(DataError, match="do not go together"):
        xs.flatten(small)


def test_lists_whose_events_were_selected_in_the_flat_form_are_refused(small: xr.Dataset) -> None:
    with pytest.raises(DataError, match="not those of these events"):
        xs.lists(xs.flatten(small).isel(event=[0, 1]))


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_lists_whose_events_were_sorted_in_the_flat_form_are_refused(
    small: xr.Dataset, tmp_path: Path, ending: str
) -> None:
    turned = xs.flatten(small).isel(event=[3, 1, 0, 4, 2])
    for use in (xs.lists, xs.flatten, lambda flat: xs.save(flat, tmp_path / f"flat.{ending}")):
        with pytest.raises(DataError, match="not those of these events"):
            use(turned)
    again = xs.flatten(xs.lists(xs.flatten(small)).isel(event=[3, 1, 0, 4, 2]))
    np.testing.assert_array_equal(again["droplet_event"], np.repeat(small["event"][[3, 1, 0, 4, 2]], [0, 0, 3, 1, 2]))
    xs.save(again, tmp_path / f"right.{ending}")


def test_tables_of_pandas_have_a_row_for_each_entry(small: xr.Dataset) -> None:
    table = xs.to_pandas(small, "droplet")
    assert list(table.columns) == ["sum", "row"]
    assert table.index.name == "event"
    assert table.groupby(level=0).size().tolist() == [3, 2, 1]
    with pytest.raises(DataError, match="which lists"):
        xs.to_pandas(small)
    with pytest.raises(DataError, match="which lists"):
        xs.to_pandas(small[["i0"]], "droplet")


def test_a_table_of_pandas_has_a_row_for_each_event_where_there_are_no_lists(small: xr.Dataset) -> None:
    assert xs.to_pandas(small[["i0"]])["i0"].tolist() == small["i0"].values.tolist()
    assert xs.to_pandas(small, "event").index.tolist() == small["event"].to_index().tolist()
    bare = small[["i0"]].drop_vars("event")
    with pytest.raises(DataError, match=r"no labels of events[\s\S]*assign_coords\(event=range\(5\)\)"):
        xs.to_pandas(bare, "event")
    assert (
        xs.to_pandas(bare.assign_coords(event=range(bare.sizes["event"])))["i0"].tolist() == bare["i0"].values.tolist()
    )


def test_arrays_of_awkward_have_a_record_for_each_event(small: xr.Dataset) -> None:
    awkward = pytest.importorskip("awkward")
    array = xs.to_awkward(small)
    assert awkward.num(array["sum"]).tolist() == LENGTHS
    assert array["i0"].tolist() == small["i0"].values.tolist()


def test_a_variable_named_like_its_list_dim_is_refused(small: xr.Dataset) -> None:
    with pytest.raises(DataError, match="the name of its list dim"):
        xs.flatten(small.rename(sum="droplet"))
