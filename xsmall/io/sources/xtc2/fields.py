"""Fields of a detector over all events of a file, as lazy arrays (event, segment, ...).

A field is described once from the layouts that the index met; an array of it holds nothing but the name of the file and
of the field, so it is small in every task, and each process finds its own index of the file.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError
from xsmall.io.files import Identity, as_bytes, open_file
from xsmall.io.sources.xtc2.format import CHARACTERS, ENUM_LABEL, Names
from xsmall.io.sources.xtc2.index import Index, index_of

_GAP: Final = 1 << 15
"""Bytes that are rather read over than left out by another read."""
_LONGEST: Final = 1 << 24
"""Bytes of one read."""
_NOT_OF_EVENTS: Final = frozenset({"config", "epicsinfo", "runinfo", "chunkinfo", "stepinfo", "scan", "epics"})
"""Detectors and algorithms whose values never come with events."""


class Key(NamedTuple):
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
    """

    key: Key
    segments: tuple[int, ...]
    rank: int
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    shapes: int


def _used(index: Index) -> dict[tuple[str, str], list[Names]]:
    """Tables by (detector, alg): those that events use, or without any event those that events would use."""
    result: dict[tuple[str, str], list[Names]] = defaultdict(list)
    met = {(layout.configure, b.names_id) for layout in index.layouts for b in layout.blocks}
    used = {(index.tables[c][n].detector, index.tables[c][n].alg) for c, n in met}
    for tables in index.tables:
        for names in tables.values():
            key = (names.detector, names.alg)
            if key in used or (not index.offset.size and not _NOT_OF_EVENTS & set(key)):
                result[key].append(names)
    return result


def event_fields(index: Index) -> dict[Key, EventField]:
    """Describe every field that the events of a file carry, in the order of the file's tables."""
    met: dict[Key, set[tuple[np.dtype[Any], tuple[int, ...]]]] = defaultdict(set)
    for layout, by_names in zip(index.layouts, index.places, strict=True):
        for names_id, fields in by_names.items():
            names = index.tables[layout.configure][names_id]
            for place in fields:
                met[Key(names.detector, names.alg, place.field.name)].add((place.field.dtype, place.shape))
    result: dict[Key, EventField] = {}
    for (detector, alg), tables in _used(index).items():
        segments = tuple(sorted({names.segment for names in tables}))
        for f in (f for names in tables for f in names.fields if f.type != ENUM_LABEL):
            key = Key(detector, alg, f.name)
            forms = met[key] or {(f.dtype, (0,) * f.rank)}
            fixed = len(forms) == 1 and not (f.type == CHARACTERS and f.rank)
            dtype, shape = next(iter(forms)) if fixed else (None, None)
            result.setdefault(key, EventField(key, segments, f.rank, dtype, shape, len(forms)))
    return result


def segment_damage(index: Index, detector: str, segments: Sequence[int]) -> npt.NDArray[np.uint16]:
    """Damage (event, segment): that of the datagram, its ShapesData, Shapes and Data together, bit by bit."""
    damage = np.repeat(index.damage[:, None], len(segments), axis=1)
    column = {s: k for k, s in enumerate(segments)}
    for event, by_names in index.block_damage.items():
        tables = index.tables[index.layouts[index.layout[event]].configure]
        for names_id, bits in by_names.items():
            names = tables.get(names_id)
            if names is None:  # a corrupted Parent: nobody knows whose data it held
                damage[event] |= bits
            elif names.detector == detector and names.segment in column:
                damage[event, column[names.segment]] |= bits
    return damage


def _is_number(key: Any) -> bool:
    return np.ndim(key) == 0 and not isinstance(key, slice)


