"""Writing runs: raw frames with everything that labels them, in Zarr or HDF5.

Both hold the tree of :func:`~xsmall.io.run.open_run` group by group and can be read by xarray alone. Frames lie in
chunks of whole events, because detectors are read event by event.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import check_labels, in_utc, is_labelled
from xsmall.events.ragged import flatten
from xsmall.io.layout import RUN_LAYOUT, RUN_NUMBER, TIME, event_bytes, is_frames, quiet
from xsmall.io.sources.chunks import events_per_chunk

__all__ = ["write_run"]

_STORED_CHUNK: Final = 8 * 2**20
"""Bytes of a chunk on disk: a few frames, so that single ones can be looked at and a disk is read in long strokes."""
_COMPRESSIONS: Final = ("zstd", "lz4", "zlib", "none")


def write_run(
    tree: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    chunk_events: int | None = None,
    compression: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a run to raw Zarr (``.zarr``) or raw HDF5 (``.h5``), chunk by chunk.

    Parameters
    ----------
    tree
        The run: nodes with ``raw`` (event, segment, row, column) and whatever else it has.
    path
        Where to: the ending says which format.
    chunk_events
        Events in one chunk of the file. Default: about 8 MiB of whole frames.
    compression
        ``"zstd"`` or ``"lz4"`` (Zarr only, with bitshuffle), ``"zlib"``, or ``"none"``. Default: zstd in Zarr, zlib
        in HDF5, which every HDF5 reads.
    overwrite
        Replace what is there.

    Returns
    -------
    Path of the run. It appears when it is complete: until then it is called ``<name>.part``.

    Raises
    ------
    ParameterError
        An unknown ending or compression, or something is there and is not to be replaced.
    DataError
        A node without frames, or frames whose events have no labels, or not all of them.

    Notes
    -----
    Holds a few chunks per thread in memory, whatever the length of the run, and all lists of a detector at once.
    ``x``, ``y``, ``z`` are not stored where a geometry is: they follow from its rule.

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> path = write_run(xs.simulate(20).run, pathlib.Path(tempfile.mkdtemp()) / "run.h5", chunk_events=4)
    >>> xs.open_run(path)["jungfrau/raw"].shape
    (20, 4, 128, 256)
    """
    target = Path(path).expanduser()
    write = _writer(target, compression)
    if chunk_events is not None and chunk_events < 1:
        raise ParameterError("a chunk holds at least one event", found=chunk_events, expected="chunk_events=1 or more")
    if not target.parent.is_dir():
        raise ParameterError(f"{target.parent}: no such folder", fix="make it, or check the path")
    if target.exists() and not overwrite:
        raise ParameterError(f"{target}: is there already", fix="overwrite=True, or another path")
    nodes = {node.path: _storable(node.path, node.to_dataset(inherit=False)) for node in tree.subtree}
    nodes["/"] = nodes["/"].assign_attrs({v.LAYOUT: f"{RUN_LAYOUT} {RUN_NUMBER}"})
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        write(nodes, part, chunk_events, compression)
        _remove(target)
        part.rename(target)
    finally:
        _remove(part)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_Write = Callable[[Mapping[str, xr.Dataset], Path, int | None, str | None], None]


def _writer(path: Path, compression: str | None) -> _Write:
    if compression not in (None, *_COMPRESSIONS):
        raise ParameterError("unknown compression", found=repr(compression), expected=", ".join(_COMPRESSIONS))
    if path.suffix == ".zarr":
        return _write_zarr
    if path.suffix in (".h5", ".hdf5"):
        if compression in ("zstd", "lz4"):
            raise ParameterError(
                "this compression is for Zarr: plain HDF5 cannot read it",
                found=repr(compression),
                expected="'zlib' or 'none'",
            )
        return _write_hdf5
    raise ParameterError("the ending of the path says the format", found=path.name, expected="name.zarr or name.h5")


def _storable(path: str, node: xr.Dataset) -> xr.Dataset:
    """Leave out what is made again on opening, and what no file can hold."""
    if v.GEOMETRY in node.coords:
        node = node.drop_vars([name for name in v.POSITION if name in node.coords])
    if any(is_frames(x) for x in node.data_vars.values()) and not is_labelled(node):
        raise DataError(
            f"{path}: frames whose events have no labels",
            found=f"coordinates {list(node.coords)}",
            expected=f"the coordinate {v.EVENT!r}, such as the time of each event in UTC",
            fix=f"frames.assign_coords({v.EVENT}=times)",
        )
    check_labels(node, path)
    node = in_utc(flatten(node)).copy()  # lists go behind each other, with a count for each event
    for variable in node.variables.values():
        variable.encoding = {}
        variable.attrs = _storable_attrs(variable.attrs)
    node.attrs = _storable_attrs(node.attrs)
    return node


