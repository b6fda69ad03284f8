"""What goes wrong in a night: it is flagged, counted and told, and the rest goes on."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import files_of, made, recipe_of
from xsmall import cli
from xsmall.errors import WriteError
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.runs import write_run
from xsmall.run.recipe import Recipe
from xsmall.run.state import RunState

CHUNK = 32
"""Events of a chunk of the run."""


def opened(state: RunState) -> xr.Dataset:
    return xr.open_zarr(state.output).load()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def chunk_of(run: Path, number: int) -> Path:
    return run / "jungfrau" / "raw" / "c" / str(number) / "0" / "0" / "0"


def same_elsewhere(found: xr.Dataset, healthy: xr.Dataset, bad: slice) -> None:
    """All events but some are what they are in a healthy run."""
    use = np.ones(healthy.sizes["event"], bool)
    use[bad] = False
    for name in ("jungfrau_rows_projection", "jungfrau_spot_sum", "jungfrau_fault", "jungfrau_n_segments", "i0"):
        np.testing.assert_array_equal(found[name].values[use], healthy[name].values[use])


@pytest.fixture(scope="module")
def healthy(site: Path, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return opened(made(recipe_of(site), tmp_path_factory.mktemp("healthy")))


def test_a_corrupt_chunk_costs_its_events_and_no_other(
    copy_of_run: Callable[[], Path], tmp_path: Path, healthy: xr.Dataset
) -> None:
    site = copy_of_run()
    flip(chunk_of(site / "raw0012.zarr", 5))
    state = made(recipe_of(site), tmp_path / "out")
    assert state.state == "done", state.why
    assert state.faults["jungfrau"]["unreadable"] == CHUNK
    assert state.n_faults == CHUNK
    assert any("raw0012.zarr" in text for text in state.messages)
    found, bad = opened(state), slice(5 * CHUNK, 6 * CHUNK)
    assert np.isnan(found["jungfrau_rows_projection"].values[bad]).all()
    assert (found["jungfrau_fault"].values[bad] & 4 != 0).all()
    assert not found["jungfrau_present"].values[bad].any()
    same_elsewhere(found, healthy, bad)
    average = xr.open_zarr(state.output, group="jungfrau")["average_count"]
    assert int(average.max()) <= 700 - CHUNK


def test_a_lost_chunk_is_missing_data_and_never_zeros(
    copy_of_run: Callable[[], Path], tmp_path: Path, healthy: xr.Dataset
) -> None:
    site = copy_of_run()
    chunk_of(site / "raw0012.zarr", 2).unlink()
    state = made(recipe_of(site), tmp_path / "out")
    assert state.state == "done", state.why
    assert state.faults["jungfrau"]["segments_missing"] >= CHUNK
    found, bad = opened(state), slice(2 * CHUNK, 3 * CHUNK)
    assert np.isnan(found["jungfrau_rows_projection"].values[bad]).all()
    same_elsewhere(found, healthy, bad)
    assert "missing_chunks" in found.attrs["lost"]
    assert "jungfrau: the run has 1 missing chunks" in state.messages


MODULE = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import xsmall as xs

HERE = Path(__file__).parent

def is_bad(frame):
    bad = HERE / "bad.npy"
    return bad.exists() and np.array_equal(np.nan_to_num(frame), np.load(bad)[: len(frame)])

def raises(frame):
    if is_bad(frame):
        raise ValueError("this one is odd")
    return float(np.nansum(frame))

def sleeps(frame):
    if (HERE / "slow").exists() and list(HERE.parent.glob("out/run0012.blocks/*-000000.json")):
        time.sleep(100)  # after the first block: nobody who stops the job can wait for that
    return float(np.nansum(frame))

def kills_once(frame):
    marker = HERE / "killed"
    if not (frame == 1).all() and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(np.nansum(frame))

def kills(frame):
    if is_bad(frame):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(np.nansum(frame))

class Breaks(xs.Reducer):
    def begin(self, k):
        self.k = k
    def add(self, s, frames, variance=None):
        if s == 0 and any(is_bad(one[None]) for one in frames):
            raise RuntimeError("a record that breaks")
    def end(self):
        return {"value": np.ones(self.k)}

@dataclass(frozen=True)
class Breaking(xs.Record):
    name = "breaking"
    def outputs(self, frames):
        return {"value": xs.Output((), (), np.dtype("f8"))}
    def reducer(self, frames):
        return Breaks()

breaking = Breaking()
"""


