"""A bar for whoever waits: what it says, where it appears, and that it is gone afterwards."""

import io
import logging
import threading
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.diagnostics import ProgressBar

import xsmall as xs
from xsmall.engine import interrupt, progress


class Told(progress.Bar):
    """A bar that is written at once, into a text."""

    made: list["Told"]

    def __init__(self, graph: Any) -> None:
        super().__init__(graph, out=io.StringIO(), patience=0.0)
        type(self).made.append(self)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    Told.made = []
    monkeypatch.setattr(interrupt, "Bar", Told)
    return Told.made


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(300, shape=(2, 32, 64), seed=2)
    return sim.run["jungfrau"]["raw"].chunk(event=50).sd.calibrate(sim.constants)


def test_a_pass_counts_its_events_and_tasks(cal: xr.DataArray, bars: list[Told]) -> None:
    small = cal.sd.reduce({"a": xs.roi(xs.Box(segment=0)), "b": xs.projection("row")})
    with dask.config.set({"xsmall.progress": True}):
        small.compute()
    (bar,) = bars
    assert (bar.n_events, bar._events) == (300, 300)
    assert bar._tasks == bar.n_tasks > 1
    assert "100 %" in bar.text()


def test_a_cube_counts_the_events_of_its_images(cal: xr.DataArray, bars: list[Told]) -> None:
    small = cal.sd.reduce({"a": xs.roi(xs.Box(segment=0))}).compute()
    cube = small.sd.cube({"delay": xs.bins(-3, 6, n=3)}, images={"pictures": cal})
    with dask.config.set({"xsmall.progress": True}):
        cube.compute()
    assert bars[-1].n_events == bars[-1]._events > 0


def test_a_cube_that_takes_reductions_along_counts_each_event_once(cal: xr.DataArray, bars: list[Told]) -> None:
    small = cal.sd.reduce({"a": xs.roi(xs.Box(segment=0))})
    cube = small.sd.cube({"delay": xs.bins(-3, 6, n=3)}, images={"pictures": cal})
    with dask.config.set({"xsmall.progress": True}):
        dask.compute(small, cube)
    assert bars[-1].n_events == bars[-1]._events == 300


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_what_tasks_compute_inside_has_no_bar_of_its_own(cal: xr.DataArray, bars: list[Told], scheduler: str) -> None:
    lazy = cal.sd.projection("row")
    with dask.config.set({"xsmall.progress": True, "scheduler": scheduler}):
        lazy.compute()
    assert len(bars) == 1


def test_it_is_quiet_where_nobody_looks_or_wants(cal: xr.DataArray, bars: list[Told], monkeypatch: Any) -> None:
    lazy = cal[:4].sd.projection("row")
    lazy.compute()  # the tests have no terminal
    with dask.config.set({"xsmall.progress": False}):
        lazy.compute()
    monkeypatch.setattr(progress.sys, "stderr", type("Terminal", (), {"isatty": lambda self: True})())
    with ProgressBar(out=io.StringIO()):
        assert not progress.is_wanted()
    assert progress.is_wanted()
    assert bars == []


def test_the_line_is_gone_afterwards_and_so_is_the_thread(bars: list[Told]) -> None:
    bar = Told({"a": 1, ("b", 0): 2})
    for _ in range(100):
        if bar._out.getvalue():
            break
        threading.Event().wait(0.05)
    bar.stop()
    written = bar._out.getvalue()
    assert "0 %" in written
    assert written.endswith("\r")
    assert written.split("\r")[-2].strip() == ""
    assert not bar._thread.is_alive()


def test_a_computation_that_fails_leaves_no_bar(cal: xr.DataArray, bars: list[Told]) -> None:
    def broken(frame: np.ndarray) -> float:
        raise RuntimeError("broken")

    lazy = cal.data.map_blocks(lambda block: broken(block), dtype="f4", meta=np.empty((0,) * 4, "f4"))
    with dask.config.set({"xsmall.progress": True}), pytest.raises(RuntimeError, match="broken"):
        lazy.compute()
    assert not any(bar._thread.is_alive() for bar in bars)
    assert interrupt._RUN.get() is None


def test_rates_and_times_are_told() -> None:
    assert progress.text_of(0.0, 0, 3.0) == f"[{' ' * 24}]   0 %"
    assert progress.text_of(0.25, 0, 10.0).endswith("25 %   0:30 left")
    assert progress.text_of(0.01, 1000, 100.0).endswith("10 events/s   2:45:00 left")


def test_logging_is_off_until_asked(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("xsmall")
    with caplog.at_level(logging.DEBUG, "xsmall"):
        dask.delayed(len)([1]).compute()
        sim = xs.simulate(4, shape=(1, 32, 32), seed=1)
        sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.average().compute()
    assert any("computation done after" in record.message for record in caplog.records)
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.level == logging.NOTSET
