"""A detector of an XTC2 file as an xarray Dataset: names, dims, coordinates, attributes."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import ragged_attrs
from xsmall.io.sources.xtc2.fields import (
    EventField,
    FieldArray,
    FieldKey,
    event_fields_of,
    labels_of,
    presence,
    segment_damage,
)
from xsmall.io.sources.xtc2.format import datetimes
from xsmall.io.sources.xtc2.hsd import HSD, digitizer_variables
from xsmall.io.sources.xtc2.ragged_fields import ListArray, TextArray, list_dims, shapes_of
from xsmall.io.sources.xtc2.run_index import RunFiles, RunIndex, run_of
from xsmall.io.sources.xtc2.slow import (
    SCAN,
    column,
    held_variables,
    last_before,
    process_variables,
    step_of_event,
)
from xsmall.io.sources.xtc2.timetool import EDGE_POSITION, EdgeArray, edge_field

Wrap = Callable[[Any], Any]
"""Makes of a field what xarray or dask can hold without reading it."""

MODULE: Final = "module"  # what the file calls a segment, where each holds several panels
_STEP_NAMES: Final = frozenset({"step_value", "step_docstring"})  # they describe the step; the motors are the others
_TAKEN: Final = frozenset({v.EVENT, *v.PIXEL_DIMS, v.SOURCE_TIMESTAMP, v.PRESENT, v.DAMAGE, v.STEP, v.RUN, MODULE})


class Area(NamedTuple):
    """Which field of a detector says what its segments are: its frames, if it has any.

    ``panels`` is how many of them one segment of the file holds, None where the field has no axis for that.
    """

    field: EventField
    panels: int | None
    frames: bool = True


def detectors_of(files: RunFiles) -> dict[str, list[EventField]]:
    """Fields of every detector that events carry, in the order of the file."""
    result: dict[str, list[EventField]] = {}
    for key, field in event_fields_of(files).items():
        result.setdefault(key.detector, []).append(field)
    return result


def area_of(fields: Sequence[EventField]) -> Area:
    """Find the frames among a detector's fields: ``raw`` where it has that, else its largest array of two dims."""
    found = [f for f in fields if f.shape is not None and f.rank in (2, 3)]
    if not found:
        return Area(fields[0], None, frames=False)
    best = max(found, key=lambda f: (f.key.field == v.RAW, int(np.prod(f.shape or ()))))
    return Area(best, max(1, best.shape[0]) if best.rank == 3 and best.shape else None)


def times(run: RunIndex) -> dict[str, xr.Variable]:
    """Coordinates of time of every event: its label, which is its time in UTC, and the source's own time."""
    return {
        v.EVENT: xr.Variable(v.EVENT, datetimes(run.time)),
        v.SOURCE_TIMESTAMP: xr.Variable(
            v.EVENT, run.time, {v.LONG_NAME: "time of the source: seconds since 1990 << 32 | nanoseconds"}
        ),
    }


def step_variables(run: RunIndex) -> dict[str, xr.Variable]:
    """Variables of events that come with steps: ``step``, ``scan_<motor>``, and ``run`` where a file has several."""
    step = xr.Variable(
        v.EVENT, step_of_event(run), {v.LONG_NAME: "number of the step in the file, -1 before the first"}
    )
    result = {v.STEP: step}
    if len(run.runs) > 1:
        numbers = run.run_at(run.time)
        result[v.RUN] = xr.Variable(v.EVENT, numbers, {v.LONG_NAME: "number of the run, -1 before the first"})
    scans, _ = _slow_variables(run, scans=True)
    return result | scans


def slow_control(run: RunIndex) -> tuple[dict[str, xr.Variable], list[str]]:
    """Slow-control values per event, and the names of those that could not be brought to an array."""
    variables, left_out = _slow_variables(run, scans=False)
    for name, pv in process_variables(run).items():
        if name in variables:
            variables[name].attrs[v.LONG_NAME] = pv
    return variables, left_out


def _slow_variables(run: RunIndex, scans: bool) -> tuple[dict[str, xr.Variable], list[str]]:
    result: dict[str, xr.Variable] = {}
    left_out: list[str] = []
    for held in held_variables(run):
        if (held.source == SCAN) != scans:
            continue
        at = last_before(held.times, run.time)
        first = int(at.min(initial=0))
        table = column([None, *held.values] if first < 0 else held.values)
        if table is None:
            left_out.append(f"{held.source}.{held.name}")
            continue
        name = held.name if not scans or held.name in _STEP_NAMES else v.SCAN_PREFIX + held.name
        name = f"{held.source}_{name}" if name in _TAKEN else name
        dims = (v.EVENT, *(f"{name}_{k}" for k in range(table.data.ndim - 1)))
        result[name] = xr.Variable(dims, table.data[at - first], table.attrs)
    return result, left_out


