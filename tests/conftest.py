"""Fixtures that several test modules share."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import settings

import xsmall as xs
from xsmall.detector.geometry.geometry import Panel

PIXEL = 75e-6
SHAPE = (2, 40, 70)

# Compiling takes seconds: no deadlines. On a CI machine the examples are the same each time.
settings.register_profile("xsmall", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("xsmall")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In CI only the tests of the kernels' twins are traced: coverage doubles the time of all others."""
    for item in items if "CI" in os.environ else []:
        if not any(REFERENCE in _home(value) for value in vars(getattr(item, "module", None) or item).values()):
            item.add_marker(pytest.mark.no_cover)


REFERENCE = "xsmall.kernels.reference"


def _home(value: object) -> str:
    """Module that a name in a test module comes from, or that it is."""
    return str(getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", ""))


def _shared_folder() -> Path | None:
    """Where reference data lie: ``XSMALL_TEST_DATA``, or ``shared`` beside the checkout."""
    named = os.environ.get("XSMALL_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with ``data/`` and ``oracles/``; the test is skipped where it is not there."""
    folder = _shared_folder()
    if folder is None:
        pytest.skip("reference data not found: put them at ../shared or set XSMALL_TEST_DATA")
    return folder


@pytest.fixture
def no_compute() -> Iterator[None]:
    """Fail when anything computes a dask graph during the test."""
    with forbid_compute():
        yield


@contextmanager
def forbid_compute() -> Iterator[None]:
    """Make every dask computation inside the block an error."""

    def refuse(dsk: object, keys: object, **kwargs: object) -> None:
        raise AssertionError("something computed that had to stay lazy")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture
def computing_is_forbidden() -> Callable[[], object]:
    """Give the context manager :func:`forbid_compute` to a test that computes elsewhere."""
    return forbid_compute


def others_run_during(call: Callable[[], object], *, times: int = 5, calls: int | None = None) -> bool:
    """Say whether a call lets go of the GIL: call it until another thread has run ``times`` times.

    Threads do not take the GIL from each other meanwhile, so that the other thread, which only sleeps and counts, runs
    when the call lets go of the GIL and never else. No clock decides: a slow machine needs more calls, not a longer
    one. A minute without success ends the test, which then fails.
    """
    count, stop = 0, threading.Event()

    def run() -> None:
        nonlocal count
        while not stop.is_set():
            time.sleep(1e-4)
            count += 1

    call()  # compiles
    interval, thread = sys.getswitchinterval(), threading.Thread(target=run)
    sys.setswitchinterval(1000)
    try:
        thread.start()
        before, made, give_up = count, 0, time.monotonic() + 60
        while count < before + times and made != calls and time.monotonic() < give_up:
            call()
            made += 1
        return count >= before + times
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


@pytest.fixture
def lets_others_run() -> Callable[..., bool]:
    """Give the function :func:`others_run_during` to tests of kernels."""
    return others_run_during


@pytest.fixture
def forked_workers() -> Iterator[None]:
    """Let workers of clusters be forked from a process that has imported everything, not begun anew: seconds each.

    What a user's workers are, processes that begin anew, the tests of :func:`xsmall.run.processes.processes` begin.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "xsmall.cube.tasks", "xsmall.run.block", "xsmall.demo"])
        yield


@pytest.fixture(scope="session")
def geometry() -> xs.Geometry:
    """Two segments above each other, 0.1 m from the sample, the beam on neither."""
    return xs.Geometry.from_panels(
        [
            Panel(origin=(-3e-3, -5e-3 + 4e-3 * s, 0.1), slow=(0, PIXEL, 0), fast=(PIXEL, 0, 0), shape=SHAPE[1:])
            for s in range(SHAPE[0])
        ]
    )


@pytest.fixture
def frames() -> xr.DataArray:
    """Seven events with photons, NaN pixels, an infinite one, and a missing segment; labels do not begin at 0."""
    rng = np.random.default_rng(7)
    values = rng.normal(0.5, 0.1, (7, *SHAPE)) + 9 * (rng.random((7, *SHAPE)) < 0.02)
    values[rng.random(values.shape) < 0.01] = np.nan
    values[2, 1] = np.nan
    values[3, 0, 5, 5] = np.inf
    return xr.DataArray(
        values.astype(np.float32),
        dims=("event", "segment", "row", "column"),
        coords={"event": np.arange(7).astype("M8[s]").astype("M8[ns]")},
        name="calibrated",
        attrs={"units": "keV"},
    )


@pytest.fixture
def placed(frames: xr.DataArray, geometry: xs.Geometry) -> xr.DataArray:
    """The frames with geometry and beam."""
    return frames.sd.assign_geometry(geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
