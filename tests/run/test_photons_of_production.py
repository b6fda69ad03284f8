"""Photons of a production: counts, lists and sparse frames that were written are what functions of them take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import recipe_of
from xsmall.errors import DataError, ParameterError
from xsmall.events.own_names import own_names
from xsmall.run.elsewhere import ELSEWHERE

DROPLETS = {"kind": "droplet", "threshold": "4 keV", "threshold_low": "1 keV"}
PHOTON = {"kind": "photon", "per_photon": "9.5 keV", "max_k": 200}
WHOLE = {"all": xs.Box(segment=0)}
KEPT = xs.droplet(4.0, 1.0) | xs.photon(9.5, max_k=200, sparse=True)


def produced(site: Path, out: Path, ending: str, **reductions: Any) -> tuple[xr.DataTree, xr.DataArray]:
    recipe = recipe_of(site, reductions=reductions, geometry=str(site / "geometry.json")) | {"format": ending}
    [state] = xs.produce(recipe, 12, out)
    assert state.state == "done", state.why
    small = xs.open_result(state.output)
    assert isinstance(small, xr.DataTree)
    cal = xs.open_run(site / "raw0012.zarr")["jungfrau"]["raw"].sd.calibrate(xs.open_constants(site / "constants.zarr"))
    return small, cal.sd.assign_geometry(xs.open_geometry(site / "geometry.json"))


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_sparse_frames_of_a_file_are_those_of_a_notebook(site: Path, tmp_path: Path, ending: str) -> None:
    small, cal = produced(site, tmp_path, ending, kept=[DROPLETS, {**PHOTON, "sparse": True}])
    kept = xs.apply(cal, KEPT).compute()
    opened = small.to_dataset()
    np.testing.assert_array_equal(xs.dense(opened).values, xs.dense(kept).values)
    ring = {"near": xs.Band("radius", 0.0, 2e-3)}  # the geometry came along
    xr.testing.assert_equal(xs.g2(small, ring).compute(), xs.g2(kept, ring))
    xr.testing.assert_equal(xs.contrast(small).compute(), xs.contrast(kept))


def test_lists_and_counts_of_a_file_are_those_of_a_notebook(site: Path, tmp_path: Path) -> None:
    small, cal = produced(site, tmp_path, "zarr", speckle=[DROPLETS, PHOTON], other=[DROPLETS, PHOTON], drops=DROPLETS)
    photons = xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, max_k=200)).compute()
    with pytest.raises(DataError, match="results of several records") as raised:
        xs.contrast(small)
    one = eval(str(raised.value).split("do this:")[1], {"small": small.to_dataset()})
    xr.testing.assert_equal(xs.contrast(one).compute(), xs.contrast(photons))
    how: Any = {"regions": WHOLE, "like": cal, "mask": cal[0].notnull().compute()}
    xr.testing.assert_equal(xs.g2(one, **how).compute(), xs.g2(photons, **how))
    found, first = xs.lists(one).isel(event=slice(0, 3)), photons.isel(event=slice(0, 3))
    how["like"] = cal[:3]
    xr.testing.assert_equal(xs.two_time(found, **how).compute(), xs.two_time(first, **how))


def test_an_event_without_a_frame_is_no_dark_frame(site: Path, tmp_path: Path) -> None:
    run = xs.open_run(site / "raw0012.zarr")
    raw = run["jungfrau"]["raw"].isel(event=slice(0, 40)).load()
    events = run["events"].to_dataset().isel(event=slice(0, 40))
    camera = raw.isel(event=slice(1, 40, 2)).rename("raw")
    tree = xr.DataTree.from_dict(
        {"jungfrau": raw.to_dataset(), "second": camera.to_dataset(), "events": events.drop_vars("tt_fwhm")}
    )
    xs.save(tree, tmp_path / "raw0012.zarr")
    recipe = recipe_of(site, reductions={"kept": {"kind": "sparse"}})
    recipe["detectors"]["second"] = recipe["detectors"]["jungfrau"]
    recipe["source"] = str(tmp_path / "raw{run:04d}.zarr")
    [state] = xs.produce(recipe, 12, tmp_path / "out")
    assert state.state == "done", state.why
    opened = xs.open_result(state.output).to_dataset()  # type: ignore[union-attr]
    other = opened.drop_vars([n for n in opened.data_vars if str(n).startswith("jungfrau_")])
    frames = xs.dense(other)
    assert other["second_present"].values.tolist() == [False, True] * 20
    assert frames[::2].isnull().all()
    n_valid = other.sd.roi(xs.Box(segment=0))["n_valid"][:, 0].values
    assert n_valid.tolist() == frames[:, 0].count(["row", "column"]).values.tolist()
    assert n_valid[:2].tolist() == [0, 512]


def test_names_of_other_records_stay() -> None:
    n = xr.DataArray(np.zeros((2, 3)), dims=("event", "epix_k"), coords={"epix_k": [0, 1, 2]})
    small = xr.Dataset({"epix_speckle_n_k": n, "epix_speckle_n_above": n[:, 0], "epix_roi_sum": n[:, 0], "k": 3})
    assert own_names(small, "n_k", "n_nothing") is small
    found = own_names(small, "n_k", "n_above")
    assert {"n_k", "n_above"} <= set(found.data_vars)
    assert "epix_roi_sum" not in found
    assert found["n_k"].dims == ("event", "k")


# ---- what is no reduction of frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ELSEWHERE))
def test_what_is_made_of_something_else_says_of_what_and_where(site: Path, kind: str) -> None:
    assert hasattr(xs, kind) or kind in ("cube",)
    with pytest.raises(ParameterError) as raised:
        xs.open_recipe(recipe_of(site, reductions={"mine": {"kind": kind}}))
    text = str(raised.value)
    assert f"{kind} is made of {ELSEWHERE[kind][0]}" in text
    assert ELSEWHERE[kind][1] in text
