"""Commands and services around a production."""

import json
import os
import subprocess
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import recipe_of
from tests.run.test_classes import full
from xsmall import cli
from xsmall.cli.words import with_warnings_told
from xsmall.errors import ParameterError
from xsmall.run.arp import make_arp
from xsmall.run.follow import wait_for
from xsmall.run.pool import Pool, slurm_cluster, slurm_options
from xsmall.run.progress import bar, poster
from xsmall.run.state import RunState
from xsmall.run.toml import toml_of


@pytest.fixture(scope="module")
def produced(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and what it made."""
    folder = tmp_path_factory.mktemp("produced")
    recipe = full(site)
    recipe["cubes"]["bright"] = {"bins": {"jungfrau_spot_sum": {"kind": "quantiles", "n": 4}}}
    (folder / "all.toml").write_text(toml_of(recipe))
    del recipe["cubes"]["bright"]
    (folder / "recipe.toml").write_text(toml_of(recipe))
    assert (
        cli.main(
            ["produce", str(folder / "recipe.toml"), "--run", "12", "--out", str(folder), "--quiet", "--no-report"]
        )
        == 0
    )
    return folder


def test_a_cube_from_the_shell_is_that_of_the_pass(produced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = produced / "cube.zarr"
    words = ["cube", str(produced / "recipe.toml"), str(produced / "run0012.zarr"), "--out", str(out)]
    assert cli.main(words) == 0
    made, of_pass = xr.open_zarr(out).load(), xr.open_zarr(produced / "run0012_scan.zarr").load()
    np.testing.assert_array_equal(made["count"].values, of_pass["count"].values)
    np.testing.assert_allclose(made["jungfrau"].values, of_pass["jungfrau"].values, rtol=1e-9, atol=1e-12)
    assert not list(produced.glob("*.lanes"))
    assert cli.main(words) == 1
    assert "overwrite" in capsys.readouterr().err


def test_bins_of_results_are_for_the_cube_command(produced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = produced / "bright.zarr"
    words = ["cube", str(produced / "all.toml"), str(produced / "run0012.zarr"), "--out", str(out)]
    assert cli.main(words) == 1
    assert "which cube" in capsys.readouterr().err
    assert cli.main([*words, "--name", "bright"]) == 0
    assert xr.open_zarr(out).sizes["jungfrau_spot_sum"] == 4


def test_pictures_constants_and_darks_from_the_shell(
    site: Path, produced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = str(produced / "run0012.zarr")
    assert cli.main(["plot", small]) == 0
    assert "jungfrau_spot_sum (event 700" in capsys.readouterr().out
    assert cli.main(["plot", small, "i0", "--out", str(tmp_path / "i0.png")]) == 0
    assert (tmp_path / "i0.png").stat().st_size > 1000
    copy = tmp_path / "copy.zarr"
    assert cli.main(["constants", str(site / "constants.zarr"), "--out", str(copy)]) == 0
    assert "pedestal (gain_stage 3" in capsys.readouterr().out
    assert xs.open_constants(copy).sizes["gain_stage"] == 3
    dark = tmp_path / "dark.zarr"
    with pytest.warns(UserWarning, match="gain stage"):
        assert cli.main(["dark", str(site / "raw0012.zarr"), "--detector", "jungfrau", "--out", str(dark)]) == 0
    assert "pedestal" in xr.open_zarr(dark)
    assert cli.main(["dark", str(site / "raw0012.zarr"), "--detector", "epix", "--out", str(dark)]) == 1
    assert "the run has jungfrau" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_told_before_anything_is_computed(
    site: Path, produced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, run = str(produced / "run0012.zarr"), str(site / "raw0012.zarr")
    picture = tmp_path / "one.png"
    rows = ["plot", small, "jungfrau_rows_projection", "--out", str(picture), "--at"]
    assert cli.main([*rows, "jungfrau_segment=1"]) == 0
    assert picture.stat().st_size > 1000
    with pytest.raises(SystemExit):
        cli.main([*rows, "jungfrau_segment"])
    dark = ["dark", run, "--detector", "jungfrau", "--out", str(tmp_path / "dark.zarr")]
    for words, told in {
        (*rows, "jungfrau_segment=2"): "jungfrau_segment=0 to 1",
        ("plot", small, "i0", "--out", "i0.xyz"): "i0.png",
        ("look", run, "--out", "look.xyz"): "look.png",
        (*dark, "--plot", "dark.xyz"): "dark.png",
        ("plot", small, "average", "--group", "jungfrua"): "--group jungfrau",
        ("plot", run): "which group?",
        ("plot", str(site / "geometry.json")): "neither HDF5 nor Zarr",
        ("plot", str(site / "none.zarr")): "no such file",
        ("constants", str(site / "constants.zarr"), "--out", small): "do this:  --overwrite, or",
    }.items():
        assert cli.main(words) == 1
        assert told in capsys.readouterr().err
    assert not (tmp_path / "dark.zarr").exists()


def test_warnings_are_told_in_one_line() -> None:
    with with_warnings_told("dark"):
        assert warnings.formatwarning("no light", UserWarning, "here.py", 3) == "xsmall dark: warning: no light\n"
    assert "here.py:3" in warnings.formatwarning("no light", UserWarning, "here.py", 3)


class Table(BaseHTTPRequestHandler):
    """A run table that keeps what it is sent."""

    told: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def test_counters_are_posted(site: Path, tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Table) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/counters"
        [state] = xs.produce(recipe_of(site), 12, tmp_path, progress=poster(url, seconds=0))
        server.shutdown()
        thread.join()
    assert state.state == "done"
    last = {one["key"]: one["value"] for one in Table.told[-1]}
    assert last["<b>xsmall</b>"] == "done"
    assert last["<b>Events</b>"] == 700
    assert len(Table.told) >= 4  # each block too


def test_a_table_that_does_not_answer_stops_nothing() -> None:
    state = RunState(3, "done")
    poster("http://127.0.0.1:9/none")(state)
    assert "could not be posted" in state.messages[0]
    with pytest.raises(ParameterError, match="HTTP"):
        poster("file:///etc/passwd")


def test_the_page_of_the_workers_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    show, link = bar(changing=False), "http://127.0.0.1:8787/status"
    assert Pool(SimpleNamespace(dashboard_link=link, get_executor=lambda **_: None)).dashboard == link
    for run in (1, 2):
        show(RunState(run, dashboard=link))
        show(RunState(run, "done"))
    assert capsys.readouterr().out.count(link) == 1
    assert Pool().dashboard == ""


def test_the_bar_tells_rate_and_rest(capsys: pytest.CaptureFixture[str]) -> None:
    state = RunState(12, events=1000, blocks=4, blocks_done=1, began=0.0, updated=10.0, events_done=250)
    show = bar()
    show(state)
    told = capsys.readouterr().out
    assert "[######.................." in told
    assert "25 events/s, 30 s to go" in told
    state.state = "done"
    show(state)
    assert capsys.readouterr().out.endswith("\n")


def test_runs_that_are_written_are_waited_for(tmp_path: Path) -> None:
    clock, path = [0.0], tmp_path / "data-r0012-s000-c000.xtc2"

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if 20 <= clock[0] < 60:
            path.write_bytes(b"x" * int(clock[0]))
        if clock[0] > 1000:
            raise AssertionError("no end")

    wait_for(str(path), 30.0, sleep=sleep, clock=lambda: clock[0])
    assert clock[0] >= 85


def test_scripts_of_the_automation_run_the_recipe(site: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(toml_of(recipe_of(site)))
    submit, job = make_arp(tmp_path / "recipe.toml", tmp_path / "out put", tmp_path / "arp", setup="true")
    for script in (submit, job):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", script], check=True)
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("sbatch", "xsmall"):
        (fake / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/{name}.txt\nexit 3\n')
        (fake / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{fake}:{os.environ['PATH']}",
        "RUN_NUM": "12",
        "JID_UPDATE_COUNTERS": "http://x/y",
    }
    assert subprocess.run([job], env=environment, check=False).returncode == 0  # flagged events are no failed job
    words = (tmp_path / "xsmall.txt").read_text().splitlines()
    assert words[:4] == ["produce", str(tmp_path / "recipe.toml"), "--run", "12"]
    assert str(tmp_path / "out put") in words
    assert words[-2:] == ["--post", "http://x/y"]
    subprocess.run([submit], env=environment, check=False)
    assert str(job) in (tmp_path / "sbatch.txt").read_text()
    with pytest.raises(ParameterError, match="overwrite"):
        make_arp(tmp_path / "recipe.toml", tmp_path, tmp_path / "arp")


def test_jobs_of_slurm_cap_their_threads() -> None:
    pytest.importorskip("dask_jobqueue")
    with slurm_cluster({"queue": "milano", "account": "lcls:x", "jobs": 0, "cores": "4", "memory": "8GB"}) as cluster:
        script = cluster.job_script()
    assert "#SBATCH -p milano" in script
    assert "export NUMBA_NUM_THREADS=1" in script
    assert script.index("export OMP_NUM_THREADS=1") < script.index("distributed")
    for wrong in ("queue", "queue=", "=3"):
        with pytest.raises(ParameterError, match="SLURM"):
            slurm_options(wrong)
    with pytest.raises(ParameterError, match="contradict"):
        xs.produce({}, 1, "/tmp", workers=2, slurm={})
