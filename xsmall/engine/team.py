"""The threads of one process at work on one thing, where each by itself would need too much memory.

Dask gives each thread a task of its own. A task that fills an accumulator of a GB must not run once per thread: such
tasks take turns (:func:`my_turn`), and the one whose turn it is works with as many threads as dask has in its process,
while the others wait. Nested tasks, as of an average that frames are divided by, do not wait for the turn they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Lock
from typing import Any, Final, TypeVar

from xsmall.engine.interrupt import check
from xsmall.engine.machine import threads_here

__all__ = ["Team", "my_turn"]

A = TypeVar("A")
B = TypeVar("B")

_TURN: Final = Lock()
_MINE: Final[ContextVar[bool]] = ContextVar("xsmall_turn", default=False)
_LOOK: Final = 0.2  # seconds between looks at whether anybody still waits


class Team:
    """Some threads, this one among them.

    Parameters
    ----------
    n
        Threads.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = max(1, n)
        self._pool = ThreadPoolExecutor(self.n - 1, thread_name_prefix="xsmall") if n > 1 else None

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """Call a function for each item, by all threads; what it returns comes in the order of the items.

        Raises
        ------
        Exception
            The first error of any call; the calls that have begun end before, others do not begin.
        """
        work = list(enumerate(items))
        if self._pool is None or len(work) < 2:
            return [_check_and_call(function, item) for _, item in work]
        out: list[Any] = [None] * len(work)
        todo = iter(work)
        lock = Lock()
        failed: list[BaseException] = []

        def help_out() -> None:
            while not failed:
                with lock:
                    number, item = next(todo, (-1, None))
                if number < 0:
                    return
                try:
                    out[number] = _check_and_call(function, item)
                except BaseException as error:
                    failed.append(error)

        futures: Sequence[Future[None]] = [
            self._pool.submit(copy_context().run, help_out) for _ in range(min(self.n, len(work)) - 1)
        ]
        help_out()
        for future in futures:
            future.result()
        if failed:
            raise failed[0]
        return out

    def end(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()


def _check_and_call(function: Callable[[A], B], item: Any) -> B:
    check()
    return function(item)


@contextmanager
def my_turn() -> Iterator[Team]:
    """Wait until no other task of this process has its turn, and get the threads of the process."""
    if _MINE.get():
        yield Team()
        return
    while not _TURN.acquire(timeout=_LOOK):
        check()
    token = _MINE.set(True)
    team = Team(threads_here())
    try:
        yield team
    finally:
        team.end()
        _MINE.reset(token)
        _TURN.release()
