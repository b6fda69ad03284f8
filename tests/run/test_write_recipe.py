"""Recipes that are written from results make the numbers of the results again, bit for bit."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.engine import asked
from xsmall.errors import DataError, ParameterError
from xsmall.io.stores.runs import write_run
from xsmall.run.toml import toml_of

SHAPE = (2, 32, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs 12 and 13 on disk, with geometry and constants."""
    where = tmp_path_factory.mktemp("notebook")
    for run in (12, 13):
        sim = xs.simulate(20, shape=SHAPE, seed=run)
        write_run(sim.run, where / f"raw{run:04d}.zarr")
    xs.save(sim.constants, where / "constants.zarr")
    xs.save_geometry(sim.geometry, where / "geometry.json", format="xsmall")
    return where


def frames_of(folder: Path, run: int = 12) -> xr.DataArray:
    raw = xs.open_run(folder / f"raw{run:04d}.zarr")["jungfrau"]["raw"]
    det = raw.sd.assign_geometry(xs.open_geometry(folder / "geometry.json"))
    return det.sd.assign_beam(photon_energy=9500, distance=0.1, center=(1e-3, -2e-4), tilt_x=0.3)


def calibrated(folder: Path, run: int = 12, **options: Any) -> xr.DataArray:
    det = frames_of(folder, run)
    flags = det.sd.mask(edges=1)
    return det.sd.calibrate(xs.open_constants(folder / "constants.zarr"), mask=flags, **options)


def many(constants: xr.Dataset) -> dict[str, Any]:
    own = xr.DataArray(np.random.default_rng(0).random(SHAPE) > 0.1, dims=("segment", "row", "column"))
    return {
        "waxs": xs.azint(bins=50, mask=own, range=(0.1, 2.0), polarization_plane=0.0, polarization_fraction=0.9),
        "edges": xs.azint([0.1, 0.30000000000000004, 0.5], quantity="q"),
        "drops": xs.droplet(xs.sigma(5), xs.sigma(3), noise=constants),
        "spots": xs.roi(
            {"a": xs.Box(segment=0, row=(4, 12), column=(3, 9)), "b": xs.Circle((1e-3, 2e-3), 4e-3),
             "c": xs.Band("q", 0.2, 0.4), "d": xs.Arc((0.0, 0.0), 1e-3, 4e-3, -20.0, 40.0)},
            threshold=(3.0, 90.0), also=["min", "x"],
        ),
        "photons": xs.droplet(4.0, 2.0) | xs.photon(max_k=4),
        "spectrum": xs.histogram(10, range=(0.0, 20.0)),
        "uneven": xs.histogram(np.array([0.0, 1.0, 2.5])),
        "rows": xs.roi(xs.Box(segment=1)) | xs.projection("row"),
        "picture": xs.image(pixel_size=150e-6),
        "coarse": xs.rebin((2, 4)),
        "line": xs.lineout("column", 3, segment=1, width=2),
        "tool": xs.edge(xs.Box(segment=0, row=(2, 9)), weights=[1.0, 1.0, -1.0, -1.0], calibration=[1.0, 0.5]),
    }  # fmt: skip


def same(found: Any, expected: Any) -> None:
    if expected.dtype == object:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, expected, strict=True))
    else:
        np.testing.assert_array_equal(found, expected)


def test_what_a_notebook_did_is_made_again_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    constants = xs.open_constants(folder / "constants.zarr")
    options: dict[str, Any] = {"trust": ["default", "saturated"], "unit": "keV"}
    small = calibrated(folder, **options).sd.reduce(many(constants))
    path = small.sd.to_recipe(tmp_path / "recipe.toml")
    assert 'raw{run:04d}.zarr"' in path.read_text()
    states = xs.produce(path, "12-13", tmp_path / "out")
    assert [state.state for state in states] == ["done", "done"], [state.why for state in states]
    again = calibrated(folder, 13, **options).sd.reduce(many(constants))
    for state, notebook in zip(states, (small, again), strict=True):
        made, expected = xr.open_zarr(state.output).load(), notebook.compute()
        for name, values in expected.data_vars.items():
            if values.dtype != object:
                same(made[f"jungfrau_{name}"].values, values.values)
            else:  # as files hold lists: behind each other
                same(made[f"jungfrau_{name}"].values, np.concatenate(list(values.values)))


