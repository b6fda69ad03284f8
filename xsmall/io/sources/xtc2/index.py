"""The index of a file: where every event lies, how it is built, what is damaged; made from headers alone.

One pass over the headers: 24 bytes of each datagram and the 12-byte headers of its parts. Events that are built alike
share one layout, so that frames can later be read without looking at a header again: the layout of every event was
checked here, never assumed from its size.
"""

import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.io.files import File, Identity, Window, open_file
from xsmall.io.sources.xtc2.format import (
    EVENTS,
    HEADER_BYTES,
    Block,
    Damage,
    Datagram,
    Kind,
    Names,
    Place,
    Service,
    Source,
    Value,
    broken,
    decode,
    leaves,
    places,
    read_block,
    read_datagram,
    read_names,
)

Tables = Mapping[int, Names]


class Content(NamedTuple):
    """The values of one block of a transition."""

    names: Names
    damage: int
    values: dict[str, Value]


class Transition(NamedTuple):
    """A datagram that is no event, with the number of the Configure that it belongs to."""

    datagram: Datagram
    configure: int


class Layout(NamedTuple):
    """How events are built: the number of the Configure, and the blocks that can be read."""

    configure: int
    blocks: tuple[Block, ...]


class Unreadable(NamedTuple):
    """An event whose inside cannot be meant: its number, and what is wrong with path and byte."""

    event: int
    reason: str


@dataclass(eq=False)  # hashable: what is derived from an index is remembered with it
class Index:
    """Events and transitions of one file, in the order of the file.

    Attributes
    ----------
    offset, size, time, damage
        Per event: byte offset, bytes, psana's 64-bit time, damage word of the datagram (with CORRUPTED added where
        the inside cannot be meant).
    layout
        Per event: number of its :class:`Layout` in ``layouts``.
    block_damage
        For events where any block is damaged: damage by NamesId.
    transitions
        All other datagrams.
    tables
        Schema tables of each Configure.
    truncated_bytes
        Bytes behind the last whole datagram.
    """

    file: File
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    time: npt.NDArray[np.uint64]
    damage: npt.NDArray[np.uint16]
    layout: npt.NDArray[np.int32]
    layouts: list[Layout]
    block_damage: dict[int, dict[int, int]]
    transitions: list[Transition]
    tables: list[Tables]
    unreadable: list[Unreadable]
    truncated_bytes: int

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.file.path

    @cached_property
    def places(self) -> list[dict[int, tuple[Place, ...]]]:
        """For each layout, where the fields of each NamesId lie."""
        return [
            {b.names_id: places(self.path, 0, self.tables[layout.configure][b.names_id], b) for b in layout.blocks}
            for layout in self.layouts
        ]

    def read(self, transition: Transition) -> list[Content]:
        """Read the values of a transition; blocks that are marked corrupted are left out."""
        d = transition.datagram
        raw = _Held(self.path, d.offset, self.file.read(d.offset, d.size))
        return list(contents(raw, d, self.tables[transition.configure]))

    def of_service(self, *services: Service) -> list[Transition]:
        """Return the transitions of these kinds in the order of time, as in the file where times are equal."""
        chosen = [t for t in self.transitions if t.datagram.service in services]
        return sorted(chosen, key=lambda t: t.datagram.time)


class _Held:
    """Bytes in memory that know where in the file they lie."""

    def __init__(self, path: str, start: int, data: bytes) -> None:
        self.path, self._start, self._data = path, start, data

    def read(self, offset: int, n: int) -> bytes:
        return self._data[offset - self._start : offset - self._start + n]


class _Recorder:
    """Passes reads through and remembers them, relative to the beginning of a datagram."""

    def __init__(self, source: Source, start: int) -> None:
        self._source, self._start = source, start
        self.seen: list[tuple[int, int, bytes]] = []

    @property
    def path(self) -> str:
        return self._source.path

    def read(self, offset: int, n: int) -> bytes:
        data = self._source.read(offset, n)
        self.seen.append((offset - self._start, n, data))
        return data


def contents(source: Source, datagram: Datagram, tables: Tables) -> Iterator[Content]:
    """Yield the values of every block of a datagram."""
    for xtc in leaves(source, datagram):
        if xtc.kind != Kind.SHAPES_DATA or xtc.corrupted:
            continue
        block, damage = read_block(source, xtc, datagram.offset, tables)
        if block.size >= 0:
            names = tables[block.names_id]
            fields = places(source.path, xtc.start, names, block)
            yield Content(names, damage | datagram.damage, decode(source, datagram.offset, fields))


def read_tables(source: Source, datagram: Datagram) -> Tables:
    """Collect the schema tables of a Configure."""
    if datagram.damage & Damage.CORRUPTED:
        raise broken(source.path, datagram.offset, "the Configure is marked corrupted: the file cannot be understood")
    tables: dict[int, Names] = {}
    for xtc in leaves(source, datagram):
        if xtc.kind != Kind.NAMES:
            continue
        names = read_names(source, xtc)
        if tables.setdefault(names.names_id, names) != names:
            raise broken(source.path, xtc.start, "two Names tables of one NamesId", f"0x{names.names_id:x}")
    return tables


