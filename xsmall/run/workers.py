"""What is known of the workers of a cluster: their memory, and whether they still work."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import Any, Final

from dask.core import flatten
from dask.utils import format_bytes

from xsmall.errors import PlanError

__all__ = ["Watch", "at_work", "compute_while_at_work", "fitting", "room_of", "scheduler_is_gone"]

_ITSELF: Final = 320 * 10**6
"""Bytes of a worker that has done nothing yet: Python, and what is imported."""
_USABLE: Final = 0.8
"""Part of its memory at which dask lets a worker pause."""
_PATIENCE: Final = 20.0
"""Seconds after which workers that all pause, or are all gone, will not go on by themselves."""
_BEGINNING: Final = 3
"""How much longer the beginning of a worker may take."""
_LOOK: Final = 1.0
"""Seconds between two looks at the workers."""


def _workers_by_address(client: Any) -> dict[str, dict[str, Any]]:
    """All workers of a cluster by their address, as the scheduler has last told."""
    found: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def room_of(client: Any) -> int | None:
    """Bytes that a thread of the smallest worker may use; None where no worker is there yet, or none has a limit."""
    rooms = [
        (_USABLE * worker["memory_limit"] - _ITSELF) / worker["nthreads"]
        for worker in _workers_by_address(client).values()
        if worker.get("memory_limit")
    ]
    return int(min(rooms)) if rooms else None


def at_work(client: Any) -> bool:
    """Whether a cluster is there, and a worker of it takes tasks."""
    try:
        return any(worker.get("status") == "running" for worker in _workers_by_address(client).values())
    except OSError:  # the scheduler is gone
        return False


def compute_while_at_work(client: Any, graph: Any, keys: Any, **options: Any) -> Any:
    """Compute a graph by the workers of a client, as a scheduler of dask, and wait no longer than they work.

    Raises
    ------
    TimeoutError
        No worker has been at work for some time: all of them are killed, say, and nobody begins others.
    """
    from distributed import wait

    asked = client.get(graph, keys, sync=False, **options)
    futures, last = list(flatten([asked])), time.monotonic()
    try:
        while True:
            try:
                wait(futures, timeout=_LOOK)
                return client.gather(asked)
            except TimeoutError:
                if at_work(client):
                    last = time.monotonic()
                elif time.monotonic() - last > _PATIENCE:
                    raise TimeoutError("no worker is at work") from None
    finally:
        for future in futures:
            future.release()


def fitting(room: int | None, needed: dict[int, int]) -> int:
    """Bytes of frames that are read at once, so that a thread has room.

    Parameters
    ----------
    room
        Bytes that a thread may use; None: no limit.
    needed
        Bytes that a thread needs, by the bytes of frames that are read at once; the best first.

    Raises
    ------
    PlanError
        Even the least does not fit.
    """
    for limit, peak in needed.items():
        if room is None or peak <= room:
            return limit
    least = min(needed.values())
    per_worker = int((least + _ITSELF) / _USABLE)
    assert room is not None
    raise PlanError(
        "the workers are too small for this run",
        found=f"{format_bytes(max(0, room))} for a thread beside Python itself, and {format_bytes(least)} are needed",
        expected=f"workers of {format_bytes(per_worker)} and one thread each",
        fix="fewer and larger workers, such as --workers 1, or memory=... of --slurm; or smaller chunks in the run",
    )


class Watch:
    """Looks whether the workers of a cluster still work, while nothing comes back.

    Parameters
    ----------
    client
        A client of the cluster.
    own
        Whether the workers are ours, so that nobody else begins others where all of them are gone.
    """

    def __init__(self, client: Any, *, own: bool = False) -> None:
        self._client = client
        self._own = own
        self._since: float | None = None
        self._restarted = False

    def done(self) -> None:
        """Something came back."""
        self._since = None

    def look(self) -> bool:
        """Restart the workers if all of them pause for want of memory; returns whether that was done.

        Raises
        ------
        PlanError
            They pause again after that, or cannot be restarted; or those of our own are gone.
        """
        workers = _workers_by_address(self._client)
        if not (workers or self._own) or any(worker.get("status") != "paused" for worker in workers.values()):
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since < (_PATIENCE if workers else _BEGINNING * _PATIENCE):
            return False
        if not workers:
            raise PlanError(
                "no worker is left",
                found="all of them have ended, and none could be begun again",
                fix="the same command, perhaps with fewer --workers; what is finished is kept",
            )
        if not self._restarted:
            self._restarted = True
            self._since = None
            if all(worker.get("nanny") for worker in workers.values()):
                self._client.restart_workers(list(workers), raise_for_error=False)
                return True
        limit = min(worker["memory_limit"] for worker in workers.values())
        raise PlanError(
            "all workers pause, since their memory is used up",
            found=f"{format_bytes(limit)} for each of them",
            fix="larger workers, and then the same command; what is finished is kept",
        )


def scheduler_is_gone(error: BaseException) -> BaseException:
    """Say what a future means that nobody has cancelled here; other errors come back as they are."""
    if not isinstance(error, CancelledError) and type(error).__name__ not in ("CancelledError", "FutureCancelledError"):
        return error
    return PlanError(
        "the scheduler of the cluster is gone",
        found=str(error) or "its connection was closed",
        fix="start a cluster, and then the same command; what is finished is kept",
    )