def detector_dataset(files: RunFiles, detector: str, wrap: Wrap, *, fields: Sequence[str] | None = None) -> xr.Dataset:
    """Make the Dataset of one detector: every field, all segments, all events of the run.

    Frames have dims (event, segment, row, column); numbers (event, segment); other arrays get dims named after them.
    Nothing but headers and transitions is read.
    """
    by_detector = detectors_of(files)
    if detector not in by_detector:
        raise ParameterError(
            f"{files.path}: no detector of this name has data",
            found=repr(detector),
            expected=", ".join(map(repr, by_detector)) or "an event of any detector",
            fix=f"detector={next(iter(by_detector), '...')!r}",
        )
    run, all_fields = run_of(files), by_detector[detector]
    area = area_of(all_fields)
    chosen = _choose(files, detector, all_fields, fields)
    names = _variable_names(all_fields)
    lists = list_dims(files, all_fields, names)
    variables: dict[str, xr.Variable] = {}
    for field in chosen:
        if not field.is_fixed:
            variables |= _of_any_length(files, field, area, names[field.key], lists, wrap)
            continue
        array, dims = _field_array(files, field, area, names[field.key])
        attrs: dict[str, Any] = {}
        if area.frames and field == area.field:
            attrs[v.DETECTOR_TYPE] = detector_type(run, detector)
            if array.dtype.kind in "iu":  # floats were worked on: nobody says their unit
                attrs[v.UNITS] = v.ADU
            attrs |= _identity_of_frames(run, detector, area)  # constants are checked against it
        if field.is_enumeration:
            attrs |= flag_values(labels_of(files, field))
        variables[names[field.key]] = xr.Variable(dims, wrap(array), attrs)
    if fields is None:
        variables |= _decoded_bytes(files, detector, all_fields, area, list(variables), wrap)
    coords = times(run) | step_variables(run)
    coords |= _segment_coords(files, detector, area, variables)
    given = {names[f.key]: f for f in chosen if names[f.key] in variables}
    coords |= _other_presence(files, given, area, variables)
    coords = {name: c for name, c in coords.items() if name in _TAKEN or name not in variables}
    alone = f", run={run.runs[0]} opens one run by itself" if len(run.runs) > 1 else ""
    left_out = {
        ".".join(f.key): f"its type changes: {f.shapes} forms{alone}"
        for f in all_fields
        if not (f.is_fixed or f.is_text or f.is_ragged)
    }
    attrs = file_attrs(run) | _detector_attrs(run, detector)
    if left_out:
        attrs[v.LEFT_OUT] = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    return xr.Dataset(variables, coords, attrs)


def flag_values(labels: Mapping[int, str]) -> dict[str, Any]:
    """Say what numbers stand for, as CF does: one word for each, without blanks."""
    if not labels:
        return {}
    words = " ".join("_".join(label.split()) or "_" for label in labels.values())
    return {v.FLAG_VALUES: np.array(list(labels), np.int32), v.FLAG_MEANINGS: words}


def _decoded_bytes(
    files: RunFiles, detector: str, fields: Sequence[EventField], area: Area, taken: Sequence[str], wrap: Wrap
) -> dict[str, xr.Variable]:
    """What is made of bytes that some types of detectors write: waveforms and peaks, the edge of a time tool."""
    run = run_of(files)
    of_type = detector_type(run, detector)

    def dims_of(field: EventField) -> tuple[str, str]:
        return v.EVENT, _segment_dim(field, area)

    result: dict[str, xr.Variable] = {}
    if of_type == HSD:
        versions = {n.alg: n.version for t in run.tables for n in t.values() if n.detector == detector}
        result |= digitizer_variables(files, fields, versions, taken, dims_of, wrap)
    edge = edge_field(of_type, fields)
    if edge is not None and EDGE_POSITION not in taken:
        attrs = {v.UNITS: "pixel", v.LONG_NAME: "edge that the time tool found"}
        result[EDGE_POSITION] = xr.Variable(dims_of(edge), wrap(EdgeArray(files, edge.key)), attrs)
    return result


