"""Waveforms of digitizers in a production: reduced, averaged and joined by event as frames are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import XsmallError
from xsmall.events.ragged import object_array, ragged_attrs
from xsmall.io.stores.runs import write_run
from xsmall.plot.run_figures import figures_of

N = 300


def waves(channels: int | None) -> xr.DataArray:
    """Noise, and a pulse of each channel at a place of its own."""
    rng = np.random.default_rng(2)
    shape = (N, 120) if channels is None else (N, channels, 120)
    values = rng.normal(10, 0.2, shape).astype(np.float32)
    values[..., 60:64] += rng.uniform(5, 9, (*shape[:-1], 1)).astype(np.float32)
    label = np.datetime64("2026-01-01", "ns") + np.arange(N) * np.timedelta64(8_333_333, "ns")
    dims = ("event", "sample") if channels is None else ("event", "channel", "sample")
    return xr.DataArray(values, {"event": label}, dims, attrs={"units": "V"})


def run_on_disk(folder: Path, found: xr.DataArray) -> Path:
    """A run with frames of every other event beside the waveforms."""
    sim = xs.simulate(N // 2, shape=(1, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"].compute().assign_coords(event=found.event.values[::2])
    scan = xr.Dataset({"scan": ("event", np.arange(N) % 3.0)}, {"event": found.event})
    nodes = {"/jungfrau": raw.to_dataset(name="raw"), "/diode": found.to_dataset(name="waveform"), "/events": scan}
    return write_run(xr.DataTree.from_dict(nodes), folder / "raw0003.zarr")


def recipe(path: Path, **diode: Any) -> dict[str, Any]:
    return {
        "source": str(path),
        "detectors": {
            "jungfrau": {"reductions": {"rows": {"kind": "projection", "onto": "row"}}},
            "diode": {"variable": "waveform", **diode},
        },
    }


def group_of(output: str, format_: str) -> xr.Dataset:
    """What is known of the digitizer once."""
    with xr.open_datatree(output, engine="zarr" if format_ == "zarr" else "netcdf4") as tree:
        return tree["diode"].to_dataset(inherit=False).load()


HITS = {"kind": "waveform_hits", "threshold": "5 sigma", "background": [0, 50]}
AREA = {"kind": "waveform_integral", "signal": {"first": [55, 70], "all": [0, 120]}, "background": [0, 50]}


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("format_", ["zarr", "h5"])
def test_they_are_what_a_notebook_makes_of_them(tmp_path: Path, channels: int | None, format_: str) -> None:
    found = waves(channels)
    path = run_on_disk(tmp_path, found)
    asked = recipe(path, reductions={"hits": HITS, "area": AREA}) | {"format": format_}
    [state] = xs.produce(asked, 3, tmp_path / "out")
    assert (state.state, state.why) == ("done", "")
    titles = [
        title for title, _ in figures_of(xs.open_result(state.output), {"diode": group_of(state.output, format_)})
    ]
    assert "diode: average" in titles
    area = found.sd.waveform_integral({"first": (55, 70), "all": (0, 120)}, (0, 50))
    hits = found.sd.waveform_hits(xs.sigma(5), (0, 50))
    small = xs.open_result(state.output)
    assert int(hits["n_hits"].sum()) >= N
    for name, made in (("hits", hits), ("area", area)):
        for key in made.data_vars:
            ours = small[f"diode_{name}_{key}"]
            if made[key].dtype == object:  # in a file they lie behind each other
                assert ours.dims == ("diode_hit",)
                np.testing.assert_array_equal(ours.values, np.concatenate(made[key].values))
            else:
                assert ours.dims == tuple(d if d == "event" else f"diode_{d}" for d in made[key].dims)
                np.testing.assert_array_equal(ours.values, made[key].values)
    assert small["jungfrau_present"].values.tolist() == [i % 2 == 0 for i in range(N)]
    average = group_of(state.output, format_)["average"]
    assert average.dims == (("sample",) if channels is None else ("channel", "sample"))
    np.testing.assert_allclose(average, found.mean("event"), rtol=1e-6)


def test_lists_of_a_digitizer_are_taken_as_they_are(tmp_path: Path) -> None:
    whole = waves(None)
    lists = object_array(list(whole.values))
    lists[7] = lists[7][:0]  # not there
    ragged = xr.DataArray(lists, {"event": whole.event}, ("event",), attrs=ragged_attrs("sample", "f4"))
    path = run_on_disk(tmp_path, ragged)
    [state] = xs.produce(recipe(path, reductions={"area": {**AREA, "signal": [55, 70]}}), 3, tmp_path / "out")
    assert (state.state, state.why) == ("done", "")
    expected = xs.waveforms(ragged).sd.waveform_integral((55, 70), (0, 50))
    small = xs.open_result(state.output)
    np.testing.assert_array_equal(small["diode_area_integral"], expected["integral"])
    assert int(small["diode_area_n_valid"][7]) == 0


@pytest.mark.parametrize(
    ("diode", "text"),
    [
        ({"geometry": "geometry.txt"}, "waveforms have no geometry"),
        ({"reductions": {"q": {"kind": "azint"}}}, "geometry"),
        ({"reductions": {"hits": {**HITS, "threshold": "5 keV"}}}, "another unit"),
        ({"reductions": {"area": {**AREA, "signal": [55, 700]}}}, "beyond the waveform"),
    ],
)
def test_what_waveforms_do_not_have_is_refused(tmp_path: Path, diode: dict[str, Any], text: str) -> None:
    path = run_on_disk(tmp_path, waves(3))
    (tmp_path / "geometry.txt").write_text("")
    assert text in said_of(recipe(path, **diode), tmp_path / "out")


def said_of(asked: dict[str, Any], out: Path) -> str:
    """Why there is no output."""
    try:
        [state] = xs.produce(asked, 3, out)
    except XsmallError as error:
        return str(error)
    return state.why


def test_a_cube_has_no_images_of_waveforms(tmp_path: Path) -> None:
    asked = recipe(run_on_disk(tmp_path, waves(3)))
    asked["cubes"] = {"scan": {"bins": {"scan": {"kind": "steps", "tolerance": 0.1}}, "images": ["diode"]}}
    [state] = xs.produce(asked, 3, tmp_path / "out")
    assert "waveforms of diode are no images" in state.why
    del asked["cubes"]["scan"]["images"]
    asked["detectors"]["diode"]["reductions"] = {"area": {**AREA, "signal": [55, 70]}}
    [state] = xs.produce(asked, 3, tmp_path / "out", overwrite=True)
    assert (state.state, state.why) == ("done", "")
    cube = xr.open_zarr(tmp_path / "out" / "run0003_scan.zarr")
    area = waves(3).sd.waveform_integral((55, 70), (0, 50))["integral"]
    np.testing.assert_allclose(cube["diode_area_integral"][1], area[1::3].mean("event"), rtol=1e-12)
