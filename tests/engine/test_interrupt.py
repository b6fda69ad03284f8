"""What nobody waits for any more stops between batches, and what others wait for does not."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from xsmall.engine.blocks import Batch, unopened_blocks
from xsmall.engine.interrupt import Interrupted, can_be_stopped, check

N = 400
SEEN: list[str] = []


def endless(name: str, stop: threading.Event) -> str:
    """Work until told to stop: by the test, or by the end of the computation."""
    SEEN.append(f"{name} began")
    try:
        while not stop.wait(0.01):
            check()
    except Interrupted:
        SEEN.append(f"{name} stopped")
        raise
    SEEN.append(f"{name} done")
    return name


def stubborn() -> None:
    """Work on a cluster until the worker is told to let go."""
    SEEN.append("began")
    try:
        for _ in range(2000):
            time.sleep(0.01)
            check()
    except Exception as error:
        SEEN.append(type(error).__name__)
        raise


def wait_for(*words: str) -> None:
    end = time.monotonic() + 20
    while not all(word in SEEN for word in words):
        assert time.monotonic() < end, SEEN
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    SEEN.clear()
    can_be_stopped()
    yield
    SEEN.clear()


def interrupted(by: type[BaseException]) -> dask.delayed:
    """A task that ends the computation as soon as another one is at work."""

    def fail() -> None:
        wait_for("a began")
        raise by("now")

    return dask.delayed(fail, pure=False)()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_task_stops_when_its_computation_has_ended(error: type[BaseException]) -> None:
    never = threading.Event()
    work = dask.delayed(endless, pure=False)("a", never)
    with pytest.raises(error):
        dask.compute(work, interrupted(error), scheduler="threads", num_workers=2)
    wait_for("a stopped")


def test_other_computations_go_on() -> None:
    never, until = threading.Event(), threading.Event()
    other = threading.Thread(
        target=lambda: dask.compute(dask.delayed(endless, pure=False)("b", until), scheduler="threads")
    )
    other.start()
    wait_for("b began")
    can_be_stopped()
    with pytest.raises(RuntimeError):
        dask.compute(
            dask.delayed(endless, pure=False)("a", never), interrupted(RuntimeError), scheduler="threads", num_workers=2
        )
    wait_for("a stopped")
    until.set()
    other.join()
    assert "b done" in SEEN


def test_a_finished_computation_leaves_nothing_behind() -> None:
    assert dask.compute(dask.delayed(lambda: check() or 1)(), scheduler="threads") == (1,)
    check()


def test_blocks_stop_between_batches() -> None:
    reads: list[int] = []
    began = threading.Event()

    def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        reads.append(block_info[0]["chunk-location"][0])
        began.set()
        time.sleep(0.02)
        return block

    raw = da.zeros((N, 1, 2, 2), chunks=(1, 1, 2, 2)).map_blocks(read, dtype=float, meta=np.empty((0,) * 4))
    cells = unopened_blocks(Batch(raw), [(0, N)], "cells")

    def total(cell: np.ndarray) -> np.ndarray:
        return np.array([sum(b.frames.sum() for b in cell.item().batches(1))])

    def fail() -> None:
        assert began.wait(20)
        raise KeyboardInterrupt

    sums = da.map_blocks(total, cells, dtype=float, meta=np.empty(0))
    with pytest.raises(KeyboardInterrupt):
        dask.compute(sums, dask.delayed(fail, pure=False)(), scheduler="threads", num_workers=2)
    time.sleep(0.2)
    read_by_then = len(reads)
    time.sleep(0.2)
    assert len(reads) == read_by_then < N


def test_a_task_that_a_cluster_lets_go_of_stops() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
        future = client.submit(stubborn, pure=False)
        wait_for("began")
        future.cancel()
        wait_for("Reschedule")
        assert client.submit(lambda: 5, pure=False).result(timeout=20) == 5
