"""Production: a recipe over every event of every run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xsmall.errors import ParameterError, WriteError
from xsmall.run.follow import wait_for
from xsmall.run.job import RunJob
from xsmall.run.pool import pool_of
from xsmall.run.progress import Progress, bar
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.run.state import RunState
from xsmall.run.text import runs_of

__all__ = ["produce"]


def produce(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe,
    runs: int | str | Iterable[int],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    join: bool = False,
    scheduler: Any = None,
    workers: int | None = None,
    slurm: Mapping[str, Any] | None = None,
    follow: float | None = None,
    progress: Progress | bool | None = None,
) -> list[RunState]:
    """Make the output of runs as a recipe says: all detectors joined by event, configuration and averages once.

    Parameters
    ----------
    recipe
        Path of a recipe, its tables, or what :func:`xsmall.open_recipe` returned; its ``source`` says where a run is.
    runs
        A number, numbers and ranges such as ``"10-60, 75"``, or a sequence of numbers.
    out
        Folder of the outputs; it is made where it is not there.
    resume
        Leave finished runs as they are, and try again what was lost in them. Blocks that a job which was stopped or
        killed has left are used with or without it.
    overwrite
        Begin anew and replace what is there.
    join
        Where another job makes a run, compute a part of its blocks, whatever host it is on; if it dies, go on in its
        place. It sees the runs and ``out`` under the same paths. Elsewhere as ``resume``. Without it, a run that
        another job makes is refused.
    scheduler
        Address of the scheduler of a dask cluster, or its client. All of its workers see the runs and ``out`` under
        the same paths.
    workers
        Without a scheduler: this many processes on this machine. Left out: threads of this process.
    slurm
        Without a scheduler: jobs of a SLURM queue, by dask-jobqueue: ``{"queue": "milano", "account": "lcls:mfx100123",
        "jobs": 8, "cores": 8, "memory": "64GB", "walltime": "01:00:00"}``; ``jobs`` of them are begun, the other keys
        are those of ``dask_jobqueue.SLURMCluster``.
    follow
        Wait for runs that are not there yet or are still written, until no file of theirs has changed for so many
        seconds.
    progress
        True: draw a bar for each run, in a terminal or a notebook. Or a function that is called with the
        :class:`~xsmall.run.state.RunState` of a run whenever it has changed.

    Returns
    -------
    The state of each run. What goes wrong with a run is told there and does not keep the others from being made:
    ``state`` is ``"done"``, ``"failed"`` or ``"refused"``, ``why`` says why.

    Raises
    ------
    ParameterError
        An invalid recipe, or invalid numbers of runs.
    WriteError
        The disk is full, or nothing can be written there: no other run could be made either.
    KeyboardInterrupt
        By Ctrl-C; finished blocks are kept, and the same call goes on from there.

    Notes
    -----
    ``run0012.zarr`` is one flat Dataset over ``event``: the event variables as coordinates; for each detector and
    reduction ``<detector>_<reduction>_<variable>``, its dims ``<detector>_<dim>``; ``<detector>_present``,
    ``<detector>_n_segments`` and the flags ``<detector>_fault``. The group of each detector holds constants, ``x``,
    ``y``, ``z``, masks and the ``average`` with spread, error and count. Events that cannot be read, whose calculation
    fails, or whose worker is lost twice, are flagged, counted and NaN; the rest goes on. Finished blocks (256 to 1024
    events) lie in ``run0012.blocks`` until the output is complete, ``run0012.status.json`` says how far it is. The
    output has the same bits however often the job was stopped, and on whatever it ran. Cost: one pass over the frames.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = xs.save(xs.simulate(20, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> recipe = {
    ...     "source": str(folder / "raw{run:04d}.zarr"),
    ...     "detectors": {"jungfrau": {"reductions": {"rows": {"kind": "projection", "onto": "row"}}}},
    ... }
    >>> [state] = xs.produce(recipe, 12, folder / "out")
    >>> state.state, xr.open_zarr(state.output)["jungfrau_rows_projection"].dims
    ('done', ('event', 'jungfrau_segment', 'jungfrau_row'))
    """
    numbers = runs_of(runs)
    known = open_recipe(recipe)
    if overwrite and (resume or join):
        other = "resume" if resume else "join"
        raise ParameterError(f"{other} and overwrite contradict each other", fix="one of them")
    folder = Path(out).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: the folder cannot be made", found=error.strerror, fix="another folder") from error
    if progress is True:
        progress = bar()
    told = progress or (lambda _: None)
    states = []
    with pool_of(scheduler, workers, slurm) as pool:
        for run in numbers:
            source = known.for_run(run).source if follow is not None else None
            if follow is not None and source is not None:
                wait_for(source, follow)
            states.append(RunJob(known, run, folder, pool, told, resume=resume, overwrite=overwrite, join=join).make())
    return states
