"""Hostile bytes in one file of a run of several: opening and reading ends, with values or with an error of xsmall."""

import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.sources.xtc2.hostile import read_run

SETTINGS = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def whole_run(x: ModuleType) -> dict[str, bytes]:
    """Two streams, one of them in two chunks, with index files; and every kind of field."""
    det = [x.area(s) for s in range(2)]
    scan = x.Table(1, "scan", "raw", [("motor", "f8", 0)], "scan")
    epics = x.Table(2, "epics", "epics", [("pv", "f4", 0), ("note", "text", 1)], "epics")
    wave = x.Table(3, "cam", "raw", [("roi", "u2", 2), ("says", "text", 1)], "cam")
    dig = x.Table(4, "dig", "raw", [("eventHeader", "u4", 1), ("chan00", "u1", 1)], "hsd")
    ts = x.Table(5, "ts", "raw", [("pulseId", "u8", 0), ("sequenceValues", "u2", 1)], "ts")
    config = [
        x.Table(6 + s, "det", "config", [("gain:mode", "value", 0), ("LOW:mode", "label", 0)], segment=s)
        for s in (0, 1)
    ]
    frames = x.frames(40, 1)
    streams = np.frombuffer(np.array([4, 0, 0, 0], "<u4").tobytes() + bytes(range(8)), np.uint8)
    files: dict[str, bytes] = {}
    for s in range(2):
        head = x.datagram(
            x.CONFIGURE,
            1,
            *map(x.table, (det[s], scan, epics, wave, dig, ts, config[s], x.RUN_INFO, x.CHUNK_INFO)),
            x.block(config[s], 0, 0),
        ) + x.datagram(x.BEGIN_RUN, 2, x.block(x.RUN_INFO, "exp", 7))
        body = [b"", b""]
        for k in range(0, 40, 1 + s):
            part = x.block(det[s], frames[k, 0], k, 0.5)
            if k % 10 == 0:
                body[k >= 20] += x.datagram(x.BEGIN_STEP, 10 * k + 3, x.block(scan, k))
                body[k >= 20] += x.datagram(x.SLOW_UPDATE, 10 * k + 4, x.block(epics, k, "x"))
            more = [x.block(wave, np.zeros((k % 3, 2)), "y" * (k % 5))] if k % 4 == 1 else []
            more += (
                [x.block(dig, [1 << 20, 0], streams), x.block(ts, k, np.arange(18))] if s == 0 and k % 7 == 2 else []
            )
            body[k >= 20] += x.datagram(x.L1, 10 * k + 5, part, *more)
        end = x.datagram(x.END_RUN, 999)
        name = f"abc-r0007-s{s:03d}-c000.xtc2"
        if s == 0:
            files[name] = head + body[0] + x.next_chunk(199, "abc-r0007-s000-c001.xtc2")
            files["abc-r0007-s000-c001.xtc2"] = body[1] + end
            index = x.index_of(files[name])  # of the first chunk alone: the offsets of the others count from 0 again
            files["smalldata/" + name.replace(".xtc2", ".smd.xtc2")] = index + x.index_of(body[1] + end)
        else:
            files[name] = head + body[0] + body[1] + end
            files["smalldata/" + name.replace(".xtc2", ".smd.xtc2")] = x.index_of(files[name])
    return files


def read_everything(files: dict[str, bytes]) -> int | None:
    """Open and read; give the number of events."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "smalldata").mkdir()
        return read_run(folder, files, folder)


@pytest.fixture(scope="module")
def files(xtc2: ModuleType) -> dict[str, bytes]:
    made = whole_run(xtc2)
    assert read_everything(made) == 40
    return made


@SETTINGS
@given(
    which=st.integers(0, 4),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4),
)
def test_flipped_bits_in_one_file(files: dict[str, bytes], which: int, places: list[tuple[float, int]]) -> None:
    name = sorted(files)[which]
    data = bytearray(files[name])
    for place, bit in places:
        data[int(place * len(data))] ^= 1 << bit
    read_everything(files | {name: bytes(data)})


@SETTINGS
@given(which=st.integers(0, 4), keep=st.floats(0, 1))
def test_one_file_is_cut(files: dict[str, bytes], which: int, keep: float) -> None:
    name = sorted(files)[which]
    read_everything(files | {name: files[name][: int(keep * len(files[name]))]})


@SETTINGS
@given(st.sets(st.integers(0, 4), max_size=4))
def test_files_are_missing(files: dict[str, bytes], gone: set[int]) -> None:
    names = sorted(files)
    read_everything({name: data for name, data in files.items() if names.index(name) not in gone})
