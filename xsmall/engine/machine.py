"""The machine that will compute: memory and threads of this process, or of the workers of a cluster."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from threading import current_thread
from typing import Any, Final

import dask
import dask.threaded
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed.system import memory_limit as limit_of_this_machine

from xsmall.errors import ParameterError

__all__ = ["Machine", "bytes_said", "machine", "threads_here"]

_SHARE: Final = 0.5
"""Of what this process may have, the rest is for others and for what the user holds."""

_WORKER_SHARE: Final = 0.7
"""Of the limit of a worker: beyond it distributed begins to write data to disk, later it pauses and kills."""

_EMPTY_WORKER: Final = 300 * 10**6
"""Bytes of a worker that has imported everything and done nothing."""


@dataclass(frozen=True)
class Machine:
    """What a plan is made for."""

    memory: int
    """Bytes that the tasks of one process may use together."""
    threads: int
    """Threads of one process."""
    workers: int = 1
    """Processes; 1 is this one where ``cluster`` is False."""
    cluster: bool = False
    said: bool = False
    """Whether the user said ``memory``."""
    limit: int = 0
    """Bytes that a process may have at all."""
    free: int = 0
    """Bytes that are planned with where the user says nothing."""

    def __str__(self) -> str:
        if self.cluster:
            who = f"{self.workers} workers with {self.threads} threads and {format_bytes(self.limit)} each"
        else:
            who = f"this process with {self.threads} threads"
        return f"{format_bytes(self.memory)} to work with in {'each of ' if self.cluster else ''}{who}"


def machine(memory: object = None) -> Machine:
    """Ask who will compute: the smallest worker of the cluster whose client is at hand, else this process.

    Parameters
    ----------
    memory
        Bytes that the tasks of one process may use together, where the user says it.

    Raises
    ------
    ParameterError
        ``memory`` is no number of bytes.
    """
    said = None if memory is None else bytes_said(memory)
    workers = _cluster_workers()
    if workers:
        limits = [(_free(w), int(w.get("memory_limit") or limit_of_this_machine())) for w in workers]
        free, limit = min(limits)
        threads = max(int(w["nthreads"]) for w in workers)
        return Machine(said or max(0, free), threads, len(workers), True, said is not None, limit, free)
    limit = memory_here()
    free = int(limit * _SHARE)
    return Machine(said or free, n_threads(), said=said is not None, limit=limit, free=free)


def bytes_said(memory: object) -> int:
    """Check a number of bytes that a user said."""
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not 0 < memory < float("inf"):
        raise ParameterError("memory is a number of bytes", found=repr(memory), fix="memory=8e9 for 8 GB")
    return int(memory)


def memory_here() -> int:
    """Bytes that this process may have: of the machine, its control group and its limits."""
    limit: int = limit_of_this_machine()
    try:
        import resource
    except ImportError:  # not on Windows
        return limit
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_RSS):
        soft, _ = resource.getrlimit(kind)
        if soft > 0:  # RLIM_INFINITY is -1
            limit = min(limit, soft)
    return limit


def n_threads() -> int:
    """Threads that dask's own scheduler will run in this process: as configured, else the cores it may use."""
    pool = dask.config.get("pool", None)
    said = dask.config.get("num_workers", None) or getattr(pool, "_max_workers", None) or 0
    return int(said) or int(CPU_COUNT)


def worker_here() -> Any:
    """The worker of distributed that this thread works for, or None."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        return module.get_worker()
    except ValueError:
        return None


def threads_here() -> int:
    """Threads that the scheduler which runs this task has in this process; 1 where it is not known."""
    worker = worker_here()
    if worker is not None:
        return int(worker.state.nthreads)
    me = current_thread().name  # a pool names its threads before they begin, and lists them a little later
    pools = [dask.threaded.default_pool, dask.config.get("pool", None)]
    with dask.threaded.pools_lock:
        pools += [pool for of_thread in dask.threaded.pools.values() for pool in of_thread.values()]
    mine = (int(pool._max_workers) for pool in pools if me.startswith(f"{getattr(pool, '_thread_name_prefix', None)}_"))
    return next(mine, 1)


def _cluster_workers() -> list[Any]:
    """What the scheduler of the client at hand tells of its workers."""
    if "distributed" not in sys.modules:
        return []
    client = getattr(dask.base.get_scheduler(), "__self__", None)
    if client is None or not hasattr(client, "scheduler_info"):
        return []
    return list(client.scheduler_info().get("workers", {}).values())


def _free(worker: Any) -> int:
    """Bytes that a worker may fill before distributed begins to write them to disk."""
    limit = worker.get("memory_limit") or limit_of_this_machine()
    return int(_WORKER_SHARE * limit) - _EMPTY_WORKER


def limit_for(needed: int) -> int:
    """Memory limit of a worker that has so many bytes free for tasks."""
    return int((needed + _EMPTY_WORKER) / _WORKER_SHARE) + 1


def free_here() -> int | None:
    """Bytes that tasks may fill in the worker that this thread works for; None without a worker or without a limit."""
    worker = worker_here()
    limit = None if worker is None else worker.memory_manager.memory_limit
    return None if not limit else int(_WORKER_SHARE * limit) - _EMPTY_WORKER
