"""Runs that are still being written: they are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from xsmall.errors import XsmallError
from xsmall.io.sources.source import RunSpec, source_of

__all__ = ["is_growing", "wait_for"]

_LOOK: Final = 5.0
_UNFINISHED: Final = ".inprogress"


def is_growing(source: str, before: Any = None) -> tuple[bool, Any]:
    """Say whether a run is not there yet or still written, and what its files are now.

    Parameters
    ----------
    source
        The run.
    before
        What its files were when somebody last looked; None at the first time.
    """
    try:
        files = _files(source)
    except (XsmallError, OSError):
        return True, None
    unfinished = any(path.endswith(_UNFINISHED) or Path(path + _UNFINISHED).exists() for path, *_ in files)
    return unfinished or not files or files != before, files


def _files(source: str) -> list[tuple[str, int, int]]:
    """Path, size and time of change of all that a run consists of, whether it can be read yet or not."""
    path = Path(source)
    if path.exists():
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found]
    spec = RunSpec.of(source)
    return [(one.path, one.size, one.mtime_ns) for one in source_of(spec).identity(spec)]


def wait_for(
    source: str,
    quiet: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until a run is there and none of its files has changed for some seconds.

    Parameters
    ----------
    source
        The run.
    quiet
        Seconds in which nothing may change.
    sleep, clock
        For tests.
    """
    growing, known = is_growing(source)
    since = clock()
    while True:
        sleep(min(_LOOK, quiet))
        growing, now = is_growing(source, known)
        if growing:
            known, since = now, clock()
        elif clock() - since >= quiet:
            return
