"""Who computes blocks: threads of this process, or the workers of a cluster. Blocks come back as they are done."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import dask

from xsmall.engine.blocks import BATCH_BYTES
from xsmall.engine.interrupt import stoppable
from xsmall.errors import DataError, ParameterError
from xsmall.io.run import open_run
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.place import TakenError
from xsmall.run.block import SMALLER, Work
from xsmall.run.detectors import frames_of, open_detector
from xsmall.run.processes import processes
from xsmall.run.request import difference, request_of
from xsmall.run.stored import block_name
from xsmall.run.tables import RunRecipe
from xsmall.run.workers import Watch, at_work, compute_while_at_work, fitting, room_of, scheduler_is_gone

__all__ = ["Pool", "Task", "pool_of", "run_all"]

_LOST_WORKER: Final = ("KilledWorker", "CommClosedError", "NannyError")
_LOOK: Final = 2.0
"""Seconds after which workers are looked at, where nothing comes back."""
_LOOK_ELSEWHERE: Final = 0.5
"""Seconds after which blocks of other jobs are looked for."""
_LAST_WAIT: Final = 1.5
"""Seconds that a job which is stopped waits for its threads: a function of a user may never return."""
_HELD: Final = 4
"""Detectors whose tables a process keeps."""


@dataclass(frozen=True)
class Task:
    """A block of a detector, as whoever computes it is told: small, and the same for every process.

    Attributes
    ----------
    request
        What was asked for, as JSON; the recipe is in it.
    source, run, folder
        The run, its number, and the folder of the recipe.
    detector
        Name of the detector.
    number, start, stop
        Number of the block, and its events.
    store
        Folder of finished blocks.
    mark
        The manifest that the block is for, by its hash.
    job
        Name of the job that asks for it; several jobs may work on one run.
    helps
        Whether the job has joined another one, to which a block that was given up is left.
    limit
        Bytes of frames that are read at once.
    again
        Whether it is tried once more.
    """

    request: str
    source: str
    run: int
    folder: str
    detector: str
    number: int
    start: int
    stop: int
    store: str
    mark: str | None = None
    job: str = ""
    helps: bool = False
    limit: int = BATCH_BYTES
    again: bool = False

    def smaller(self) -> Task:
        """The same block, in smaller pieces."""
        return replace(self, limit=BATCH_BYTES // SMALLER, again=True)

    @property
    def name(self) -> str:
        """Name of the block."""
        return block_name(self.detector, self.number)


def compute(task: Task) -> dict[str, Any] | None:
    """Compute a block and write it; returns its note, or None where another job computes it. Runs on workers."""
    store = BlockStore(Path(task.store), task.mark)
    try:
        with store.take(task.name, task.job):
            note = store.note(task.name, verify=True)  # another job may have made it meanwhile
            if note is not None and (task.helps or not note.get("lost")):
                return note
            work = _work(task.request, task.source, task.run, task.folder, task.detector)
            with dask.config.set(scheduler="synchronous"):
                block = work.compute(task.start, task.stop, task.limit)
            return store.write(task.name, block.arrays, block.note)
    except TakenError:
        return None


@lru_cache(maxsize=_HELD)
def _work(request: str, source: str, run: int, folder: str, detector: str) -> Work:
    """Open a detector in this process, once: constants and tables are made here and do not travel."""
    import json

    asked = json.loads(request)
    recipe = RunRecipe.model_validate(asked["tables"])
    changed = difference({"files": asked["files"]}, {"files": request_of(recipe, source, Path(folder))["files"]})
    if changed:
        raise DataError(f"{source}: what is read has changed since the job began", found=changed[0], fix="begin anew")
    tree = open_run(source)
    raw = frames_of(tree, detector, recipe.detectors[detector].variable, waves=True)
    if isinstance(raw, str):
        raise DataError(f"{source}: the detector {detector!r} is not there any more", found=raw)
    with dask.config.set(scheduler="synchronous"):
        return Work(open_detector(detector, recipe, tree, raw, run, Path(folder)))


class Pool:
    """Threads, or workers of a cluster, that compute blocks.

    Parameters
    ----------
    client
        A client of a dask cluster; None for threads of this process.
    threads
        How many, where there is no client.
    own
        Whether the workers of the client are ours, and nobody begins others.
    """

    def __init__(self, client: Any = None, threads: int | None = None, *, own: bool = False) -> None:
        self.size: int = threads or dask.config.get("num_workers", None) or os.cpu_count() or 1
        self._threads = None if client is not None else ThreadPoolExecutor(self.size, "xsmall-block")
        self._executor: Any = client.get_executor(pure=False, retries=0) if client is not None else self._threads
        self._client = client
        self._own = own
        self._in_hand: set[Future[Any]] = set()

    def close(self, seconds: float | None = None) -> None:
        """Begin no other block, and wait for those in hand, for so many seconds at most."""
        assert self._threads is not None
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait(list(self._in_hand), timeout=seconds)

    @property
    def dashboard(self) -> str:
        """Address of dask's page on the workers; nothing where there is none."""
        return str(getattr(self._client, "dashboard_link", None) or "")

    def limit(self, needed: dict[int, int]) -> int:
        """Bytes of frames that are read at once, by what a thread then needs; see :func:`fitting`."""
        return fitting(None if self._client is None else room_of(self._client), needed)

    def watch(self) -> Watch | None:
        """Return what looks after the workers; None for threads of this process."""
        return None if self._client is None else Watch(self._client, own=self._own)

    def writer(self) -> Any:
        """Return who writes the output, as dask takes it: workers where one is at work, else threads from here."""
        if self._client is None or not at_work(self._client):
            return "threads"
        return partial(compute_while_at_work, self._client)

    def submit(self, task: Task) -> Future[dict[str, Any] | None]:
        """Hand a block to whoever is free next."""
        if self._threads is None:
            future: Future[dict[str, Any] | None] = self._executor.submit(compute, task)
            return future
        future = self._threads.submit(contextvars.copy_context().run, compute, task)
        self._in_hand.add(future)
        future.add_done_callback(self._in_hand.discard)
        return future


