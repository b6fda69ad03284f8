"""Opening a run: :func:`open_run`."""

import os
from collections.abc import Sequence
from typing import Any

import xarray as xr

from xsmall.io.sources.source import RunSource, RunSpec, source_of
from xsmall.vocabulary import RAW, SOURCE

__all__ = ["open_run", "open_with"]


def open_run(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    chunks: int | str | None = None,
    format: str | None = None,  # noqa: A002 # the word that users know
    **options: Any,
) -> xr.DataTree:
    """Open a run as a tree of labelled arrays, the frames lazy.

    Parameters
    ----------
    source
        Path of a run: an LCLS-II file (``.xtc2``, one stream), or what :func:`xsmall.io.stores.runs.write_run` wrote
        (``.zarr``, ``.h5``), or whatever a source of another package opens (:class:`xsmall.RunSource`).
    chunks
        Events of one chunk, or its bytes as text (``"100 MB"``). Default: whole frames of consecutive events, about
        64 MiB; always whole chunks of the file.
    format
        Name of the source (``"xtc2"``, ``"zarr"``, ``"hdf5"``), where the file does not say it.
    **options
        What this source knows beside; an option that it does not know is an error.

    Returns
    -------
    DataTree with a node ``events`` for the event variables (float64, int64, bool, text over event) and a node for each
    detector with arrays, which holds its frames, mostly ``raw`` (event, segment, row, column) in the type of the file,
    as dask arrays. The label ``event`` is the time of each event (datetime64[ns], UTC). Coordinates ``present`` and
    ``damage`` (event, segment) say what is missing or damaged; the child ``config`` holds the configuration.
    Attributes of the root: ``source``, ``experiment``, ``run``, ``truncated_bytes``, ``unreadable_events``.

    Raises
    ------
    FileFormatError
        The file does not exist or is none of these; with path and byte where that can be said.
    ParameterError
        Invalid ``chunks``, an unknown format, or an option that this source does not know.

    Notes
    -----
    Opening an XTC2 file reads the headers of its datagrams (some 500 bytes for each large event) and its transitions;
    frames are read when they are computed. An event that is marked corrupted, or whose inside cannot be understood, is
    kept: it is ``present`` False, its damage is set, and the root counts it.

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> from xsmall.io.stores.runs import write_run
    >>> path = write_run(xs.simulate(20).run, pathlib.Path(tempfile.mkdtemp()) / "run.zarr")
    >>> xs.open_run(path)["jungfrau/raw"].dims
    ('event', 'segment', 'row', 'column')
    """
    spec = RunSpec.of(source)
    return open_with(source_of(spec, format), spec, chunks, options)


def open_with(
    source: RunSource, spec: RunSpec, chunks: int | str | None = None, options: dict[str, Any] | None = None
) -> xr.DataTree:
    """Open what was named with a source that is known; see :func:`open_run`."""
    source.check_options(options or {})
    tree = source.open(spec, chunks=chunks, **(options or {}))
    for node in tree.subtree:
        if RAW in node.data_vars:  # results say what they came from
            frames = node.to_dataset(inherit=False)
            node.dataset = frames.assign({RAW: frames[RAW].assign_attrs({SOURCE: str(spec.path or spec.given)})})
    return tree
