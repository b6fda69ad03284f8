"""Workers of our own: processes of this machine, which Ctrl-C ends in short time and without a word of theirs."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Final

import dask

from xsmall.errors import ParameterError

__all__ = ["processes"]

_LOSSES: Final = 1
"""Workers that a block may lose before it is tried in smaller pieces."""
_LAST_WAIT: Final = 1.0
"""Seconds that a worker has to end before it is killed; a block is on the disk whole, or not at all."""


@contextmanager
def processes(n: int) -> Iterator[Any]:
    """Begin workers, each a process with one thread, and end them.

    Parameters
    ----------
    n
        How many.

    Yields
    ------
    A client of them.

    Raises
    ------
    ParameterError
        Processes cannot be begun from here.
    """
    from distributed import Client, LocalCluster

    try:
        with dask.config.set({"distributed.scheduler.allowed-failures": _LOSSES}), _without_interrupts():
            cluster = LocalCluster(
                n_workers=n, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
            )
    except RuntimeError as error:
        raise ParameterError(
            "processes could not be started",
            found=str(error).splitlines()[0],
            expected="a script whose calls stand under: if __name__ == '__main__':",
            fix="leave workers out, which takes threads; or `xsmall produce`",
        ) from error
    with cluster, Client(cluster) as client:
        try:
            yield client
        except BaseException:
            cluster.sync(_end_soon, list(cluster.workers.values()))
            raise


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let what is begun inside hear nothing of Ctrl-C, which a terminal sends to all processes; it waits till after."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let signals in again, were it begun inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _end_soon(nannies: list[Any]) -> None:
    """End workers, which may be in a function that never returns."""
    await asyncio.gather(*(nanny.close(timeout=_LAST_WAIT) for nanny in nannies), return_exceptions=True)
