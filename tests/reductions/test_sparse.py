"""Sparse frames: whatever is done with them is what is done with the frames, at the cost of their entries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
import xsmall.engine.entries
from xsmall.errors import DataError, ParameterError, PlanError

PIXELS = ("segment", "row", "column")
RING = xs.Band("radius", 2.5e-3, 5e-3)
BOXES = {"a": xs.Box(segment=0, row=(2, 9), column=(3, 30)), "ring": RING, "whole": xs.Box(segment=1)}
BY_ENTRIES = {
    "azint": xs.azint(bins=20),
    "weighted": xs.azint(bins=20, solid_angle=True, polarization_plane=0, polarization_fraction=0.9, norm=True),
    "sectors": xs.azint(bins=20, azimuth_bins=3, statistic="sum"),
    "roi": xs.roi(BOXES),
    "projection": xs.projection("row"),
    "projection of a ring": xs.projection("column", RING, statistic="mean"),
    "projection onto radius": xs.projection("radius", bins=10),
    "azint in regions": xs.roi({"a": BOXES["a"], "ring": RING}) | xs.azint(bins=5),
    "histogram": xs.histogram(np.arange(-0.5, 5)),
    "histogram above zero": xs.histogram(np.arange(0.5, 5), place=RING),
    "photons": xs.photon(regions={"ring": RING, "box": BOXES["a"]}, also=["q"]),
}
BY_FRAMES = {
    "split": xs.azint(bins=20, split="full"),
    "median": xs.azint(bins=20, statistic="median"),
    "more of a roi": xs.roi(RING, also=["full_sum", "x"]),
    "image": xs.image(),
    "rebin": xs.rebin(2),
    "autocorrelation": xs.autocorrelation(xs.Box(segment=0), max_lag=5),
    "droplets": xs.droplet(0.5),
    "photons of droplets": xs.droplet(0.5) | xs.photon(),
    "photons once more": xs.photon(sparse=True),
    "threshold": xs.roi(xs.Box(segment=0), threshold=1.5),
    "function": xs.record(np.nanmean),
    "sums": xs.azint(bins=5) | xs.sums(),
}


@pytest.fixture
def cal(placed: xr.DataArray) -> xr.DataArray:
    """Frames (9, 2, 40, 70) of whole photons: without a segment, without some pixels, without a photon."""
    rng = np.random.default_rng(3)
    light = 0.05 * rng.gamma(2.0, 0.5, placed.shape[1:])
    times = np.array([0, 1, 2, 4, 5, 7, 11, 12, 13]).astype("M8[s]").astype("M8[ns]")
    like = placed.isel(event=[0] * 9).assign_coords(event=times)
    out = like.copy(data=(9.5 * rng.poisson(light, like.shape)).astype(np.float32)).assign_attrs(units="keV")
    out[3, 1] = out[2, 0, 3, 4:9] = out[7, 0, 3, 4:9] = out[8, 0, 3, 4:9] = np.nan
    out[5] = 0
    return out


@pytest.fixture
def mask(cal: xr.DataArray) -> xr.DataArray:
    """Nine of ten pixels."""
    return xr.DataArray(np.random.default_rng(4).random(cal.shape[1:]) > 0.1, dims=PIXELS)


@pytest.fixture
def photons(cal: xr.DataArray, mask: xr.DataArray) -> xr.Dataset:
    """Sparse frames."""
    return cal.sd.photon(9.5, mask=mask.values, sparse=True)


@pytest.fixture
def pictures(cal: xr.DataArray, mask: xr.DataArray) -> xr.DataArray:
    """The same photons as frames."""
    found = cal.sd.photon(9.5, mask=mask.values, image=True)["photons"]
    return cal.copy(data=found.values).assign_attrs(found.attrs)


def same(found: xr.Dataset, expected: xr.Dataset, rtol: float = 1e-13) -> None:
    """Everything but provenance is the same; sums of weights may have been added up in another order."""
    found, expected = xs.flatten(found.compute()), xs.flatten(expected.compute())
    assert set(found.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        got = found.variables[name]
        assert (got.dims, got.dtype) == (variable.dims, variable.dtype), name
        if variable.dtype.kind == "f":
            np.testing.assert_allclose(got.values, variable.values, rtol=rtol, atol=1e-14, err_msg=str(name))
        else:
            np.testing.assert_array_equal(got.values, variable.values, err_msg=str(name))
        assert got.attrs.get("units") == variable.attrs.get("units"), name


def test_sparse_frames_are_the_frames(cal: xr.DataArray, photons: xr.Dataset, pictures: xr.DataArray) -> None:
    made = xs.dense(photons)
    np.testing.assert_array_equal(made.values, pictures.values)
    assert made.dims == cal.dims
    assert made.attrs["units"] == "photon"
    xr.testing.assert_equal(made["x"], cal["x"])
    assert [p.size for p in photons["pixel"].values] == photons["n_entries"].values.tolist()
    assert [int(v.sum()) for v in photons["pixel_value"].values] == photons["n_photons"].values.tolist()


@pytest.mark.parametrize("record", BY_ENTRIES.values(), ids=BY_ENTRIES)
def test_reductions_go_by_entries_and_equal_those_of_frames(
    photons: xr.Dataset, pictures: xr.DataArray, record: xs.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a frame was made")

    monkeypatch.setattr(xsmall.engine.entries, "filled", refuse)
    same(xs.apply(photons, record), xs.apply(pictures, record))


@pytest.mark.parametrize("record", BY_FRAMES.values(), ids=BY_FRAMES)
def test_other_reductions_make_frames_and_are_the_same(
    photons: xr.Dataset, pictures: xr.DataArray, record: xs.Record
) -> None:
    same(xs.apply(photons, record), xs.apply(pictures, record))


def test_parts_of_photons_are_counted_as_in_frames(pictures: xr.DataArray) -> None:
    parts = pictures.copy(data=pictures.values + np.float32(0.3) * (pictures.values > 1))
    kept = parts.sd.apply(xs.sparse())
    same(kept.sd.photon(regions={"ring": RING}), parts.sd.photon(regions={"ring": RING}))


def test_any_frames_can_be_kept_sparse(cal: xr.DataArray, mask: xr.DataArray) -> None:
    kept = cal.sd.apply(xs.sparse(mask))
    np.testing.assert_array_equal(xs.dense(kept).values, cal.where(mask).values)
    assert kept["n_valid"].values.tolist() == (np.isfinite(cal) & mask).sum(PIXELS).values.tolist()
    same(kept.sd.azint(bins=9), cal.sd.azint(bins=9, mask=mask))
    part = cal.isel(segment=[1], row=slice(4, 30), column=slice(None, None, -1))
    same(part.sd.apply(xs.sparse()).sd.azint(bins=9), part.sd.azint(bins=9))


def test_rows_that_run_backwards_change_nothing(cal: xr.DataArray, mask: xr.DataArray) -> None:
    turned = cal.isel(row=slice(None, None, -1))
    backwards = mask.isel(row=slice(None, None, -1)).values
    found = turned.sd.apply(xs.droplet(4.0, mask=backwards) | xs.photon(9.5, sparse=True))
    forth = cal.sd.apply(xs.droplet(4.0, mask=mask.values) | xs.photon(9.5, sparse=True))
    xr.testing.assert_equal(xs.dense(found).sortby("row").drop_vars("used", errors="ignore"), xs.dense(forth))


def test_each_event_has_its_own_energy(cal: xr.DataArray, mask: xr.DataArray) -> None:
    energies = np.linspace(9400, 9600, 9)
    energies[4] = np.nan
    own = (cal / 9500.0 * xr.DataArray(np.nan_to_num(energies, nan=9500.0), dims="event")).astype(np.float32)
    own = own.assign_attrs(units="keV").assign_coords(photon_energy=("event", energies, {"units": "eV"}))
    kept = own.sd.photon(mask=mask.values, sparse=True)
    pictures = own.copy(data=own.sd.photon(mask=mask.values, image=True)["photons"].values)
    same(kept.sd.azint(bins=9), pictures.assign_attrs(units="photon").sd.azint(bins=9))


def test_correlations_in_time_go_by_entries(photons: xr.Dataset, pictures: xr.DataArray, mask: xr.DataArray) -> None:
    regions = {"box": BOXES["a"], "ring": RING}
    for correlate in (xs.g2, xs.two_time):
        found, expected = correlate(photons, regions), correlate(pictures, regions, mask=mask)
        xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert xs.g2(photons, regions)["n_events"].values.tolist() == [6.0, 8.0]


def test_averages_and_cubes_are_those_of_frames(
    cal: xr.DataArray, photons: xr.Dataset, pictures: xr.DataArray, mask: xr.DataArray
) -> None:
    lazy = cal.chunk(event=2).sd.photon(9.5, mask=mask.values, sparse=True)
    masked = pictures.where(mask)
    rng = np.random.default_rng(1)
    small = xr.Dataset(
        {"delay": ("event", rng.integers(0, 3, 9) * 1.0), "laser_on": ("event", rng.random(9) > 0.5)},
        {"event": cal.event},
    ).isel(event=slice(0, 8))
    bins = {"delay": xs.edges([-0.5, 0.5, 1.5]), "laser_on": xs.categories()}
    expected = small.sd.cube(bins, images={"det": masked})
    for given in (photons, lazy):
        found = small.sd.cube(bins, images={"det": given})
        same(found, expected, 1e-12)
        assert found["det"].attrs["n_without_small_data"] == 1
        same(given.sd.average(), masked.rename(None).sd.average(), 1e-12)
        same(given.sd.average(n=3), masked.rename(None).sd.average(n=3), 1e-12)
    i0 = small.assign(i0=("event", rng.uniform(1, 2, 8)))
    for how in ({"statistics": "sum"}, {"statistics": ("min", "max")}, {"weights": "i0"}):
        expected = i0.sd.cube(bins, images={"det": masked}, **how)
        for given in (photons, lazy):
            same(i0.sd.cube(bins, images={"det": given}, **how), expected, 1e-12)
    with pytest.raises(PlanError, match="fewer bins"):
        small.sd.cube(bins, images={"det": photons}, memory=10_000)


def test_values_that_are_not_whole_are_averaged_the_same_whatever_the_chunks(cal: xr.DataArray) -> None:
    parts = cal.copy(data=np.where(cal > 0, cal + np.random.default_rng(0).random(cal.shape), cal).astype(np.float32))
    whole = parts.sd.apply(xs.sparse()).sd.average()
    same(whole, parts.rename(None).sd.average(), 1e-12)
    for n in (1, 4):
        xr.testing.assert_identical(parts.chunk(event=n).sd.apply(xs.sparse()).sd.average().compute(), whole)


def test_what_belongs_to_events_lies_beside(
    cal: xr.DataArray, photons: xr.Dataset, pictures: xr.DataArray, mask: xr.DataArray
) -> None:
    rng = np.random.default_rng(2)
    shots = {"event": cal.event.values[::-1]}
    i0 = xr.DataArray(rng.uniform(1, 2, 9), shots, "event", attrs={"units": "mJ"})
    on = xr.DataArray(rng.random(9) > 0.5, shots, "event", name="laser_on")
    masks = xr.DataArray(rng.random(cal.shape) > 0.2, shots, cal.dims)
    lazy = cal.chunk(event=2).sd.photon(9.5, mask=mask.values, sparse=True)
    records = {"per": xs.azint(bins=5, i0=i0), "by": xs.azint(bins=5) | xs.sums(by=on), "own": xs.roi(RING, mask=masks)}
    given = {**records, "late": xs.azint(bins=5, i0=i0.chunk(event=4))}
    expected = pictures.sd.reduce(given)
    same(photons.sd.reduce(records), pictures.sd.reduce(records), 1e-12)
    for source in (photons, lazy):
        same(source.sd.reduce(given), expected, 1e-12)


def test_nothing_computes_before_and_chunks_do_not_matter(
    cal: xr.DataArray, photons: xr.Dataset, computing_is_forbidden: Callable[[], object]
) -> None:
    expected = photons.sd.reduce({"waxs": xs.azint(bins=9), "spot": xs.roi(RING)})
    for n in (1, 4):
        with computing_is_forbidden():  # type: ignore[attr-defined]
            lazy = cal.chunk(event=n).sd.photon(9.5, mask=photons["used"].values, sparse=True)
            found = lazy.sd.reduce({"waxs": xs.azint(bins=9), "spot": xs.roi(RING)})
            frames, g2 = xs.dense(lazy), xs.g2(lazy, {"ring": RING})
        xr.testing.assert_identical(found.compute().drop_attrs(), expected.drop_attrs())
        np.testing.assert_array_equal(frames.compute().values, xs.dense(photons).values)
        xr.testing.assert_identical(g2.compute(), xs.g2(photons, {"ring": RING}))


@pytest.mark.parametrize("ending", [".zarr", ".h5"])
def test_sparse_frames_are_saved_and_opened(photons: xr.Dataset, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"photons{ending}"
    photons.sd.save(path)
    with xr.open_dataset(path, engine="zarr" if ending == ".zarr" else "netcdf4") as flat:
        again = xs.lists(flat).load()
    same(again.sd.azint(bins=9), photons.sd.azint(bins=9))
    xr.testing.assert_identical(xs.g2(again, {"ring": RING}), xs.g2(photons, {"ring": RING}))
    with pytest.raises(DataError, match=r"xs\.lists"):
        flat.sd.azint(bins=9)


def test_runs_are_joined_and_events_chosen(photons: xr.Dataset) -> None:
    other = photons.assign_coords(event=photons.event + np.timedelta64(1, "h"))
    both = xs.concat([photons, other])
    expected = photons.sd.azint(bins=9)["intensity"]
    np.testing.assert_array_equal(both.sd.azint(bins=9)["intensity"][9:], expected)
    np.testing.assert_array_equal(both.isel(event=[3, 10]).sd.azint(bins=9)["intensity"], expected[[3, 1]])
    assert photons.isel(event=[]).sd.azint(bins=9)["intensity"].shape == (0, 9)


def test_several_detectors_in_one_dataset_are_told_apart(cal: xr.DataArray, mask: xr.DataArray) -> None:
    small = cal.sd.reduce({"a": xs.photon(9.5, sparse=True), "b": xs.photon(9.5, mask=mask.values, sparse=True)})
    with pytest.raises(DataError, match="which sparse frames"):
        small.sd.azint(bins=9)
    for name, expected in (("b", mask.values), ("a", np.ones(mask.shape, bool))):
        other = {"a": "b", "b": "a"}[name]
        chosen = small.drop_vars([f"{other}_pixel_value"])
        np.testing.assert_array_equal(np.isfinite(xs.dense(chosen)[0]), expected)


def test_what_sparse_frames_cannot_is_refused(cal: xr.DataArray, photons: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="at once"):
        xs.photon(9.5, image=True, sparse=True)
    with pytest.raises(DataError, match="not whole"):
        photons.drop_vars("lost_pixels").sd.azint(bins=9)
    with pytest.raises(DataError, match="no sparse frames"):
        xs.dense(cal)
    bare = photons.drop_attrs()
    bare = bare.assign(
        pixel=bare["pixel"].assign_attrs(ragged_dim="entry", ragged_dtype="<i4"), **photons.drop_vars("pixel")
    )
    with pytest.raises(DataError, match=r'do this: *sparse\["pixel"\]\.attrs = before\["pixel"\]\.attrs'):
        xs.dense(bare)
    with pytest.raises(ParameterError, match=r"xs\.dense"):
        photons.sd.apply(xs.record(lambda frame, other: float(frame.sum()), beside={"other": cal}))
    turned = photons.assign_coords(used=~photons["used"])
    with pytest.raises(DataError, match=r"not whole|differ"):
        xs.concat([photons, turned.assign_coords(event=photons.event + np.timedelta64(1, "h"))]).sd.azint(bins=9)
    with pytest.raises(DataError, match="variance"):
        xr.Dataset({"c": cal, "c_variance": abs(cal)}).sd.apply(xs.sparse())


CUTS: dict[str, dict[str, Any]] = {
    "a segment": {"segment": [1]},
    "rows and columns": {"row": slice(4, 30), "column": slice(3, None, 2)},
    "segments turned": {"segment": [1, 0]},
    "rows and columns turned": {"row": slice(None, None, -1), "column": slice(None, None, -1)},
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_part_of_sparse_frames_is_the_part_of_the_frames(
    cal: xr.DataArray, mask: xr.DataArray, cut: dict[str, Any], lazy: bool
) -> None:
    lost = cal.where(cal.row + cal.column != 20)
    kept = lost.chunk(event=3).sd.apply(xs.sparse(mask)) if lazy else lost.sd.apply(xs.sparse(mask))
    part, expected = kept.isel(cut), lost.where(mask).isel(cut)
    np.testing.assert_array_equal(xs.dense(part).values, expected.values)
    for record in (xs.roi(xs.Box(segment=1, row=(5, 20))), xs.azint(9)):
        same(xs.apply(part, record), xs.apply(expected, record))
    averaged, plain = part.sd.average(), expected.rename("f").sd.average()
    np.testing.assert_allclose(averaged["average"] if "average" in averaged else averaged.to_array()[0], plain["f"])


def test_labels_that_sparse_frames_do_not_know_are_refused(photons: xr.Dataset) -> None:
    with pytest.raises(DataError, match="does not cover every row"):
        xs.dense(photons.assign_coords(row=photons["row"] + 5))
    with pytest.raises(DataError, match="a row twice"):
        xs.dense(photons.isel(row=[0, 0, 1]))
