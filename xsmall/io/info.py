"""What is in a file, in words: :func:`describe`, the content of ``xsmall info FILE``."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.utils import format_bytes

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError
from xsmall.io.run import open_with
from xsmall.io.sources.source import HDF5_SIGNATURE, RunSource, RunSpec, find_source, source_of

__all__ = ["describe", "detector_lines", "event_lines"]

_PACKAGES: Final = "packages"  # versions: one line
_OPTIONS: Final[Mapping[str, dict[str, Any]]] = {"zarr": {"consolidated": False}, "netcdf4": {}}
_SHOWN: Final = 24
"""Variables of a node that are listed; the rest is counted."""
_LARGE: Final = 100_000
"""Bytes from which a variable's size is worth a word."""
_WIDTH: Final = 100


def describe(path: str | os.PathLike[str]) -> str:
    """Say what is in a run, small-data or cube file.

    Parameters
    ----------
    path
        An XTC2 file, a raw run, small data or a cube, in Zarr or HDF5.

    Returns
    -------
    Some lines of text: format and layout, time and number of events, detectors with shapes, types, units and sizes,
    what is missing or damaged, steps and scan variables, dims with their ranges, provenance.

    Raises
    ------
    FileFormatError
        The file does not exist or is none of these.

    Notes
    -----
    Reads headers and small variables, no frames.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> print(describe(xs.save(xs.simulate(20).run, pathlib.Path(tempfile.mkdtemp()) / "run.h5")).split(",")[0])
    run.h5: raw run
    """
    spec = RunSpec.of(path)
    engine = _engine(spec)
    source = find_source(spec)
    if source is not None or engine is None or spec.path is None:
        source = source or source_of(spec)  # which says what can be opened
        return "\n".join(_run_lines(spec, open_with(source, spec), source))
    try:
        tree = xr.open_datatree(spec.path, engine=engine, chunks=None, backend_kwargs=_OPTIONS[engine])
    except Exception as error:  # of whatever library stumbles over it
        raise FileFormatError(
            f"{spec.path}: cannot be read", found=error, expected="a file written by xarray"
        ) from error
    with tree:
        return "\n".join(_result(spec.path, tree, str(tree.attrs.get(v.LAYOUT, ""))))


def _engine(spec: RunSpec) -> str | None:
    """How xarray opens a result; None for what cannot be one."""
    path = spec.path
    if path is not None and ((path / "zarr.json").exists() or (path / ".zgroup").exists()):
        return "zarr"
    return "netcdf4" if spec.head == HDF5_SIGNATURE else None


# ---- runs -----------------------------------------------------------------------------------------------------------


def _run_lines(spec: RunSpec, run: xr.DataTree, source: RunSource) -> Iterator[str]:
    name = spec.path.name if spec.path else spec.given
    size = sum(map(_size_on_disk, spec.paths)) if spec.paths else sum(file.size for file in source.identity(spec))
    yield f"{name}: {source.heading(spec)}, {format_bytes(size)}"
    where = [f"{name} {run.attrs[name]}" for name in (v.EXPERIMENT, v.RUN) if name in run.attrs]
    if where:
        yield "  " + ", ".join(where)
    yield from event_lines(run)
    for name, node in run.children.items():
        if name != v.EVENTS_NODE:
            yield from detector_lines(name, node)
    events = _events_node(run)
    if events.data_vars:
        yield "  event variables"
        yield from _variable_lines(events)
    if v.LEFT_OUT in events.attrs:
        yield f"    left out: {events.attrs[v.LEFT_OUT]}"


def _events_node(run: xr.DataTree) -> xr.Dataset:
    return run[v.EVENTS_NODE].to_dataset() if v.EVENTS_NODE in run.children else xr.Dataset()


def event_lines(run: xr.DataTree) -> Iterator[str]:
    """What a run says of its events: what is lost, how many, when, how fast, steps and scans."""
    yield from _troubles(run.attrs)
    events = _events_node(run)
    if v.EVENT in events.sizes:
        yield "  " + _time_span(events)
        yield from _step_lines(events)


