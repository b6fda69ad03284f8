"""Writing runs: raw frames with everything that labels them, in Zarr or HDF5.

Both hold the tree of :func:`~xsmall.io.run.open_run` group by group and can be read by xarray alone. Frames lie in
chunks of whole events, because detectors are read event by event.
"""

import os
from pathlib import Path

import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError
from xsmall.events.labels import is_labelled
from xsmall.io.layout import RUN_LAYOUT, RUN_NUMBER, is_frames
from xsmall.io.stores.write import write

__all__ = ["write_run"]


def write_run(
    tree: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    chunk_events: int | None = None,
    compress: bool | str = True,
    overwrite: bool = False,
) -> Path:
    """Write a run to raw Zarr or raw HDF5, chunk by chunk.

    Parameters
    ----------
    tree
        The run: nodes with ``raw`` (event, segment, row, column) and whatever else it has.
    path
        Where to: the ending says which format, as for :func:`xsmall.save`.
    chunk_events
        Frames in one chunk of the file. Default: about 8 MiB.
    compress, overwrite
        As for :func:`xsmall.save`.

    Returns
    -------
    Path of the run. It appears when it is complete and on the disk, and what it replaces stays until then.

    Raises
    ------
    ParameterError
        An unknown ending or compression, or something is there and is not to be replaced.
    DataError
        Frames whose events have no labels, or not all of them.
    WriteError
        Another job is writing to the path, the disk is full, or nothing can be written there.

    Notes
    -----
    Holds a lazy chunk per thread in memory, whatever the length of the run. ``x``, ``y``, ``z`` are not stored where
    a geometry is: they follow from its rule.

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> path = write_run(xs.simulate(20).run, pathlib.Path(tempfile.mkdtemp()) / "run.h5", chunk_events=4)
    >>> xs.open_run(path)["jungfrau/raw"].shape
    (20, 4, 128, 256)
    """
    return write(
        {node.path: _without_positions(node.path, node.to_dataset(inherit=False)) for node in tree.subtree},
        path,
        layout=f"{RUN_LAYOUT} {RUN_NUMBER}",
        marks={},
        overwrite=overwrite,
        compress=compress,
        whole_events=True,
        chunk_events=chunk_events,
    )


def _without_positions(path: str, node: xr.Dataset) -> xr.Dataset:
    """Leave out what is made again on opening."""
    if any(is_frames(x) for x in node.data_vars.values()) and not is_labelled(node):
        raise DataError(
            f"{path}: frames whose events have no labels",
            found=f"coordinates {list(node.coords)}",
            expected=f"the coordinate {v.EVENT!r}, such as the time of each event in UTC",
            fix=f"frames.assign_coords({v.EVENT}=times)",
        )
    if v.GEOMETRY in node.coords:
        return node.drop_vars([name for name in v.POSITION if name in node.coords])
    return node
