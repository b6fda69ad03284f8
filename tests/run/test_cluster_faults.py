"""Clusters that fail, disks that are full, folders that are closed: told with what to do, and nothing is lost."""

import errno
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

import xsmall as xs
from tests.run.conftest import files_of, made, recipe_of
from xsmall.errors import PlanError, WriteError
from xsmall.run import pool as pool_module
from xsmall.run import processes as processes_module
from xsmall.run import workers as workers_module
from xsmall.run.processes import processes
from xsmall.run.state import RunState
from xsmall.run.workers import Watch, fitting


def test_workers_that_pause_without_an_end_are_told(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_PATIENCE", 1.0)
    ballast = np.ones(60_000_000)  # so that this process is larger than the workers think they may be
    limit = int(psutil.Process().memory_info().rss / 0.85)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(memory_limit=limit, **options) as cluster, Client(cluster) as client:
        state = made(recipe_of(site), tmp_path, scheduler=client)
    assert ballast.all()
    assert state.state == "failed"
    assert "all workers pause" in state.why
    assert made(recipe_of(site), tmp_path).state == "done"


def test_a_plan_that_does_not_fit_is_refused_with_the_workers_that_can(site: Path, tmp_path: Path) -> None:
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(memory_limit="350MB", **options) as cluster, Client(cluster) as client:
        state = made(recipe_of(site), tmp_path, scheduler=client)
    assert state.state == "failed"
    assert "too small" in state.why
    assert "expected: workers of" in state.why
    assert fitting(None, {100: 50, 10: 5}) == 100
    assert fitting(20, {100: 50, 10: 5}) == 10
    with pytest.raises(PlanError, match="too small"):
        fitting(4, {100: 50, 10: 5})


class Paused:
    """A cluster whose workers all pause."""

    def __init__(self) -> None:
        self.restarted: list[str] = []

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1
        return {"workers": {"a": {"status": "paused", "memory_limit": 10**9, "nthreads": 1, "nanny": "b"}}}

    def restart_workers(self, workers: list[str], raise_for_error: bool) -> None:
        assert not raise_for_error
        self.restarted += workers


def test_workers_that_pause_are_restarted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_PATIENCE", 0.0)
    cluster = Paused()
    watch = Watch(cluster)
    assert watch.look()
    assert cluster.restarted == ["a"]
    with pytest.raises(PlanError, match="pause"):
        watch.look()
    monkeypatch.setattr(workers_module, "_PATIENCE", 60.0)
    watch = Watch(cluster)
    assert not watch.look()
    watch.done()
    assert not watch.look()


class Gone:
    """A cluster whose workers are all gone."""

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {}}


def test_where_no_worker_of_our_own_is_left_a_job_does_not_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_PATIENCE", 0.0)
    assert not Watch(Gone()).look(), "a queue may begin others"
    with pytest.raises(PlanError, match="no worker is left"):
        Watch(Gone(), own=True).look()


def hears_of_interrupts() -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def stop_while_it_sleeps(client: Client) -> float:
    """Stop a job whose worker is in a function that does not return; returns when."""
    assert not any(client.run(hears_of_interrupts).values())
    sleeping = client.submit(time.sleep, 100)
    while not any(client.processing().values()):
        time.sleep(0.02)
    assert not sleeping.done()
    return time.monotonic()


def test_workers_that_never_return_do_not_keep_a_job_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "_LAST_WAIT", 0.2)
    began = 0.0
    with pytest.raises(KeyboardInterrupt), processes(1) as client:  # noqa: PT012
        began = stop_while_it_sleeps(client)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 3.5, "dask itself waits for 4 s"
    assert hears_of_interrupts()


def test_where_all_workers_are_gone_while_the_output_is_written_it_is_written_without_them(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_PATIENCE", 0.2)
    monkeypatch.setattr(workers_module, "_LOOK", 0.1)
    monkeypatch.setattr(pool_module, "at_work", lambda client: True)  # they are killed just after that
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:

        def close(state: RunState) -> None:
            if state.blocks and state.blocks_done == state.blocks and state.state == "running":
                cluster.scale(0)
                while client.scheduler_info(n_workers=-1)["workers"]:
                    time.sleep(0.02)

        state = made(recipe_of(site), tmp_path / "out", scheduler=client, progress=close)
    assert state.state == "done", state.why
    assert files_of(state.output) == files_of(made(recipe_of(site), tmp_path / "whole").output)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["run0012.status.json", "run0012.zarr"]


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_a_disk_that_takes_no_more_is_told_in_every_phase(site: Path, tmp_path: Path, form: str) -> None:
    recipe = recipe_of(site) | {"format": form}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    met = []
    for size in (6_000, 120_000):
        out = tmp_path / str(size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(WriteError) as told:
                xs.produce(recipe, 12, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        text = str(told.value)
        assert os.strerror(errno.EFBIG) in text or "full" in text or "space" in text, text
        assert not list(out.glob("*.part"))
        assert not (out / f"run0012.{form}").exists()
        met.append(len(list((out / "run0012.blocks").glob("*.npz"))))
        again = made(recipe, out)
        assert again.state == "done", again.why
    assert met[0] == 0


@pytest.fixture
def open_place(site: Path) -> Iterator[Path]:
    """A folder that everybody may look into, with the run."""
    folder = Path(tempfile.mkdtemp(prefix="xsmall-readonly-"))
    shutil.copytree(site, folder / "site")
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_a_folder_that_may_not_be_written_to_is_told(open_place: Path) -> None:
    recipe = recipe_of(open_place / "site")
    assert made(recipe, open_place / "before").state == "done"  # everything is imported
    out = open_place / "out"
    out.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(WriteError, match="Permission denied"):
            xs.produce(recipe, 12, out)
        with pytest.raises(WriteError, match="cannot be made"):
            xs.produce(recipe, 12, out / "deeper")
    finally:
        os.seteuid(user)
    assert not list(out.iterdir())
