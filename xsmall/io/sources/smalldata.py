"""Small data that smalldata_tools or psana wrote, of LCLS-I and LCLS-II: :func:`open_smalldata`.

Their files have no attributes at all: what is missing is a number (-99999), lists per event are a count beside values
behind each other, and times are packed integers. All of that is settled here.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask.array as da
import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import DataError, FileFormatError, ParameterError
from xsmall.events.names import common_variables
from xsmall.events.ragged import object_array, ragged_attrs
from xsmall.io.files import identify, names_its_file
from xsmall.io.hdf5 import check_filters, missing_sources, open_hdf5, read_whole
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.hdf5_array import Hdf5Array
from xsmall.io.sources.source import RunSpec, call_for
from xsmall.io.sources.xtc2.format import datetimes

__all__ = ["open_smalldata"]

MISSING: Final = -99999
"""What stands in integers of these files for what is missing."""
_LAZY: Final = 64 * 2**20
_EXACT: Final = 2**53
_SECONDS: Final = (946_684_800, 4_102_444_800)  # 2000 to 2100: an event time outside of it is none
_NOT_OF_EVENTS: Final = ("Sums", "UserDataCfg", "epicsOnce", "epics_archiver", "intg")
_LISTS: Final = "var_"
_COUNT: Final = "_len"
_RUN: Final = re.compile(r"_[Rr]un(\d+)")


@names_its_file
def open_smalldata(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    late: Sequence[str] = (),
    chunks: int | str | None = None,
) -> xr.DataTree:
    """Open small data of smalldata_tools or of psana itself, of LCLS-I or LCLS-II.

    Parameters
    ----------
    path
        The HDF5 file (of LCLS-II the master; its parts have to lie beside it); a pattern or a list of files gives the
        events of several runs behind each other.
    late
        Names of variables whose zeros at the start are missing data. psana fills what it sees late with 0, which a
        file cannot tell from a true 0, such as that of the first step of a scan: ``attrs["zeros_at_start"]`` of a
        variable counts such events, and it is yours to say which are none.
    chunks
        Events of one chunk of what is large, or its bytes as text (``"100 MB"``). Default: about 64 MiB.

    Returns
    -------
    DataTree with the node ``events``: a flat Dataset over ``event`` with ``<group>_<name>`` for each dataset of the
    file, such as ``ipm2_sum`` or ``jungfrau1M_ROI_0_sum``; what is larger than 64 MiB is lazy. ``event`` is the time of
    each event (datetime64[ns], UTC), in the order of the file, which need not be that of time; ``run`` and ``fiducial``
    stand beside it where they are known. ``intg`` holds the slow detectors over events of their own, ``sums`` the sums
    of detectors, ``config/<detector>`` what the producer was configured with, ``once`` what was stored once per run,
    ``summary`` what stands beside the events without being of them (psana's ``save_summary``).

    Missing is NaN: integers with -99999 become float64; where they are unsigned, or too large for that, they stay and
    say so. ``xray_on`` and ``laser_on`` are made of the light status, where it is known for every event;
    ``tt_position`` (ps) and ``tt_amplitude`` of the time tool, NaN where it found no edge (0 in the file). Lists per
    event (``var_*``, ``ragged_*``) are ragged variables. What cannot be given is named in ``attrs["left_out"]``.

    Raises
    ------
    FileFormatError
        No such file, no small data, times that are none, or parts of the file that are not there.
    DataError
        Events of the same time, as when a run is given twice.
    ParameterError
        A name in ``late`` that is not there.

    Notes
    -----
    Constants of the same file: ``xs.open_constants(path, detector="jungfrau1M")``.

    Examples
    --------
    >>> import h5py, numpy as np, pathlib, tempfile, xsmall as xs
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "xpp_Run0007.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["timestamp"] = (np.arange(3) + 1_000_000_000) << 32
    ...     file["ipm2/sum"] = [1.0, 2.0, 3.0]
    ...     file["evr/code_40"] = [1, -99999, 0]
    >>> small = xs.open_smalldata(path)["events"].to_dataset()
    >>> small["evr_code_40"].values.tolist(), small["run"].values.tolist()
    ([1.0, nan, 0.0], [7, 7, 7])
    """
    spec = RunSpec.of(path)
    for one in spec.paths:
        if not h5py.is_hdf5(one) and (call := call_for(one)) is not None:
            raise FileFormatError(f"{one}: these are no small data", found="no HDF5 file", fix=call)
    trees = [_open_small_data(one, chunks, frozenset(late)) for one in spec.paths]
    if not trees:
        raise FileFormatError(f"{spec.given}: no file", expected="the path of small data")
    nodes = trees[0] if len(trees) == 1 else _files_together(spec, trees)
    known = {str(n) for tree in trees for where in (f"/{v.EVENTS_NODE}", "/intg") for n in tree.get(where, ())}
    if set(late) - known:
        raise ParameterError("no variable of this name", found=sorted(set(late) - known), expected=sorted(known))
    labels = nodes[f"/{v.EVENTS_NODE}"].indexes[v.EVENT]
    if not labels.is_unique:
        twice = labels[labels.duplicated()]
        raise DataError(
            f"{spec.given}: events of the same time",
            found=f"{len(twice)}, the first at {twice[0]}",
            expected="each event once",
            fix="give each run once",
        )
    return xr.DataTree.from_dict(nodes)


def _files_together(spec: RunSpec, trees: list[dict[str, xr.Dataset]]) -> dict[str, xr.Dataset]:
    """Put the events of several files behind each other; what is not in all of them, or differs, is left out."""
    out = dict(trees[0])
    for where in (f"/{v.EVENTS_NODE}", "/intg"):
        parts = [tree[where] for tree in trees if where in tree]
        if not parts or (len(parts) < len(trees) and where == "/intg"):
            out.pop(where, None)
            continue
        forms = [{str(n): (x.dims, x.shape[1:], x.dtype.kind) for n, x in part.variables.items()} for part in parts]
        common = [n for n in forms[0] if all(form.get(n, ())[:2] == forms[0][n][:2] for form in forms)]
        other = sorted({n for form in forms for n in form} - set(common))
        kept = [part[[n for n in common if n in part.data_vars]] for part in parts]
        joined = xr.concat(
            kept, v.EVENT, data_vars="minimal", coords="minimal", compat="override", join="override",
            combine_attrs="drop_conflicts",
        )  # fmt: skip
        left_out = [str(part.attrs[v.LEFT_OUT]) for part in parts if v.LEFT_OUT in part.attrs]
        left_out += [f"{n}: not alike in all files" for n in other]
        joined.attrs = {v.SOURCE: "; ".join(map(str, spec.paths))}
        out[where] = joined.assign_attrs({v.LEFT_OUT: "; ".join(left_out)} if left_out else {})
    for where in [w for w in out if w.startswith(("/sums", "/config", "/once", "/summary"))]:
        same = all(where in tree and tree[where].identical(out[where]) for tree in trees)
        if not same:  # of several runs there is not one
            del out[where]
    return out


# ---- one file -------------------------------------------------------------------------------------------------------


@dataclass
class _OpenFile:
    """An open file on its way to datasets."""

    file: Any
    path: Path
    chunks: int | str | None
    late: frozenset[str] = frozenset()
    left_out: list[str] = field(default_factory=list)


def _open_small_data(path: Path, chunks: int | str | None, late: frozenset[str]) -> dict[str, xr.Dataset]:
    with open_hdf5(path) as file:
        here = _OpenFile(file, path, chunks, late)
        labels, beside = _event_times(here, file)
        number = _RUN.search(path.name)
        if number:
            beside[v.RUN] = xr.Variable(v.EVENT, np.full(labels.size, int(number[1])))
        names = [name for name in _dataset_names(file) if name.split("/")[0] not in _NOT_OF_EVENTS]
        summary = [name for name in names if "/" not in name and file[name].shape[:1] != labels.shape]
        events = _variables_of_events(here, [name for name in names if name not in summary], "", labels.size)
        nodes = {"/": xr.Dataset(attrs={v.SOURCE: str(path)})}
        attrs = {v.SOURCE: str(path)} | ({v.LEFT_OUT: "; ".join(here.left_out)} if here.left_out else {})
        nodes[f"/{v.EVENTS_NODE}"] = xr.Dataset(events, {v.EVENT: labels, **beside}, attrs)
        if isinstance(file.get("intg"), h5py.Group) and "timestamp" in file["intg"]:
            slow = _OpenFile(file, path, chunks, late)
            times, _ = _event_times(slow, file["intg"])
            found = _variables_of_events(
                slow, [n for n in _dataset_names(file) if n.startswith("intg/")], "intg/", times.size
            )
            said = {v.LEFT_OUT: "; ".join(slow.left_out)} if slow.left_out else {}
            nodes["/intg"] = xr.Dataset(found, {v.EVENT: times}, said)
        for group, where in (("Sums", "/sums"), ("epicsOnce", "/once")):
            if isinstance(file.get(group), h5py.Group):
                nodes[where] = _plain_group(here, group)
        if summary:
            nodes["/summary"] = _plain_group(here, "/", summary)
        if isinstance(file.get("UserDataCfg"), h5py.Group):
            for detector in file["UserDataCfg"]:
                nodes[f"/{v.CONFIG_NODE}/{detector}"] = _plain_group(here, f"UserDataCfg/{detector}")
    _add_axes(nodes)
    return nodes


def _dataset_names(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _read_item(here: _OpenFile, item: Any) -> npt.NDArray[Any]:
    gone = missing_sources(item)
    if gone:
        raise FileFormatError(
            f"{here.path}: parts of this file are not there",
            found=f"no {', '.join(gone[:4])}",
            expected="the parts beside the master",
            fix=f"copy them to {here.path.parent}",
        )
    return read_whole(item, here.path)


def _event_times(here: _OpenFile, group: Any) -> tuple[npt.NDArray[np.datetime64], dict[str, xr.Variable]]:
    """Times of events in UTC, and what else names them, of both generations."""
    if "timestamp" in group:  # LCLS-II: seconds since 1990 << 32 | nanoseconds
        stored = _read_item(here, group["timestamp"]).astype(np.uint64)
        times, beside = datetimes(stored), {v.SOURCE_TIMESTAMP: xr.Variable(v.EVENT, stored)}
    elif "event_time" in group:  # LCLS-I: seconds since 1970 << 32 | nanoseconds
        times, beside = _since_1970(_read_item(here, group["event_time"])), {}
    elif "EvtID/time" in group:  # older: two columns
        pair = _read_item(here, group["EvtID/time"]).astype(np.int64)
        times, beside = _since_1970(pair[:, 0] << 32 | pair[:, 1]), {}
    else:
        raise FileFormatError(
            f"{here.path}: these are no small data",
            found=", ".join(sorted(group)[:8]) or "an empty file",
            expected="timestamp (LCLS-II), or event_time and fiducials (LCLS-I)",
            fix=call_for(here.path),
        )
    seconds = times.astype("M8[s]").astype(np.int64)
    wrong = np.flatnonzero((seconds < _SECONDS[0]) | (seconds > _SECONDS[1]))
    if wrong.size:
        raise FileFormatError(
            f"{here.path}: times of events that are none",
            found=f"{wrong.size} of {times.size}, the first at event {wrong[0]}: {times[wrong[0]]}",
            expected="times between 2000 and 2100",
        )
    for name in ("fiducials", "EvtID/fid"):
        if name in group and group[name].shape == times.shape:
            beside[v.FIDUCIAL] = xr.Variable(v.EVENT, _read_item(here, group[name]))
    return times, beside


def _since_1970(stored: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    packed = stored.astype(np.int64)
    return ((packed >> 32) * 10**9 + (packed & 0xFFFFFFFF)).astype("M8[ns]")


_TIMES: Final = frozenset({"timestamp", "event_time", "fiducials", "EvtID/time", "EvtID/fid"})


# ---- variables per event --------------------------------------------------------------------------------------------


def _variables_of_events(here: _OpenFile, names: list[str], prefix: str, n: int) -> dict[str, xr.Variable]:
    """Variables over events of some datasets: numbers, arrays and lists."""
    out: dict[str, xr.Variable] = {}
    counts = {name for name in names if name.rsplit("/", 1)[-1].startswith(_LISTS) and name.endswith(_COUNT)}
    values = {name for name in names for c in counts if name.startswith(c.removesuffix(_COUNT) + "/")}
    for name in names:
        inner = name.removeprefix(prefix)
        if inner in _TIMES or name in values:
            continue
        flat, item = inner.replace("/", "_"), here.file[name]
        if name in counts:
            fields = sorted(v_ for v_ in values if v_.startswith(name.removesuffix(_COUNT) + "/"))
            out |= _read_lists(here, flat.removesuffix(_COUNT).replace(_LISTS, "", 1), item, fields, n)
        elif item.shape[:1] != (n,):
            here.left_out.append(f"{flat}: {item.shape[0] if item.shape else 'one'} values for {n} events")
        elif h5py.check_vlen_dtype(item.dtype) is not None:
            dtype = h5py.check_vlen_dtype(item.dtype)
            lists = object_array([np.asarray(x, dtype) for x in _read_item(here, item)])
            out[flat] = xr.Variable(v.EVENT, lists, ragged_attrs(f"{flat}_value", dtype))
        elif item.dtype.kind in "biuf":
            out[flat] = _numbers_variable(here, flat, item)
        else:
            here.left_out.append(f"{flat}: {item.dtype}")
    for name in [name for name in out if name.startswith("damage_")]:
        out[name].attrs[v.LONG_NAME] = "1 where the detector was there, 0 where it was missing"
    common = common_variables(xr.Dataset(out))
    return out | {n: x for n, x in common.items() if n not in (v.XRAY_ON, v.LASER_ON) or x.dtype == bool}


def _numbers_variable(here: _OpenFile, name: str, item: Any) -> xr.Variable:
    dims = (v.EVENT, *(f"{name}_{k}" for k in range(item.ndim - 1)))
    if item.size * item.dtype.itemsize > _LAZY:
        return xr.Variable(dims, _lazy_item(here, item))
    values, attrs = _without_codes(_read_item(here, item))
    n = _zeros_at_start(values)
    if n:
        attrs = attrs | {"zeros_at_start": n}
        if name in here.late:
            values = values.astype(np.result_type(values, np.float32))
            values[:n] = np.nan
    return xr.Variable(dims, values, attrs)


def _without_codes(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """NaN where the number that stands for missing is; integers that have it become float64."""
    if values.dtype.kind == "f":
        return np.where(values == MISSING, values.dtype.type(np.nan), values), {}
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        wrapped = np.int64(MISSING).astype(values.dtype)
        n = int((values == wrapped).sum())
        return values, {"perhaps_missing": f"{n} values are {wrapped}, which is {MISSING} unsigned"} if n else {}
    if values.dtype.kind != "i" or values.dtype.itemsize < 4 or not (values == MISSING).any():
        return values, {}
    known = values[values != MISSING]
    if known.size and np.abs(known.astype(np.float64)).max() >= _EXACT:
        return values, {"missing_value": MISSING}
    return np.where(values == MISSING, np.nan, values.astype(np.float64)), {}


def _zeros_at_start(values: npt.NDArray[Any]) -> int:
    """Count events at the start that are all 0, where none is later: back-filled, or a first step at 0."""
    empty = (values == 0).reshape(len(values), -1).all(axis=1)
    n = int(np.argmin(empty)) if empty.size and not empty.all() else 0
    return 0 if empty[n:].any() else n


def _lazy_item(here: _OpenFile, item: Any) -> da.Array:
    gone = missing_sources(item)
    if gone:
        _read_item(here, item)
    check_filters(item, here.path)
    array = Hdf5Array(identify(here.path), item.name, item.shape, item.dtype, item.chunks)
    missing = [] if item.is_virtual else array.missing_chunks()
    if missing:
        raise FileFormatError(
            f"{here.path}: a part of {item.name} was never written", found=array.chunk_name(missing[0])
        )
    per_event = item.dtype.itemsize * int(np.prod(item.shape[1:], dtype=np.int64))
    n = events_per_chunk(per_event, here.chunks, item.chunks[0] if item.chunks else 1)
    meta = np.empty((0,) * item.ndim, array.dtype)
    data = da.from_array(array, (n, *item.shape[1:]), name=f"smalldata-{tokenize(array, n)}", meta=meta)
    if item.dtype.kind == "f":
        return da.where(data == MISSING, item.dtype.type(np.nan), data)
    if item.dtype.kind == "i" and item.dtype.itemsize >= 4:
        return da.where(data == MISSING, np.nan, data.astype(np.float64))
    return data


def _read_lists(here: _OpenFile, name: str, count: Any, fields: list[str], n: int) -> dict[str, xr.Variable]:
    """Lists per event of values that lie behind each other; counts below 0 are 0.

    A part of the file that lacked the lists is filled up with one value for each of its events, whose count is then
    -99999: where that explains the number of values, these are skipped. Where nothing does, the lists are left out.
    """
    counts = _read_item(here, count).astype(np.int64)
    out: dict[str, xr.Variable] = {}
    for where in fields:
        flat = f"{name}_{where.rsplit('/', 1)[-1]}"
        item = here.file[where]
        lengths = np.maximum(counts, 0)
        held = np.where(counts == MISSING, 1, lengths) if lengths.sum() != len(item) else lengths
        if counts.shape != (n,) or held.sum() != len(item) or item.dtype.kind not in "biuf":
            here.left_out.append(f"{flat}: {len(item)} {item.dtype} values for counts that add up to {lengths.sum()}")
            continue
        values = _read_item(here, item)
        stops = np.cumsum(held)
        parts = [values[stop - h : stop - h + k] for stop, h, k in zip(stops, held, lengths, strict=True)]
        out[flat] = xr.Variable(v.EVENT, object_array(parts), ragged_attrs(name, values.dtype))
    return out


# ---- what is not per event ------------------------------------------------------------------------------------------


def _plain_group(here: _OpenFile, group: str, names: Sequence[str] | None = None) -> xr.Dataset:
    """Arrays of a group as they are, all or some of them, their dims named after them."""
    out: dict[str, xr.Variable] = {}
    for name in _dataset_names(here.file[group]) if names is None else names:
        item, flat = here.file[group][name], name.replace("/", "_")
        if item.dtype.kind in "biuf":
            out[flat] = xr.Variable([f"{flat}_{k}" for k in range(item.ndim)], _read_item(here, item))
        elif h5py.check_string_dtype(item.dtype) is not None and item.ndim == 0:
            out[flat] = xr.Variable((), item.asstr()[()])
    return xr.Dataset(out)


def _add_axes(nodes: dict[str, xr.Dataset]) -> None:
    """Label the last dim of azimuthal integrals with the q that the configuration holds."""
    where = f"/{v.EVENTS_NODE}"
    events = nodes[where]
    for path, config in nodes.items():
        detector = path.removeprefix(f"/{v.CONFIG_NODE}/")
        for name, axis in config.data_vars.items() if detector != path else ():
            function, _, of = str(name).partition("__")
            target = f"{detector}_{function}_{function}"
            if of != f"{function}_q" or target not in events or axis.ndim != 1:
                continue
            dim = events[target].dims[-1]
            if events.sizes[dim] == axis.size and dim != v.EVENT:
                label = f"{detector}_{function}_q"
                attrs = {v.UNITS: v.INVERSE_ANGSTROM}
                events = events.rename({dim: label}).assign_coords({label: (label, axis.values, attrs)})
    nodes[where] = events
