"""XTC2 as bytes: datagrams, schema tables and blocks of data, every extent checked against its parent.

Nothing here opens a file: functions take a :class:`ByteSource` and absolute offsets, and raise
:class:`~xsmall.errors.FileFormatError` with path and offset where the bytes are invalid.
Source of the format: the public LCLS-II DAQ and psana sources, checked against psana on real files.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError

HEADER_BYTES: Final = 24
_HEADER: Final = struct.Struct("<IIIIHHI")
_XTC: Final = struct.Struct("<IHHI")
_NAMES_HEAD: Final = 1036
_FIELD_BYTES: Final = 524
_SHAPE_BYTES: Final = 20
_SHAPE_WORDS: Final = 5
_TYPE_BITS: Final = 0xFFF  # the four bits above are a version
_ID_BITS: Final = 0x0FFFFFFF
_EXTENT_LIMIT: Final = 1 << 31
_EPICS_EPOCH: Final = 631_152_000  # 1990-01-01 in seconds since 1970
_EMPTY_LIMIT: Final = 1 << 20  # an array without bytes can claim any size of its other dims
_DEPTH_LIMIT: Final = 8  # real files nest one Parent in another; a bound keeps hostile bytes from nesting for ever


class XtcKind(IntEnum):
    """What an Xtc holds."""

    PARENT = 0
    SHAPES_DATA = 1
    SHAPES = 2
    DATA = 3
    NAMES = 4


class Service(IntEnum):
    """What a datagram announces."""

    CLEAR_READOUT = 0
    RESET = 1
    CONFIGURE = 2
    UNCONFIGURE = 3
    BEGIN_RUN = 4
    END_RUN = 5
    BEGIN_STEP = 6
    END_STEP = 7
    ENABLE = 8
    DISABLE = 9
    SLOW_UPDATE = 10
    L1_ACCEPT_END_OF_BATCH = 11
    L1_ACCEPT = 12


EVENTS: Final = frozenset({Service.L1_ACCEPT, Service.L1_ACCEPT_END_OF_BATCH})


class Damage(IntFlag):
    """Bits of the damage word that every Xtc carries."""

    TRUNCATED = 1 << 0
    OUT_OF_ORDER = 1 << 1
    OUT_OF_SYNCH = 1 << 2
    CORRUPTED = 1 << 3
    DROPPED_CONTRIBUTION = 1 << 4
    MISSING_DATA = 1 << 5
    TIMED_OUT = 1 << 6


CHARACTERS: Final = 10
ENUM_VALUE: Final = 11
ENUM_LABEL: Final = 12
DTYPES: Final[tuple[np.dtype[Any], ...]] = tuple(
    np.dtype(t) for t in ("u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f4", "<f8", "u1", "<i4", "<i4")
)
"""The NumPy type of each XTC2 data type; text is bytes, enumerations are 32-bit integers."""


class ByteSource(Protocol):
    """Bytes with a name and an end."""

    @property
    def path(self) -> str: ...

    def read(self, offset: int, n: int) -> bytes:
        """Return exactly ``n`` bytes from ``offset``; the caller has checked that they are inside."""
        ...


def broken(path: str, offset: int, what: str, found: object = None, expected: object = None) -> FileFormatError:
    """Build the error that names path and byte offset."""
    return FileFormatError(f"{path}, byte {offset}: {what}", found=found, expected=expected)


class Datagram(NamedTuple):
    """One datagram: where it is and what its header says."""

    offset: int
    size: int
    time: int  # seconds since 1990 << 32 | nanoseconds, as psana shows it
    env: int
    damage: int

    @property
    def service(self) -> int:
        """Transition id."""
        return self.env >> 24 & 0xF


def read_datagram(source: ByteSource, offset: int, end: int) -> Datagram | None:
    """Read the header at ``offset``; None where the file ends inside the datagram."""
    if end - offset < HEADER_BYTES:
        return None
    nanoseconds, seconds, env, _, damage, contains, extent = _HEADER.unpack(source.read(offset, HEADER_BYTES))
    if (
        contains & _TYPE_BITS != XtcKind.PARENT
        or not 12 <= extent < _EXTENT_LIMIT
        or env >> 24 & 0xF > Service.L1_ACCEPT
    ):
        raise broken(
            source.path,
            offset,
            "no XTC2 datagram begins here",
            found=f"type {contains & _TYPE_BITS}, extent {extent}, transition {env >> 24 & 0xF}",
            expected="type 0 (Parent), extent from 12 to 2^31 - 1, transition from 0 to 12",
        )
    if offset + 12 + extent > end:
        return None
    return Datagram(offset, 12 + extent, seconds << 32 | nanoseconds, env, damage)


def datetimes(times: npt.NDArray[np.uint64]) -> npt.NDArray[np.datetime64]:
    """Convert psana's 64-bit times (seconds since 1990 << 32 | nanoseconds) to datetime64[ns], UTC."""
    seconds = (times >> np.uint64(32)).astype(np.int64) + _EPICS_EPOCH
    nanoseconds = (times & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return (seconds * 1_000_000_000 + nanoseconds).view("datetime64[ns]")


class Xtc(NamedTuple):
    """One Xtc: what it holds and from where to where; ``damage`` includes that of the Parents around it."""

    src: int
    damage: int
    kind: int
    start: int
    payload: int
    end: int

    @property
    def corrupted(self) -> bool:
        """True where the content must not be entered."""
        return bool(self.damage & Damage.CORRUPTED)


def _xtc_at(source: ByteSource, offset: int, end: int, damage: int) -> Xtc:
    if end - offset < 12:
        raise broken(source.path, offset, "an Xtc header does not fit into its parent", f"{end - offset} bytes", "12")
    src, own, contains, extent = _XTC.unpack(source.read(offset, 12))
    kind = contains & _TYPE_BITS
    if kind > XtcKind.NAMES:
        raise broken(source.path, offset, "unknown Xtc type", kind, "0 to 4")
    if extent < 12 or offset + extent > end:
        raise broken(source.path, offset, "impossible extent of an Xtc", extent, f"12 to {end - offset}")
    return Xtc(src & _ID_BITS, own | damage, kind, offset, offset + 12, offset + extent)


def leaves(source: ByteSource, datagram: Datagram) -> Iterator[Xtc]:
    """Yield every Xtc below the datagram in file order, entering Parents; a corrupted Parent comes out as it is."""
    if datagram.damage & Damage.CORRUPTED:
        return
    stack = [(datagram.offset + HEADER_BYTES, datagram.offset + datagram.size, 0)]
    while stack:
        offset, end, damage = stack.pop()
        if offset == end:
            continue
        xtc = _xtc_at(source, offset, end, damage)
        stack.append((xtc.end, end, damage))
        if xtc.kind != XtcKind.PARENT or xtc.corrupted:
            yield xtc
        elif len(stack) > _DEPTH_LIMIT:
            raise broken(source.path, offset, "Parents nested too deeply", f"more than {_DEPTH_LIMIT}")
        else:
            stack.append((xtc.payload, xtc.end, xtc.damage))


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema table."""

    name: str
    type: int
    rank: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its NumPy type."""
        return DTYPES[self.type]


@dataclass(frozen=True, slots=True)
class Names:
    """A schema table: what the data blocks that refer to it hold."""

    names_id: int
    detector_type: str
    detector: str
    detector_id: str
    alg: str
    version: int
    segment: int
    fields: tuple[Field, ...]

    @property
    def arrays(self) -> int:
        """Number of fields with a shape."""
        return sum(f.rank > 0 for f in self.fields)


def _text_before_nul(raw: bytes) -> str:
    """Cut at the first NUL: what stands behind it is junk."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _clean_name(path: str, offset: int, raw: bytes) -> str:
    """Text that names something; a slash would make a path of it."""
    name = _text_before_nul(raw).replace("/", "|")
    if not name.strip("."):
        raise broken(path, offset, "a detector or field without a name", repr(name))
    return name


def read_names(source: ByteSource, xtc: Xtc) -> Names:
    """Read the schema table in ``xtc``."""
    size = xtc.end - xtc.payload
    count, rest = divmod(size - _NAMES_HEAD, _FIELD_BYTES)
    if size < _NAMES_HEAD or rest:
        expected = f"{_NAMES_HEAD} + n x {_FIELD_BYTES} bytes"
        raise broken(source.path, xtc.start, "a Names table has an impossible size", size, expected)
    raw = source.read(xtc.payload, size)
    arrays, version, segment = (int.from_bytes(raw[k : k + 4], "little") for k in (0, 1028, 1032))
    fields = []
    for k in range(count):
        at = _NAMES_HEAD + k * _FIELD_BYTES
        kind, rank = struct.unpack_from("<II", raw, at + 516)
        if kind >= len(DTYPES) or rank > _SHAPE_WORDS:
            offset = xtc.payload + at
            raise broken(source.path, offset, "unknown data type or rank of a field", f"type {kind}, rank {rank}")
        name = _clean_name(source.path, xtc.payload + at + 260, raw[at + 260 : at + 516])
        fields.append(Field(name, kind, rank))
    texts = [_text_before_nul(raw[k : k + 256]) for k in (4, 260, 516, 772)]
    texts[1] = _clean_name(source.path, xtc.payload + 260, raw[260:516])
    names = Names(xtc.src, texts[0], texts[1], texts[2], texts[3], version, segment, tuple(fields))
    if names.arrays != arrays:
        raise broken(source.path, xtc.start, "a Names table miscounts its arrays", arrays, names.arrays)
    return names


class FieldPlace(NamedTuple):
    """Where one field lies: offset from the beginning of its datagram, in bytes."""

    field: Field
    at: int
    shape: tuple[int, ...]


class XtcBlock(NamedTuple):
    """A ShapesData as a layout: the same for all datagrams that are built alike."""

    names_id: int
    at: int  # of the data, from the beginning of the datagram
    size: int
    shapes: tuple[tuple[int, ...], ...]


def read_block(source: ByteSource, xtc: Xtc, start: int, tables: Mapping[int, Names]) -> tuple[XtcBlock, int]:
    """Read the layout of a ShapesData that belongs to the datagram at ``start``.

    Returns the block and its damage: that of the ShapesData, its Shapes and its Data together. A part that is marked
    corrupted is not entered: the block then has size -1.
    """
    names = tables.get(xtc.src)
    if names is None:
        known = ", ".join(f"0x{n:x}" for n in sorted(tables))
        raise broken(source.path, xtc.start, "data of an unknown NamesId", f"0x{xtc.src:x}", known or "a Configure")
    damage, parts, offset = xtc.damage, {}, xtc.payload
    while offset < xtc.end and not damage & Damage.CORRUPTED:
        part = _xtc_at(source, offset, xtc.end, 0)
        if part.kind not in (XtcKind.SHAPES, XtcKind.DATA) or part.kind in parts:
            raise broken(
                source.path, offset, "a ShapesData holds one Shapes and one Data", f"another of type {part.kind}"
            )
        damage |= part.damage
        parts[part.kind] = part
        offset = part.end
    if damage & Damage.CORRUPTED:
        return XtcBlock(xtc.src, 0, -1, ()), damage
    shapes = _read_shapes(source, xtc, names, parts.get(XtcKind.SHAPES))
    data = parts.get(XtcKind.DATA)
    if data is None:
        raise broken(source.path, xtc.start, "a ShapesData without Data")
    block = XtcBlock(xtc.src, data.payload - start, data.end - data.payload, shapes)
    return block, damage


def _read_shapes(source: ByteSource, xtc: Xtc, names: Names, part: Xtc | None) -> tuple[tuple[int, ...], ...]:
    ranks = [f.rank for f in names.fields if f.rank]
    if not ranks:
        return ()
    need = _SHAPE_BYTES * len(ranks)
    if part is None or part.end - part.payload < need:
        found = "none" if part is None else f"{part.end - part.payload} bytes"
        raise broken(source.path, xtc.start, f"the shapes of {len(ranks)} arrays are missing", found, f"{need} bytes")
    words = struct.unpack(f"<{_SHAPE_WORDS * len(ranks)}I", source.read(part.payload, need))
    # behind the first `rank` words stands junk
    return tuple(words[k * _SHAPE_WORDS : k * _SHAPE_WORDS + rank] for k, rank in enumerate(ranks))


def places(path: str, offset: int, names: Names, block: XtcBlock) -> tuple[FieldPlace, ...]:
    """Where each field of ``block`` lies; raises where the fields do not add up to the data."""
    result, at, shapes = [], block.at, iter(block.shapes)
    for field in names.fields:
        shape = next(shapes) if field.rank else ()
        result.append(FieldPlace(field, at, shape))
        if 0 in shape and max(shape) > _EMPTY_LIMIT:
            raise broken(path, offset, f"impossible shape of {names.detector}.{names.alg}.{field.name}", shape)
        size = field.dtype.itemsize
        for n in shape:  # Python integers: a product of five 32-bit words does not fit 64 bits
            size *= n
        at += size
    if at != block.at + block.size:
        what = f"the fields of {names.detector}.{names.alg} do not add up to the size of their data"
        raise broken(path, offset, what, f"{block.size} bytes of data", f"{at - block.at} bytes by the shapes")
    return tuple(result)


class Enumeration(NamedTuple):
    """A value with the labels of its kind; the labels are empty where the table brings none."""

    value: int
    labels: Mapping[int, str]

    @property
    def label(self) -> str:
        """Label of the value, or the number as text where it has none."""
        return self.labels.get(self.value, str(self.value))


def enumeration_name(name: str) -> tuple[str, str]:
    """Name of a value, and of its kind of enumeration, which the file writes behind it: ``mode:Gain``."""
    own, _, kind = name.rpartition(":")
    return own or kind, kind


Value = str | Enumeration | np.generic | npt.NDArray[Any]


def decode(source: ByteSource, start: int, layout: Sequence[FieldPlace]) -> dict[str, Value]:
    """Read the values of a block whose datagram begins at ``start``: NumPy scalars, text, enumerations, arrays."""
    values: dict[str, Value] = {}
    labels: dict[str, dict[int, str]] = {}
    enumerations: dict[str, tuple[str, int]] = {}
    for field, at, shape in layout:
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        raw = source.read(start + at, count * field.dtype.itemsize)
        if field.type == CHARACTERS and field.rank == 1:
            values[field.name] = _text_before_nul(raw)
            continue
        array = np.frombuffer(raw, field.dtype).reshape(shape)
        if field.type in (ENUM_VALUE, ENUM_LABEL) and field.rank == 0:
            name, kind = enumeration_name(field.name)
            if field.type == ENUM_LABEL:
                labels.setdefault(kind, {})[int(array)] = name
            else:
                enumerations[name] = (kind, int(array))
        else:
            values[field.name] = array.copy() if field.rank else array[()]
    for name, (kind, value) in enumerations.items():
        values[name] = Enumeration(value, labels.get(kind, {}))
    return values
