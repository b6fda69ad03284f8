"""The progress bar follows dask, and is one line in a log."""

import io

import dask
import dask.array as da
import pytest

from xsmall.demo.progress import Bar


class Terminal(io.StringIO):
    """Says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_with_the_last_state() -> None:
    out = io.StringIO()
    with Bar(out):
        da.ones((40,), chunks=1).sum().compute()
        da.ones((4,), chunks=1).sum().compute()
    assert out.getvalue().count("\n") == 1
    assert "100 %" in out.getvalue()
    assert "\r" not in out.getvalue()


def test_a_terminal_sees_the_bar_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsmall.demo.progress.PAUSE", 0.0)
    out = Terminal()
    with Bar(out), dask.config.set(scheduler="synchronous"):
        da.ones((40,), chunks=1).sum().compute()
    states = [int(part.split("]")[1].split("%")[0]) for part in out.getvalue().split("\r")[1:]]
    assert states == sorted(states)
    assert len(set(states)) > 10
    assert states[-1] == 100


def test_a_step_that_fails_is_not_shown_as_done() -> None:
    out = io.StringIO()
    with pytest.raises(KeyError), Bar(out):
        raise KeyError
    assert "100 %" not in out.getvalue()