def with_module(site: Path, folder: Path, function: str, event: int | None = None) -> Recipe:
    """A recipe with a function of a module beside it, which finds an event by its pixels."""
    folder.mkdir()
    (folder / "mine.py").write_text(MODULE)
    if event is not None:
        cal = xs.open_run(site / "raw0012.zarr")["jungfrau"]["raw"].sd.calibrate(
            xs.open_constants(site / "constants.zarr")
        )
        np.save(folder / "bad.npy", np.nan_to_num(cal[event].values))
    reductions = {
        **recipe_of(site)["detectors"]["jungfrau"]["reductions"],
        "mine": {"kind": "function", "function": function},
    }
    return Recipe(recipe_of(site, reductions=reductions), folder)


def test_a_function_that_raises_costs_its_event(site: Path, tmp_path: Path, healthy: xr.Dataset) -> None:
    state = made(with_module(site, tmp_path / "recipe", "mine:raises", 300), tmp_path / "out")
    assert state.state == "done", state.why
    found = opened(state)
    assert found["jungfrau_mine_failed"].values.nonzero()[0].tolist() == [300]
    assert np.isnan(found["jungfrau_mine_value"].values[300])
    assert any("this one is odd" in text for text in state.messages)
    assert (state.functions, state.n_faults) == ({"jungfrau": {"mine": 1}}, 1)
    assert "jungfrau: mine raised in 1" in state.line()
    same_elsewhere(found, healthy, slice(0, 0))


def test_a_calculation_that_ends_in_an_error_costs_its_event(site: Path, tmp_path: Path, healthy: xr.Dataset) -> None:
    state = made(with_module(site, tmp_path / "recipe", "mine:breaking", 300), tmp_path / "out")
    assert state.state == "done", state.why
    assert state.faults["jungfrau"]["failed"] == 1
    assert any("a record that breaks" in text for text in state.messages)
    found = opened(state)
    assert (found["jungfrau_fault"].values & 8 != 0).nonzero()[0].tolist() == [300]
    assert np.isnan(found["jungfrau_mine_value"].values).nonzero()[0].tolist() == [300]
    same_elsewhere(found, healthy, slice(300, 301))


def test_a_worker_that_is_killed_costs_nothing_and_the_bits_are_those_of_threads(site: Path, tmp_path: Path) -> None:
    """Here workers begin anew, as those of users do."""
    recipe = with_module(site, tmp_path / "recipe", "mine:kills_once")
    state = made(recipe, tmp_path / "out", workers=2)
    assert (tmp_path / "recipe" / "killed").exists()
    assert state.state == "done", state.why
    assert not state.n_faults
    assert files_of(state.output) == files_of(made(recipe, tmp_path / "threads").output)


@pytest.mark.usefixtures("forked_workers")
def test_a_block_that_kills_every_worker_is_given_up_and_tried_again_by_resume(
    site: Path, tmp_path: Path, healthy: xr.Dataset
) -> None:
    recipe = with_module(site, tmp_path / "recipe", "mine:kills", 600)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        state = made(recipe, tmp_path / "out", workers=1)
    assert state.state == "done", state.why
    lost = state.faults["jungfrau"]["lost"]
    assert lost == 700 - 512
    found = opened(state)
    assert (found["jungfrau_fault"].values[512:] & 16 != 0).all()
    same_elsewhere(found, healthy, slice(512, None))
    (tmp_path / "recipe" / "bad.npy").unlink()
    again = made(recipe, tmp_path / "out", resume=True)
    assert again.state == "done", again.why
    assert not again.n_faults
    same_elsewhere(opened(again), healthy, slice(0, 0))
    assert not list((tmp_path / "out").glob("*.blocks"))


