"""Results in files: small data and cubes in Zarr or HDF5 (netCDF-4), with where they came from.

What is written is plain xarray: ``xr.open_zarr`` and ``xr.open_dataset`` read it back equal. A file appears under its
name when it is complete, never before.
"""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import xarray as xr

from xsmall.calls import warn_user
from xsmall.engine.pairs import unpaired
from xsmall.errors import DataError
from xsmall.io.layout import RESULT_LAYOUT, RESULT_NUMBER
from xsmall.io.stores.provenance import origin
from xsmall.io.stores.runs import write_run
from xsmall.io.stores.write import write
from xsmall.vocabulary import LOST, PROVENANCE, RAW, UNREADABLE, UNREADABLE_PARTS

__all__ = ["save"]

_SHOWN: Final = 8


def save(
    obj: xr.Dataset | xr.DataArray | xr.DataTree,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compress: bool | str = True,
) -> Path:
    """Save small data, a cube, constants or a run to Zarr or to HDF5, with its provenance.

    Parameters
    ----------
    obj
        A Dataset, a named DataArray, or a DataTree; lazy ones are computed once and written piece by piece. Lists of
        events become contiguous ragged arrays, as :func:`~xsmall.flatten` makes them.
    path
        Where to: the ending ``.zarr`` (Zarr v3), ``.h5``, ``.hdf5`` or ``.nc`` (HDF5 as netCDF-4) says the format.
    overwrite
        Replace what is there.
    compress
        Compress the numbers without loss: True for bitshuffle and zstd in Zarr, shuffle and zlib in HDF5; ``"zstd"``,
        ``"lz4"`` (both Zarr only) or ``"zlib"``; False for none.

    Returns
    -------
    Path of the result. It appears when it is complete and on the disk, and what it replaces stays until then.

    Raises
    ------
    ParameterError
        An unknown ending or compression, something is there and is not to be replaced, or no such folder.
    DataError
        Something that no file can hold; an event without a label among labelled ones; times that have no nanosecond.
    WriteError
        Another job is writing to the path, the disk is full, or nothing can be written there.

    Warns
    -----
    UserWarning
        Variances that were computed with by plain arithmetic: they are saved, and refused after opening as before.

    Notes
    -----
    Plain ``xr.open_zarr`` and ``xr.open_dataset`` read the values back equal, with the label ``event`` as index. Times
    of any resolution and zone are written in UTC to the nanosecond. :func:`xsmall.provenance` tells versions,
    parameters, input and time. Parts of the source that turn out unreadable are counted in ``attrs["lost"]``
    and named. A run with raw frames is written by :func:`xsmall.io.stores.runs.write_run`. Chunks
    carry checksums. On a cluster the folder must be one that all workers see.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, xsmall as xs
    >>> path = xs.save(xr.Dataset({"i0": ("event", [1.0, 2.0])}), pathlib.Path(tempfile.mkdtemp()) / "small.h5")
    >>> float(xr.open_dataset(path)["i0"].sum())
    3.0
    """
    if isinstance(obj, xr.DataTree) and any(RAW in node.data_vars for node in obj.subtree):
        return write_run(obj, path, overwrite=overwrite, compress=compress)
    return write(
        _variances_marked(_nodes(obj)),
        path,
        layout=f"{RESULT_LAYOUT} {RESULT_NUMBER}",
        marks=partial(_marks, origin(obj, path)),
        overwrite=overwrite,
        compress=compress,
    )


def _marks(told: dict[str, Any], unreadable: Sequence[str]) -> dict[str, str]:
    """Where the result came from, and what of it could not be read when it was computed."""
    if not unreadable:
        return {PROVENANCE: json.dumps(told)}
    before = told["lost"] if isinstance(told["lost"], dict) else {}
    lost = {**before, UNREADABLE_PARTS: int(before.get(UNREADABLE_PARTS, 0)) + len(unreadable)}
    shown = "\n".join(unreadable[:_SHOWN])
    told = {**told, "lost": lost, UNREADABLE: shown}
    return {PROVENANCE: json.dumps(told), LOST: json.dumps(lost), UNREADABLE: shown}


def _variances_marked(nodes: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Say of variances that were computed with that they may not be those of their values."""
    found = [name for node in nodes.values() for name in unpaired(node)]
    if found:
        warn_user(
            f"saved, but arithmetic of xarray scales values and variances alike: {', '.join(found)} may not be the "
            f"variance of its values any more, and is refused as such when it is opened again; xs.scale and xs.add "
            f"compute with both, xs.with_variance says that they belong together",
        )
    return nodes


def _nodes(obj: object) -> dict[str, xr.Dataset]:
    if isinstance(obj, xr.Dataset):
        return {"/": obj}
    if isinstance(obj, xr.DataTree):
        return {node.path: node.to_dataset(inherit=False) for node in obj.subtree}
    if isinstance(obj, xr.DataArray):
        if obj.name is None:
            raise DataError("a DataArray needs a name to be saved", fix='array.rename("intensity")')
        return {"/": obj.to_dataset(name=str(obj.name)).assign_attrs(obj.attrs)}
    raise DataError(
        "this cannot be saved",
        found=type(obj).__name__,
        expected="a Dataset, DataArray or DataTree",
        fix='xs.save(cube, "cube.zarr"): first what is saved, then where to'
        if isinstance(obj, str | os.PathLike)
        else 'xs.save(xr.Dataset({"name": ("event", [1.0, 2.0])}), "small.h5")',
    )
