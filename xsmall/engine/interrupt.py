"""Stopping what nobody waits for any more: after Ctrl-C, an error elsewhere in the graph, or a cancelled future.

Neither threads nor workers can be stopped from outside. Long tasks ask :func:`check` between batches instead: of dask's
own schedulers a callback says that a computation has ended, of a cluster the worker knows which tasks were let go.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from dask.callbacks import Callback

__all__ = ["Interrupted", "can_be_stopped", "check", "stoppable"]


class Interrupted(Exception):
    """The computation that a task belongs to has ended; nobody sees this but the thread that it stops."""


class _Run:
    """One computation of a scheduler of this process."""

    __slots__ = ("outer", "stopped")

    def __init__(self, outer: _Run | None) -> None:
        self.outer = outer
        self.stopped = False


_RUN: ContextVar[_Run | None] = ContextVar("xsmall_run", default=None)
"""The computation that this thread works for: dask hands the context of who computes to its threads."""


def _start(dsk: object) -> None:
    del dsk
    _RUN.set(_Run(_RUN.get()))


def _finish(dsk: object, state: object, errored: bool) -> None:
    del dsk, state
    run = _RUN.get()
    if run is not None:
        run.stopped = errored
        _RUN.set(run.outer)


_CALLBACK: Final = Callback(start=_start, finish=_finish)


def can_be_stopped() -> None:
    """See to it that computations begun from now on say when they end; called where a graph is built."""
    Callback.active.add(_CALLBACK._callback)


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Hand out what stops all tasks that are begun inside, with the context of this thread, at their next look."""
    run = _Run(_RUN.get())
    token = _RUN.set(run)

    def stop() -> None:
        run.stopped = True

    try:
        yield stop
    finally:
        _RUN.reset(token)


def check() -> None:
    """Stop here if nobody waits for the result.

    Raises
    ------
    Interrupted
        The computation has ended; on a cluster dask's own ``Reschedule``, which it takes for no error.
    """
    run = _RUN.get()
    while run is not None:
        if run.stopped:
            raise Interrupted
        run = run.outer
    worker_module = sys.modules.get("distributed.worker")
    if worker_module is not None:
        _check_worker(worker_module)


def _check_worker(module: Any) -> None:
    """A task that a worker was told to let go of is ``cancelled``, or forgotten."""
    try:
        worker = module.get_worker()
        key = module.thread_state.key
    except (ValueError, AttributeError):
        return  # this thread runs no task of a worker
    task = worker.state.tasks.get(key)
    if task is None or task.state == "cancelled":
        from distributed import Reschedule

        raise Reschedule
