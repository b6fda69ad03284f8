"""Fields of a detector over all events of a run, as lazy arrays (event, segment, ...).

A field is described once from the layouts that the index met; an array of it holds nothing but the names of the files
and of the field, so it is small in every task, and each process finds its own index of the run.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, FileFormatError
from xsmall.io.sources.xtc2.format import (
    CHARACTERS,
    ENUM_LABEL,
    ENUM_VALUE,
    Enumeration,
    Field,
    Names,
    decode,
    enumeration_name,
)
from xsmall.io.sources.xtc2.index import StreamIndex
from xsmall.io.sources.xtc2.pieces import fill_rows
from xsmall.io.sources.xtc2.run_index import RunFiles, RunIndex, run_of

_NOT_OF_EVENTS: Final = frozenset({"config", "epicsinfo", "runinfo", "chunkinfo", "stepinfo", "scan", "epics"})
"""Detectors and algorithms whose values never come with events."""


class FieldKey(NamedTuple):
    """Name of a field in the file."""

    detector: str
    alg: str
    field: str


@dataclass(frozen=True)
class EventField:
    """A field that events carry.

    Attributes
    ----------
    key
        Its name.
    segments
        Numbers of the detector's segments, by the Configures and by the events.
    rank, dtype, shape
        Of one segment; ``shape`` and ``dtype`` are None where they change from event to event.
    shapes
        How many different shapes and types were met.
    longest
        Bytes of the largest value.
    is_text
        Whether the values are text.
    is_enumeration
        Whether the values are numbers that stand for words.
    """

    key: FieldKey
    segments: tuple[int, ...]
    rank: int
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    shapes: int
    longest: int = 0
    is_text: bool = False
    is_enumeration: bool = False

    @property
    def name(self) -> str:
        """Its name without that of the kind of enumeration, which the file writes behind it."""
        return enumeration_name(self.key.field)[0] if self.is_enumeration else self.key.field

    @property
    def is_fixed(self) -> bool:
        """Whether all values have one shape and type."""
        return self.shape is not None

    @property
    def is_ragged(self) -> bool:
        """Whether the values are arrays of one type whose shape differs."""
        return self.shape is None and not self.is_text and self.dtype is not None


def _used_tables(run: RunIndex) -> dict[tuple[str, str], list[Names]]:
    """Tables by (detector, alg): those that events use, or without any event those that events would use."""
    result: dict[tuple[str, str], list[Names]] = defaultdict(list)
    used = set()
    for stream, index in enumerate(run.streams):
        layouts = [index.layouts[k] for k in run.layouts(stream)]
        met = {(layout.configure, b.names_id) for layout in layouts for b in layout.blocks}
        used |= {(index.tables[c][n].detector, index.tables[c][n].alg) for c, n in met}
    for tables in run.tables:
        for names in tables.values():
            key = (names.detector, names.alg)
            if key in used or (not used and not run.size and not _NOT_OF_EVENTS & set(key)):
                result[key].append(names)
    return result


def event_fields(run: RunIndex) -> dict[FieldKey, EventField]:
    """Describe every field that the events of a run carry, in the order of the tables."""
    met: dict[FieldKey, set[tuple[np.dtype[Any], tuple[int, ...]]]] = defaultdict(set)
    for stream, index in enumerate(run.streams):
        for k in run.layouts(stream):
            for names_id, fields in index.places[k].items():
                names = index.tables[index.layouts[k].configure][names_id]
                for place in fields:
                    met[FieldKey(names.detector, names.alg, place.field.name)].add((place.field.dtype, place.shape))
    result: dict[FieldKey, EventField] = {}
    for (detector, alg), tables in _used_tables(run).items():
        segments = tuple(sorted({names.segment for names in tables}))
        for f in (f for names in tables for f in names.fields if f.type != ENUM_LABEL):
            key = FieldKey(detector, alg, f.name)
            if key not in result:
                result[key] = _event_field(key, segments, f, met[key] or {(f.dtype, (0,) * f.rank)})
    return result


def _event_field(
    key: FieldKey, segments: tuple[int, ...], field: Field, forms: set[tuple[np.dtype[Any], tuple[int, ...]]]
) -> EventField:
    dtypes, shapes = {dtype for dtype, _ in forms}, {shape for _, shape in forms}
    is_text = field.type == CHARACTERS and field.rank == 1 and len(dtypes) == 1
    dtype = next(iter(dtypes)) if len(dtypes) == 1 else None
    alike = len({len(shape) for shape in shapes}) == 1
    shape = next(iter(shapes)) if len(forms) == 1 and not is_text else None
    longest = max(d.itemsize * math.prod(s) for d, s in forms)
    words = _stands_for_a_word(field)
    return EventField(key, segments, field.rank, dtype if alike else None, shape, len(forms), longest, is_text, words)


def _stands_for_a_word(field: Field) -> bool:
    """Whether a value is a number with a word; arrays of them are numbers."""
    return field.type == ENUM_VALUE and field.rank == 0


def labels_of(files: RunFiles, field: EventField) -> Mapping[int, str]:
    """Words for the numbers of an enumeration, as the first event that has it says; none where they cannot be read."""
    run = run_of(files)
    for stream, index in enumerate(run.streams):
        records = run.rows[stream][run.rows[stream] >= 0]
        for k in run.layouts(stream):
            for names_id, places in index.places[k].items():
                names = index.tables[index.layouts[k].configure][names_id]
                told = {p.field.name for p in places if _stands_for_a_word(p.field)}
                if (names.detector, names.alg) != field.key[:2] or field.key.field not in told:
                    continue
                first = records[np.argmax(index.layout[records] == k)]
                numbers = [p for p in places if p.field.type in (ENUM_VALUE, ENUM_LABEL)]
                try:
                    value = decode(index.chain, int(index.offset[first]), numbers)[field.name]
                except (OSError, FileFormatError):
                    return {}  # whoever reads the numbers is told
                return value.labels if isinstance(value, Enumeration) else {}
    return {}


def segment_damage(run: RunIndex, detector: str, segments: Sequence[int]) -> npt.NDArray[np.uint16]:
    """Damage (event, segment): that of the datagram, its ShapesData, Shapes and Data together, bit by bit.

    Damage of a datagram is that of the segments which its stream brings.
    """
    damage = np.zeros((run.size, len(segments)), np.uint16)
    column = {s: k for k, s in enumerate(segments)}
    for index, rows in zip(run.streams, run.rows, strict=True):
        own = {n.segment for tables in index.tables for n in tables.values() if n.detector == detector}
        columns = [column[s] for s in sorted(own) if s in column]
        if not columns or not index.offset.size:
            continue
        there = np.flatnonzero(rows >= 0)
        of_record = np.zeros((index.offset.size, len(segments)), np.uint16)
        of_record[:, columns] = index.damage[:, None]
        for record, by_names in index.block_damage.items():
            tables = index.tables[index.layouts[index.layout[record]].configure]
            for names_id, bits in by_names.items():
                names = tables.get(names_id)
                if names is None:  # a corrupted Parent: nobody knows whose data it held
                    of_record[record, columns] |= np.uint16(bits)
                elif names.detector == detector and names.segment in column:
                    of_record[record, column[names.segment]] |= np.uint16(bits)
        damage[there] |= of_record[rows[there]]
    return damage


def is_number(key: Any) -> bool:
    return np.ndim(key) == 0 and not isinstance(key, slice)


class FieldArray:
    """A field of fixed shape as an array (event, segment, *shape) that reads when it is indexed.

    Parameters
    ----------
    files
        The bytes to decode.
    key
        The field.
    panels
        How many panels one segment of the file holds along the first axis of the field; more than one are handed out
        as segments of their own: (event, segment x panel, ...).
    """

    def __init__(self, files: RunFiles, key: FieldKey, panels: int | None = None) -> None:
        self.files = files
        self.key = key
        self.panels = panels
        field = event_fields_of(files)[key]
        if field.shape is None or field.dtype is None:  # text and lists have arrays of their own
            raise DataError(
                f"{files.path}: {'.'.join(key)} has no fixed shape", found=f"{field.shapes} different shapes"
            )
        self.dtype = field.dtype
        inner = field.shape if panels is None else field.shape[1:]
        segments = len(field.segments) * (1 if panels is None else panels)
        self.shape: tuple[int, ...] = (run_of(files).size, segments, *inner)
        self.ndim = len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_at"}

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, self.files, *self.key, self.panels)

    @cached_property
    def _at(self) -> dict[int, npt.NDArray[np.int64]]:
        """Where the field lies in its datagram, by stream: (layout, segment), -1 where it is missing."""
        panel = int(np.prod(self.shape[2:])) * self.dtype.itemsize
        return positions(self.files, self.key, self.panels or 1, panel)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        chosen = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], keys[:2], strict=True)]
        rows, inner = slice(0, 0), keys[2:]
        if inner:  # whole rows are read, and no others
            wanted = np.atleast_1d(np.arange(self.shape[2])[inner[0]])
            rows = slice(int(wanted.min()), int(wanted.max()) + 1) if wanted.size else rows
            if is_number(inner[0]):
                inner[0] = 0
            elif isinstance(inner[0], slice) and inner[0].step in (None, 1):
                inner[0] = slice(None)
            else:
                inner[0] = wanted - rows.start
        data = self._read(chosen[0], chosen[1], rows)
        for axis, k in reversed(list(enumerate(inner, start=2))):
            if not isinstance(k, slice) or k != slice(None):
                data = data[(slice(None),) * axis + (k,)]
        drop = tuple(axis for axis, k in enumerate(keys[:2]) if is_number(k))
        return data.squeeze(axis=drop) if drop else data

    def _read(self, events: npt.NDArray[np.int64], segments: npt.NDArray[np.int64], rows: slice) -> npt.NDArray[Any]:
        """Read whole rows of some segments of some events; what is missing is 0, or NaN where the type has one."""
        run = run_of(self.files)
        inner = self.shape[2:]
        skip = 0
        if inner:
            skip = rows.start * int(np.prod(inner[1:])) * self.dtype.itemsize
            inner = (rows.stop - rows.start, *inner[1:])
        out = np.empty((events.size, segments.size, *inner), self.dtype)
        pieces = out.reshape(events.size * segments.size, -1) if out.size else out
        missing = np.ones((events.size, segments.size), bool)
        for stream, table in self._at.items():
            index, records = run.streams[stream], run.rows[stream][events]
            at = of_records(table, index, records)[:, segments]
            there = at >= 0
            missing &= ~there
            if not out.size or not there.any():
                continue
            where = (index.offset[records][:, None] + at + skip).reshape(-1)
            numbers = np.flatnonzero(there.reshape(-1))
            numbers = numbers[np.argsort(where[numbers], kind="stable")]
            fill_rows(index.chain, where[numbers], pieces, numbers)
        out[missing] = np.nan if self.dtype.kind == "f" else 0
        return out


def of_records(table: npt.NDArray[Any], index: StreamIndex, records: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Rows of a table by layout for records of a stream; -1 where there is no record."""
    if not index.layout.size:
        return np.full((records.size, *table.shape[1:]), -1, table.dtype)
    found = table[index.layout[records]]
    found[records < 0] = -1
    return found


