"""Two jobs on one output, real processes: they share the blocks, either may be killed, and the bits are the same."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import xsmall as xs
from tests.run.conftest import files_of, recipe_of
from xsmall.errors import DataError, ParameterError
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.place import TakenError
from xsmall.run.state import RunState

MODULE = """
import os, time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

def counted(frame):
    if (frame == 1).all():
        return 0.0  # only tried
    job = os.environ.get("XSMALL_TEST_JOB", "here")
    log = HERE / f"calls.{job}"
    n = log.stat().st_size if log.exists() else 0
    while n == int(os.environ.get("XSMALL_TEST_STOP_AFTER", -1)):
        time.sleep(1)
    gate = HERE / "gate"
    while job == "here" and gate.exists() and not Path(gate.read_text()).exists():
        time.sleep(0.02)
    with log.open("ab") as file:
        file.write(b".")
    return float(np.nansum(frame))
"""


@pytest.fixture
def recipe(site: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "mine.py").write_text(MODULE)
    (folder / "recipe.toml").write_text(
        f'source = "{site}/raw{{run:04d}}.zarr"\n[detectors.jungfrau]\nconstants = "{site}/constants.zarr"\n'
        '[detectors.jungfrau.reductions]\nrows = {kind = "projection", onto = "row"}\n'
        'mine = {kind = "function", function = "mine:counted"}\n'
    )
    return folder / "recipe.toml"


@contextmanager
def other_job(recipe: Path, out: Path, *, stop_after: int) -> Iterator[subprocess.Popen[bytes]]:
    """A job of another process, which computes so many events and then hangs."""
    words = [sys.executable, "-m", "xsmall.cli", "produce", str(recipe), "--run", "12", "--out", str(out)]
    environment = os.environ | {
        "DASK_NUM_WORKERS": "1", "XSMALL_TEST_JOB": "there", "XSMALL_TEST_STOP_AFTER": str(stop_after),
    }  # fmt: skip
    with subprocess.Popen([*words, "--join", "--quiet", "--no-report"], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def made(recipe: Any, out: Path, **options: Any) -> RunState:
    with dask.config.set(num_workers=1):
        [state] = xs.produce(recipe, 12, out, **options)
    return state


def calls(recipe: Path, job: str) -> int:
    log = recipe.parent / f"calls.{job}"
    return log.stat().st_size if log.exists() else 0


def same_as_alone(recipe: Path, out: Path, state: RunState) -> None:
    assert (state.state, state.n_faults) == ("done", 0), state.why
    assert sorted(f.name for f in out.iterdir()) == ["run0012.status.json", "run0012.zarr"]
    (recipe.parent / "gate").unlink(missing_ok=True)
    assert files_of(state.output) == files_of(made(recipe, out.parent / "alone").output)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_job_that_has_joined_goes_on_for_one_that_is_killed(recipe: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    with other_job(recipe, out, stop_after=200) as first:
        wait_until(lambda: calls(recipe, "there") == 200)
        refused = made(recipe, out)
        assert refused.state == "refused"
        assert "--join" in refused.why
        other = made(recipe_of(tmp_path), out, join=True)
        assert other.state == "refused", "another recipe does not join"

        def kill(state: RunState) -> None:
            seen.append(state.blocks_done)
            if state.blocks_done == 2 and first.poll() is None:
                assert [s.state for s in xs.production_status(out)] == ["running"]
                first.kill()
                first.wait()

        state = made(recipe, out, join=True, progress=kill)
    assert first.returncode == -9
    assert seen[:2] == [1, 2]
    same_as_alone(recipe, out, state)
    assert calls(recipe, "there") == 200
    assert calls(recipe, "here") == 2 * 700


def test_blocks_of_a_job_that_had_joined_and_is_killed_are_made_by_the_first(recipe: Path, tmp_path: Path) -> None:
    out, joined = tmp_path / "out", []
    gate = recipe.parent / "gate"  # the first job goes on when the other one has made a block
    gate.write_text(str(out / "run0012.blocks" / "jungfrau-000001.json"))

    def join_and_kill() -> None:
        wait_until((out / "run0012.blocks" / "jungfrau-000000.lock").exists)
        with other_job(recipe, out, stop_after=256 + 20) as process:
            joined.append(process)
            try:
                wait_until(lambda: calls(recipe, "there") == 256 + 20)
            finally:
                gate.unlink()

    thread = threading.Thread(target=join_and_kill)
    thread.start()
    state = made(recipe, out)
    thread.join()
    assert joined[0].returncode == -9
    assert state.blocks_done == 3
    assert calls(recipe, "here") == 256 + 188
    same_as_alone(recipe, out, state)


def test_a_block_belongs_to_one_job_and_to_one_manifest(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks")
    store.begin({"recipe": 1})
    first = store.marked()
    with first.take("a", "job"), first.take("b", "job"):
        assert first.is_taken("a")
        with pytest.raises(TakenError), first.take("a", "another"):
            pass
        with first.take("a", "job"):  # another process of the same job, which believes the first one dead
            pass
        (store.folder / "b.npz.12345678.draft").touch()
        (store.folder / "c.npz.12345678.draft").touch()
        store.sweep()
        assert [f.name for f in store.folder.glob("*.draft")] == ["b.npz.12345678.draft"]
        with pytest.raises(TakenError, match="computes a block"):
            store.begin({"recipe": 2})
    first.write("a", {"x": np.ones(3)}, {})
    assert first.note("a") is not None
    store.begin({"recipe": 2})
    with pytest.raises(DataError, match="begun it anew"):
        first.write("a", {"x": np.ones(3)}, {})
    BlockStore(store.folder).write("a", {"x": np.ones(3)}, {})
    assert store.marked().note("a") is None, "a block of no manifest, or of another one"


def test_to_join_and_to_begin_anew_contradict_each_other(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="join and overwrite contradict"):
        made(recipe, tmp_path, join=True, overwrite=True)
