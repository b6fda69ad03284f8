"""The edge of a time tool out of its bytes."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import xsmall as xs
from xsmall.io.sources.xtc2.timetool import edge_position


def batch(*frames: tuple[int, bytes]) -> bytes:
    """A header, and frames with where they are meant for."""
    out = bytes([0x31] * 16)
    for meant_for, data in frames:
        out += data + len(data).to_bytes(2, "little") + b"\0\0" + bytes([meant_for]) + bytes(11)
    return out


def result(edge: int) -> bytes:
    return batch(
        (2, bytes(40)), (1, batch((1, bytes(24)), (0, edge.to_bytes(2, "little") + bytes(14)))), (0, bytes(32))
    )


@given(st.integers(0, 0xFFFF))
def test_the_edge_is_what_was_written(edge: int) -> None:
    assert edge_position(result(edge)) == edge


@given(st.binary(max_size=120))
def test_any_bytes_give_a_number_or_none(data: bytes) -> None:
    assert math.isnan(edge_position(data)) or 0 <= edge_position(data) <= 0xFFFF


def test_the_edge_of_each_event_is_lazy_and_nan_where_there_is_none(tmp_path: Path, xtc2: ModuleType) -> None:
    t = xtc2.Table(3, "tt", "ttalg", [("data", "u1", 1)], "ttdet")
    held = [result(1391), batch((0, bytes(32))), None, result(7)[:-1]]
    data = xtc2.start(t)
    for k, raw in enumerate(held):
        parts = [] if raw is None else [xtc2.block(t, np.frombuffer(raw, np.uint8))]
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    path = tmp_path / "run.xtc2"
    path.write_bytes(data)
    edge = xs.open_run(path)["tt/edge_position"]
    assert edge.chunks is not None
    np.testing.assert_array_equal(edge[:, 0], [1391, np.nan, np.nan, np.nan])
