"""Who is told how far a production is: a line that changes, and counters that other programs are sent."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from xsmall.errors import ParameterError
from xsmall.run.state import RunState

__all__ = ["Progress", "bar", "both", "counters", "poster"]

Progress = Callable[[RunState], None]
_WIDTH: Final = 24
_SECONDS: Final = 5.0
"""Least time between two messages about a run that goes on."""
_TIMEOUT: Final = 10.0


def bar(to: TextIO | None = None, *, changing: bool = True) -> Progress:
    """Draw a bar for each run with its events per second and what is left, in a terminal or a notebook.

    Parameters
    ----------
    to
        Where to; standard output by default.
    changing
        Whether a line may be written over. Else each run is told once, when it has ended.
    """
    out, told = to or sys.stdout, set[str]()

    def show(state: RunState) -> None:
        if state.dashboard and state.dashboard not in told:
            told.add(state.dashboard)
            out.write(f"dashboard of the workers: {state.dashboard}\n")
        ended = state.state != "running"
        if changing:
            done = _WIDTH * state.blocks_done // max(1, state.blocks)
            drawn = "" if ended else f"[{'#' * done}{'.' * (_WIDTH - done)}] "
            out.write(f"\r{drawn}{state.line()[:170]:<170}" + ("\n" if ended else ""))
        elif ended:
            out.write(state.line() + "\n")
        out.flush()

    return show


def both(*told: Progress | None) -> Progress:
    """Tell several."""

    def tell(state: RunState) -> None:
        for one in told:
            if one is not None:
                one(state)

    return tell


def counters(state: RunState) -> list[dict[str, Any]]:
    """What the run tables of beamlines show: pairs of ``key`` and ``value``."""
    told: list[tuple[str, Any]] = [
        ("xsmall", state.state),
        ("Events", state.events),
        ("Blocks", f"{state.blocks_done} of {state.blocks}"),
        ("Events/s", round(state.rate, 1)),
        ("Events with faults", state.n_faults),
    ]
    told += [("Seconds to go", round(state.remaining))] if state.remaining is not None else []
    told += [("Without", ", ".join(state.skipped))] if state.skipped else []
    told += [("Why", " ".join(state.why.split()))] if state.why else []
    return [{"key": f"<b>{key}</b>", "value": value} for key, value in told]


def poster(url: str, *, seconds: float = _SECONDS) -> Progress:
    """Send the counters of a run to an address by HTTP POST, as JSON; one that does not answer stops nothing.

    Parameters
    ----------
    url
        Such as that in ``JID_UPDATE_COUNTERS`` of a job that LCLS's automation began.
    seconds
        Least time between two messages while a run goes on; its end is always told.

    Raises
    ------
    ParameterError
        No address of HTTP.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ParameterError("counters are posted by HTTP", found=url, fix="https://...")
    last: dict[int, float] = {}

    def post(state: RunState) -> None:
        now = time.monotonic()
        if state.state == "running" and now - last.get(state.run, -seconds) < seconds:
            return
        last[state.run] = now
        body = json.dumps(counters(state)).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 the scheme is known
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
                pass
        except (urllib.error.URLError, OSError) as error:
            text = f"counters could not be posted to {url}: {error}"
            if text not in state.messages:
                state.messages.append(text)

    return post
