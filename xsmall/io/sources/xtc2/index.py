"""The index of a stream: where every event lies, how it is built, what is damaged; made from headers alone.

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
from xsmall.io.files import Identity, Window, open_file
from xsmall.io.sources.xtc2.chain import Chain
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
    """An event whose inside is invalid: its number, and what is wrong with path and byte."""

    event: int
    reason: str


@dataclass(eq=False)  # hashable: what is derived from an index is remembered with it
class Index:
    """Events and transitions of one stream, in the order of its files.

    Attributes
    ----------
    chain
        Its files; offsets count from the beginning of the first.
    offset, size, time, damage
        Per event: byte offset, bytes, psana's 64-bit time, damage word of the datagram (with CORRUPTED added where
        the inside is invalid).
    layout
        Per event: number of its :class:`Layout` in ``layouts``.
    block_damage
        For events where any block is damaged: damage by NamesId.
    transitions
        All other datagrams.
    tables
        Schema tables of each Configure.
    truncated_bytes
        Bytes behind the last whole datagram of each file.
    last_time
        The latest time of any datagram.
    next_file
        Name of the file in which the stream goes on, where its end says so.
    """

    chain: Chain
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
    last_time: int
    next_file: str | None

    @property
    def path(self) -> str:
        """Path of the first file."""
        return self.chain.files[0].path

    @property
    def ended(self) -> bool:
        """Whether the stream says that its last run is over."""
        ends = [
            t.datagram.service for t in self.transitions if t.datagram.service in (Service.BEGIN_RUN, Service.END_RUN)
        ]
        return bool(ends) and ends[-1] == Service.END_RUN

    @cached_property
    def places(self) -> list[dict[int, tuple[Place, ...]]]:
        """For each layout, where the fields of each NamesId lie."""
        return [
            {b.names_id: places(self.path, 0, self.tables[layout.configure][b.names_id], b) for b in layout.blocks}
            for layout in self.layouts
        ]

    def read(self, transition: Transition) -> list[Content]:
        """Read the values of a transition; blocks that are marked corrupted are left out."""
        d, number = transition.datagram, self.chain.number(transition.datagram.offset)
        local = d._replace(offset=d.offset - self.chain.starts[number])  # errors name the byte of the file
        file = self.chain.open(number)
        raw = _Held(file.path, local.offset, file.read(local.offset, d.size))
        return list(contents(raw, local, self.tables[transition.configure]))

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
    """Collects the index while the files are walked; goes on where it stopped when they have grown."""

    window: Window | None = None
    start: int = 0
    tables: list[Tables] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    columns: "tuple[array[int], ...]" = field(default_factory=lambda: tuple(array(code) for code in "qqQHi"))
    layouts: dict[Layout, int] = field(default_factory=dict)
    block_damage: dict[int, dict[int, int]] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    last_time: int = 0
    files: list[Identity] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where in each file the walk stopped."""
    _like: tuple[int, int, int, list[tuple[int, int, bytes]]] | None = None

    def walk(self, files: tuple[Identity, ...]) -> None:
        """Walk the headers of what is new in these files."""
        starts = Chain(files).starts
        for number, identity in enumerate(files):
            if number == len(self.files):
                _check_start(identity, first=number == 0)
                self.files.append(identity)
                self.ends.append(0)
            elif identity == self.files[number]:
                continue
            self.files[number] = identity
            self.window, self.start = Window(open_file(identity)), starts[number]
            while (d := read_datagram(self.window, self.ends[number], identity.size)) is not None:
                self.add(d)
                self.ends[number] += d.size

    def follows(self, files: tuple[Identity, ...]) -> bool:
        """Whether these are the same files, the last of them perhaps grown, with further ones behind it."""
        known = self.files
        same = len(known) <= len(files) and all(a.path == b.path for a, b in zip(known, files, strict=False))
        return same and known[:-1] == list(files[: len(known) - 1]) and self._last_is_there(files[len(known) - 1])

    def _last_is_there(self, now: Identity) -> bool:
        """Whether a file still holds what was read of it: it may have been replaced by another of its name."""
        before = self.files[-1]
        if now == before:
            return True
        if now.size <= before.size or not self.transitions:
            return False
        last = max(self.transitions[-1].datagram.offset, self.columns[0][-1] if self.columns[0] else 0)
        at = last - Chain(tuple(self.files)).starts[-1]
        if at < 0:
            return False
        d = read_datagram(open_file(now), at, now.size)
        return d is not None and at + d.size == self.ends[-1] and d.time <= self.last_time

    def add(self, d: Datagram) -> None:
        self.last_time = max(self.last_time, d.time)
        if d.service in EVENTS:
            self._add_event(d)
            return
        if d.service == Service.CONFIGURE:
            assert self.window is not None
            self.tables.append(read_tables(self.window, d))
            self._like = None
        there = d._replace(offset=d.offset + self.start)
        self.transitions.append(Transition(there, len(self.tables) - 1))

    def _add_event(self, d: Datagram) -> None:
        """Find the layout of an event; one whose headers are those of the event before is built like it."""
        assert self.window is not None
        if self._like is not None:
            size, damage, layout, seen = self._like
            read, offset = self.window.read, d.offset
            if size == d.size and damage == d.damage and all(read(offset + at, n) == b for at, n, b in seen):
                self._append(offset + self.start, size, d.time, damage, layout)
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
        self._append(d.offset + self.start, d.size, d.time, damage, layout)
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

    def index(self) -> Index:
        """Make the index of what was walked; it does not change when the walk goes on."""
        kinds = (np.int64, np.int64, np.uint64, np.uint16, np.int32)
        arrays: list[npt.NDArray[Any]] = [np.array(c, t) for c, t in zip(self.columns, kinds, strict=True)]
        result = Index(
            Chain(tuple(self.files)),
            offset=arrays[0],
            size=arrays[1],
            time=arrays[2],
            damage=arrays[3],
            layout=arrays[4],
            layouts=list(self.layouts),
            block_damage=dict(self.block_damage),
            transitions=list(self.transitions),
            tables=list(self.tables),
            unreadable=list(self.unreadable),
            truncated_bytes=sum(f.size - end for f, end in zip(self.files, self.ends, strict=True)),
            last_time=self.last_time,
            next_file=None,
        )
        result.next_file = _next_file(result)
        return result


