"""Opening results with a check that nothing of them is lost: :func:`open_result`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import xarray as xr

from xsmall.errors import FileFormatError
from xsmall.io.descriptions import DESCRIPTION
from xsmall.io.files import names_its_file
from xsmall.io.layout import RESULT_LAYOUT, UNFINISHED
from xsmall.io.sources.hdf5_run import hdf5_groups
from xsmall.io.sources.source import call_for
from xsmall.io.sources.stored import StoredGroups, whole_dataset
from xsmall.io.sources.zarr_run import zarr_groups
from xsmall.io.stores.place import settle
from xsmall.vocabulary import LAYOUT

__all__ = ["open_result"]


@names_its_file
def open_result(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    """Open small data or a cube that :func:`xsmall.save` or a production wrote, and check that nothing of it is lost.

    Parameters
    ----------
    path
        The file or folder: ``.zarr``, ``.h5``, ``.hdf5`` or ``.nc``.

    Returns
    -------
    The Dataset that was saved, or the DataTree where it was one. Arrays of more than 64 MiB, and images, are lazy; all
    else is in memory.

    Raises
    ------
    FileFormatError
        No such file, no result, one that is not complete; a chunk or a description that is gone, or has changed since
        it was written. The file or the chunk is named.

    Notes
    -----
    Plain ``xr.open_zarr`` and ``xr.open_dataset`` open the same file, and see a chunk that was changed too. They do not
    miss one that was lost from a Zarr store: they show NaN and NaT there, the end of the range of whole numbers, False,
    and empty text. Cost: a look at each chunk, and reading what is small.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"laser_on": ("event", [True, False])})
    >>> path = xs.save(small, pathlib.Path(tempfile.mkdtemp()) / "small.zarr")
    >>> xs.open_result(path)["laser_on"].values.tolist()
    [True, False]
    """
    with _groups(Path(path).expanduser()) as groups:
        nodes = {name: whole_dataset(groups, name) for name in groups.nodes}
    return nodes["/"] if len(nodes) == 1 else xr.DataTree.from_dict(nodes)


@contextmanager
def _groups(path: Path) -> Iterator[StoredGroups]:
    settle(path)
    if not path.exists():
        raise FileFormatError(f"{path}: no such file", fix="check the path")
    found = _no_store(path)
    if found is not None:
        raise FileFormatError(f"{path}: no result of xsmall", found=found, fix=call_for(path) or "check the path")
    with (zarr_groups if path.is_dir() else hdf5_groups)(path) as groups:
        layout = str(groups.nodes["/"].attrs.get(LAYOUT, ""))
        if layout.rpartition(" ")[0] != RESULT_LAYOUT:
            raise FileFormatError(
                f"{path}: not complete" if layout == UNFINISHED else f"{path}: no result of xsmall",
                found=layout or f"no attribute {LAYOUT}",
                expected=RESULT_LAYOUT,
                fix=call_for(path) or f"`xsmall info {path.name}` says what it is",
            )
        yield groups


def _no_store(path: Path) -> str | None:
    """Say why nobody has ever written a store there; one that lost only its root description is told of as such."""
    if path.is_dir():
        parts = [one.parent for one in path.glob(f"*/{DESCRIPTION}")]  # stores in a folder are no parts of one
        known = (path / DESCRIPTION).exists() or any(part.suffix != ".zarr" for part in parts)
        return None if known else f"a folder without {DESCRIPTION}"
    return None if h5py.is_hdf5(path) or not os.access(path, os.R_OK) else "a file that is no HDF5"
