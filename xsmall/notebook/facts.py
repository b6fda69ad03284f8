"""What ``.sd`` sees on an object, in words; nothing is computed for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr

from xsmall.events.select import selection_lines
from xsmall.events.shots import variables_per_event
from xsmall.frames.beam import beam_of
from xsmall.frames.pixels import geometry_of
from xsmall.io.info import detector_lines, event_lines
from xsmall.io.nodes import detectors_of, frames_nodes
from xsmall.notebook.kinds import BINS, PICTURES, SMALL, SPARSE, frames_of, kind_of
from xsmall.vocabulary import (
    CENTER_X,
    COUNT,
    DETECTOR_TYPE,
    DISTANCE,
    EVENT,
    EVENTS_NODE,
    FLAG_MEANINGS,
    FRAME_DIMS,
    GEOMETRY,
    LOST,
    N_DROPPED_SHOTS,
    PHOTON_ENERGY,
    PIXEL_DIMS,
    PRESENT,
    ROW,
    SCAN_PREFIX,
    UNITS,
    VARIANCE_SUFFIX,
    X,
    reason_names,
)

__all__ = ["Facts", "facts_of"]

Line = tuple[str, str]
_COUNTED: Final = 64 * 2**20
"""Bytes in memory that are looked through for values that are missing."""
_GEOMETRY_ADVICE: Final = "none: .sd.assign_geometry(xs.open_geometry(path))"
_BEAM_ADVICE: Final = "none: .sd.assign_beam(photon_energy=9500, distance=0.1) gives q and two_theta"


@dataclass(frozen=True)
class Facts:
    """What an object is, and lines of (name, text) about it."""

    what: str
    kind: str
    lines: tuple[Line, ...]


def facts_of(obj: xr.DataArray | xr.Dataset | xr.DataTree, methods: list[str]) -> Facts:
    """Facts about an object, the methods that fit it last."""
    kind = kind_of(obj)
    if isinstance(obj, xr.DataTree):
        what, lines = "a run", list(_of_run(obj))
    elif isinstance(obj, xr.DataArray):
        what, lines = "a DataArray" if obj.name is None else str(obj.name), list(_of_array(obj))
    elif (frames := frames_of(obj)) is not None:
        known = f"{frames.name}{VARIANCE_SUFFIX}" in obj
        what = str(frames.name)
        lines = [*_of_array(frames), ("variance", "carried through" if known else "none")]
    else:
        what, lines = f"a Dataset, {kind}", list(_dataset_facts(obj, kind))
    return Facts(what, kind, (*lines, ("can", ", ".join(methods))))


# ---- frames and pictures ------------------------------------------------------------------------------------------


def _of_array(obj: xr.DataArray) -> Iterator[Line]:
    if obj.dims == FRAME_DIMS:
        n, segments, rows, columns = obj.shape
        yield "frames", f"{n} events of {segments} x {rows} x {columns} pixels, {obj.dtype}, {_size_text(obj.nbytes)}"
    elif kind_of(obj) == PICTURES:
        yield "pictures", _pictures(obj)
    elif ROW not in obj.dims:
        yield "frames", f"no, dims are {obj.dims}; reductions need {FRAME_DIMS}"
    else:
        needed = "isel(event=[0]) keeps an event a frame" if EVENT in obj.coords else f"reductions need {FRAME_DIMS}"
        yield "pixels", f"{dict(obj.sizes)}, {obj.dtype}, {_size_text(obj.nbytes)}; {needed}"
    yield "data", _laziness(obj)
    if ROW in obj.dims or DETECTOR_TYPE in obj.attrs:
        yield "detector", f"{obj.attrs.get(DETECTOR_TYPE, 'not said')}, values in {obj.attrs.get(UNITS, 'no unit')}"
    if PRESENT in obj.coords:
        yield "present", _presence(obj)
    if LOST in obj.attrs:
        yield "lost", f"the source had lost {obj.attrs[LOST]}"
    yield from _selection(obj)
    yield from _trust(obj)
    if ROW in obj.dims:
        yield "geometry", _geometry_fact(obj)
        yield "beam", _beam_fact(obj)


def _pictures(obj: xr.DataArray) -> str:
    bins = ", ".join(f"{d} {n}" for d, n in obj.sizes.items() if d not in PIXEL_DIMS)
    segments, rows, columns = (obj.sizes[d] for d in PIXEL_DIMS)
    whole = f"{segments} x {rows} x {columns} pixels, {obj.dtype}, {_size_text(obj.nbytes)}"
    return f"bins of {bins}, each {whole}; reduced as events are" if bins else f"one of {whole}; reduced as an event is"


def _trust(obj: xr.DataArray) -> Iterator[Line]:
    """Values that are not to be trusted, of arrays in memory that are quickly looked through."""
    if obj.chunks is not None or obj.nbytes > _COUNTED or ROW not in obj.dims or obj.size == 0:
        return
    values = obj.variable._data
    if not isinstance(values, np.ndarray):
        return
    if FLAG_MEANINGS in obj.attrs and obj.dtype.kind in "iu":
        bits = reason_names(int(np.bitwise_or.reduce(values, axis=None)))
        names = ", ".join(bits) or "no pixel is flagged"
        yield "reasons", f"{np.count_nonzero(values)} of {obj.size} values: {names}"
    elif obj.dtype.kind == "f":
        bad = int(np.count_nonzero(~np.isfinite(values)))
        yield "trusted", f"{obj.size - bad} of {obj.size} values ({1 - bad / obj.size:.2%}); the others are NaN"


def _size_text(nbytes: int) -> str:
    from dask.utils import format_bytes

    return str(format_bytes(nbytes))


def _laziness(obj: xr.DataArray) -> str:
    if obj.chunks is None:
        return "in memory or not chunked; results come at once"
    along = obj.chunks[0]
    return (
        f"lazy, {len(along)} chunks of up to {max(along, default=0)} along {obj.dims[0]}; "
        f"{_size_text(obj.nbytes)} when computed"
    )


def _presence(obj: xr.DataArray) -> str:
    present = obj.coords[PRESENT]
    if present.chunks is not None:
        return "known when computed"
    absent = int((~present.values.astype(bool)).sum())
    return "every segment in every event" if absent == 0 else f"{absent} of {present.size} segments are missing"


def _geometry_fact(obj: xr.DataArray) -> str:
    if GEOMETRY not in obj.coords:
        return _GEOMETRY_ADVICE
    geometry = geometry_of(obj)
    text = repr(geometry).removeprefix("<Geometry ").removesuffix(">")
    return text if X in obj.coords or ROW not in obj.dims else f"{text} (no pixel coordinates here)"


def _beam_fact(obj: xr.DataArray) -> str:
    if PHOTON_ENERGY not in obj.coords:
        known = [name for name in (DISTANCE, CENTER_X) if name in obj.coords]
        return f"no photon energy, but {', '.join(known)}" if known else _BEAM_ADVICE
    energy = obj.coords[PHOTON_ENERGY]
    if energy.size != 1 or energy.chunks is not None:
        return "photon energy per event"
    text = f"photon energy {float(energy):.6g} {energy.attrs.get(UNITS, 'eV')}"
    beam = beam_of(obj)
    if beam is not None and beam.distance is not None:
        text += f", distance {beam.distance:.6g} m"
    if beam is not None and not beam.lost:
        text += f", centre ({beam.center[0]:.4g}, {beam.center[1]:.4g}) m"
    return text


# ---- small data and cubes -------------------------------------------------------------------------------------------


def _dataset_facts(obj: xr.Dataset, kind: str) -> Iterator[Line]:
    if kind in (SMALL, SPARSE):
        scalars = variables_per_event(obj)
        per_event = [str(v) for v in obj.data_vars if EVENT in obj[v].dims]
        yield kind, f"{obj.sizes[EVENT]} events, {len(per_event)} variables, {_size_text(obj.nbytes)}"
        yield "bins", "may be made of " + (", ".join(scalars) or "nothing: no variable runs over event alone")
    elif kind == BINS:
        counted = obj[COUNT]
        dims = ", ".join(f"{name} {n}" for name, n in counted.sizes.items())
        yield "cube", f"bins of {dims}" if dims else "averages"
        if counted.chunks is None:
            values = counted.values
            empty = f", {int((values == 0).sum())} bins are empty" if counted.ndim else ""
            yield "events", f"{int(values.sum())}{empty}"
    else:
        yield "dims", f"no dim {EVENT!r}, but {dict(obj.sizes)}"
    if LOST in obj.attrs:
        yield "lost", f"the source had lost {obj.attrs[LOST]}"
    yield from _selection(obj)
    if N_DROPPED_SHOTS in obj.attrs:
        yield "dropped", f"{obj.attrs[N_DROPPED_SHOTS]} shots without X-rays were left out"


def _selection(obj: xr.DataArray | xr.Dataset) -> Iterator[Line]:
    for line in selection_lines(obj.attrs):
        yield "selected", line


# ---- runs -----------------------------------------------------------------------------------------------------------


def _of_run(run: xr.DataTree) -> Iterator[Line]:
    for line in event_lines(run):
        yield "events", line.strip()
    for name in detectors_of(run):
        lines = [line.strip() for line in detector_lines(name, run.children[name])]
        yield name, "; ".join(lines[1:]) or "no arrays"
    if EVENTS_NODE in run.children:
        names = [str(n) for n in run[EVENTS_NODE].data_vars]
        yield "event variables", ", ".join(names[:24]) + (f" and {len(names) - 24} more" if len(names) > 24 else "")
    yield from (("next", line) for line in _next_steps(run))


def _next_steps(run: xr.DataTree) -> Iterator[str]:
    """What to type next."""
    frames = frames_nodes(run)
    if frames:
        yield "run.sd.quicklook()"
        name, array = next(iter(frames.items()))
        yield f'raw = run["{name}"]["{array.name}"]; raw.sd'
    if EVENTS_NODE in run.children:
        scans = [str(n) for n in run[EVENTS_NODE].data_vars if str(n).startswith(SCAN_PREFIX)]
        yield f'run["{EVENTS_NODE}"]["{scans[0]}"].plot()' if scans else "run.sd.event_variables()"