def _choose(
    files: RunFiles, detector: str, fields: Sequence[EventField], wanted: Sequence[str] | None
) -> Sequence[EventField]:
    if wanted is None:
        return fields
    by_name = {f.name: f for f in fields} | {f"{f.key.alg}.{f.name}": f for f in fields}
    for name in wanted:
        if name not in by_name:
            raise ParameterError(
                f"{files.path}: detector {detector!r} has no field of this name",
                found=repr(name),
                expected=", ".join(f.name for f in fields),
            )
        field = by_name[name]
        if not (field.is_fixed or field.is_text or field.is_ragged):
            raise DataError(
                f"{files.path}: this field has no type of its own, it makes no array over events",
                found=f"{name!r}: {field.shapes} different types and shapes",
                expected="a field of one type in all events",
                fix="leave it out of fields=",
            )
    return [by_name[name] for name in wanted]


def _variable_names(fields: Sequence[EventField]) -> dict[FieldKey, str]:
    """Name of each field's variable: its own, with the algorithm in front where that is taken."""
    count: dict[str, int] = {}
    for f in fields:
        count[f.name] = count.get(f.name, 0) + 1
    names: dict[FieldKey, str] = {}
    for f in fields:
        name = f.name if count[f.name] == 1 and f.name not in _TAKEN else f"{f.key.alg}_{f.name}"
        while name in names.values() or (name in count and name != f.name):
            name += "_"
        names[f.key] = name
    return names


def _field_array(files: RunFiles, field: EventField, main: Area, name: str) -> tuple[FieldArray, tuple[str, ...]]:
    """Give the lazy array of a field and its dims; what is built like the frames has theirs."""
    if field.shape == main.field.shape and field.segments == main.field.segments and main.frames:
        return FieldArray(files, field.key, main.panels), v.FRAME_DIMS
    inner = tuple(f"{name}_{k}" for k in range(field.rank))
    return FieldArray(files, field.key), (v.EVENT, _segment_dim(field, main), *inner)


def _of_any_length(
    files: RunFiles, field: EventField, main: Area, name: str, lists: Mapping[FieldKey, str], wrap: Wrap
) -> dict[str, xr.Variable]:
    """Text, or lists with their shape where they have several dims; nothing where the type changes."""
    dims = (v.EVENT, _segment_dim(field, main))
    if field.is_text:
        return {name: xr.Variable(dims, wrap(TextArray(files, field.key)))}
    if not field.is_ragged or field.dtype is None:
        return {}
    attrs = ragged_attrs(lists[field.key], field.dtype)
    result = {name: xr.Variable(dims, wrap(ListArray(files, field.key)), attrs)}
    if field.rank > 1:
        shape = xr.Variable((*dims, f"{name}_dim"), shapes_of(files, field.key))
        shape.attrs[v.LONG_NAME] = f"shape of each {name}, whose values are given one behind the other"
        result[f"{name}_shape"] = shape
    return result


def _segment_dim(field: EventField, main: Area) -> str:
    """Dim of the segments of the file: an algorithm that works on other segments than the frames has its own."""
    if field.segments != main.field.segments:
        return f"{field.key.alg}_{v.SEGMENT}"
    return MODULE if (main.panels or 1) > 1 else v.SEGMENT


def _segment_coords(
    files: RunFiles, detector: str, area: Area, variables: Mapping[str, xr.Variable]
) -> dict[str, xr.Variable]:
    """Labels of segments and pixels, presence and damage."""
    run, field, panels = run_of(files), area.field, area.panels or 1
    segments = np.array(field.segments, np.int64)
    labels = (segments[:, None] * panels + np.arange(panels)).reshape(-1)
    result = {v.SEGMENT: xr.Variable(v.SEGMENT, labels)}
    for dim, n in zip((v.ROW, v.COLUMN), (field.shape or ())[-2:], strict=False):
        if any(dim in x.dims for x in variables.values()):
            result[dim] = xr.Variable(dim, np.arange(n))
    there = presence(files, field.key)
    dims = (v.EVENT, v.SEGMENT)
    result[v.PRESENT] = xr.Variable(dims, np.repeat(there, panels, axis=1))
    damage = segment_damage(run, detector, field.segments)
    result[v.DAMAGE] = xr.Variable(dims, np.repeat(damage, panels, axis=1))
    if panels > 1:
        result[MODULE] = xr.Variable(MODULE, segments)
    return result


