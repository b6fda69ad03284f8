"""Delay, selections, cubes and sums of recipes: the same as the functions of a notebook make, in one pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import files_of, recipe_of
from xsmall.errors import ParameterError, XsmallError
from xsmall.run.state import RunState

DELAY = {"stage": "scan_laser_delay", "time_tool": "tt_position"}
CUBE = {
    "bins": {
        "delay": {"kind": "bins", "start": "-2 ps", "stop": "5000 fs", "n": 7},
        "laser_on": {"kind": "categories"},
    },
    "select": "bright",
    "images": ["jungfrau"],
    "weights": "i0",
    "coordinates": ["tt_amplitude"],
}


def full(site: Path, **more: Any) -> dict[str, Any]:
    """A recipe with everything that is about classes of events."""
    recipe = recipe_of(site)
    recipe["detectors"]["jungfrau"]["reductions"] |= {
        "by_laser": {"kind": "sums", "by": "laser_on", "also": ["max"], "threshold": "3 keV"},
        "per_pulse": {"kind": "roi", "places": {"segment": 0}},
    }
    cuts = {"bright": {"i0": {"low": 0.5}, "edge": {"variable": "tt_amplitude", "low": 0.01}}}
    return recipe | {"delay": DELAY, "selections": cuts, "cubes": {"scan": CUBE}} | more


@pytest.fixture(scope="module")
def state(site: Path, tmp_path_factory: pytest.TempPathFactory) -> RunState:
    """What the recipe with everything made of run 12; nobody writes to it."""
    [state] = xs.produce(full(site), 12, tmp_path_factory.mktemp("classes"))
    assert state.state == "done", state.why
    return state


def cube_of(state: RunState) -> Path:
    """Where the cube lies that was made with a run."""
    return Path(state.output).with_name("run0012_scan.zarr")


def notebook(site: Path) -> tuple[xr.Dataset, xr.DataArray]:
    run = xs.open_run(site / "raw0012.zarr")
    cal = run["jungfrau"]["raw"].sd.calibrate(xs.open_constants(site / "constants.zarr"))
    return run["events"].to_dataset().sd.delay(**DELAY), cal


def test_a_cube_in_the_pass_is_that_of_the_notebook(site: Path, state: RunState) -> None:
    events, cal = notebook(site)
    chosen = xs.select(events, i0=(0.5, None), edge=xs.cut("tt_amplitude", low=0.01))
    bins = {"delay": xs.bins(-2, 5, n=7), "laser_on": xs.categories()}
    expected = (
        xs.open_run(site / "raw0012.zarr") and chosen.sd.cube(bins, images={"jungfrau": cal}, weights="i0").compute()
    )
    found = xr.open_zarr(cube_of(state)).load()
    for name in ("count", "i0", "i0_std", "jungfrau_count", "tt_amplitude_covariance"):
        np.testing.assert_array_equal(found[name].values, expected[name].values)
    for name in ("jungfrau", "jungfrau_std", "jungfrau_stderr"):
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-9, atol=1e-12)
    assert found["jungfrau"].dims == ("delay", "laser_on", "segment", "row", "column")
    assert "jungfrau_spot_sum" in found  # results of reductions are binned too
    small = xr.open_zarr(state.output)
    np.testing.assert_array_equal(small["delay"].values, events["delay"].values)
    assert small.sizes["event"] == 700  # a selection is for cubes; nothing is dropped from the small data


def test_cubes_of_runs_are_merged_as_others(state: RunState) -> None:
    cube = xr.open_zarr(cube_of(state)).load()
    with pytest.raises(XsmallError, match="same events"):
        xs.merge_cubes(cube, cube)
    assert xs.difference(cube, "laser_on")["jungfrau"].dims == ("delay", "segment", "row", "column")


def test_sums_by_class_join_the_pass_and_lie_with_the_detector(site: Path, state: RunState) -> None:
    group = xr.open_zarr(state.output, group="jungfrau").load()
    _, cal = notebook(site)
    expected = cal.sd.sums(by="laser_on", also=["max"], threshold=3.0).compute()
    for name in ("mean", "std", "stderr", "count", "max", "n_events"):
        np.testing.assert_array_equal(group[f"by_laser_{name}"].values, expected[name].values)
    assert group["laser_on"].values.tolist() == [False, True]


@pytest.mark.usefixtures("forked_workers")
def test_the_bits_depend_neither_on_workers_nor_on_a_kill(site: Path, state: RunState, tmp_path: Path) -> None:
    [two] = xs.produce(full(site), 12, tmp_path / "two", workers=2)
    for path in (Path(state.output), cube_of(state)):
        assert files_of(path) == files_of(tmp_path / "two" / path.name)
    assert two.state == "done"


def test_intensities_divide_in_the_recipe_as_in_the_notebook(site: Path, tmp_path: Path) -> None:
    xs.save_geometry(xs.simulate(1, shape=(2, 16, 32)).geometry, tmp_path / "g.json", format="xsmall")
    waxs = {"kind": "azint", "bins": 5, "quantity": "radius", "i0": "i0"}
    beam = {"distance": "100 mm", "center": ["0 mm", "0 mm"]}
    recipe = recipe_of(site, reductions={"waxs": waxs}, geometry=str(tmp_path / "g.json"), beam=beam)
    [state] = xs.produce(recipe, 12, tmp_path / "out")
    assert state.state == "done", state.why
    events, cal = notebook(site)
    det = cal.sd.assign_geometry(xs.open_geometry(tmp_path / "g.json")).sd.assign_beam(distance=0.1, center=(0, 0))
    expected = det.sd.azint(bins=5, quantity="radius", i0=events["i0"])["intensity"]
    np.testing.assert_array_equal(xr.open_zarr(state.output)["jungfrau_waxs_intensity"].values, expected.values)


def wrong(**more: Any) -> dict[str, Any]:
    return {**CUBE, **more}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"cubes": {"scan": wrong(select="brigth")}}, ["no 'brigth'", '"bright"']),
        ({"cubes": {"scan": wrong(images=["jungfrua"])}}, ["no 'jungfrua'", '"jungfrau"']),
        ({"cubes": {"scan": wrong(bins={})}}, ["without bins"]),
        ({"cubes": {"scan": wrong(bins={"delay": {"kind": "bns"}})}}, ["unknown kind", 'kind = "bins"']),
        ({"cubes": {"scan": wrong(bins={"delay": {"kind": "steps"}})}}, ["need tolerance"]),
        ({"cubes": {"scan": wrong(bins={"delay": {"kind": "quantiles", "m": 3}})}}, ["have no 'm'"]),
        ({"cubes": {"scan": wrong(bin={})}}, ["cubes.scan.bin", "bins = ..."]),
        ({"delay": {"stgae": "x", "stage": "y"}}, ["delay.stgae", "stage = ..."]),
    ],
)
def test_invalid_arguments_are_refused(site: Path, tables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ParameterError) as error:
        xs.open_recipe(full(site, **tables))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("bins", "words"),
    [
        ({"delay": [-1, 0, 1]}, ["without its unit", '"-1 ps"']),
        ({"delay": {"kind": "bins", "start": "-2 mm", "stop": "5 ps", "n": 7}}, ["another unit", "ps"]),
        ({"dleay": {"kind": "quantiles", "n": 3}}, ["no event variable", "delay = ..."]),
        ({"jungfrau_spot_sum": {"kind": "quantiles", "n": 3}}, ["no event variable", "xsmall cube"]),
    ],
)
def test_what_does_not_fit_the_run_is_told_before_a_frame_is_read(
    site: Path, tmp_path: Path, bins: dict[str, Any], words: list[str]
) -> None:
    [state] = xs.produce(full(site, cubes={"scan": wrong(bins=bins)}), 12, tmp_path / "out")
    assert state.state == "failed"
    for word in words:
        assert word in state.why
    assert not (tmp_path / "out" / "run0012.blocks").exists()


@pytest.mark.parametrize(
    ("cube", "words"),
    [
        ({"images": [], "bins": {"dleay": {"kind": "quantiles", "n": 3}}}, ["'scan'", "no event variable", "delay ="]),
        ({"images": [], "bins": {"jungfrau_spot_smu": {"kind": "quantiles", "n": 3}}}, ["jungfrau_spot_sum = ..."]),
        ({"images": [], "bins": {"jungfrau_rows_projection": {"kind": "quantiles", "n": 3}}}, ["several values"]),
        ({"images": [], "weights": "i00"}, ["cube 'scan': 'i00' is no variable of events", "give 'i0'"]),
        ({"weights": "i00"}, ["give 'i0'"]),
        ({"coordinates": ["tt_amplitud"]}, ["cube 'scan'", "coordinates=['tt_amplitude']"]),
        ({"images": [], "select": "odd"}, ["cube 'scan': 'tt_amplitud' is no variable", "'tt_amplitude'"]),
    ],
)
def test_names_that_a_cube_will_not_find_are_told_before_a_frame_is_read(
    site: Path, tmp_path: Path, cube: dict[str, Any], words: list[str]
) -> None:
    recipe = full(site, cubes={"scan": wrong(**cube)})
    recipe["selections"]["odd"] = {"edge": {"variable": "tt_amplitud", "low": 0.01}}
    with pytest.raises(XsmallError) as told:
        xs.forecast(recipe, 12)
    [state] = xs.produce(recipe, 12, tmp_path / "out")
    assert (state.state, state.why) == ("failed", str(told.value))
    for word in words:
        assert word in state.why
    assert not (tmp_path / "out" / "run0012.blocks").exists()
