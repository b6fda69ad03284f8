"""Small data in the layout of smalldata_tools, so that old notebooks go on: :func:`to_smalldata`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import check_labels, labels_of
from xsmall.events.ragged import is_ragged
from xsmall.io.layout import SMALLDATA_LAYOUT, SMALLDATA_NUMBER
from xsmall.io.stores.write import write

__all__ = ["to_smalldata"]

_EPOCH: Final = 631_152_000  # 1990, in seconds since 1970
_LIGHT: Final = {v.LASER_ON: "lightStatus/laser", v.XRAY_ON: "lightStatus/xray"}
_UNKNOWN_LIGHT: Final = -1
_TIMES: Final = frozenset({v.EVENT, v.SOURCE_TIMESTAMP, v.FIDUCIAL, v.RUN})
_GROUPS: Final = {"sums": "Sums", "once": "epicsOnce", "summary": ""}
_BLOCK: Final = 64 * 2**20


def to_smalldata(
    small: xr.Dataset | xr.DataTree,
    path: str | os.PathLike[str],
    *,
    generation: int = 2,
    overwrite: bool = False,
) -> Path:
    """Write small data as smalldata_tools does, for notebooks that read its files.

    Parameters
    ----------
    small
        Small data over ``event`` with times as labels, or the tree that :func:`xsmall.open_smalldata` gives.
    path
        An HDF5 file (``.h5``); ``_Run0042`` in its name is the number of the run.
    generation
        2: ``timestamp`` as LCLS-II has it; 1: ``event_time`` and ``fiducials`` as LCLS-I.
    overwrite
        Replace what is there.

    Returns
    -------
    The path. ``ipm2_sum`` becomes ``/ipm2/sum``, at the first underscore; ``laser_on`` and ``xray_on`` become
    ``/lightStatus/laser`` and ``/lightStatus/xray`` (1, 0, -1 where not known). Missing values are NaN. Lists per event
    are ``/<group>/var_<name>/<field>`` beside ``var_<name>_len``. What has no event, such as an axis of q, is in
    ``/UserDataCfg``. :func:`xsmall.open_smalldata` reads it back under the same names; bool comes back as integers.

    Raises
    ------
    ParameterError
        Another ending or generation; something is there and is not to be replaced.
    DataError
        Events without times, or text, which the layout has no place for.
    WriteError
        As for :func:`xsmall.save`.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> small = xs.simulate(20).run["events"].to_dataset()
    >>> path = xs.to_smalldata(small, pathlib.Path(tempfile.mkdtemp()) / "xpp_Run0042.h5")
    >>> back = xs.open_smalldata(path)["events"].to_dataset()
    >>> bool((back.tt_amplitude.fillna(0) == small.tt_amplitude.fillna(0)).all()), int(back.run[0])
    (True, 42)
    """
    if generation not in (1, 2):
        raise ParameterError("unknown generation", found=generation, expected="2 (LCLS-II) or 1 (LCLS-I)")
    target = Path(path)
    if target.suffix not in (".h5", ".hdf5"):
        raise ParameterError("small data of this layout are HDF5", found=target.name, fix=f"{target.stem}.h5")
    tree = small if isinstance(small, xr.DataTree) else None
    if tree is not None:
        if v.EVENTS_NODE not in tree.children:
            raise DataError("these are no small data", found=f"nodes {list(tree.children)}", expected="a node 'events'")
        small = tree.children[v.EVENTS_NODE].to_dataset(inherit=False)
    assert isinstance(small, xr.Dataset)
    _check_small_data(small)
    return write(
        {"/": xr.Dataset()},
        target,
        layout=f"{SMALLDATA_LAYOUT} {SMALLDATA_NUMBER}",
        marks={},
        overwrite=overwrite,
        compress=True,
        add=partial(_write_everything, small=small, tree=tree, generation=generation),
    )


def _check_small_data(small: xr.Dataset) -> None:
    if labels_of(small, "the small data").dtype.kind != "M":
        raise DataError(
            "the layout has times of events, and these are none",
            found=small[v.EVENT].dtype,
            expected="times in UTC as labels of the events",
        )
    check_labels(small, "these small data")
    for name, x in small.data_vars.items():
        if v.EVENT in x.dims and x.dtype.kind not in "biufM" and not is_ragged(x):
            raise DataError(
                f"{name}: the layout has no place for this",
                found=str(x.dtype),
                expected="numbers, or lists of numbers",
                fix=f"small.drop_vars({str(name)!r})",
            )


def _write_everything(file: h5py.File, small: xr.Dataset, tree: xr.DataTree | None, generation: int) -> None:
    """Write everything to an open file."""
    _times(file, small, generation)
    numbers: dict[str, xr.Variable] = {}
    for name, x in small.variables.items():
        name = str(name)
        if name in _TIMES or v.EVENT not in x.dims:
            continue
        if is_ragged(small[name]):
            _write_list_variables(file, name, x, small)
        elif x.dtype.kind in "biuf":
            numbers[_group_path(name, small)] = x.transpose(v.EVENT, ...)
    _write_numbers(file, numbers)
    for name, x in small.variables.items():
        if v.EVENT not in x.dims and x.dtype.kind in "biuf":
            file[_configuration_path(str(name), small)] = np.asarray(x.values)
    if tree is not None:
        _write_beside(file, tree)


def _configuration_path(name: str, small: xr.Dataset) -> str:
    """Where something without events goes: the q of azimuthal integrals beside the other parameters of the function."""
    front, _, axis = name.rpartition("_")
    detector, _, function = front.rpartition("_")
    if axis == "q" and detector and f"{front}_{function}" in small.variables:
        return f"UserDataCfg/{detector}/{function}__{function}_q"
    return f"UserDataCfg/xsmall/{name}"


def _times(file: h5py.File, small: xr.Dataset, generation: int) -> None:
    ns = small[v.EVENT].values.astype("M8[ns]").astype(np.int64)
    seconds, rest = ns // 10**9, ns % 10**9
    if generation == 2:
        file["timestamp"] = (seconds - _EPOCH) << 32 | rest
        return
    file["event_time"] = seconds << 32 | rest
    fiducials = small[v.FIDUCIAL].values if v.FIDUCIAL in small.variables else np.zeros(ns.size, np.int64)
    file["fiducials"] = fiducials.astype(np.int64)


def _group_path(name: str, small: xr.Dataset) -> str:
    """Where a variable goes: its group is what stands before the first underscore, unless that is a variable."""
    if name in _LIGHT and _LIGHT[name].replace("/", "_") not in small.variables:
        return _LIGHT[name]
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if group and rest and group not in small.variables else name


def _write_numbers(file: h5py.File, numbers: dict[str, xr.Variable]) -> None:
    """Write numbers in blocks of events, all that is lazy together, so that what it shares is computed once."""
    if not numbers:
        return
    n = next(iter(numbers.values())).shape[0]
    per_event = sum(x.dtype.itemsize * int(np.prod(x.shape[1:], dtype=np.int64)) for x in numbers.values())
    lazy = [x.chunks[0][0] for x in numbers.values() if x.chunks is not None and x.chunks[0]]
    step = max(1, _BLOCK // max(1, per_event))
    step = max(1, step // lazy[0]) * lazy[0] if lazy else step
    for start in range(0, n, step):
        parts = {place: x[start : start + step] for place, x in numbers.items()}
        values = dask.compute({place: x.data for place, x in parts.items()})[0]
        for place, block in values.items():
            stored = _stored_values(place, np.asarray(block))
            if place not in file:
                shape = (n, *stored.shape[1:])
                packed = {"compression": "gzip", "shuffle": True, "fletcher32": True} if stored.size else {}
                chunks = (min(n, step), *shape[1:]) if stored.size else None
                file.create_dataset(place, shape, stored.dtype, chunks=chunks, **packed)
            file[place][start : start + len(stored)] = stored


def _stored_values(place: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if place in _LIGHT.values():
        return np.where(np.isnan(values.astype(np.float64)), _UNKNOWN_LIGHT, values).astype(np.int64)
    return values.astype(np.int64) if values.dtype == bool else values


def _write_list_variables(file: h5py.File, name: str, x: xr.Variable, small: xr.Dataset) -> None:
    """Write lists behind each other with their lengths; lists of other lengths under the same name by themselves."""
    values = x.values
    lengths = np.array([len(one) for one in values], np.int64)
    front, _, field = name.rpartition("_")
    group, _, middle = front.rpartition("_")
    dtype = np.dtype(x.attrs.get(v.RAGGED_DTYPE, "f8"))
    where = f"{group.replace('_', '/', 1)}/" if group else ""
    count = f"{where}var_{middle}_len"
    if middle and (count not in file or np.array_equal(file[count][()], lengths)):
        if count not in file:
            file[count] = lengths
        flat = np.concatenate([np.asarray(one, dtype) for one in values]) if lengths.sum() else np.empty(0, dtype)
        file[f"{where}var_{middle}/{field}"] = flat
        return
    ragged = file.create_dataset(_group_path(name, small), (lengths.size,), h5py.vlen_dtype(dtype))
    for k, one in enumerate(values):
        ragged[k] = np.asarray(one, dtype)


def _write_beside(file: h5py.File, tree: xr.DataTree) -> None:
    """Write what a tree of small data has beside its events: sums, what was stored once, configurations."""
    for where, group in _GROUPS.items():
        if where in tree.children:
            for name, x in tree.children[where].data_vars.items():
                file[f"{group}/{name}"] = x.values
    for detector, name, values in _configurations(tree):
        if f"UserDataCfg/{detector}/{name}" not in file:
            file[f"UserDataCfg/{detector}/{name}"] = values


def _configurations(tree: xr.DataTree) -> Iterator[tuple[str, str, Any]]:
    node = tree.children.get(v.CONFIG_NODE)
    for detector, child in (node.children if node is not None else {}).items():
        for name, x in child.data_vars.items():
            if x.dtype.kind in "biuf":
                yield detector, str(name), x.values