@contextmanager
def pool_of(
    scheduler: str | Any = None, workers: int | None = None, slurm: Mapping[str, Any] | None = None
) -> Iterator[Pool]:
    """Open what computes.

    Parameters
    ----------
    scheduler
        Address of the scheduler of a dask cluster, or a client; None for this machine.
    workers
        Without a scheduler: processes of a cluster of their own. None: threads of this process.
    slurm
        Without both: options of the jobs of a SLURM queue, and ``jobs``, how many.
    """
    if sum(given is not None for given in (scheduler, workers, slurm)) > 1:
        raise ParameterError("scheduler, workers and slurm contradict each other", fix="one of them")
    if workers is not None and workers < 1:
        raise ParameterError(
            "invalid number of workers", found=workers, expected="1 or more", fix="workers=2 (--workers 2)"
        )
    if slurm is not None:
        from distributed import Client

        with slurm_cluster(slurm) as cluster, Client(cluster) as client:
            yield Pool(client)
        return
    if scheduler is None and workers is None:
        with stoppable() as stop:
            pool = Pool()
            try:
                yield pool
            except BaseException:
                stop()
                pool.close(_LAST_WAIT)
                raise
            pool.close()
        return
    if scheduler is not None and not isinstance(scheduler, str):
        yield Pool(scheduler)
    elif scheduler is not None:
        from distributed import Client

        with Client(scheduler) as client:
            yield Pool(client)
    else:
        assert workers is not None
        with processes(workers) as client:
            yield Pool(client, own=True)


_CAPS: Final = [f"export {name}=1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")]


def slurm_options(text: str) -> dict[str, str]:
    """Read ``"queue=milano,jobs=8"``.

    Raises
    ------
    ParameterError
        Something else.

    Examples
    --------
    >>> from xsmall.run.pool import slurm_options
    >>> slurm_options("queue=milano,jobs=8")
    {'queue': 'milano', 'jobs': '8'}
    """
    pairs = [piece.partition("=") for piece in text.split(",")]
    if any(not key or not mark or not value for key, mark, value in pairs):
        raise ParameterError("invalid options of SLURM", found=text, fix="queue=milano,account=lcls:mfx100123,jobs=8")
    return {key.strip(): value.strip() for key, _, value in pairs}


