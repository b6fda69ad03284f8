"""How far a computation is: a bar for whoever waits, of tasks that are done and events that were read.

A bar appears for computations of this process (threads, processes, synchronous) that take more than a moment, where a
person looks on: in a terminal or a notebook. On a cluster dask's dashboard and ``distributed.progress`` tell more.
``dask.config.set({"xsmall.progress": False})`` is quiet, ``True`` shows it everywhere; ``DASK_XSMALL__PROGRESS=false``
in the environment does the same for a whole session.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from typing import Any, Final, Protocol, TextIO

import dask
from dask.callbacks import Callback

__all__ = ["Bar", "Expected", "expect", "is_wanted", "text_of"]

_SETTING: Final = "xsmall.progress"
_PATIENCE: Final = 1.5  # s before anything is shown
_EVERY: Final = 0.25
_WIDTH: Final = 24


class Expected(Protocol):
    """What a pass over frames will read: see :class:`xsmall.engine.plans.Plan`."""

    @property
    def events(self) -> int:
        """Events that are read."""

    @property
    def packets(self) -> str:
        """Layer of the graph that reads."""

    @property
    def along(self) -> tuple[str, ...]:
        """Layers of other passes that do not read, since this one takes them along."""


_EXPECTED: OrderedDict[str, Expected] = OrderedDict()
_MOST: Final = 4096


def expect(name: str, of: Expected) -> None:
    """Say which pass a dask array of this name comes from."""
    _EXPECTED[name] = of
    _EXPECTED.move_to_end(name)
    while len(_EXPECTED) > _MOST:
        _EXPECTED.popitem(last=False)


def _events_of(names: set[str]) -> int:
    """Events that all passes behind these arrays read; 0 where none is known."""
    found = {id(of): of for name in names if (of := _EXPECTED.get(name)) is not None}
    along = {name for of in found.values() for name in of.along}
    return sum(of.events for of in found.values() if of.packets not in along)


def is_wanted() -> bool:
    """Whether a bar is to be shown: as the setting says, else where a person looks on, and has no bar of dask's own."""
    said = dask.config.get(_SETTING, None)
    if said is not None:
        return bool(said)
    if any(type(getattr(hook, "__self__", None)).__name__ == "ProgressBar" for c in Callback.active for hook in c):
        return False
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


class Bar:
    """A line that is written again and again while a computation goes on.

    Parameters
    ----------
    graph
        What is computed: its keys say how many events will be read, where that is known.
    out
        Where it is written; None: standard output in a notebook, where what is standard error is red, else the latter.
    patience
        Seconds before anything is written.
    """

    def __init__(self, graph: Any, out: TextIO | None = None, patience: float = _PATIENCE) -> None:
        self.n_tasks, self.n_events = len(graph), _events_of({_task_name(key) for key in graph})
        self._out = out or (sys.stdout if "ipykernel" in sys.modules else sys.stderr)
        self._tasks = self._events = self._written = 0
        self._lock, self._end = threading.Lock(), threading.Event()
        self._begin, self._patience = time.monotonic(), patience
        self._thread = threading.Thread(target=self._tell, name="xsmall progress", daemon=True)
        self._thread.start()

    def task_done(self) -> None:
        """Count a task; called by the scheduler alone."""
        self._tasks += 1

    def events_read(self, n: int) -> None:
        """Count events; called by any thread."""
        with self._lock:
            self._events += n

    def stop(self) -> None:
        """Take the line away."""
        self._end.set()
        self._thread.join()
        if self._written:
            self._out.write(f"\r{'':<{self._written}}\r")
            self._out.flush()

    def _tell(self) -> None:
        if self._end.wait(self._patience):
            return
        while True:
            self._write(self.text())
            if self._end.wait(_EVERY):
                return

    def text(self) -> str:
        """The line as it is now."""
        share = self._tasks / max(1, self.n_tasks)
        if self.n_events:
            share = max(share, min(1.0, self._events / self.n_events))
        return text_of(share, self._events, time.monotonic() - self._begin)

    def _write(self, text: str) -> None:
        self._out.write(f"\r{text:<{self._written}}")
        self._out.flush()
        self._written = max(self._written, len(text))


def text_of(share: float, events: int, seconds: float) -> str:
    """A bar, the share in percent, events per second where any were read, and the time that is left.

    Examples
    --------
    >>> text_of(0.5, 3000, 10.0)
    '[############            ]  50 %   300 events/s   0:10 left'
    """
    filled = int(_WIDTH * share)
    text = f"[{'#' * filled:<{_WIDTH}}] {100 * share:3.0f} %"
    if events:
        text += f"   {events / max(seconds, 1e-9):.4g} events/s"
    if share <= 0:
        return text
    minutes, rest = divmod(round(seconds * (1 - share) / share), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{text}   " + (f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}") + " left"


def _task_name(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key)
