"""Production: the numbers of the notebook, joined by event; the same bits however it went; what is refused."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import files_of, recipe_of
from xsmall import cli
from xsmall.errors import ParameterError, PlanError
from xsmall.io.stores.runs import write_run
from xsmall.run import block as block_module
from xsmall.run.block import blocks_of
from xsmall.run.opened import plan_run
from xsmall.run.recipe import Recipe
from xsmall.run.state import RunState


def produced(recipe: Any, out: Path, **options: Any) -> RunState:
    [state] = xs.produce(recipe, 12, out, **options)
    return state


def opened(state: RunState) -> xr.Dataset:
    engine = "zarr" if state.output.endswith(".zarr") else "netcdf4"
    return xr.open_dataset(state.output, engine=engine).load()


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come")


def test_numbers_are_those_of_the_notebook_bit_for_bit(site: Path, whole: RunState) -> None:
    state = whole
    assert (state.state, state.events, state.blocks_done) == ("done", 700, len(blocks_of(700)))
    raw = xs.open_run(site / "raw0012.zarr")["jungfrau"]["raw"]
    cal = raw.sd.calibrate(xs.open_constants(site / "constants.zarr"))
    box = xs.Box(segment=0, row=(4, 12), column=(8, 24))
    want = cal.sd.reduce({"rows": xs.projection("row"), "drops": xs.droplet(4.0), "spot": xs.roi(box)}).compute()
    found = opened(state)
    lists = xs.lists(found)
    for name, x in want.data_vars.items():
        got = lists[f"jungfrau_{name}"]
        if x.dtype == object:
            for a, b in zip(x.values, got.values, strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_array_equal(x.values, got.values)
            assert {k: x.attrs[k] for k in ("units",) if k in x.attrs}.items() <= got.attrs.items()
    average = cal.sd.average().compute()
    group = xr.open_zarr(state.output, group="jungfrau")
    for mine, theirs in [("", ""), ("_std", "_std"), ("_stderr", "_stderr"), ("_count", "_count")]:
        np.testing.assert_allclose(
            group[f"average{mine}"].values, average[f"calibrated{theirs}"].values, rtol=1e-10, atol=1e-13
        )
    events = xs.open_run(site / "raw0012.zarr")["events"].to_dataset()
    np.testing.assert_array_equal(found["i0"].values, events["i0"].values)
    np.testing.assert_array_equal(found["event"].values, events["event"].values)


def test_configuration_is_stored_once(site: Path, tmp_path: Path) -> None:
    geometry = str(site / "geometry.json")
    beam = {"photon_energy": "9.5 keV", "distance": "100 mm"}
    azint = {"waxs": {"kind": "azint", "bins": 20}}
    mask = {"edges": 1, "status": True}
    state = produced(recipe_of(site, geometry=geometry, beam=beam, mask=mask, reductions=azint), tmp_path)
    assert state.state == "done", state.why
    tree = xr.open_datatree(state.output, engine="zarr")
    group = tree["jungfrau"]
    sim = xs.simulate(4, shape=(2, 16, 32), seed=3)
    for name in ("pedestal", "noise", "gain"):
        np.testing.assert_array_equal(group[name].values, sim.constants[name].values)
    assert {"x", "y", "z", "reasons", "photon_energy", "distance", "geometry"} <= set(group.to_dataset().variables)
    assert int((group["reasons"].values & int(xs.Reason.EDGE) != 0).sum()) > 0
    root = tree.to_dataset()
    assert root["jungfrau_waxs_intensity"].dims == ("event", "jungfrau_q")
    assert root["jungfrau_q"].attrs["bounds"] == "jungfrau_q_bounds"
    assert np.isnan(group["average"].values[group["reasons"].values != 0]).all()


@pytest.fixture(scope="module")
def whole(site: Path, tmp_path_factory: pytest.TempPathFactory) -> RunState:
    """What the recipe makes of run 12 when nothing comes between; nobody writes to it."""
    state = produced(recipe_of(site), tmp_path_factory.mktemp("whole"))
    assert state.state == "done", state.why
    return state


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_whole_and_stopped_and_resumed_the_bits_are_the_same(
    recipe: dict[str, Any], whole: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    asked = recipe | {"format": form}
    if form == "h5":
        whole = produced(asked, tmp_path / "whole")
        assert whole.state == "done", whole.why
    real = block_module.Work.compute

    def stop_in_the_second(self: Any, start: int, stop: int, *rest: Any) -> Any:
        if start > 0:
            wait_for(tmp_path / "stopped" / "run0012.blocks" / "jungfrau-000000.json")
            raise KeyboardInterrupt
        return real(self, start, stop, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(block_module.Work, "compute", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            xs.produce(asked, 12, tmp_path / "stopped")
    [state] = xs.production_status(tmp_path / "stopped")
    assert state.state == "stopped"
    assert not (tmp_path / "stopped" / Path(whole.output).name).exists()
    assert [f.name for f in (tmp_path / "stopped").glob("*.blocks/*.npz")] != []
    again = produced(asked, tmp_path / "stopped")
    assert again.state == "done"
    assert files_of(again.output) == files_of(whole.output)
    assert not list((tmp_path / "stopped").glob("*.blocks"))


def test_a_finished_block_that_was_damaged_is_made_again(
    recipe: dict[str, Any], whole: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("xsmall.run.job.save_run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("power cut")))
        assert produced(recipe, tmp_path / "out").state == "failed"
    made = sorted((tmp_path / "out" / "run0012.blocks").glob("*.npz"))
    assert len(made) == len(blocks_of(700)) == 3
    data = bytearray(made[0].read_bytes())
    data[len(data) // 2] ^= 1
    made[0].write_bytes(data)
    computed = []
    real = block_module.Work.compute

    def count(self: Any, start: int, *rest: Any) -> Any:
        computed.append(start)
        return real(self, start, *rest)

    monkeypatch.setattr(block_module.Work, "compute", count)
    assert produced(recipe, tmp_path / "out").state == "done"
    assert computed == [0]
    assert files_of(tmp_path / "out" / "run0012.zarr") == files_of(whole.output)


def test_an_output_that_is_there_is_left_alone_unless_asked(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = produced(recipe, tmp_path)
    before = files_of(first.output)
    refused = produced(recipe, tmp_path)
    assert refused.state == "refused"
    assert "--resume" in refused.why
    assert produced(recipe, tmp_path, resume=True).state == "done"
    other = recipe | {"events": ["i0"]}
    refused = produced(other, tmp_path, resume=True)
    assert refused.state == "refused"
    assert "events" in refused.why
    assert files_of(first.output) == before
    [told] = xs.production_status(tmp_path)
    assert told.state == "done"
    replaced = produced(other, tmp_path, overwrite=True)
    assert replaced.state == "done"
    assert "delay" not in opened(replaced).variables
    with pytest.raises(ParameterError, match="contradict"):
        produced(recipe, tmp_path, resume=True, overwrite=True)


def no_memory(*_: Any) -> int:
    raise PlanError("the workers are too small for this run")


def test_blocks_of_another_recipe_or_input_are_refused_with_the_difference(
    site: Path, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_of_run: Callable[[], Path]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("xsmall.run.job.save_run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("power cut")))
        produced(recipe, tmp_path)
    refused = produced(recipe_of(site, average=False), tmp_path)
    assert refused.state == "refused"
    assert "average" in refused.why
    other = copy_of_run()
    refused = produced(recipe_of(other), tmp_path)
    assert refused.state == "refused"
    assert "source" in refused.why
    monkeypatch.setattr("xsmall.run.pool.Pool.limit", no_memory)  # which finished blocks do not need
    assert produced(recipe, tmp_path).state == "done"


def test_two_jobs_on_one_output_the_second_refuses(recipe: dict[str, Any], tmp_path: Path) -> None:
    seen = []

    def meanwhile(state: RunState) -> None:
        if not seen and state.state == "running":
            seen.append(None)
            seen[:] = xs.produce(recipe, 12, tmp_path)

    first = produced(recipe, tmp_path, progress=meanwhile)
    assert first.state == "done"
    assert seen[0].state == "refused"
    assert "another job" in seen[0].why


def test_detectors_of_other_rates_are_joined_by_event(tmp_path: Path) -> None:
    sim = xs.simulate(60, shape=(1, 8, 16), seed=1)
    fast = sim.run["jungfrau"].to_dataset().copy()
    fast["raw"].attrs.pop("detector_type")  # numbers of a plain camera, which are reduced as they are
    slow = fast.isel(event=slice(0, None, 4)).copy()
    slow = slow.isel(row=slice(0, 4))
    late = fast.isel(event=slice(50, 60)).assign_coords(event=fast.event.values[50:60] + np.timedelta64(3, "s"))
    plain = [n for n in fast.coords if fast[n].dims == ("event",) and n != "event"]
    tree = xr.DataTree.from_dict(
        {
            "/events": sim.run["events"].to_dataset(),
            "/fast": fast.drop_vars(plain),
            "/slow": slow.drop_vars(plain),
            "/late": late.drop_vars(plain),
        }
    )
    write_run(tree, tmp_path / "raw0001.zarr")
    reductions = {"rows": {"kind": "projection", "onto": "row"}, "drops": {"kind": "droplet", "threshold": "4000 ADU"}}
    detectors = {name: {"reductions": reductions, "average": False} for name in ("fast", "slow", "late")}
    recipe = {"source": str(tmp_path / "raw{run:04d}.zarr"), "detectors": detectors}
    [state] = xs.produce(recipe, 1, tmp_path / "out")
    assert state.state == "done", state.why
    small = xr.open_zarr(state.output).load()
    assert small.sizes["event"] == 70
    assert small["slow_present"].values.nonzero()[0].tolist() == [
        i for i in range(0, 60, 4) if bool(small["slow_n_segments"][i])
    ]
    assert small["fast_present"].values[:60].sum() >= 58
    assert small["fast_fault"].values[60:].tolist() == [1] * 10
    assert small["late_fault"].values[:60].tolist() == [1] * 60
    assert np.isnan(small["late_rows_projection"].values[:60]).all()
    assert np.isfinite(small["late_rows_projection"].values[60:][small["late_present"].values[60:]]).all()
    assert np.isnan(small["i0"].values[60:]).all()
    want = xs.projection("row")
    raw = xs.open_run(tmp_path / "raw0001.zarr")["slow"]["raw"]
    np.testing.assert_array_equal(small["slow_rows_projection"].values[:60:4], raw.sd.apply(want)["projection"].values)
    drops = xs.lists(small[[n for n in small if "slow" in str(n)]])
    assert [len(x) for x in drops["slow_drops_sum"].values[1:60:4]] == [0] * 15
    assert state.faults["slow"]["absent"] == 55


def test_what_a_run_lacks_is_skipped_and_told_or_an_error(site: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    wanted = recipe | {"events": ["i0", "dlay"]}
    wanted["detectors"] = {**recipe["detectors"], "jungfraw": {}, "epix": {}}
    state = produced(wanted, tmp_path / "a")
    assert state.state == "done"
    assert set(state.skipped) == {"jungfraw", "epix"}
    assert "is jungfrau meant?" in state.skipped["jungfraw"]
    assert "is delay meant?" in state.messages[0]
    wanted["detectors"]["epix"] = {"required": True}
    failed = produced(wanted, tmp_path / "b")
    assert failed.state == "failed"
    assert "'epix' is required" in failed.why


DO_NOT_FIT: dict[int, tuple[dict[str, Any], str]] = {
    1: ({"constants": "none.zarr"}, "none.zarr"),
    2: ({"constants": None, "unit": "keV"}, "needs constants"),
    3: ({"reductions": {"w": {"kind": "azint"}}}, "geometry"),
    4: ({"reductions": {"w": {"kind": "roi", "places": {"segment": 7}}}}, "segment"),
    5: ({"reductions": {"w": {"kind": "function", "function": "no_such_module:f"}}}, "no_such_module"),
    6: ({"reductions": {"w": {"kind": "function", "function": "leaves:f"}}}, "SystemExit: 5"),
    7: ({"reductions": {"w": {"kind": "function", "function": "leaves_later:f"}}}, "SystemExit: 6"),
}
"""What of a run is otherwise, and what is said."""


def test_what_does_not_fit_a_run_fails_that_run_and_no_other(site: Path, tmp_path: Path) -> None:
    recipe = recipe_of(site)
    recipe["override"] = [
        {"runs": run, "source": str(site / "raw0012.zarr"), "detectors": {"jungfrau": tables}}
        for run, (tables, _) in DO_NOT_FIT.items()
    ]
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(5)")
    (tmp_path / "leaves_later.py").write_text("import sys\ndef f(frame):\n    sys.exit(6)")
    *bad, good = xs.produce(Recipe(recipe, tmp_path), [*DO_NOT_FIT, 12], tmp_path / "out")
    assert (good.run, good.state) == (12, "done")
    assert {state.run: state.state for state in bad} == dict.fromkeys(DO_NOT_FIT, "failed")
    for state in bad:
        assert DO_NOT_FIT[state.run][1] in state.why, state.run


def test_whatever_opening_a_run_ends_with_the_others_are_made(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(recipe: Recipe, run: int) -> Any:
        return {}["nobody thought of it"] if run == 11 else plan_run(recipe, run)

    monkeypatch.setattr("xsmall.run.job.plan_run", plan)
    bad, good = xs.produce(recipe, "11-12", tmp_path)
    assert (bad.state, good.state) == ("failed", "done")
    assert "KeyError" in bad.why


def test_runs_that_are_not_there_fail_alone(recipe: dict[str, Any], tmp_path: Path) -> None:
    states = xs.produce(recipe, "11-13", tmp_path)
    assert [s.state for s in states] == ["failed", "done", "failed"]
    assert "raw0011.zarr" in states[0].why
    assert [s.state for s in xs.production_status(tmp_path)] == ["failed", "done", "failed"]


def test_the_forecast_tells_sizes_and_warns_of_images(site: Path, computing_is_forbidden: Callable[[], Any]) -> None:
    recipe = recipe_of(site)
    with computing_is_forbidden():
        found = xs.forecast(recipe, 12)
    rows = next(x for x in found.variables if x.name == "jungfrau_rows_projection")
    assert rows.nbytes == 700 * 2 * 16 * 8
    assert found.raw_bytes == 700 * 2 * 16 * 32 * 2
    assert next(x for x in found.variables if x.name == "jungfrau_drops_sum").nbytes is None
    assert not list(found.warnings())
    bins = {"delay": {"kind": "bins", "start": "-2 ps", "stop": "5 ps", "n": 7}, "laser_on": {"kind": "categories"}}
    cubed = xs.forecast(recipe | {"cubes": {"pump": {"bins": bins, "images": ["jungfrau"]}}}, 12)
    [images] = cubed.images
    assert images.nbytes == 7 * 2 * 2 * 16 * 32 * (8 + 8 + 8 + 4)
    assert cubed.nbytes == found.nbytes + images.nbytes
    assert cubed.block_bytes > found.block_bytes
    assert "cube pump: jungfrau (delay 7, laser_on 2, segment 2" in cubed.text()
    (site / "copies.py").write_text("import numpy as np\ndef copy(frame):\n    return np.tile(frame, (1, 8, 8))\n")
    recipe = recipe_of(site, reductions={"all": {"kind": "function", "function": "copies:copy"}})
    found = xs.forecast(Recipe(recipe, site), 12)
    assert list(found.warnings())


def test_the_shell_produces_and_tells(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: dict[str, Any]
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'source = "{site}/raw{{run:04d}}.zarr"\n[detectors.jungfrau]\nconstants = "{site}/constants.zarr"\n'
        '[detectors.jungfrau.reductions]\nrows = {kind = "projection", onto = "row"}\n'
    )
    words = ["produce", str(path), "--run", "12", "--out", str(tmp_path / "out")]
    words.append("--no-report")
    assert cli.main([*words, "--dry-run"]) == 0
    assert "jungfrau_rows_projection" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert cli.main(words) == 0
    assert "done" in capsys.readouterr().out
    assert cli.main(words) == 1
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*words, "--resume", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["status", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("run 12")
    assert cli.main(["status", str(tmp_path / "out"), "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["run"], told["state"], told["events"]) == (12, "done", 700)
    assert cli.main([*words[:3], "13", *words[4:]]) == 1
    assert "raw0013" in capsys.readouterr().err
    assert cli.main(["status", str(tmp_path / "none")]) == 1
    assert cli.main(["info", str(tmp_path / "out" / "run0012.zarr")]) == 0
