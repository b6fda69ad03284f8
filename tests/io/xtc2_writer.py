"""Writes synthetic XTC2 bytes for tests, from the format's description and independent of the reader."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIGURE, UNCONFIGURE, BEGIN_RUN, END_RUN, BEGIN_STEP, END_STEP, ENABLE, DISABLE, SLOW_UPDATE, L1 = (
    2, 3, 4, 5, 6, 7, 8, 9, 10, 12,
)  # fmt: skip
PARENT, SHAPES_DATA, SHAPES, DATA, NAMES = range(5)
TYPES = {"u1": 0, "u2": 1, "u4": 2, "u8": 3, "i1": 4, "i2": 5, "i4": 6, "i8": 7, "f4": 8, "f8": 9}
TYPES |= {"text": 10, "value": 11, "label": 12}
CODES = {**{t: "<" + t for t in TYPES if t[0] in "uif"}, "text": "u1", "value": "<i4", "label": "<i4"}
JUNK = b"\xa5\x5a junk behind the first NUL"


@dataclass(frozen=True)
class Table:
    """A schema table; ``fields`` are (name, type, rank)."""

    names_id: int
    detector: str
    alg: str
    fields: Sequence[tuple[str, str, int]]
    detector_type: str = "jungfrau"
    detector_id: str = "serial"
    segment: int = 0


def xtc(kind: int, payload: bytes, src: int = 0, damage: int = 0, extent: int | None = None) -> bytes:
    size = 12 + len(payload) if extent is None else extent
    return struct.pack("<IHHI", src, damage, kind, size) + payload


def datagram(service: int, time: int, *parts: bytes, damage: int = 0, extent: int | None = None, low: int = 0) -> bytes:
    payload = b"".join(parts)
    size = 12 + len(payload) if extent is None else extent
    header = struct.pack("<IIIIHHI", time & 0xFFFFFFFF, time >> 32, service << 24 | low, 0, damage, PARENT, size)
    return header + payload


def text(value: str, size: int = 256) -> bytes:
    """A fixed string with junk behind its end, as real files have it."""
    raw = value.encode() + b"\0"
    return (raw + JUNK * 10)[:size]


def table(t: Table) -> bytes:
    arrays = sum(rank > 0 for _, _, rank in t.fields)
    head = struct.pack("<I", arrays) + text(t.detector_type) + text(t.detector) + text(t.detector_id) + text(t.alg)
    head += struct.pack("<II", 0x000200, t.segment)
    fields = b"".join(text("") + bytes(4) + text(n) + struct.pack("<II", TYPES[k], r) for n, k, r in t.fields)
    return xtc(NAMES, head + fields, src=t.names_id)


def block(
    t: Table,
    *values: object,
    damage: int = 0,
    shapes_damage: int = 0,
    data_damage: int = 0,
    data_first: bool = False,
    extra_shapes: bytes = b"",
    names_id: int | None = None,
) -> bytes:
    """A ShapesData with the values in the order of the table's fields."""
    shapes, data = b"", b""
    for (_, kind, rank), value in zip(t.fields, values, strict=True):
        if kind == "text" and rank:
            raw = str(value).encode() + b"\0"
            raw += b"?" * (-len(raw) % 4)
            array = np.frombuffer(raw, "u1")
        else:
            array = np.asarray(value, CODES[kind])
        assert array.ndim == rank
        if rank:
            junk = (0xDEAD, 196608, 16, 2, 7)[rank:]
            shapes += struct.pack("<5I", *array.shape, *junk)
        data += array.tobytes()
    parts = [xtc(SHAPES, shapes + extra_shapes, damage=shapes_damage), xtc(DATA, data, damage=data_damage)]
    body = b"".join(reversed(parts) if data_first else parts)
    return xtc(SHAPES_DATA, body, src=t.names_id if names_id is None else names_id, damage=damage)


RUN_INFO = Table(0x1FF, "runinfo", "runinfo", [("expt", "text", 1), ("runnum", "u4", 0)], "runinfo")


def area(segment: int = 0, names_id: int | None = None, detector: str = "det", rank: int = 2) -> Table:
    """The table of a segment of an area detector: frames, a counter, and a float."""
    fields = [("raw", "u2", rank), ("frame_cnt", "u8", 0), ("temperature", "f4", 0)]
    return Table(0x10 + segment if names_id is None else names_id, detector, "raw", fields, segment=segment)


def frames(n: int, segments: int, rows: int = 3, columns: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, (n, segments, rows, columns), dtype=np.uint16)


def event(time: int, tables: Sequence[Table], data: np.ndarray, **how: object) -> bytes:
    """An L1Accept with one block for each table; ``data`` is (segment, ...)."""
    parts = [block(t, d, time, (time & 0xFFFF) / 8, **how) for t, d in zip(tables, data, strict=True)]
    return datagram(L1, time, *parts)


def start(*tables: Table, time: int = 1 << 32, run: int = 7, experiment: str = "exp123") -> bytes:
    """Configure and BeginRun."""
    configure = datagram(CONFIGURE, time, *(table(t) for t in (*tables, RUN_INFO)))
    return configure + datagram(BEGIN_RUN, time + 1, block(RUN_INFO, experiment, run))


def plain_run(n: int = 6, segments: int = 2, rows: int = 3, columns: int = 4, first: int = 2 << 32, **how: object):
    """Bytes of a run, and its frames (event, segment, row, column)."""
    tables = [area(s) for s in range(segments)]
    data = frames(n, segments, rows, columns)
    events = b"".join(event(first + k, tables, data[k], **how) for k in range(n))
    return start(*tables) + events, data


CHUNK_INFO = Table(0xFC, "chunkinfo", "chunkinfo", [("filename", "text", 1), ("chunkid", "u4", 0)], "chunkinfo")
SMD_INFO = Table(0xFE, "smdinfo", "offsetAlg", [("intOffset", "u8", 0), ("intDgramSize", "u8", 0)], "smdinfo")


def configure(*tables: Table, time: int = 1 << 32) -> bytes:
    """A Configure with tables and nothing else."""
    return datagram(CONFIGURE, time, *map(table, tables))


def next_chunk(time: int, name: str, number: int = 1) -> bytes:
    """The Enable that ends a chunk and names the next file."""
    return datagram(ENABLE, time, block(CHUNK_INFO, name, number))


def index_of(data: bytes) -> bytes:
    """The smalldata index of a file: its Configure with one table more, its transitions, and 76 bytes an event."""
    out, offset = b"", 0
    while offset < len(data):
        low, high, env, src, _, kind, extent = struct.unpack_from("<IIIIHHI", data, offset)
        whole = data[offset : offset + 12 + extent]
        if env >> 24 & 0xF == CONFIGURE:
            payload = whole[24:] + table(SMD_INFO)
            out += struct.pack("<IIIIHHI", low, high, env, src, 0, kind, 12 + len(payload)) + payload
        elif env >> 24 & 0xF == L1:
            body = block(SMD_INFO, offset, len(whole))
            out += struct.pack("<IIIIHHI", low, high, env, 0, 0, kind, 12 + len(body)) + body
        else:
            out += whole
        offset += 12 + extent
    return out