def test_a_full_disk_ends_the_job_and_what_was_finished_is_kept(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = BlockStore.write, []

    def full(self: BlockStore, *rest: Any) -> Any:
        calls.append(rest[0])
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *rest)

    recipe = recipe_of(site)
    with monkeypatch.context() as patch:
        patch.setattr(BlockStore, "write", full)
        with pytest.raises(WriteError, match="No space left"):
            xs.produce(recipe, "12-13", tmp_path / "out")
    [state] = xs.production_status(tmp_path / "out")
    assert state.state == "failed"
    assert len(list((tmp_path / "out" / "run0012.blocks").glob("*.json"))) == 2  # the manifest, and one note
    assert made(recipe, tmp_path / "out").state == "done"
    closed = tmp_path / "file"
    closed.touch()
    with pytest.raises(WriteError, match="folder cannot be made"):
        xs.produce(recipe, 12, closed / "out")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_in_the_middle_the_same_command_finishes_with_the_same_bits(
    site: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    folder = tmp_path / "recipe"
    with_module(site, folder, "mine:sleeps")
    (folder / "slow").touch()
    (folder / "recipe.toml").write_text(
        f'source = "{site}/raw{{run:04d}}.zarr"\n[detectors.jungfrau.reductions]\n'
        'mine = {kind = "function", function = "mine:sleeps"}\nrows = {kind = "projection", onto = "row"}\n'
    )
    out = tmp_path / "out"
    words = [
        sys.executable,
        "-m",
        "xsmall.cli",
        "produce",
        "--no-report",
        str(folder / "recipe.toml"),
        "--run",
        "12",
        "--out",
        str(out),
    ]
    environment = os.environ | {"DASK_NUM_WORKERS": "1"}
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed
    ) as process:
        note = out / "run0012.blocks" / "jungfrau-000000.json"
        until = time.monotonic() + 60
        while not note.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(how)
        _, told = process.communicate(timeout=40)
        assert process.returncode == code, told
    (folder / "slow").unlink()
    assert note.exists()
    assert not (out / "run0012.zarr").exists()
    [state] = xs.production_status(out)
    assert state.state == "stopped"
    assert cli.main(["status", str(out)]) == 1
    (out / "run0012.status.json.0a1b2c3d.draft").touch()  # of a job that is killed while it writes
    assert cli.main([*words[3:], "--quiet"]) == 0
    whole = tmp_path / "whole"
    assert cli.main([*words[3:-1], str(whole), "--quiet"]) == 0
    assert files_of(out / "run0012.zarr") == files_of(whole / "run0012.zarr")
    assert sorted(f.name for f in out.iterdir()) == ["run0012.status.json", "run0012.zarr"]


def test_twenty_runs_with_six_faults_one_command_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sim = xs.simulate(12, shape=(1, 8, 16), seed=1, missing=0.0)
    nodes = {"/events": sim.run["events"].to_dataset()[["i0"]], "/jungfrau": sim.run["jungfrau"].to_dataset()}
    first = write_run(xr.DataTree.from_dict(nodes), tmp_path / "raw0001.zarr", chunk_events=4)
    for run in range(2, 21):
        shutil.copytree(first, tmp_path / f"raw{run:04d}.zarr")
    shutil.rmtree(tmp_path / "raw0003.zarr")  # not there
    flip(chunk_of(tmp_path / "raw0005.zarr", 1))  # corrupt
    chunk_of(tmp_path / "raw0008.zarr", 0).unlink()  # lost
    (tmp_path / "raw0011.zarr" / "zarr.json").write_text("{")  # no run any more
    shutil.rmtree(tmp_path / "raw0014.zarr")  # another detector
    nodes["/epix"] = nodes.pop("/jungfrau")
    write_run(xr.DataTree.from_dict(nodes), tmp_path / "raw0014.zarr")
    (tmp_path / "mine.py").write_text("def wrong(frame):\n    raise ValueError\n")  # a recipe that does not work
    (tmp_path / "recipe.toml").write_text(
        'source = "raw{run:04d}.zarr"\n[detectors.jungfrau]\naverage = false\n'
        '[detectors.jungfrau.reductions]\nrows = {kind = "projection", onto = "row"}\n'
        '[[override]]\nruns = 17\ndetectors.jungfrau.reductions.mine = {kind = "function", function = "mine:wrong"}\n'
    )
    out = tmp_path / "out"
    assert (
        cli.main(
            ["produce", str(tmp_path / "recipe.toml"), "--run", "1-20", "--out", str(out), "--quiet", "--no-report"]
        )
        == 1
    )
    told = capsys.readouterr().err
    assert all(f"run {run}:" in told for run in (3, 11, 17))
    assert cli.main(["status", str(out), "--json"]) == 1
    table = {one["run"]: one for one in json.loads(capsys.readouterr().out)}
    assert sorted(table) == list(range(1, 21))
    failed = {run: one["why"] for run, one in table.items() if one["state"] != "done"}
    assert sorted(failed) == [3, 11, 17]
    assert "raw0003.zarr" in failed[3]
    assert "raw0011.zarr" in failed[11]
    assert {run for run, one in table.items() if one["n_faults"]} == {5}
    assert table[5]["faults"]["jungfrau"] == {"unreadable": 4}
    assert table[8]["faults"]["jungfrau"] == {"segments_missing": 4}
    assert set(table[14]["skipped"]) == {"jungfrau"}
    healthy = files_of(out / "run0001.zarr" / "jungfrau_rows_projection")
    for run in set(table) - {3, 5, 8, 11, 14, 17}:
        assert table[run]["faults"] == {"jungfrau": {}}
        assert files_of(out / f"run{run:04d}.zarr" / "jungfrau_rows_projection") == healthy
    assert cli.main(["status", str(out)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 20