def _troubles(attrs: Mapping[Any, Any]) -> Iterator[str]:
    truncated = int(attrs.get(v.TRUNCATED_BYTES, 0))
    if truncated:
        yield f"  the file ends inside a datagram: the last {truncated} bytes are left out"
    unreadable = int(attrs.get(v.UNREADABLE_EVENTS, 0))
    if unreadable:
        yield f"  {unreadable} {_plural(unreadable, 'event')} could not be understood, flagged as damaged; the first:"
    for name, what in ((v.MISSING_CHUNKS, "not there"), (v.DAMAGED_CHUNKS, "unreadable")):
        n = int(attrs.get(name, 0))
        if n:
            yield f"  {n} {_plural(n, 'chunk')} of the run {'is' if n == 1 else 'are'} {what}; the first:"
    yield from (f"    {line}" for line in str(attrs.get(v.UNREADABLE, "")).splitlines())


def _time_span(events: xr.Dataset) -> str:
    n = events.sizes[v.EVENT]
    count = f"{n} {_plural(n, 'event')}"
    if not n or v.EVENT not in events.coords:
        return count
    times = events[v.EVENT].values
    first, last = times.min(), times.max()
    if times.dtype.kind != "M":
        return f"{count} labelled {first} to {last}"
    seconds = float((last - first) / np.timedelta64(1, "s"))
    rate = f", {(n - 1) / seconds:.4g} per second" if seconds > 0 else ""
    return f"{count} from {np.datetime_as_string(first, 'ms')} to {np.datetime_as_string(last, 'ms')} UTC{rate}"


def _step_lines(events: xr.Dataset) -> Iterator[str]:
    if v.STEP in events and events.sizes[v.EVENT]:
        steps = np.unique(events[v.STEP].values)
        steps = steps[steps >= 0]
        if steps.size:
            yield f"  {steps.size} {_plural(steps.size, 'step')} with events"
    for name, x in events.data_vars.items():
        if str(name).startswith(v.SCAN_PREFIX) and x.dtype.kind in "iuf" and x.size:
            n = np.unique(x.values[~_missing(x.values)]).size
            yield f"  {name}: {_range(x.values)}{_unit_shown(x)}, {n} {_plural(n, 'value')}"


def detector_lines(name: str, node: xr.DataTree) -> Iterator[str]:
    """What a run says of a detector: its name, its arrays, what is missing or damaged, what it carries."""
    dataset = node.to_dataset(inherit=False)
    kind = dataset.attrs.get(v.DETECTOR_TYPE)
    if kind is None and v.RAW in dataset:
        kind = dataset[v.RAW].attrs.get(v.DETECTOR_TYPE)
    yield f"  detector {name}" + (f" ({kind})" if kind and kind != name else "")
    yield from _variable_lines(dataset)
    if v.PRESENT in dataset.coords:
        there = dataset[v.PRESENT].values
        gone = int((~there).sum())
        if gone:
            yield f"    {gone} of {there.size} segments of events are missing"
    if v.DAMAGE in dataset.coords:
        damaged = int((dataset[v.DAMAGE].values != 0).any(axis=1).sum())
        if damaged:
            yield f"    {damaged} {_plural(damaged, 'event')} damaged"
    carried = [c for c in (v.GEOMETRY, v.PHOTON_ENERGY, v.DISTANCE, v.GAIN_CONTROL) if c in dataset.coords]
    if carried:
        yield f"    carries {', '.join(carried)}"
    if v.LEFT_OUT in dataset.attrs:
        yield f"    left out: {dataset.attrs[v.LEFT_OUT]}"
    if v.CONFIG_NODE in node.children:
        config = node[v.CONFIG_NODE]
        yield f"    configuration: {len(config.attrs) + len(config.data_vars)} values"


# ---- results --------------------------------------------------------------------------------------------------------


def _result(path: Path, tree: xr.DataTree, layout: str) -> Iterator[str]:
    what = f"result, layout {layout}" if layout else "not written by xsmall"
    yield f"{path.name}: {what}, {format_bytes(_size_on_disk(path))}"
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        if not dataset.variables:
            continue
        if node.path != "/":
            yield f"  group {node.path}"
        if v.EVENT in dataset.sizes:
            yield "  " + _time_span(dataset)
        yield from _dim_lines(dataset)
        yield "  variables"
        yield from _variable_lines(dataset[sorted(map(str, dataset.data_vars))])
        of_events = sorted(str(n) for n, c in dataset.coords.items() if c.dims == (v.EVENT,) and n != v.EVENT)
        if of_events:
            yield "  event variables"
            yield from _variable_lines(dataset.reset_coords(of_events)[of_events])
    yield from _lost_lines(tree)
    yield from _provenance(tree.attrs)