def _storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as both formats hold them: no empty lists, no None; truth as 0 and 1."""
    result = {}
    for name, value in attrs.items():
        if value is None or (isinstance(value, list | tuple) and not value):
            continue
        result[str(name)] = int(value) if isinstance(value, bool | np.bool_) else value
    return result


def _plan(x: xr.Variable, chunk_events: int | None) -> tuple[int, int]:
    """Events of a chunk on disk, and events to be written at once, which are whole chunks."""
    n = max(1, x.sizes[v.EVENT])
    per_event = event_bytes(x)
    held = x.chunks[x.dims.index(v.EVENT)][0] if x.chunks else n
    if chunk_events is None:
        most = min(n, max(1, _STORED_CHUNK // max(1, per_event)))
        # a divisor of the lazy chunks, if there is one of reasonable size, saves a second cutting
        chunk_events = next((k for k in range(most, most // 2, -1) if held % k == 0), most)
    chunk_events = min(chunk_events, n)
    return chunk_events, events_per_chunk(per_event, held, chunk_events)


def _cut(node: xr.Dataset, chunk_events: int | None) -> tuple[xr.Dataset, dict[str, tuple[int, ...]]]:
    """Cut lazy frames into whole chunks of the file, and say how those are."""
    chunks: dict[str, tuple[int, ...]] = {}
    for name, x in node.variables.items():
        if is_frames(x) and x.size:
            stored, written = _plan(x, chunk_events)
            chunks[str(name)] = (stored, *x.shape[1:])
            if x.chunks:
                cut = x.chunk({dim: written if dim == v.EVENT else -1 for dim in x.dims})
                node = node.assign({name: cut}) if name in node.data_vars else node.assign_coords({name: cut})
    return node, chunks


def _times(node: xr.Dataset) -> Iterator[str]:
    return (str(name) for name, x in node.variables.items() if x.dtype.kind == "M")


def _write_zarr(nodes: Mapping[str, xr.Dataset], path: Path, chunk_events: int | None, compression: str | None) -> None:
    from zarr import consolidate_metadata
    from zarr.codecs import BloscCodec, GzipCodec

    codecs: tuple[Any, ...]
    if compression == "none":
        codecs = ()
    elif compression == "zlib":
        codecs = (GzipCodec(level=1),)
    else:
        codecs = (BloscCodec(cname=compression or "zstd", clevel=1, shuffle="bitshuffle"),)
    with quiet():
        for group, node in nodes.items():
            cut, chunks = _cut(node, chunk_events)
            encoding: dict[str, dict[str, Any]] = {name: dict(TIME) for name in _times(cut)}
            for name, shape in chunks.items():
                encoding.setdefault(name, {}).update(chunks=shape, compressors=codecs)
            cut.to_zarr(
                path, group=group, mode="a", encoding=encoding, zarr_format=3, consolidated=False,
                write_empty_chunks=True,  # a chunk that is not there is then one that was lost
            )  # fmt: skip
        for group in sorted(nodes, key=len, reverse=True):  # the root last: plain xarray opens each of them in one read
            consolidate_metadata(path, path=group.strip("/") or None, zarr_format=3)


def _write_hdf5(nodes: Mapping[str, xr.Dataset], path: Path, chunk_events: int | None, compression: str | None) -> None:
    packing: dict[str, Any] = {} if compression == "none" else {"zlib": True, "complevel": 1, "shuffle": True}
    for number, (group, node) in enumerate(nodes.items()):
        cut, chunks = _cut(node, chunk_events)
        encoding: dict[str, dict[str, Any]] = {name: dict(TIME) for name in _times(cut)}
        for name, shape in chunks.items():
            encoding.setdefault(name, {}).update(chunksizes=shape, **packing)
        mode: Any = "a" if number else "w"
        cut.to_netcdf(path, group=group, mode=mode, engine="netcdf4", format="NETCDF4", encoding=encoding)
