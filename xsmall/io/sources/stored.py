"""Reading runs in files of our own: raw Zarr and raw HDF5, as :func:`~xsmall.io.stores.runs.write_run` writes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError
from xsmall.io.files import identify
from xsmall.io.layout import RUN_LAYOUT, RUN_NUMBER, event_bytes, is_frames, quiet
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.hdf5_array import Hdf5Array

__all__ = ["open_hdf5_run", "open_zarr_run"]


def open_zarr_run(path: Path, chunks: int | str | None) -> xr.DataTree:
    """Open a run in raw Zarr; see :func:`~xsmall.io.run.open_run`."""
    with quiet(), xr.open_datatree(path, engine="zarr", consolidated=False, chunks=None) as tree:
        _check_layout(path, tree.attrs)
        nodes = {n.path: n.to_dataset(inherit=False) for n in tree.subtree}

        written = (path / "zarr.json").stat().st_mtime_ns  # another run may come to lie at this path

        def lazy(group: str, name: str, x: xr.Variable) -> Any:
            n = events_per_chunk(event_bytes(x), chunks, x.encoding["chunks"][0])
            token = tokenize(str(path.resolve()), written, group, name, n)
            return x.chunk({v.EVENT: n}, name=f"zarr-{name}-{token}").data

        return _tree(nodes, lazy)


def open_hdf5_run(path: Path, chunks: int | str | None) -> xr.DataTree:
    """Open a run in raw HDF5; see :func:`~xsmall.io.run.open_run`."""
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
        _check_layout(path, tree.attrs)
        return _tree({n.path: n.to_dataset(inherit=False) for n in tree.subtree}, lazy)


def _check_layout(path: Path, attrs: Mapping[Any, Any]) -> None:
    name, _, number = str(attrs.get(v.LAYOUT, "")).rpartition(" ")
    expected = f"{RUN_LAYOUT} 1 to {RUN_NUMBER}"
    if name != RUN_LAYOUT or not number.isdigit():
        raise FileFormatError(
            f"{path}: not a raw run",
            found=attrs.get(v.LAYOUT) or "no attribute " + v.LAYOUT,
            expected=expected,
            fix="open small data and cubes with xr.open_zarr or xr.open_dataset; `xsmall info FILE` says what it is",
        )
    if int(number) > RUN_NUMBER:
        raise FileFormatError(
            f"{path}: written by a newer xsmall", found=attrs[v.LAYOUT], expected=expected, fix="upgrade xsmall"
        )


def _tree(nodes: Mapping[str, xr.Dataset], lazy: Callable[[str, str, xr.Variable], Any]) -> xr.DataTree:
    """Hold what is small, keep frames lazy, and set the index of time again, which no file keeps."""
    result = {}
    for group, node in nodes.items():
        parts: dict[str, xr.Variable] = {}
        for name, x in node.variables.items():
            if is_frames(x) and x.size:
                parts[str(name)] = xr.Variable(x.dims, lazy(group, str(name), x), x.attrs)
            else:
                held = x.load()
                data = held.values.astype(np.str_) if held.dtype.kind in "OT" else held.values
                parts[str(name)] = xr.Variable(x.dims, data, x.attrs)
        attrs = {k: a for k, a in node.attrs.items() if k != v.LAYOUT}
        coords = {str(name): parts.pop(str(name)) for name in node.coords}
        dataset = xr.Dataset(parts, coords, attrs)
        if v.TIMESTAMP in coords and coords[v.TIMESTAMP].dims == (v.EVENT,):
            dataset = dataset.set_xindex(v.TIMESTAMP)
        result[group] = _with_positions(dataset)
    return xr.DataTree.from_dict(result)


def _with_positions(dataset: xr.Dataset) -> xr.Dataset:
    """Give frames that carry the rule of a geometry their x, y, z back."""
    if v.GEOMETRY not in dataset.coords:
        return dataset
    from xsmall.frames.pixels import assign_geometry, geometry_of

    for name, x in dataset.data_vars.items():
        geometry = geometry_of(x) if set(v.PIXEL_DIMS) <= set(x.dims) else None
        if geometry is not None:
            return dataset.assign({name: assign_geometry(x, geometry)})
    return dataset
