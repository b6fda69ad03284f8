"""Runs in raw HDF5, as :func:`~xsmall.io.stores.runs.write_run` writes them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import XsmallError
from xsmall.io.files import Identity, identify
from xsmall.io.hdf5 import chunk_sizes
from xsmall.io.sources.foreign_runs import named_dims
from xsmall.io.sources.hdf5_array import Hdf5Array, open_dataset
from xsmall.io.sources.source import HDF5_SIGNATURE, RunSource, RunSpec
from xsmall.io.sources.stored import RUN_IN_WORDS, UNREAD, StoredGroups, check_layout, is_run, not_opened, stored_tree
from xsmall.io.sources.stored_array import StoredArray

__all__ = ["Hdf5Run", "hdf5_groups"]


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

    def open(self, spec: RunSpec, *, chunks: int | str | None, verify: bool = False) -> xr.DataTree:
        """Read what is small; frames are read when they are computed, or ``verify`` reads them once to check them."""
        assert spec.path is not None
        with hdf5_groups(spec.path) as groups:
            check_layout(spec.path, groups.nodes["/"].attrs.get(v.LAYOUT))
            return stored_tree(groups, chunks, verify=verify)

    def heading(self, spec: RunSpec) -> str:
        """Name the layout too."""
        assert spec.path is not None
        return f"{RUN_IN_WORDS}, layout {_layout(spec.path)}"


def _layout(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        found = file.attrs.get(v.LAYOUT)
        return found.decode() if isinstance(found, bytes) else found


class _Groups(StoredGroups):
    """Groups of an HDF5 file."""

    def __init__(self, path: Path, identity: Identity, nodes: Mapping[str, xr.Dataset]) -> None:
        self.path, self.identity, self.nodes = path, identity, nodes

    def array(self, name: str, x: xr.Variable) -> Hdf5Array:
        about = open_dataset(self.identity, name)
        return Hdf5Array(self.identity, name, x.shape, _dtype(about, x), about.chunks)

    def stored_events(self, x: xr.Variable) -> int:
        return int((x.encoding.get("chunksizes") or (1,))[0])

    def stored_bytes(self, array: StoredArray) -> int:
        return sum(chunk_sizes(open_dataset(self.identity, array.name)).values())


def _dtype(about: Any, x: xr.Variable) -> np.dtype[Any]:
    """The type in the file, which decoding may change; that of frames is known already."""
    stored: np.dtype[Any] = about.dtype
    return stored if stored.kind in "biufS" else x.dtype


@contextmanager
def hdf5_groups(path: Path) -> Iterator[StoredGroups]:
    """Open the groups of a file; whatever stumbles over damage becomes an error that names it."""
    identity = identify(path)
    try:
        with xr.open_datatree(path, engine="netcdf4", **UNREAD) as tree:
            nodes = {n.path: named_dims(n.path, n.to_dataset(inherit=False)) for n in tree.subtree}
            yield _Groups(path, identity, nodes)
    except XsmallError:
        raise
    except Exception as error:  # of HDF5, netCDF4 or xarray
        raise not_opened(path, error, lambda: _labels(path, identity)) from error


def _labels(path: Path, identity: Identity) -> list[Hdf5Array]:
    found: list[Hdf5Array] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.dtype.kind in "biuf":
            found.append(Hdf5Array(identity, f"/{name}", item.shape, item.dtype, item.chunks))

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return found
