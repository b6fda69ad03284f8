"""The index of a stream: where every event lies, how it is built, what is damaged; made from headers alone.

One pass over the headers: 24 bytes of each datagram and the 12-byte headers of its parts. Events that are built alike
share one layout, so that frames can later be read without looking at a header again: the layout of every event was
checked here, never assumed from its size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.io.sources.xtc2.chain import Chain
from xsmall.io.sources.xtc2.format import (
    HEADER_BYTES,
    ByteSource,
    Damage,
    Datagram,
    FieldPlace,
    Names,
    Service,
    Value,
    XtcBlock,
    XtcKind,
    broken,
    decode,
    leaves,
    places,
    read_block,
    read_names,
)

NamesTables = Mapping[int, Names]


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
    blocks: tuple[XtcBlock, ...]


class UnreadableEvent(NamedTuple):
    """An event whose inside is invalid: its number, and what is wrong with path and byte."""

    event: int
    reason: str


@dataclass(eq=False)  # hashable: what is derived from an index is remembered with it
class StreamIndex:
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
    tables: list[NamesTables]
    unreadable: list[UnreadableEvent]
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
    def places(self) -> list[dict[int, tuple[FieldPlace, ...]]]:
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
        raw = _BytesInMemory(file.path, local.offset, file.read(local.offset, d.size))
        return list(contents(raw, local, self.tables[transition.configure]))

    def of_service(self, *services: Service) -> list[Transition]:
        """Return the transitions of these kinds in the order of time, as in the file where times are equal."""
        chosen = [t for t in self.transitions if t.datagram.service in services]
        return sorted(chosen, key=lambda t: t.datagram.time)


class _BytesInMemory:
    """Bytes in memory that know where in the file they lie."""

    def __init__(self, path: str, start: int, data: bytes) -> None:
        self.path, self._start, self._data = path, start, data

    def read(self, offset: int, n: int) -> bytes:
        return self._data[offset - self._start : offset - self._start + n]


def contents(source: ByteSource, datagram: Datagram, tables: NamesTables) -> Iterator[Content]:
    """Yield the values of every block of a datagram."""
    for xtc in leaves(source, datagram):
        if xtc.kind != XtcKind.SHAPES_DATA or xtc.corrupted:
            continue
        block, damage = read_block(source, xtc, datagram.offset, tables)
        if block.size >= 0:
            names = tables[block.names_id]
            fields = places(source.path, xtc.start, names, block)
            yield Content(names, damage | datagram.damage, decode(source, datagram.offset, fields))


def read_tables(source: ByteSource, datagram: Datagram) -> NamesTables:
    """Collect the schema tables of a Configure."""
    if datagram.damage & Damage.CORRUPTED:
        raise broken(source.path, datagram.offset, "the Configure is marked corrupted: the file cannot be understood")
    tables: dict[int, Names] = {}
    for xtc in leaves(source, datagram):
        if xtc.kind != XtcKind.NAMES:
            continue
        names = read_names(source, xtc)
        if tables.setdefault(names.names_id, names) != names:
            raise broken(source.path, xtc.start, "two Names tables of one NamesId", f"0x{names.names_id:x}")
    return tables


def next_file(index: StreamIndex) -> str | None:
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
