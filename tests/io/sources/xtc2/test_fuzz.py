"""Hostile bytes: opening and reading them ends, with values or with an error of xsmall, and never otherwise."""

import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.sources.xtc2.hostile import read_run

SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
INTERESTING = st.sampled_from([0, 1, 2, 3, 4, 8, 11, 12, 13, 24, 0x7F, 0x80, 0xFF])


def whole_file(xtc2: ModuleType) -> bytes:
    """A small run with everything in it: config, steps, slow control, two segments, a ragged and a text field."""
    det = [xtc2.area(s) for s in range(2)]
    scan = xtc2.Table(1, "scan", "raw", [("motor", "f8", 0)], "scan")
    epics = xtc2.Table(2, "epics", "raw", [("pv", "f4", 0), ("note", "text", 1)], "epics")
    wave = xtc2.Table(3, "hsd", "raw", [("wave", "u2", 1), ("peak", "f8", 0)], "hsd")
    config = xtc2.Table(5, "det", "config", [("gain:mode", "value", 0), ("LOW:mode", "label", 0), ("name", "text", 1)])
    tables = [*det, scan, epics, wave, config, xtc2.RUN_INFO]
    data = xtc2.datagram(xtc2.CONFIGURE, 1, *map(xtc2.table, tables), xtc2.block(config, 0, 0, "chip"))
    data += xtc2.datagram(xtc2.BEGIN_RUN, 2, xtc2.block(xtc2.RUN_INFO, "exp", 1))
    frames = xtc2.frames(4, 2)
    for k in range(4):
        if k % 2 == 0:
            data += xtc2.datagram(xtc2.BEGIN_STEP, 10 * k + 3, xtc2.block(scan, k))
            data += xtc2.datagram(xtc2.SLOW_UPDATE, 10 * k + 4, xtc2.block(epics, k, "x"))
        parts = [xtc2.block(t, frames[k, s], k, 0.5) for s, t in enumerate(det)]
        data += xtc2.datagram(xtc2.L1, 10 * k + 5, *parts, xtc2.block(wave, np.arange(k), k))
    return data


def read_everything(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        read_run(folder, {"a.xtc2": data}, folder / "a.xtc2")


@SETTINGS
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), INTERESTING), min_size=1, max_size=6))
def test_changed_bytes_never_crash_or_hang(xtc2: ModuleType, places: list[tuple[float, int]]) -> None:
    data = bytearray(whole_file(xtc2))
    for place, value in places:
        data[int(place * len(data))] = value
    read_everything(bytes(data))


@SETTINGS
@given(place=st.floats(0, 1, exclude_max=True), word=st.integers(0, 2**32 - 1), aligned=st.booleans())
def test_changed_headers_of_events_never_crash_or_hang(
    xtc2: ModuleType, place: float, word: int, aligned: bool
) -> None:
    """Most of a small file is tables; this changes a word of what comes behind them."""
    data = bytearray(whole_file(xtc2))
    first = data.index(b"exp\0")
    at = first + int(place * (len(data) - first - 4))
    value = word % 64 if aligned else word  # small words are plausible extents, types and shapes
    data[at : at + 4] = value.to_bytes(4, "little")
    read_everything(bytes(data))


@SETTINGS
@given(start=st.floats(0, 1), end=st.floats(0, 1), repeat=st.integers(0, 2))
def test_missing_and_repeated_pieces_never_crash_or_hang(
    xtc2: ModuleType, start: float, end: float, repeat: int
) -> None:
    data = whole_file(xtc2)
    a, b = sorted((int(start * len(data)), int(end * len(data))))
    read_everything(data[:a] + data[a:b] * repeat + data[b:])


@SETTINGS
@given(data=st.binary(max_size=400), header=st.booleans())
def test_random_bytes_never_crash_or_hang(xtc2: ModuleType, data: bytes, header: bool) -> None:
    read_everything((xtc2.datagram(xtc2.CONFIGURE, 1, data) if header else b"") + data)
