"""Results in files: small data and cubes in Zarr or HDF5 (netCDF4), with where they came from.

What is written is plain xarray: ``xr.open_zarr`` and ``xr.open_dataset`` read it back equal. A file appears under its
name when it is complete, never before.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import check_labels, in_utc
from xsmall.io.layout import RESULT_LAYOUT, RESULT_NUMBER, TIME, quiet
from xsmall.io.stores.provenance import origin
from xsmall.io.stores.runs import write_run
from xsmall.vocabulary import EVENT, LAYOUT, PROVENANCE, RAW

__all__ = ["save"]

_CHUNK_BYTES: Final = 8 * 2**20
_ENDINGS: Final = {".zarr": "zarr", ".h5": "netcdf4", ".hdf5": "netcdf4", ".nc": "netcdf4"}


def save(
    obj: xr.Dataset | xr.DataArray | xr.DataTree,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compress: bool = True,
) -> Path:
    """Save small data, a cube or a run to Zarr or to HDF5, with its provenance.

    Parameters
    ----------
    obj
        A Dataset, a named DataArray, or a DataTree; lazy ones are computed once and written piece by piece.
    path
        Where to: the ending ``.zarr`` (Zarr v3), ``.h5``, ``.hdf5`` or ``.nc`` (HDF5 as netCDF4) says the format.
    overwrite
        Replace what is there.
    compress
        Compress the numbers without loss: bitshuffle and zstd in Zarr, shuffle and zlib in HDF5.

    Returns
    -------
    Path of the result. It appears when it is complete, and what it replaces stays until then.

    Raises
    ------
    ParameterError
        An unknown ending, something is there and is not to be replaced, or no such folder.
    DataError
        Something that no file can hold; an event without a label among labelled ones; times that have no nanosecond.

    Notes
    -----
    Plain ``xr.open_zarr`` and ``xr.open_dataset`` read the values back equal, with the label ``event`` as index. Times
    of any resolution and zone are written in UTC to the nanosecond. :func:`xsmall.provenance` tells versions,
    parameters, input and time. A run with raw frames is written by :func:`xsmall.io.stores.runs.write_run`.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr
    >>> path = save(xr.Dataset({"i0": ("event", [1.0, 2.0])}), pathlib.Path(tempfile.mkdtemp()) / "small.h5")
    >>> float(xr.open_dataset(path)["i0"].sum())
    3.0
    """
    target = Path(path).expanduser()
    engine = _engine(target, overwrite)
    if isinstance(obj, xr.DataTree) and any(RAW in node.data_vars for node in obj.subtree):
        return write_run(obj, target, overwrite=overwrite)
    nodes = {where: _storable(node) for where, node in _nodes(obj).items()}
    nodes["/"].attrs |= {LAYOUT: f"{RESULT_LAYOUT} {RESULT_NUMBER}", PROVENANCE: json.dumps(origin(obj))}
    part = target.with_name(f"{target.name}.{uuid4().hex[:8]}.part")
    try:
        with quiet():
            (_write_zarr if engine == "zarr" else _write_hdf5)(nodes, part, compress)
        _put(part, target)
    finally:
        _remove(part)
    return target


# ---- what is written ----------------------------------------------------------------------------------------------


def _nodes(obj: object) -> dict[str, xr.Dataset]:
    if isinstance(obj, xr.Dataset):
        return {"/": obj}
    if isinstance(obj, xr.DataTree):
        return {node.path: node.to_dataset(inherit=False) for node in obj.subtree}
    if isinstance(obj, xr.DataArray):
        if obj.name is None:
            raise DataError("a DataArray needs a name to be saved", fix='array.rename("intensity")')
        return {"/": obj.to_dataset(name=str(obj.name)).assign_attrs(obj.attrs)}
    raise DataError("this cannot be saved", found=type(obj).__name__, expected="a Dataset, DataArray or DataTree")


def _storable(node: xr.Dataset) -> xr.Dataset:
    """Copy with attributes that both formats hold, no left-over encoding, chunks of the file."""
    check_labels(node, "this Dataset")
    out = in_utc(node).copy()
    for name, variable in out.variables.items():
        if variable.dtype.kind in "cmV" or (variable.dtype.kind == "O" and not _is_text(variable)):
            raise DataError(f"{name!r} cannot be saved", found=variable.dtype, fix=f".drop_vars({name!r}) or numbers")
        if type(out.xindexes.get(name)).__name__ == "PandasMultiIndex":
            raise DataError(f"the index of {name!r} cannot be saved", fix=f".reset_index({name!r})")
    for name, variable in list(out.variables.items()):
        fresh = variable.copy(deep=False)
        fresh.attrs = _storable_attrs(variable.attrs)
        fresh.encoding = {}
        if variable.chunks is not None:
            fresh = fresh.chunk(dict(zip(variable.dims, _written(variable), strict=True)))
        if name not in out.xindexes:
            out = out.assign_coords({name: fresh}) if name in out.coords else out.assign({name: fresh})
        else:
            out[name].encoding, out[name].attrs = {}, fresh.attrs
    out.attrs = _storable_attrs(out.attrs)
    return out


def _is_text(variable: xr.Variable) -> bool:
    return all(isinstance(v, str) for v in variable.values.ravel())


def _storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Truth as 0 and 1, dicts and nested lists as JSON, nothing for None and what is empty."""
    out: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if value is None or (isinstance(value, list | tuple | dict) and not value):
            continue
        if isinstance(value, bool | np.bool_):
            value = int(value)
        elif isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, dict) or (isinstance(value, list | tuple) and not _is_flat(value)):
            value = json.dumps(value, default=str)
        out[str(name)] = value
    return out


