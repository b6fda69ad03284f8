"""LCLS-II runs in XTC2 files, as :func:`~xsmall.io.run.open_run` gives them."""

import os
from collections.abc import Iterable

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall.errors import ParameterError
from xsmall.io.files import Identity
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.source import RunSource, RunSpec
from xsmall.io.sources.xtc2.backend import LazyArray, tree_of
from xsmall.io.sources.xtc2.dataset import detectors_of
from xsmall.io.sources.xtc2.fields import EventField
from xsmall.io.sources.xtc2.find import files_of_run, folder_of_experiment, holds_xtc2, is_xtc2, run_by_name
from xsmall.io.sources.xtc2.run_index import RunFiles, choose_run, run_of

__all__ = ["Xtc2Run", "files_of_spec"]


class Xtc2Run(RunSource):
    """A run of one stream or many, each in one file or in chunks."""

    name = "xtc2"
    title = "LCLS-II raw data (XTC2)"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the ending: the first bytes are a time."""
        if spec.query:
            return set(spec.query) <= {"exp", "run"}
        if spec.path is not None and spec.path.is_dir():
            return holds_xtc2(spec.path)
        return bool(spec.paths) and all(path.is_file() and is_xtc2(path) for path in spec.paths)

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Path, size and time of change of every chunk of every stream."""
        return tuple(chunk for chunks in files_of_spec(spec).streams for chunk in chunks)

    def open(
        self,
        spec: RunSpec,
        *,
        chunks: int | str | None,
        run: int | None = None,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002 # the word that users know from psana
        missing: str = "raise",
        live: bool | None = None,
    ) -> xr.DataTree:
        """Walk the headers; frames are read when they are computed.

        Parameters
        ----------
        spec
            One stream, a folder, a list of streams, or an experiment with the number of its run.
        chunks
            Events of a chunk, or its bytes.
        run
            Number of the run, where a folder or file holds several.
        dir
            Folder of an experiment that is named by ``exp=``.
        missing
            What to do where a stream or chunk is not there: ``"raise"``, or ``"flag"`` to go on and count it.
        live
            Whether the files still grow: then events that some stream has not yet reached are held back, and counted.
            Default: by their names (``.inprogress``), or because none of several streams has ended.
        """
        files = files_of_spec(spec, run, dir, missing, live)
        index = run_of(files)
        choose_run(index, run_by_name(files))
        index.check_segments()
        events: dict[str, int] = {
            detector: events_per_chunk(_bytes_of_fields(fields), chunks)
            for detector, fields in detectors_of(files).items()
        }

        def wrap(array: LazyArray) -> da.Array:
            n = events[array.key.detector]
            return da.from_array(
                array,
                chunks=(n, *array.shape[1:]),
                name=f"xtc2-{array.key.field}-{tokenize(array, n)}",
                meta=np.empty((0,) * array.ndim, array.dtype),
            )

        return xr.DataTree.from_dict(tree_of(files, wrap))


def files_of_spec(
    spec: RunSpec,
    run: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    missing: str = "raise",
    live: bool | None = None,
) -> RunFiles:
    """Find the files that were named; see :meth:`Xtc2Run.open`."""
    if run is not None and (isinstance(run, bool) or not isinstance(run, int | np.integer)):
        fix = f"run={int(run)}" if str(run).isdecimal() else "run=7"
        raise ParameterError("run= is the number of the run", found=repr(run), expected="a whole number", fix=fix)
    if spec.query:
        place, number = folder_of_experiment(spec.query, folder, run)
        if run not in (None, number):
            raise ParameterError("two numbers of the run", found=f"{spec.given} and run={run}", fix="leave run= out")
        return files_of_run([place], experiment=spec.query["exp"], run=number, missing=missing, live=live)
    if folder is not None:
        raise ParameterError(
            "dir= is the folder of an experiment", found=f"a path, {spec.given}", fix="leave dir= out: the path says it"
        )
    return files_of_run(spec.paths, run=run, missing=missing, live=live)


def _bytes_of_fields(fields: Iterable[EventField]) -> int:
    """Bytes of all values of one event; of what differs in size the largest."""
    return sum(len(f.segments) * f.longest for f in fields)
