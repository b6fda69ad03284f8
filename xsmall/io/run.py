"""Opening a run: :func:`open_run`."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.files import identify
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.xtc2.backend import tree_of
from xsmall.io.sources.xtc2.dataset import detectors_of
from xsmall.io.sources.xtc2.fields import EventField, FieldArray
from xsmall.vocabulary import RAW, SOURCE

__all__ = ["open_run"]


def open_run(source: str | os.PathLike[str], *, chunks: int | str | None = None) -> xr.DataTree:
    """Open a run as a tree of labelled arrays, the frames lazy.

    Parameters
    ----------
    source
        Path of a run: an LCLS-II file (``.xtc2``, one stream), or what :func:`xsmall.io.stores.runs.write_run` wrote
        (``.zarr``, ``.h5``).
    chunks
        Events of one chunk, or its bytes as text (``"100 MB"``). Default: whole frames of consecutive events, about
        64 MiB; always whole chunks of the file.

    Returns
    -------
    DataTree with a node ``events`` for the event variables (float64, int64, bool, text over event) and a node for each
    detector with arrays, which holds its frames, mostly ``raw`` (event, segment, row, column) in the type of the file,
    as dask arrays. ``timestamp`` (datetime64[ns], UTC) is the index of ``event``. Coordinates ``present`` and
    ``damage`` (event, segment) say what is missing or damaged; the child ``config`` holds the configuration.
    Attributes of the root: ``source``, ``experiment``, ``run``, ``truncated_bytes``, ``unreadable_events``.

    Raises
    ------
    FileFormatError
        The file does not exist or is none of these; with path and byte where that can be said.
    ParameterError
        ``chunks`` that cannot be meant.

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
    if not isinstance(source, str | os.PathLike):
        raise ParameterError(
            "a run is opened by its path",
            found=repr(source)[:80],
            expected="text or a Path",
            fix='xs.open_run("run.xtc2")',
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise FileFormatError(f"{path}: no such file", expected="a run", fix="check the path")
    tree = _opener(path)(path, chunks)
    for node in tree.subtree:
        if RAW in node.data_vars:  # results say what they came from
            frames = node.to_dataset(inherit=False)
            node.dataset = frames.assign({RAW: frames[RAW].assign_attrs({SOURCE: str(path)})})
    return tree


def _opener(path: Path) -> Callable[[Path, int | str | None], xr.DataTree]:
    from xsmall.io.sources.stored import open_hdf5_run, open_zarr_run

    if path.is_dir():
        if (path / "zarr.json").exists():
            return open_zarr_run
    else:
        with path.open("rb") as file:
            head = file.read(8)
        if head == b"\x89HDF\r\n\x1a\n":
            return open_hdf5_run
        if path.suffix == ".xtc2" or path.name.endswith(".xtc2.inprogress"):
            return open_xtc2_run
    raise FileFormatError(
        f"{path}: not a run that xsmall can open",
        found="a folder" if path.is_dir() else f"a file named {path.name}",
        expected="an LCLS-II file (.xtc2), or raw Zarr or HDF5 written by xsmall",
    )


def open_xtc2_run(path: Path, chunks: int | str | None) -> xr.DataTree:
    """Open an XTC2 file; see :func:`open_run`."""
    identity = identify(path)
    events: dict[str, int] = {
        detector: events_per_chunk(_bytes(fields), chunks) for detector, fields in detectors_of(identity).items()
    }

    def wrap(array: FieldArray) -> da.Array:
        n = events[array.key.detector]
        return da.from_array(
            array,
            chunks=(n, *array.shape[1:]),
            name=f"xtc2-{array.key.field}-{tokenize(array, n)}",
            meta=np.empty((0,) * array.ndim, array.dtype),
        )

    return xr.DataTree.from_dict(tree_of(identity, wrap))


def _bytes(fields: Iterable[EventField]) -> int:
    """Bytes of all arrays of one event."""
    return sum(
        len(f.segments) * f.dtype.itemsize * int(np.prod(f.shape))
        for f in fields
        if f.shape is not None and f.dtype is not None
    )