def test_of_a_part_of_the_events_computed_saved_and_opened(folder: Path, tmp_path: Path) -> None:
    small = calibrated(folder)[3:17].sd.roi(xs.Box(segment=0))
    xs.save(small, tmp_path / "small.zarr")
    path = xr.open_zarr(tmp_path / "small.zarr").sd.to_recipe(tmp_path / "recipe.toml")
    told = tomllib.loads(path.read_text())["detectors"]["jungfrau"]
    assert told["reductions"] == {"roi": {"kind": "roi", "places": {"segment": 0}}}
    assert (tmp_path / told["mask"]["path"]).exists()
    [state] = xs.produce(path, 12, tmp_path / "out")
    made = xr.open_zarr(state.output)["jungfrau_roi_sum"][3:17]
    same(made.values, small["sum"].values)


def test_raw_frames_and_functions_of_modules(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_notebook.py").write_text("def total(frame):\n    return float(frame.sum())\n")
    monkeypatch.syspath_prepend(tmp_path)
    small = calibrated(folder).sd.reduce({"mine": "of_a_notebook:total"})
    path = small.sd.to_recipe(tmp_path / "recipe.toml")
    assert '{kind = "function", function = "of_a_notebook:total"}' in path.read_text()


def test_what_a_recipe_cannot_say_is_refused(folder: Path, tmp_path: Path) -> None:
    cal, target = calibrated(folder), tmp_path / "recipe.toml"
    box = xs.Box(segment=0)
    with xr.set_options(keep_attrs=True):
        doubled = cal * 2
    shifted = (frames_of(folder) + np.uint16(1)).assign_attrs(frames_of(folder).attrs)
    wrong = shifted.sd.calibrate(xs.open_constants(folder / "constants.zarr"))
    for small, words in [
        (doubled.sd.roi(box), "changed after they were calibrated"),
        (wrong.sd.roi(box), "other numbers"),
        (cal[:, 1:].sd.roi(xs.Box(segment=1)), "no detector of the run has frames of this shape"),
        (xs.apply(cal, lambda frame: float(np.nansum(frame))), "cannot be named"),
        (xs.apply(cal, lambda frame, i0: 1.0, i0=cal.i0.reset_coords(drop=True)), r'beside = \["epix", "i0"\]'),
        (cal.sd.azint(bins=5, i0=cal["i0"]), "cannot express"),
        (cal.sd.roi(cal[0].notnull().drop_vars("event")), "cannot express"),
        (calibrated(folder, photon_energy=9500, unit="photon").sd.roi(box), "photon_energy"),
    ]:  # fmt: skip
        with pytest.raises((ParameterError, DataError), match=words):
            small.sd.to_recipe(target)
    assert not target.exists()
    with pytest.raises(DataError, match="no small data of frames"):
        xs.to_recipe(xr.Dataset({"a": ("event", [1.0])}), target)
    sim = xs.simulate(4, shape=(1, 16, 32))
    with pytest.raises(DataError, match="runs on disk"):
        sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.roi(box).sd.to_recipe(target)


def test_masks_and_constants_of_another_process_have_to_be_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = calibrated(folder).sd.roi(xs.Box(segment=0))
    monkeypatch.setattr(asked, "_KEPT", type(asked._KEPT)())
    target = tmp_path / "recipe.toml"
    with pytest.raises(ParameterError, match="constants="):
        small.sd.to_recipe(target)
    constants = folder / "constants.zarr"
    with pytest.raises(ParameterError, match="mask="):
        small.sd.to_recipe(target, constants=constants)
    det = frames_of(folder)
    given = {"constants": constants, "mask": det.sd.mask(edges=1)}
    with pytest.raises(ParameterError, match="geometry="):
        small.sd.to_recipe(target, **given)
    given["geometry"] = xs.open_geometry(folder / "geometry.json")
    with pytest.raises(DataError, match="other numbers"):
        small.sd.to_recipe(target, **{**given, "mask": det.sd.mask(edges=9)})
    assert small.sd.to_recipe(target, **given) == target


def test_a_recipe_that_is_there_is_kept(folder: Path, tmp_path: Path) -> None:
    small = calibrated(folder).sd.roi(xs.Box(segment=0))
    path = small.sd.to_recipe(tmp_path / "recipe.toml")
    with pytest.raises(ParameterError, match="overwrite=True"):
        small.sd.to_recipe(path)
    assert small.sd.to_recipe(path, overwrite=True) == path


def test_toml_is_read_as_it_was_written() -> None:
    tables = {
        "source": 'a "b" \\ ü',
        "events": ["i0", "delay"],
        "detectors": {"a": {"mask": {"edges": 1}, "reductions": {"w": [{"kind": "x", "n": 1.5}]}}, "b": {}},
        "override": [{"runs": "1-2", "detectors": {"a": {"average": True}}}],
    }  # fmt: skip
    assert tomllib.loads(toml_of(tables)) == tables