def _check_start(identity: Identity, first: bool) -> None:
    """Refuse a file that does not begin as XTC2 does; later chunks begin with anything."""
    file = open_file(identity)
    window = Window(file)
    d = read_datagram(window, 0, file.size) if file.size >= HEADER_BYTES else None
    if first and (d is None or d.service != Service.CONFIGURE):
        raise FileFormatError(
            f"{file.path}, byte 0: not an XTC2 file that can be read on its own",
            found=f"{file.size} bytes" if d is None else f"a first datagram of transition {d.service}",
            expected="a Configure (transition 2) first; later chunks of a run (-c001 and on) have theirs in -c000",
            fix="open the folder, or the file of the same stream that ends in -c000.xtc2",
        )


def _next_file(index: Index) -> str | None:
    """Name of the next chunk: the last Enable tells it, and nothing comes behind that."""
    last = index.transitions[-1] if index.transitions else None
    if last is None or last.datagram.service != Service.ENABLE or last.datagram.size <= HEADER_BYTES:
        return None
    if index.offset.size and index.offset[-1] > last.datagram.offset:
        return None
    for content in index.read(last):
        name = content.values.get("filename")
        if content.names.detector == "chunkinfo" and isinstance(name, str) and name:
            return name
    return None


def build(*files: Identity) -> Index:
    """Walk the headers of the files of a stream once."""
    builder = _Builder()
    builder.walk(files)
    return builder.index()


_lock = threading.Lock()
_walked: dict[str, _Builder] = {}
"""Walks that can go on, by the path of the first file."""
_WALKS: Final = 32


@lru_cache(maxsize=32)
def _index(files: tuple[Identity, ...]) -> Index:
    builder = _walked.pop(files[0].path, None)
    if builder is None or not builder.follows(files):
        builder = _Builder()
    builder.walk(files)
    while len(_walked) >= _WALKS:
        del _walked[next(iter(_walked))]
    _walked[files[0].path] = builder
    return builder.index()


def index_of(files: tuple[Identity, ...]) -> Index:
    """Give the index of a stream; each process makes it once, and goes on with it where the files have grown."""
    with _lock:
        return _index(files)