def _lost_lines(tree: xr.DataTree) -> Iterator[str]:
    """What the source of a result had lost: it stands on the result and on what was made of frames."""
    told = [tree.attrs, *(x.attrs for node in tree.subtree for x in node.to_dataset(inherit=False).data_vars.values())]
    for text in dict.fromkeys(str(attrs[v.LOST]) for attrs in told if v.LOST in attrs):
        yield f"  the source had lost {text}"


def _dim_lines(dataset: xr.Dataset) -> Iterator[str]:
    yield "  dims"
    first = (v.EVENT, *(dataset[v.COUNT].dims if v.COUNT in dataset else ()))  # events, or bins
    for dim in sorted(map(str, dataset.sizes), key=lambda d: (d not in first, first.index(d) if d in first else 0, d)):
        n = dataset.sizes[dim]
        label = dataset.variables.get(dim)
        text = f"    {dim}: {n}"
        if label is not None and label.dims == (dim,) and n and label.dtype.kind in "iufMm":
            text += f", {_range(label.values)}{_unit_shown(label)}"
        elif label is not None and label.dims == (dim,) and 0 < n <= 8:
            text += f", {', '.join(map(str, label.values.tolist()))}"
        yield text


def _provenance(attrs: Mapping[Any, Any]) -> Iterator[str]:
    try:
        told = json.loads(str(attrs[v.PROVENANCE]))
    except (KeyError, ValueError):
        return
    if not isinstance(told, dict):
        return
    yield "  provenance"
    for name, value in told.items():
        if isinstance(value, dict) and name != _PACKAGES:
            yield from (f"    {name}, {key}: {_short_line(part)}" for key, part in value.items())
        elif value:
            yield f"    {name}: {_short_line(value)}"


# ---- words ----------------------------------------------------------------------------------------------------------


def _variable_lines(dataset: xr.Dataset) -> Iterator[str]:
    """One line for each variable; of a cube's variables those that belong to another are not repeated."""
    names = [str(n) for n in dataset.data_vars]
    beside: dict[str, list[str]] = {}
    for name in names:
        for suffix in v.COMPANIONS:
            if f"{name}{suffix}" in names and not any(
                name.endswith(s) and name.removesuffix(s) in names for s in v.COMPANIONS
            ):
                beside.setdefault(name, []).append(suffix)
    hidden = {owner + suffix for owner, suffixes in beside.items() for suffix in suffixes}
    shown = [n for n in names if n not in hidden]
    for name in shown[:_SHOWN]:
        x = dataset[name]
        dims = ", ".join(f"{dim} {n}" for dim, n in x.sizes.items())
        also = f", with {', '.join(beside[name])}" if name in beside else ""
        size = ""
        if x.nbytes >= _LARGE:
            chunks = f" in chunks of {x.chunks[0][0]} events" if x.chunks and x.dims[0] == v.EVENT else ""
            size = f", {format_bytes(x.nbytes)}{chunks}"
        yield f"    {name} ({dims}) {_type(x)}{_unit_shown(x)}{size}{also}"
    if len(shown) > _SHOWN:
        yield f"    and {len(shown) - _SHOWN} more"


def _type(x: xr.DataArray | xr.Variable) -> str:
    if v.RAGGED_DTYPE in x.attrs:
        return f"lists of {np.dtype(x.attrs[v.RAGGED_DTYPE])}"
    return "text" if x.dtype.kind in "OUST" else str(x.dtype)


def _unit_shown(x: xr.DataArray | xr.Variable) -> str:
    unit = x.attrs.get(v.UNITS)
    return f" {unit}" if unit and unit != v.DIMENSIONLESS else ""


def _missing(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)


def _range(values: npt.NDArray[Any]) -> str:
    known = values[~_missing(values)]
    if not known.size:
        return "no value"
    low, high = known.min(), known.max()
    if values.dtype.kind == "M":
        return f"{np.datetime_as_string(low, 'ms')} to {np.datetime_as_string(high, 'ms')}"
    return f"{low:.6g} to {high:.6g}" if values.dtype.kind in "iuf" else f"{low} to {high}"


def _short_line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _plural(n: int, word: str) -> str:
    return word if n == 1 else word + "s"


def _size_on_disk(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