def _other_presence(
    files: RunFiles, names: Mapping[str, EventField], main: Area, variables: Mapping[str, xr.Variable]
) -> dict[str, xr.Variable]:
    """Presence of whatever is missing elsewhere than the frames: of an algorithm, or of one of its fields.

    The variables that it is about are told its name.
    """
    result: dict[str, xr.Variable] = {}
    of_alg = {main.field.key.alg: presence(files, main.field.key)}
    for name, field in names.items():
        alg, there = field.key.alg, presence(files, field.key)
        dims = (v.EVENT, _segment_dim(field, main))
        if alg not in of_alg:
            of_alg[alg] = there
            if field.segments != main.field.segments:
                result[dims[1]] = xr.Variable(dims[1], np.array(field.segments, np.int64))
                result[f"{v.PRESENT}_{alg}"] = xr.Variable(dims, there)
            elif not np.array_equal(there, of_alg[main.field.key.alg]):
                result[f"{v.PRESENT}_{alg}"] = xr.Variable(dims, there)
        if f"{v.PRESENT}_{alg}" in result:
            variables[name].attrs[v.ANCILLARY_VARIABLES] = f"{v.PRESENT}_{alg}"
        if not np.array_equal(there, of_alg[alg]):
            result[f"{v.PRESENT}_{name}"] = xr.Variable(dims, there)
            variables[name].attrs[v.ANCILLARY_VARIABLES] = f"{v.PRESENT}_{name}"
    return result


def detector_type(run: RunIndex, detector: str) -> str:
    """Type of a detector, as its schema table says."""
    return next((n.detector_type for t in run.tables for n in t.values() if n.detector == detector), "")


def _segment_ids(run: RunIndex, detector: str) -> dict[int, str]:
    return {n.segment: n.detector_id for t in run.tables for n in t.values() if n.detector == detector}


def detector_id(run: RunIndex, detector: str) -> str:
    """Long name of a detector: its type and the serial numbers of its segments, as psana's database knows it."""
    ids = _segment_ids(run, detector)
    return "_".join([detector_type(run, detector), *(ids[s] for s in sorted(ids))])


def _identity_of_frames(run: RunIndex, detector: str, area: Area) -> dict[str, Any]:
    """What tells of which run and detector frames are: run, experiment, serial numbers, size as far as it is known."""
    of_file, field, panels = file_attrs(run), area.field, area.panels or 1
    attrs: dict[str, Any] = {v.DETECTOR_ID: detector_id(run, detector)}
    if isinstance(of_file.get(v.RUN), int):
        attrs |= {v.RUN: of_file[v.RUN], v.EXPERIMENT: of_file[v.EXPERIMENT]}
    ids = {s: name for s, name in sorted(_segment_ids(run, detector).items()) if name}
    if panels == 1 and ids:  # several panels of one segment share its number
        attrs[v.SEGMENT_IDS] = json.dumps(ids)
    if field.shape is not None:
        attrs[v.DETECTOR_SHAPE] = [(max(field.segments) + 1) * panels, *field.shape[-2:]]
    return attrs


def _detector_attrs(run: RunIndex, detector: str) -> dict[str, Any]:
    ids = _segment_ids(run, detector)
    return {v.DETECTOR_TYPE: detector_type(run, detector), v.DETECTOR_IDS: ", ".join(ids[s] for s in sorted(ids))}


def file_attrs(run: RunIndex) -> dict[str, Any]:
    """What holds for a whole run: where it is, its number, and what of it is missing or could not be read."""
    attrs: dict[str, Any] = {v.SOURCE: run.path}
    if run.infos:
        attrs |= {v.EXPERIMENT: run.infos[-1].experiment, v.RUN: run.runs[0] if len(run.runs) == 1 else run.runs}
    count, lines = run.unreadable()
    attrs |= {v.TRUNCATED_BYTES: run.truncated_bytes, v.UNREADABLE_EVENTS: count}
    if lines:
        attrs[v.UNREADABLE] = "\n".join(lines)
    further = {
        v.LOST_EVENTS: run.lost,
        v.WAITING_EVENTS: run.waiting,
        v.REPEATED_TIMES: run.repeated,
        v.OUT_OF_ORDER_TIMES: run.out_of_order,
        v.MISSING_FILES: "; ".join(run.files.missing),
    }
    return attrs | {name: value for name, value in further.items() if value}
