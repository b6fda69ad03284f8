"""Real processes of a cluster that are killed: nothing is lost, and the same command goes on."""

import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import xsmall as xs
from tests.run.conftest import files_of, made, recipe_of
from xsmall.run.recipe import Recipe
from xsmall.run.state import RunState

MODULE = """
import time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

def slow(frame):
    if (HERE / "slow").exists():
        time.sleep(0.005)
    return float(np.nansum(frame))

def hungry(frame):
    bad = np.load(HERE / "bad.npy")
    if (HERE / "hungry").exists() and np.array_equal(np.nan_to_num(frame), bad[: len(frame)]):
        held = []
        for _ in range(100):  # in pieces, so that no more than the worker's own memory is taken before it is killed
            held.append(np.ones(2_500_000))
            time.sleep(0.03)
        return float(len(held))  # not reached
    return float(np.nansum(frame))
"""


def recipe_with(site: Path, folder: Path, function: str) -> Recipe:
    folder.mkdir()
    (folder / "mine.py").write_text(MODULE)
    cal = xs.open_run(site / "raw0012.zarr")["jungfrau"]["raw"].sd.calibrate(xs.open_constants(site / "constants.zarr"))
    np.save(folder / "bad.npy", np.nan_to_num(cal[600].values))
    reductions = {
        "rows": {"kind": "projection", "onto": "row"},
        "mine": {"kind": "function", "function": f"mine:{function}"},
    }
    return Recipe(recipe_of(site, reductions=reductions), folder)


def test_a_scheduler_that_is_killed_is_told_and_the_same_command_goes_on(site: Path, tmp_path: Path) -> None:
    recipe = recipe_with(site, tmp_path / "recipe", "slow")
    (tmp_path / "recipe" / "slow").touch()  # so that there is something left to do after the first block
    here = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    command += ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen(command, **here)  # type: ignore[call-overload]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    worker = subprocess.Popen([*command, "--no-dashboard", "--death-timeout", "30"], **here)  # type: ignore[call-overload]
    try:
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(1, timeout=60)

            def kill(state: RunState) -> None:
                if state.blocks_done and scheduler.poll() is None:
                    scheduler.kill()

            state = made(recipe, tmp_path / "out", scheduler=client, progress=kill)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert state.state == "failed"
    assert "the scheduler of the cluster is gone" in state.why
    assert "the same command" in state.why
    kept = len(list((tmp_path / "out" / "run0012.blocks").glob("*.npz")))
    assert kept >= 1
    (tmp_path / "recipe" / "slow").unlink()
    again = made(recipe, tmp_path / "out")
    assert again.state == "done", again.why
    assert again.events_done <= 700 - 188 * kept  # blocks that were finished are not computed again
    assert files_of(again.output) == files_of(made(recipe, tmp_path / "whole").output)


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_out_of_memory_costs_its_block_and_no_other(site: Path, tmp_path: Path) -> None:
    recipe = recipe_with(site, tmp_path / "recipe", "hungry")
    (tmp_path / "recipe" / "hungry").touch()
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="640MB", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        state = made(recipe, tmp_path / "out", scheduler=client)
    assert state.state == "done", state.why
    assert state.faults["jungfrau"] == {**state.faults["jungfrau"], "lost": 700 - 512}
    assert any("188 events" in text for text in state.messages)
    (tmp_path / "recipe" / "hungry").unlink()
    again = made(recipe, tmp_path / "out", resume=True)
    assert again.n_faults == 0
    assert files_of(again.output) == files_of(made(recipe, tmp_path / "whole").output)
