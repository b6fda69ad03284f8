"""The walk over the headers of a stream's files, from which its index is made; it goes on where files have grown."""

import struct
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.io.files import Identity, ReadWindow, open_file
from xsmall.io.sources.xtc2.chain import Chain
from xsmall.io.sources.xtc2.format import (
    EVENTS,
    HEADER_BYTES,
    ByteSource,
    Damage,
    Datagram,
    Service,
    XtcBlock,
    XtcKind,
    leaves,
    places,
    read_block,
    read_datagram,
)
from xsmall.io.sources.xtc2.index import (
    Layout,
    NamesTables,
    StreamIndex,
    Transition,
    UnreadableEvent,
    next_file,
    read_tables,
)

__all__ = ["Walk", "build"]


class _Recorder:
    """Passes reads through and remembers them, relative to the beginning of a datagram."""

    def __init__(self, source: ByteSource, start: int) -> None:
        self._source, self._start = source, start
        self.seen: list[tuple[int, int, bytes]] = []

    @property
    def path(self) -> str:
        return self._source.path

    def read(self, offset: int, n: int) -> bytes:
        data = self._source.read(offset, n)
        self.seen.append((offset - self._start, n, data))
        return data


@dataclass
class Walk:
    """Collects the index while the files are walked; goes on where it stopped when they have grown."""

    window: ReadWindow | None = None
    start: int = 0
    tables: list[NamesTables] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    columns: "tuple[array[int], ...]" = field(default_factory=lambda: tuple(array(code) for code in "qqQHi"))
    layouts: dict[Layout, int] = field(default_factory=dict)
    block_damage: dict[int, dict[int, int]] = field(default_factory=dict)
    unreadable: list[UnreadableEvent] = field(default_factory=list)
    last_time: int = 0
    files: list[Identity] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where in each file the walk stopped."""
    _like: tuple[int, int, int, list[tuple[int, int, bytes]]] | None = None
    _alike: int = 0
    """How many small events in a row were built like the one before."""

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
            self.window, self.start = ReadWindow(open_file(identity)), starts[number]
            while (d := read_datagram(self.window, self.ends[number], identity.size)) is not None:
                self.add(d)
                self.ends[number] += d.size
                if self._alike >= _PATIENCE:
                    self.ends[number] += self._add_many(self.ends[number], identity.size)

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

    def _add_many(self, offset: int, end: int) -> int:
        """Add events from ``offset`` on that are built like the last one; return their bytes.

        They are looked at as rows of one table: the same bytes in all headers, whatever the time.
        """
        assert self.window is not None
        assert self._like is not None
        size, damage, layout, seen = self._like
        columns, wanted = _template(size, damage, seen)
        added, batch = 0, 4 * _PATIENCE
        while True:
            n = min(batch, (end - offset - added) // size)
            if n < 1:
                break
            rows = np.frombuffer(self.window.read(offset + added, n * size), np.uint8).reshape(n, size)
            alike = (rows[:, columns] == wanted).all(axis=1)
            count = n if alike.all() else int(alike.argmin())
            words = np.ascontiguousarray(rows[:count, :8]).view("<u4").astype(np.uint64)
            begin = offset + added + self.start
            times = words[:, 1] << np.uint64(32) | words[:, 0]
            filled = (begin + size * np.arange(count, dtype=np.int64), size, times, damage, layout)
            for column, values in zip(self.columns, filled, strict=True):
                dtype = np.dtype(column.typecode)
                column.frombytes(np.broadcast_to(np.asarray(values, dtype), (count,)).tobytes())
            if count:
                self.last_time = max(self.last_time, int(times.max()))
            added += count * size
            if count < n:
                break
            batch = min(2 * batch, max(_PATIENCE, _BATCH_BYTES // size))
        self._alike = 0
        return added

    def _add_event(self, d: Datagram) -> None:
        """Find the layout of an event; one whose headers are those of the event before is built like it."""
        assert self.window is not None
        if self._like is not None:
            size, damage, layout, seen = self._like
            read, offset = self.window.read, d.offset
            if size == d.size and damage == d.damage and all(read(offset + at, n) == b for at, n, b in seen):
                self._append(offset + self.start, size, d.time, damage, layout)
                self._alike += size <= _SMALL
                return
        self._alike = 0
        event, recorder = len(self.columns[0]), _Recorder(self.window, d.offset)
        damage = d.damage
        blocks: tuple[XtcBlock, ...] = ()
        by_names: dict[int, int] = {}
        try:
            blocks, by_names = self._blocks(recorder, d)
        except FileFormatError as error:
            # the frame of the file is whole, the inside of this event is not: it is flagged and the run goes on
            damage |= Damage.CORRUPTED
            self.unreadable.append(UnreadableEvent(event, str(error)))
        layout = self.layouts.setdefault(Layout(len(self.tables) - 1, blocks), len(self.layouts))
        self._append(d.offset + self.start, d.size, d.time, damage, layout)
        if any(by_names.values()):
            self.block_damage[event] = by_names
        plain = damage == d.damage and not any(by_names.values())
        self._like = (d.size, d.damage, layout, recorder.seen) if plain else None

    def _append(self, *row: int) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)

    def _blocks(self, source: ByteSource, d: Datagram) -> tuple[tuple[XtcBlock, ...], dict[int, int]]:
        blocks: dict[int, XtcBlock] = {}
        damages: dict[int, int] = {}
        tables = self.tables[-1]
        for xtc in leaves(source, d):
            if xtc.kind == XtcKind.PARENT:  # corrupted: whatever it held is missing
                damages[-1] = damages.get(-1, 0) | xtc.damage
            if xtc.kind != XtcKind.SHAPES_DATA:
                continue
            block, damage = read_block(source, xtc, d.offset, tables)
            damages[block.names_id] = damages.get(block.names_id, 0) | damage
            if block.size >= 0:
                places(source.path, xtc.start, tables[block.names_id], block)
                blocks[block.names_id] = block
        return tuple(blocks.values()), damages

    def index(self) -> StreamIndex:
        """Make the index of what was walked; it does not change when the walk goes on."""
        kinds = (np.int64, np.int64, np.uint64, np.uint16, np.int32)
        arrays: list[npt.NDArray[Any]] = [np.array(c, t) for c, t in zip(self.columns, kinds, strict=True)]
        result = StreamIndex(
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
        result.next_file = next_file(result)
        return result


_PATIENCE: Final = 16
"""So many small events alike, and the next ones are expected to be so too."""
_SMALL: Final = 1 << 14
"""Bytes of an event that is rather read whole, to look at many at once."""
_BATCH_BYTES: Final = 1 << 21


def _template(
    size: int, damage: int, seen: list[tuple[int, int, bytes]]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """Which bytes of a datagram have to be what, to be built like another: what it announces, damage, sizes, shapes."""
    head = np.frombuffer(struct.pack("<HHI", damage, XtcKind.PARENT, size - 12), np.uint8)
    known = dict(zip(range(16, HEADER_BYTES), head.tolist(), strict=True))
    known[11] = int(Service.L1_ACCEPT)  # the byte of the transition: whatever else stands in it is looked at singly
    for at, n, data in seen:
        known |= dict(zip(range(at, at + n), data, strict=True))
    columns = sorted(known)
    return np.array(columns, np.intp), np.array([known[c] for c in columns], np.uint8)


def _check_start(identity: Identity, first: bool) -> None:
    """Refuse a file that does not begin as XTC2 does; later chunks begin with anything."""
    file = open_file(identity)
    window = ReadWindow(file)
    d = read_datagram(window, 0, file.size) if file.size >= HEADER_BYTES else None
    if first and d is None:
        raise FileFormatError(
            f"{file.path}, byte 0: not an XTC2 file, or one that ends inside its Configure",
            found=f"{file.size} bytes",
            expected="a Configure (transition 2) first, whole",
            fix="copy the file again; a run that has just begun: open it again in some seconds",
        )
    if first and d is not None and d.service != Service.CONFIGURE:
        raise FileFormatError(
            f"{file.path}, byte 0: not an XTC2 file that can be read on its own",
            found=f"a first datagram of transition {d.service}",
            expected="a Configure (transition 2) first; later chunks of a run (-c001 and on) have theirs in -c000",
            fix="open the folder, or the file of the same stream that ends in -c000.xtc2",
        )


def build(*files: Identity) -> StreamIndex:
    """Walk the headers of the files of a stream once."""
    builder = Walk()
    builder.walk(files)
    return builder.index()
