"""Computations from outside: stopping what nobody waits for any more, and telling how far one is.

A computation ends early after Ctrl-C, an error elsewhere in the graph, or where a future is cancelled.

Neither threads nor workers can be stopped from outside. Long tasks ask :func:`check` between batches instead: of dask's
own schedulers a callback says that a computation has ended, of a cluster the worker knows which tasks were let go.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from dask.callbacks import Callback

from xsmall.engine.progress import Bar, is_wanted

__all__ = ["Interrupted", "can_be_stopped", "check", "events_read", "stoppable"]


_LOGGER: Final = logging.getLogger("xsmall")


class Interrupted(Exception):
    """The computation that a task belongs to has ended; nobody sees this but the thread that it stops."""


class _Computation:
    """One computation of a scheduler of this process."""

    __slots__ = ("bar", "begin", "outer", "stopped", "tasks")

    def __init__(self, outer: _Computation | None) -> None:
        self.outer = outer
        self.stopped = False
        self.bar: Bar | None = None
        self.begin, self.tasks = time.monotonic(), 0


_RUN: ContextVar[_Computation | None] = ContextVar("xsmall_run", default=None)
"""The computation that this thread works for: dask hands the context of who computes to its threads."""


def _start_computation(dsk: object) -> None:
    run = _Computation(_RUN.get())
    if run.outer is None and is_wanted():
        run.bar = Bar(dsk)
    _RUN.set(run)


def _start_state(dsk: object, state: Mapping[str, Sized]) -> None:
    """What there is to do is known: the graph without what is data already."""
    del dsk
    run = _RUN.get()
    if run is not None and run.bar is not None:
        run.bar.n_tasks = len(state["ready"]) + len(state["waiting"])


def _task_done(key: object, result: object, dsk: object, state: object, worker: object) -> None:
    del key, result, dsk, state, worker
    run = _RUN.get()
    if run is not None:
        run.tasks += 1
        if run.bar is not None:
            run.bar.task_done()


def _finish_computation(dsk: object, state: object, errored: bool) -> None:
    del dsk, state
    run = _RUN.get()
    if run is not None:
        run.stopped = errored
        _RUN.set(run.outer)
        if run.bar is not None:
            run.bar.stop()
        if run.outer is None:
            how, seconds = "stopped" if errored else "done", time.monotonic() - run.begin
            _LOGGER.debug("computation %s after %d tasks, %.2f s", how, run.tasks, seconds)


_CALLBACK: Final = Callback(
    start=_start_computation, start_state=_start_state, posttask=_task_done, finish=_finish_computation
)


def events_read(n: int) -> None:
    """Tell that a task of this thread has read some events."""
    run = _RUN.get()
    while run is not None:
        if run.bar is not None:
            run.bar.events_read(n)
        run = run.outer


def can_be_stopped() -> None:
    """See to it that computations begun from now on say when they end; called where a graph is built."""
    Callback.active.add(_CALLBACK._callback)


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Hand out what stops all tasks that are begun inside, with the context of this thread, at their next look."""
    run = _Computation(_RUN.get())
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
