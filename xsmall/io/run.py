"""Opening a run: :func:`open_run`."""

import json
import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall.engine.flagged import flagged
from xsmall.frames.describe import of_segments
from xsmall.io.files import names_its_file
from xsmall.io.run_tree import RunTree
from xsmall.io.sources.source import RunSource, RunSpec, source_of
from xsmall.vocabulary import (
    DAMAGE,
    DAMAGED_CHUNKS,
    DAMAGED_EVENTS,
    EVENT,
    FRAME_DIMS,
    LOST,
    LOST_EVENTS,
    MISSING_CHUNKS,
    MISSING_FILES,
    OUT_OF_ORDER_TIMES,
    PRESENT,
    RAW,
    REPEATED_TIMES,
    SOURCE,
    TRUNCATED_BYTES,
    UNREADABLE_EVENTS,
    WAITING_EVENTS,
)

__all__ = ["open_run", "open_with"]

_COUNTS: Final = (
    TRUNCATED_BYTES,
    UNREADABLE_EVENTS,
    MISSING_CHUNKS,
    DAMAGED_CHUNKS,
    LOST_EVENTS,
    REPEATED_TIMES,
    OUT_OF_ORDER_TIMES,
    WAITING_EVENTS,
)


@names_its_file
def open_run(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    chunks: int | str | None = None,
    engine: str | None = None,
    **options: Any,
) -> xr.DataTree:
    """Open a run as a tree of labelled arrays, the frames lazy.

    Parameters
    ----------
    source
        A run of LCLS-II: its folder, a file of one stream (``.xtc2``), a pattern, a list of files, or
        ``"exp=mfx101332224,run=7"``; or the path of what :func:`xsmall.save` wrote of a run
        (``.zarr``, ``.h5``), or whatever a source of another package opens (:class:`xsmall.RunSource`).
    chunks
        Events of one chunk, or its bytes as text (``"100 MB"``). Default: whole frames of consecutive events, about
        64 MiB; always whole chunks of the file.
    engine
        Name of the source (``"xtc2"``, ``"zarr"``, ``"hdf5"`` ...), where the file does not say it; or ``"psana"``, for
        what only psana makes of events of LCLS-II: see the page on opening runs.
    **options
        What this source knows beside; an option that it does not know is an error. Raw Zarr and HDF5 know ``verify``:
        read every chunk once, and flag the events of those that cannot be read (``present`` False, ``damage``).

    Returns
    -------
    DataTree with a node ``events`` for the event variables (float64, int64, bool, text over event) and a node for each
    detector with arrays, which holds its frames, mostly ``raw`` (event, segment, row, column) in the type of the file,
    as dask arrays. The label ``event`` is the time of each event (datetime64[ns], UTC). Coordinates ``present`` and
    ``damage`` (event, segment) say what is missing or damaged; the child ``config`` holds the configuration.
    Attributes of the root: ``source``, ``experiment``, ``run``, and what is lost: ``truncated_bytes``,
    ``unreadable_events``, ``missing_chunks``, ``damaged_chunks``, ``unreadable`` (where and why, the first of them).
    Frames and all results of them carry these counts in ``attrs["lost"]``.

    Raises
    ------
    FileFormatError
        The file does not exist or is none of these; with path and byte where that can be said.
    ParameterError
        Invalid ``chunks``, an unknown engine, or an option that this source does not know.

    Notes
    -----
    Opening an XTC2 file reads the headers of its datagrams (some 500 bytes for each large event) and its transitions;
    frames are read when they are computed. An event that is marked corrupted, or whose inside cannot be understood, is
    kept: it is ``present`` False, its damage is set, and the root counts it. A chunk of Zarr or HDF5 that is not there
    is missing data in the same way. One that turns out unreadable when it is read is an error that names it where its
    frames are asked for; reductions, cubes, averages and darks leave its events out and warn (``DamagedDataWarning``).

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> path = xs.save(xs.simulate(20).run, pathlib.Path(tempfile.mkdtemp()) / "run.zarr")
    >>> xs.open_run(path)["jungfrau/raw"].dims
    ('event', 'segment', 'row', 'column')
    """
    spec = RunSpec.of(source)
    return open_with(source_of(spec, engine), spec, chunks, options)


def open_with(
    source: RunSource, spec: RunSpec, chunks: int | str | None = None, options: dict[str, Any] | None = None
) -> xr.DataTree:
    """Open what was named with a source that is known; see :func:`open_run`."""
    source.check_options(options or {})
    opened = source.open(spec, chunks=chunks, **(options or {}))
    tree = RunTree.from_dict({node.path: node.to_dataset(inherit=False) for node in opened.subtree})
    repeated = max(_repeated(node) for node in tree.subtree)
    if repeated and REPEATED_TIMES not in tree.attrs:  # else the source has counted them
        tree.attrs[REPEATED_TIMES] = repeated
    late = max(_out_of_order(node) for node in tree.subtree)
    if late and OUT_OF_ORDER_TIMES not in tree.attrs:
        tree.attrs[OUT_OF_ORDER_TIMES] = late
    for node in tree.subtree:
        found = [name for name, x in node.data_vars.items() if name == RAW or x.dims == FRAME_DIMS]
        if found:  # results say what they came from
            frames = node.to_dataset(inherit=False)
            told = {SOURCE: str(spec.path or spec.given), **_lost_attrs(tree, frames)}
            node.dataset = frames.assign({name: _told_of_flags(frames[name]).assign_attrs(told) for name in found})
    return tree


def _told_of_flags(frames: xr.DataArray) -> xr.DataArray:
    """Lazy frames that know which of their segments are missing or damaged."""
    if frames.dims != FRAME_DIMS or frames.chunks is None:
        return frames
    known = (of_segments(frames, name) for name in (PRESENT, DAMAGE))
    return frames.copy(data=flagged(frames.data, *known))


def _repeated(node: xr.DataTree) -> int:
    """How many events of a node have the label of another one; those without a label are none of them."""
    labels = node.indexes.get(EVENT)
    return 0 if labels is None or labels.is_unique else int(labels.dropna().duplicated().sum())


def _out_of_order(node: xr.DataTree) -> int:
    """How many events of a node come after a later one; those without a label are none of them."""
    labels = node.indexes.get(EVENT)
    if labels is None or labels.is_monotonic_increasing or labels.dtype.kind not in "iufM":
        return 0
    known = labels.dropna().to_numpy()
    return int((known < np.maximum.accumulate(known)).sum())


def _lost_attrs(tree: xr.DataTree, frames: xr.Dataset) -> dict[str, str]:
    """What the source had lost, with counts, for every result that is made of these frames; nothing if nothing."""
    counts = {name: int(tree.attrs.get(name, 0)) for name in _COUNTS}
    if DAMAGE in frames.coords:
        counts[DAMAGED_EVENTS] = int((frames[DAMAGE].values != 0).any(axis=1).sum())
    counts[MISSING_FILES] = len([name for name in str(tree.attrs.get(MISSING_FILES, "")).split("; ") if name])
    found = {name: n for name, n in counts.items() if n}
    return {LOST: json.dumps(found)} if found else {}