def slurm_cluster(options: Mapping[str, Any]) -> Any:
    """Ask a SLURM queue for workers: threads are capped before anything is imported.

    Raises
    ------
    ParameterError
        dask-jobqueue is not installed, or options that it does not take.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ParameterError(
            "jobs of SLURM need dask-jobqueue", found="it is not installed", fix='python -m pip install "xsmall[slurm]"'
        ) from error
    given = {"cores": 8, "memory": "64GB", "walltime": "01:00:00", **options}
    jobs, given["cores"] = int(given.pop("jobs", 1)), int(given["cores"])
    given["processes"] = int(given.get("processes", given["cores"]))  # a thread each
    given["job_script_prologue"] = [*given.get("job_script_prologue", ()), *_CAPS]
    try:
        cluster = SLURMCluster(**given)
    except (TypeError, ValueError) as error:
        raise ParameterError("invalid options of SLURM", found=str(error).splitlines()[0]) from error
    cluster.scale(jobs=jobs)
    return cluster


def run_all(
    pool: Pool, tasks: list[Task], store: BlockStore
) -> Iterator[tuple[Task, dict[str, Any] | BaseException] | None]:
    """Compute blocks and yield each with its note, as they are done, or with the error that nothing helped against.

    A block whose worker was lost, perhaps for want of memory, is tried once more in smaller pieces. So are all of them
    where the workers pause for want of memory. A block that another job computes is waited for, and computed here if
    that job dies. While nothing comes back but from other jobs, None is yielded from time to time.

    Raises
    ------
    PlanError
        The workers pause nevertheless.
    """
    waiting = {pool.submit(task): task for task in tasks}
    elsewhere: list[Task] = []
    watch = pool.watch()
    try:
        while waiting or elsewhere:
            done = _next_of(waiting, _LOOK_ELSEWHERE if elsewhere else None if watch is None else _LOOK)
            if waiting and not done and watch is not None and watch.look():
                for future in waiting:
                    future.cancel()
                waiting = {pool.submit(task.smaller()): task.smaller() for task in waiting.values()}
            for future in done:
                task = waiting.pop(future)
                if watch is not None:
                    watch.done()
                error = _error_of(future)
                if error is None:
                    note = future.result()
                    if note is None:
                        elsewhere.append(task)
                    else:
                        yield task, note
                elif is_lost(error) and not task.again:
                    waiting[pool.submit(task.smaller())] = task.smaller()
                else:
                    yield task, error
            if not done and elsewhere:
                for task, note in _made_or_free(elsewhere, store):
                    elsewhere.remove(task)
                    if note is None:
                        waiting[pool.submit(task)] = task
                    else:
                        yield task, note
                yield None
    finally:
        for future in waiting:
            future.cancel()


def _made_or_free(tasks: list[Task], store: BlockStore) -> list[tuple[Task, dict[str, Any] | None]]:
    """Blocks of other jobs that are there, with their notes; and those that nobody computes any more, with None."""
    notes = [(task, store.note(task.name, verify=True)) for task in tasks]
    return [(task, note) for task, note in notes if note is not None or not store.is_taken(task.name)]


def _next_of(waiting: Mapping[Future[Any], Task], seconds: float | None) -> set[Future[Any]]:
    """Wait for some seconds, or without an end, for the next blocks that are done."""
    if waiting:
        return wait(waiting, timeout=seconds, return_when=FIRST_COMPLETED).done
    time.sleep(seconds or 0.0)
    return set()


def _error_of(future: Future[Any]) -> BaseException | None:
    """What a future has ended with; nobody cancels one that is still waited for, but a scheduler that is gone."""
    try:
        error = future.exception()
    except (CancelledError, asyncio.CancelledError) as cancelled:
        error = cancelled
    return None if error is None else scheduler_is_gone(error)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the worker is gone, rather than what went wrong."""
    return type(error).__name__ in _LOST_WORKER