def _is_flat(values: Any) -> bool:
    return len({type(v) for v in values}) == 1 and isinstance(values[0], str | int | float) and values[0] is not True


# ---- how it is written --------------------------------------------------------------------------------------------


def _stored(variable: xr.Variable) -> tuple[int, ...]:
    """Chunks on disk: about 8 MiB, the first dims cut first, so that a spectrum or an image lies together."""
    shape = list(variable.shape)
    if variable.chunks is not None:  # pixels stay as they were cut, events are joined
        shape = [
            n if d == EVENT else max(c, default=0)
            for d, n, c in zip(variable.dims, shape, variable.chunks, strict=True)
        ]
    shape = [max(1, n) for n in shape]
    for axis, n in enumerate(shape):
        whole = math.prod(shape) * variable.dtype.itemsize
        if whole <= _CHUNK_BYTES:
            break
        fit = max(1, n * _CHUNK_BYTES // whole)
        shape[axis] = fit if variable.dims[axis] == EVENT else next(k for k in range(fit, 0, -1) if n % k == 0)
    return tuple(shape)


def _written(variable: xr.Variable) -> tuple[int, ...]:
    """Chunks of dask: whole chunks of the file, as large as the data come where they are no events."""
    assert variable.chunks is not None
    stored = _stored(variable)
    return tuple(
        s if d == EVENT else s * max(1, max(c, default=0) // s)
        for d, s, c in zip(variable.dims, stored, variable.chunks, strict=True)
    )


def _encoding(node: xr.Dataset, chunks: str, packing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in node.variables.items():
        one: dict[str, Any] = dict(TIME) if variable.dtype.kind == "M" else {}
        if variable.dtype.kind in "biufM" and variable.ndim and variable.size:
            one |= {chunks: tuple(map(min, _stored(variable), variable.shape)), **packing}
        encoding[str(name)] = one
    return encoding


def _write_zarr(nodes: Mapping[str, xr.Dataset], path: Path, compress: bool) -> None:
    from zarr.codecs import BloscCodec

    packing = {"compressors": (BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),) if compress else ()}
    encoding = {where: _encoding(node, "chunks", packing) for where, node in nodes.items()}
    if len(nodes) == 1:
        nodes["/"].to_zarr(path, mode="w-", encoding=encoding["/"], zarr_format=3, consolidated=True)
    else:
        tree = xr.DataTree.from_dict(dict(nodes))
        tree.to_zarr(path, mode="w-", encoding=encoding, zarr_format=3, consolidated=True)


def _write_hdf5(nodes: Mapping[str, xr.Dataset], path: Path, compress: bool) -> None:
    packing: dict[str, Any] = {"zlib": True, "complevel": 2, "shuffle": True} if compress else {}
    encoding = {where: _encoding(node, "chunksizes", packing) for where, node in nodes.items()}
    if len(nodes) == 1:
        nodes["/"].to_netcdf(path, mode="w", engine="netcdf4", format="NETCDF4", encoding=encoding["/"])
    else:
        tree = xr.DataTree.from_dict(dict(nodes))
        tree.to_netcdf(path, mode="w", engine="netcdf4", format="NETCDF4", encoding=encoding)


# ---- where it is written ------------------------------------------------------------------------------------------


def _engine(target: Path, overwrite: bool) -> str:
    engine = _ENDINGS.get(target.suffix)
    if engine is None:
        raise ParameterError(
            "the ending of the path says the format", found=target.name, expected=" ".join(_ENDINGS), fix="small.zarr"
        )
    if not target.parent.is_dir():
        raise ParameterError(f"{target.parent}: no such folder", fix=f"os.makedirs({str(target.parent)!r})")
    if target.exists() and not overwrite:
        raise ParameterError(f"{target}: is there already", fix="overwrite=True, or another path")
    if target.is_dir() and not (target / "zarr.json").is_file():
        raise ParameterError(f"{target}: a folder that is no Zarr store is not replaced", fix="another path")
    return engine


def _put(part: Path, target: Path) -> None:
    """Move what is complete to its place, and only then remove what was there."""
    if not target.is_dir():
        part.replace(target)
        return
    old = target.with_name(f"{target.name}.{uuid4().hex[:8]}.old")
    target.rename(old)
    part.rename(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        for _ in range(5):  # after an error, writers of other threads may still finish their chunk
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.1)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