class FieldArray:
    """A field of fixed shape as an array (event, segment, *shape) that reads when it is indexed.

    Parameters
    ----------
    identity
        The bytes that are meant.
    key
        The field.
    panels
        How many panels one segment of the file holds along the first axis of the field; more than one are handed out
        as segments of their own: (event, segment x panel, ...).
    """

    def __init__(self, identity: Identity, key: Key, panels: int | None = None) -> None:
        self.identity = identity
        self.key = key
        self.panels = panels
        field = event_fields_of(identity)[key]
        if field.shape is None or field.dtype is None:
            raise DataError(
                f"{identity.path}: {'.'.join(key)} has no fixed shape", found=f"{field.shapes} different shapes"
            )
        self.dtype = field.dtype
        inner = field.shape if panels is None else field.shape[1:]
        segments = len(field.segments) * (1 if panels is None else panels)
        self.shape: tuple[int, ...] = (index_of(identity).offset.size, segments, *inner)
        self.ndim = len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_at"}

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, *self.identity, *self.key, self.panels)

    @cached_property
    def _at(self) -> npt.NDArray[np.int64]:
        """Where the field lies in its datagram: (layout, segment), -1 where it is missing."""
        return _positions(self.identity, self.key, self.panels or 1, int(np.prod(self.shape[2:])) * self.dtype.itemsize)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        chosen = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], keys[:2], strict=True)]
        rows, inner = slice(0, 0), keys[2:]
        if inner:  # whole rows are read, and no others
            wanted = np.atleast_1d(np.arange(self.shape[2])[inner[0]])
            rows = slice(int(wanted.min()), int(wanted.max()) + 1) if wanted.size else rows
            if _is_number(inner[0]):
                inner[0] = 0
            elif isinstance(inner[0], slice) and inner[0].step in (None, 1):
                inner[0] = slice(None)
            else:
                inner[0] = wanted - rows.start
        data = self._read(chosen[0], chosen[1], rows)
        for axis, k in reversed(list(enumerate(inner, start=2))):
            if not isinstance(k, slice) or k != slice(None):
                data = data[(slice(None),) * axis + (k,)]
        drop = tuple(axis for axis, k in enumerate(keys[:2]) if _is_number(k))
        return data.squeeze(axis=drop) if drop else data

    def _read(self, events: npt.NDArray[np.int64], segments: npt.NDArray[np.int64], rows: slice) -> npt.NDArray[Any]:
        """Read whole rows of some segments of some events; what is missing is 0, or NaN where the type has one."""
        index = index_of(self.identity)
        inner = self.shape[2:]
        skip = 0
        if inner:
            skip = rows.start * int(np.prod(inner[1:])) * self.dtype.itemsize
            inner = (rows.stop - rows.start, *inner[1:])
        out = np.empty((events.size, segments.size, *inner), self.dtype)
        at = self._at[index.layout[events]][:, segments]
        there = at >= 0
        out[~there] = np.nan if self.dtype.kind == "f" else 0
        if not out.size:
            return out
        pieces = out.reshape(events.size * segments.size, -1)
        where = (index.offset[events][:, None] + at + skip).reshape(-1)
        numbers = np.flatnonzero(there.reshape(-1))
        numbers = numbers[np.argsort(where[numbers], kind="stable")]
        _read_pieces(self.identity, where[numbers].tolist(), [as_bytes(pieces[n]) for n in numbers.tolist()])
        return out


def _read_pieces(identity: Identity, where: list[int], pieces: list[npt.NDArray[np.uint8]]) -> None:
    """Fill the pieces, whose places rise, from the file; neighbours go in one read, over small gaps."""
    file = open_file(identity)
    gap = np.empty(_GAP, np.uint8)
    buffers: list[npt.NDArray[np.uint8]] = []
    start = end = 0
    for offset, piece in zip(where, pieces, strict=True):
        if buffers and not (0 <= offset - end <= _GAP and offset + piece.nbytes - start <= _LONGEST):
            file.read_into(start, buffers)
            buffers = []
        if not buffers:
            start = end = offset
        if offset > end:
            buffers.append(gap[: offset - end])
        buffers.append(piece)
        end = offset + piece.nbytes
    if buffers:
        file.read_into(start, buffers)


_fields: dict[Identity, dict[Key, EventField]] = {}


def event_fields_of(identity: Identity) -> dict[Key, EventField]:
    """Give the description of a file's fields; each process makes it once."""
    if identity not in _fields:
        if len(_fields) >= 32:
            _fields.clear()
        _fields[identity] = event_fields(index_of(identity))
    return _fields[identity]


def presence(identity: Identity, key: Key) -> npt.NDArray[np.bool_]:
    """Whether a field is there: (event, segment of the file)."""
    return np.asarray(_positions(identity, key, 1, 0)[index_of(identity).layout] >= 0)


def _positions(identity: Identity, key: Key, panels: int, panel_bytes: int) -> npt.NDArray[np.int64]:
    index = index_of(identity)
    segments = {s: k for k, s in enumerate(event_fields_of(identity)[key].segments)}
    at = np.full((len(index.layouts), len(segments)), -1, np.int64)
    for number, (layout, by_names) in enumerate(zip(index.layouts, index.places, strict=True)):
        for names_id, fields in by_names.items():
            names = index.tables[layout.configure][names_id]
            if (names.detector, names.alg) == key[:2]:
                for place in fields:
                    if place.field.name == key.field:
                        at[number, segments[names.segment]] = place.at
    if panels == 1:
        return at
    spread = at[:, :, None] + np.arange(panels) * panel_bytes
    return np.where(at[:, :, None] >= 0, spread, -1).reshape(len(index.layouts), -1)
