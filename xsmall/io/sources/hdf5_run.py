"""Runs in raw HDF5, as :func:`~xsmall.io.stores.runs.write_run` writes them."""

from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError
from xsmall.io.files import identify
from xsmall.io.layout import event_bytes
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.hdf5_array import Hdf5Array
from xsmall.io.sources.source import HDF5_SIGNATURE, RunSource, RunSpec
from xsmall.io.sources.stored import RUN_IN_WORDS, check_layout, is_run, stored_tree

__all__ = ["Hdf5Run"]


class Hdf5Run(RunSource):
    """An HDF5 file in netCDF4's dress."""

    name = "hdf5"
    title = "raw run in HDF5"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the layout that the root group names; one that cannot be read is left to :meth:`open`."""
        if spec.path is None or spec.head != HDF5_SIGNATURE:
            return False
        try:
            return is_run(_layout(spec.path))
        except OSError:
            return True

    def open(self, spec: RunSpec, *, chunks: int | str | None) -> xr.DataTree:
        """Read what is small; frames are read when they are computed."""
        assert spec.path is not None
        return _open(spec.path, chunks)

    def heading(self, spec: RunSpec) -> str:
        """Name the layout too."""
        assert spec.path is not None
        return f"{RUN_IN_WORDS}, layout {_layout(spec.path)}"


def _layout(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        found = file.attrs.get(v.LAYOUT)
        return found.decode() if isinstance(found, bytes) else found


def _open(path: Path, chunks: int | str | None) -> xr.DataTree:
    identity = identify(path)

    def lazy(group: str, name: str, x: xr.Variable) -> da.Array:
        stored = (x.encoding.get("chunksizes") or (1,))[0]
        array = Hdf5Array(identity, f"{group.rstrip('/')}/{name}", x.shape, x.dtype)
        n = events_per_chunk(event_bytes(x), chunks, stored)
        meta = np.empty((0,) * x.ndim, x.dtype)
        return da.from_array(array, (n, *x.shape[1:]), name=f"hdf5-{name}-{tokenize(array, n)}", meta=meta)

    try:
        tree = xr.open_datatree(path, engine="netcdf4", chunks=None)
    except OSError as error:
        raise FileFormatError(f"{path}: this HDF5 file cannot be read as a run", found=error) from error
    with tree:
        check_layout(path, tree.attrs.get(v.LAYOUT))
        return stored_tree({n.path: n.to_dataset(inherit=False) for n in tree.subtree}, lazy)