@dataclass
class _Builder:
    """Collects the index while the file is walked."""

    window: Window
    tables: list[Tables] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    columns: "tuple[array[int], ...]" = field(default_factory=lambda: tuple(array(code) for code in "qqQHi"))
    layouts: dict[Layout, int] = field(default_factory=dict)
    block_damage: dict[int, dict[int, int]] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    _like: tuple[int, int, int, list[tuple[int, int, bytes]]] | None = None

    def add(self, d: Datagram) -> None:
        if d.service in EVENTS:
            self._add_event(d)
            return
        if d.service == Service.CONFIGURE:
            self.tables.append(read_tables(self.window, d))
            self._like = None
        self.transitions.append(Transition(d, len(self.tables) - 1))

    def _add_event(self, d: Datagram) -> None:
        """Find the layout of an event; one whose headers are those of the event before is built like it."""
        if self._like is not None:
            size, damage, layout, seen = self._like
            read, offset = self.window.read, d.offset
            if size == d.size and damage == d.damage and all(read(offset + at, n) == b for at, n, b in seen):
                self._append(offset, size, d.time, damage, layout)
                return
        event, recorder = len(self.columns[0]), _Recorder(self.window, d.offset)
        damage = d.damage
        blocks: tuple[Block, ...] = ()
        by_names: dict[int, int] = {}
        try:
            blocks, by_names = self._blocks(recorder, d)
        except FileFormatError as error:
            # the frame of the file is whole, the inside of this event is not: it is flagged and the run goes on
            damage |= Damage.CORRUPTED
            self.unreadable.append(Unreadable(event, str(error)))
        layout = self.layouts.setdefault(Layout(len(self.tables) - 1, blocks), len(self.layouts))
        self._append(d.offset, d.size, d.time, damage, layout)
        if any(by_names.values()):
            self.block_damage[event] = by_names
        plain = damage == d.damage and not any(by_names.values())
        self._like = (d.size, d.damage, layout, recorder.seen) if plain else None

    def _append(self, *row: int) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)

    def _blocks(self, source: Source, d: Datagram) -> tuple[tuple[Block, ...], dict[int, int]]:
        blocks: dict[int, Block] = {}
        damages: dict[int, int] = {}
        tables = self.tables[-1]
        for xtc in leaves(source, d):
            if xtc.kind == Kind.PARENT:  # corrupted: whatever it held is missing
                damages[-1] = damages.get(-1, 0) | xtc.damage
            if xtc.kind != Kind.SHAPES_DATA:
                continue
            block, damage = read_block(source, xtc, d.offset, tables)
            damages[block.names_id] = damages.get(block.names_id, 0) | damage
            if block.size >= 0:
                places(source.path, xtc.start, tables[block.names_id], block)
                blocks[block.names_id] = block
        return tuple(blocks.values()), damages


def build(file: File) -> Index:
    """Walk the headers of ``file`` once."""
    window = Window(file)
    builder, offset = _Builder(window), 0
    first = read_datagram(window, 0, file.size) if file.size >= HEADER_BYTES else None
    if first is None or first.service != Service.CONFIGURE:
        raise broken(
            file.path,
            0,
            "not an XTC2 file that can be read on its own",
            found=f"{file.size} bytes" if first is None else f"a first datagram of transition {first.service}",
            expected="a Configure (transition 2) first; later chunks of a run (-c001 and on) have theirs in -c000",
        )
    while (d := read_datagram(window, offset, file.size)) is not None:
        builder.add(d)
        offset += d.size
    kinds = (np.int64, np.int64, np.uint64, np.uint16, np.int32)
    arrays: list[npt.NDArray[Any]] = [np.array(c, t) for c, t in zip(builder.columns, kinds, strict=True)]
    return Index(
        file,
        offset=arrays[0],
        size=arrays[1],
        time=arrays[2],
        damage=arrays[3],
        layout=arrays[4],
        layouts=list(builder.layouts),
        block_damage=builder.block_damage,
        transitions=builder.transitions,
        tables=builder.tables,
        unreadable=builder.unreadable,
        truncated_bytes=file.size - offset,
    )


_lock = threading.Lock()


@lru_cache(maxsize=32)
def _index(identity: Identity) -> Index:
    return build(open_file(identity))


def index_of(identity: Identity) -> Index:
    """Give the index of a file; each process makes it once."""
    with _lock:
        return _index(identity)


_UNREADABLE_SHOWN: Final = 8


def unreadable_summary(index: Index) -> list[str]:
    """Say which events could not be read and why: the first few, each on one line."""
    return [
        f"event {u.event}: " + "; ".join(part.strip() for part in u.reason.splitlines())
        for u in index.unreadable[:_UNREADABLE_SHOWN]
    ]