_fields: dict[RunFiles, dict[FieldKey, EventField]] = {}


def event_fields_of(files: RunFiles) -> dict[FieldKey, EventField]:
    """Give the description of a run's fields; each process makes it once."""
    if files not in _fields:
        if len(_fields) >= 32:
            _fields.clear()
        _fields[files] = event_fields(run_of(files))
    return _fields[files]


def presence(files: RunFiles, key: FieldKey) -> npt.NDArray[np.bool_]:
    """Whether a field is there: (event, segment of the file)."""
    run = run_of(files)
    there = np.zeros((run.size, len(event_fields_of(files)[key].segments)), bool)
    for stream, table in positions(files, key, 1, 0).items():
        there |= of_records(table, run.streams[stream], run.rows[stream]) >= 0
    return there


def positions(files: RunFiles, key: FieldKey, panels: int, panel_bytes: int) -> dict[int, npt.NDArray[np.int64]]:
    segments = {s: k for k, s in enumerate(event_fields_of(files)[key].segments)}
    result = {}
    for stream, index in enumerate(run_of(files).streams):
        at = np.full((len(index.layouts), len(segments)), -1, np.int64)
        for number, (layout, by_names) in enumerate(zip(index.layouts, index.places, strict=True)):
            for names_id, fields in by_names.items():
                names = index.tables[layout.configure][names_id]
                if (names.detector, names.alg) == key[:2] and names.segment in segments:
                    for place in fields:
                        if place.field.name == key.field:
                            at[number, segments[names.segment]] = place.at
        if (at < 0).all():
            continue
        if panels > 1:
            of_panels = at[:, :, None] + np.arange(panels) * panel_bytes
            at = np.where(at[:, :, None] >= 0, of_panels, -1).reshape(len(index.layouts), -1)
        result[stream] = at
    return result
