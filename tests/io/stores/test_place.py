"""Two jobs, kills at any moment, leftovers: what is under a name is whole, or the error says why."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError, WriteError
from xsmall.io.stores import place as places
from xsmall.io.stores.owner import SILENCE, Owner, writing
from xsmall.io.stores.place import OwnedPath, settle, taken

ENDINGS = [".zarr", ".h5"]
FORKED = multiprocessing.get_context("forkserver")
"""Jobs are forked from a process that has imported everything, not begun anew: seconds each."""

pytestmark = pytest.mark.usefixtures("forked_workers")


def slowly(block: np.ndarray) -> np.ndarray:
    time.sleep(0.05)
    return block


def save_slowly(path: Path, number: int, overwrite: bool, ready: Any, go: Any, told: Any) -> None:
    """What a job does: it tells its error, or that there was none."""
    values = da.ones((300, 1000), chunks=(10, 1000)).map_blocks(slowly)
    small = xr.Dataset({"a": (("x", "y"), values)}, attrs={"job": number})
    ready.set()
    go.wait()
    try:
        with dask.config.set(scheduler="synchronous"):
            xs.save(small, path, overwrite=overwrite)
    except Exception as error:
        told.send(str(error))
        sys.exit(1)
    told.send("")


class Job:
    """A process that is ready to save, and saves slowly when it is told to go."""

    def __init__(self, path: Path, number: int, *, overwrite: bool = False) -> None:
        ready, self.may_go = FORKED.Event(), FORKED.Event()
        self.told, there = FORKED.Pipe(duplex=False)
        self.process = FORKED.Process(
            target=save_slowly, args=(path, number, overwrite, ready, self.may_go, there), daemon=True
        )
        self.process.start()
        there.close()
        assert ready.wait(60)

    def go(self) -> None:
        self.may_go.set()

    def end(self) -> tuple[int | None, str]:
        """Wait for the end; return the exit code and the error."""
        assert self.told.poll(60)
        error = self.told.recv()
        self.process.join(60)
        return self.process.exitcode, error

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)
        assert self.process.exitcode == -signal.SIGKILL, "it ended before it was killed"


def until(condition: object) -> None:
    for _ in range(600):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="netcdf4")


def small(value: float = 1.0) -> xr.Dataset:
    return xr.Dataset({"a": ("x", [value])})


@pytest.mark.parametrize("ending", ENDINGS)
def test_of_two_jobs_the_second_refuses_at_once_and_the_first_is_what_is_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"small{ending}"
    jobs = [Job(path, k) for k in (1, 2)]
    for job in jobs:
        job.go()
    codes, errors = zip(*[job.end() for job in jobs], strict=True)
    assert sorted(codes) == [0, 1]
    assert "another job is writing it" in errors[codes.index(1)]
    with opened(path) as read:
        assert int(read.attrs["job"]) == codes.index(0) + 1
        assert (read["a"] == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_threads_of_one_process_are_two_jobs(tmp_path: Path) -> None:
    path = tmp_path / "small.zarr"
    with taken(path, overwrite=False):
        refused: list[BaseException] = []

        def second() -> None:
            try:
                xs.save(small(), path)
            except WriteError as error:
                refused.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "another job is writing it" in str(refused[0])
    xs.save(small(), path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_killed_job_leaves_is_no_result_and_goes_with_the_next_save(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"small{ending}"
    job = Job(path, 1)
    job.go()
    until(lambda: any(tmp_path.glob("*.part/content")))
    time.sleep(0.3)
    job.kill()
    assert not path.exists()
    (part,) = tmp_path.glob("*.part")
    for engine in ("zarr", "netcdf4"):
        with pytest.raises(Exception, match=r"(?s).*"):
            xr.open_dataset(part, engine=engine)
    xs.save(small(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_part_of_a_living_job_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "small.zarr"
    with taken(path, overwrite=False) as place:
        places._lock_of(path).unlink()  # as after a network that was cut for long
        xs.save(small(), path)
        assert place.part.is_dir()
        with pytest.raises(WriteError, match="taken by another job"):
            place.land()
    assert opened(path)["a"].values == [1.0]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.6])
def test_a_kill_while_overwriting_leaves_the_old_one(tmp_path: Path, ending: str, seconds: float) -> None:
    path = xs.save(small(7.0), tmp_path / f"small{ending}")
    job = Job(path, 1, overwrite=True)
    job.go()
    until(lambda: any(tmp_path.glob("*.part")))
    time.sleep(seconds)
    job.kill()
    with opened(path) as read:
        assert read["a"].values.tolist() == [7.0]


def save_and_die(path: Path, die_after: int) -> None:
    """Replace what is there, and die after some renames."""
    places._rename = lambda *_: False  # type: ignore[assignment]  # a file system that cannot exchange two folders
    rename, done = Path.rename, []

    def then_die(self: Path, to: Path) -> Path:
        result = rename(self, to)
        done.append(to)
        if len(done) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.rename = then_die  # type: ignore[method-assign,assignment]
    xs.save(small(2.0), path, overwrite=True)


def killed_in_landing(path: Path, renames: int) -> None:
    process = FORKED.Process(target=save_and_die, args=(path, renames), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("reader", ["open_run", "describe", "save"])
def test_a_kill_between_two_renames_is_mended_by_whoever_comes_next(tmp_path: Path, reader: str) -> None:
    path = xs.save(small(7.0), tmp_path / "small.zarr")
    if reader == "open_run":
        path = tmp_path / "run.zarr"
        xs.save(xs.simulate(4, shape=(1, 8, 8)).run, path)
    killed_in_landing(path, 1)
    assert not path.exists()
    if reader == "open_run":
        assert xs.open_run(path)["jungfrau/raw"].shape[0] == 4
    elif reader == "describe":
        from xsmall.io.info import describe

        assert "a (x 1)" in describe(path)
    else:
        with pytest.raises(ParameterError, match="is there already"):
            xs.save(small(8.0), path)
        assert opened(path)["a"].values == [7.0]


def test_a_kill_after_both_renames_leaves_the_new_one(tmp_path: Path) -> None:
    path = xs.save(small(7.0), tmp_path / "small.zarr")
    killed_in_landing(path, 2)
    assert opened(path)["a"].values == [2.0]
    xs.save(small(8.0), path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_is_replaced_that_came_while_the_job_was_writing(tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = tmp_path / f"small{ending}"
        with taken(path, overwrite=False) as place:
            place.content.write_text("mine")
            path.write_text("somebody else's")
            with pytest.raises(WriteError, match="another program wrote it"):
                place.land()
        assert path.read_text() == "somebody else's"


def test_a_job_of_another_host_is_alive_as_long_as_it_gives_signs(tmp_path: Path) -> None:
    path = tmp_path / "small.zarr"
    lock = places._lock_of(path)
    there = Owner("0123abcd", "another-host", "boot", "pids", 1, "2", "somebody", "yesterday")
    lock.write_text(there.written())
    with pytest.raises(WriteError, match="another-host"):
        xs.save(small(), path)
    long_ago = time.time() - SILENCE - 1
    os.utime(lock, (long_ago, long_ago))
    xs.save(small(), path)


def test_a_process_number_that_is_used_again_is_another_job() -> None:
    me = Owner.this("0123abcd")
    assert me.is_alive(0.0)
    assert not Owner(**{**vars(me), "start": "1"}).is_alive(0.0)
    assert Owner.read(me.written()) == me
    assert Owner.read("") is None
    assert Owner.read('{"job": 1}') is None


def test_settling_what_is_there_changes_nothing(tmp_path: Path) -> None:
    path = xs.save(small(), tmp_path / "small.zarr")
    settle(path)
    settle(tmp_path / "nothing.zarr")
    settle(tmp_path / "no folder" / "nothing.zarr")
    assert isinstance(OwnedPath(path, Owner.this("0123abcd"), overwrite=True).part, Path)
    assert np.array_equal(opened(path)["a"], [1.0])


def test_what_is_being_written_when_a_job_ends_is_waited_for(tmp_path: Path) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def write(place: OwnedPath) -> None:
        with pytest.raises(FileNotFoundError, match="has ended"), writing(str(place.owner_file)):
            wait_and_make_folders(place)

    def wait_and_make_folders(place: OwnedPath) -> None:
        begun.set()
        may_go_on.wait(10)
        (place.content / "c").mkdir(parents=True)  # as Zarr makes the folders of a chunk

    with taken(tmp_path / "a.zarr", overwrite=False) as place:
        thread = threading.Thread(target=write, args=(place,))
        thread.start()
        begun.wait(10)
        threading.Timer(0.05, may_go_on.set).start()
    assert not list(tmp_path.iterdir())
    thread.join()


def test_what_another_process_writes_too_late_is_removed_by_it(tmp_path: Path) -> None:
    def as_if_another_had_ended_the_job(place: OwnedPath) -> None:
        shutil.rmtree(place.part)
        place.content.mkdir(parents=True)

    with taken(tmp_path / "a.zarr", overwrite=False) as place:
        with pytest.raises(FileNotFoundError, match="has ended"), writing(str(place.owner_file)):
            as_if_another_had_ended_the_job(place)
        assert not place.part.exists()
