"""Digitizers: waveforms and peaks out of the bytes of a channel."""

import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import DamagedDataError
from xsmall.io.sources.xtc2.hsd import decode_channel
from xsmall.io.stores.runs import write_run

Peaks = list[tuple[int, list[int]]]
"""Samples that are left out before each peak, and the peak."""


def encode(waveform: list[int] | None, peaks: Peaks | None) -> tuple[np.ndarray, np.ndarray]:
    """Event header and bytes of a channel, written word by word."""
    streams, data = 0, b""
    if waveform is not None:
        streams |= 1
        data += struct.pack("<4I", len(waveform), 0, 0, 0) + np.array(waveform, "<u2").tobytes()
    if peaks is not None:
        streams |= 2
        words: list[int] = []
        for skipped, samples in peaks:
            parts = [skipped // 4 + (k < skipped % 4) for k in range(4)]
            words += [0x8000 | part for part in parts] + samples
        data += struct.pack("<4I", len(words), 1 << 24, 0, 0) + np.array(words, "<u2").tobytes()
    return np.array([streams << 20, 0], "<u4"), np.frombuffer(data, np.uint8)


def one_by_one(peaks: Peaks) -> tuple[list[int], list[list[int]]]:
    """Where peaks begin, counted sample by sample."""
    starts, at = [], 0
    for skipped, samples in peaks:
        at += skipped
        if samples:
            starts.append(at)
        at += len(samples)
    return starts, [samples for _, samples in peaks if samples]


samples = st.integers(0, 0x7FFF)
peak = st.lists(samples, max_size=12).map(lambda values: values[: len(values) // 4 * 4])


@given(
    waveform=st.none() | st.lists(samples, max_size=20),
    peaks=st.none() | st.lists(st.tuples(st.integers(0, 5000), peak), max_size=6),
)
def test_what_was_encoded_comes_back(waveform: list[int] | None, peaks: Peaks | None) -> None:
    found = decode_channel(*encode(waveform, peaks))
    assert found.waveform.tolist() == (waveform or [])
    starts, values = one_by_one(peaks or [])
    assert found.peak_start.tolist() == starts
    assert found.peak_length.tolist() == [len(x) for x in values]
    assert found.peak_samples.tolist() == [x for part in values for x in part]


@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_are_decoded_or_refused(data: bytes, streams: int) -> None:
    try:
        found = decode_channel(np.array([streams << 20], "<u4"), np.frombuffer(data, np.uint8))
    except ValueError:
        return
    assert found.peak_length.sum() == found.peak_samples.size


def test_the_state_of_the_digitizer_is_no_peak() -> None:
    found = decode_channel(*encode(None, [(3, [1, 2, 3, 4, 50, 60, 70, 80]), (8, [9, 9, 9, 9])]), status=True)
    assert found.peak_start.tolist() == [7, 19]
    assert found.peak_length.tolist() == [4, 4]
    assert found.peak_samples.tolist() == [50, 60, 70, 80, 9, 9, 9, 9]


@pytest.mark.parametrize("ending", ["", ".zarr", ".h5"])
def test_a_digitizer_of_a_run(tmp_path: Path, xtc2: ModuleType, ending: str) -> None:
    fields = [("eventHeader", "u4", 1), ("chan00", "u1", 1)]
    tables = [xtc2.Table(3 + s, "dig", "raw", fields, "hsd", segment=s) for s in (0, 2)]
    held = [(list(range(k)), [(7 * k, [k] * 8)]) for k in range(5)]
    data = xtc2.start(*tables)
    for k in range(5):
        parts = [xtc2.block(t, *encode(*held[k])) for t in (tables if k != 3 else tables[:1])]
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    path = tmp_path / "run.xtc2"
    path.write_bytes(data)
    run = xs.open_run(path, chunks=2)
    if ending:
        run = xs.open_run(write_run(run, tmp_path / f"run{ending}"))
    det = run["dig"].to_dataset()
    for k in range(5):
        for s in range(2):
            there = k != 3 or s == 0
            assert det.waveform[k : k + 1, s : s + 1].values[0, 0].tolist() == (held[k][0] if there else [])
            assert det.peak_start[k : k + 1].values[0, s].tolist() == ([7 * k] if there else [])
            assert det.peak_samples[k : k + 1].values[0, s].tolist() == ([k] * 8 if there else [])
    assert det.waveform.attrs["units"] == "ADU"
    flat = xs.flatten(det[["peak_start", "peak_length"]])
    assert flat.sizes["peak"] == 9


@pytest.mark.parametrize("channels", [["chan00"], ["chan00", "chan01"]])
def test_a_digitizer_in_a_production_keeps_the_numbers_of_its_segments(
    tmp_path: Path, xtc2: ModuleType, channels: list[str]
) -> None:
    fields = [("eventHeader", "u4", 1), *((channel, "u1", 1) for channel in channels)]
    tables = [xtc2.Table(3 + s, "dig", "raw", fields, "hsd", segment=s) for s in (0, 2)]
    data = xtc2.start(*tables)
    for k in range(5):
        header, packed = encode([10] * 20 + [10 + k] * 4 + [10] * 20, None)
        parts = [xtc2.block(t, header, *[packed] * len(channels)) for t in (tables if k != 3 else tables[:1])]
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    path = tmp_path / "run.xtc2"
    path.write_bytes(data)
    variable = "waveform" if len(channels) == 1 else "waveform_chan01"
    area = {"kind": "waveform_integral", "signal": [18, 26], "background": [0, 15]}
    recipe = {"source": str(path), "detectors": {"dig": {"variable": variable, "reductions": {"area": area}}}}
    [state] = xs.produce(recipe, 1, tmp_path / "out")
    assert (state.state, state.why) == ("done", "")
    small = xs.open_result(state.output)
    assert small["dig_channel"].values.tolist() == [0, 2]
    np.testing.assert_array_equal(small["dig_area_integral"][:, 0], [0.0, 4.0, 8.0, 12.0, 16.0])
    np.testing.assert_array_equal(small["dig_area_integral"][:, 1], [0.0, 4.0, 8.0, np.nan, 16.0])
    assert small["dig_n_segments"].values.tolist() == [2, 2, 2, 1, 2]  # a missing one is told, as that of a frame
    assert small["dig_fault"].values.tolist() == [0, 0, 0, 2, 0]
    by_hand = xs.waveforms(xs.open_run(path)[f"dig/{variable}"]).sd.waveform_integral((18, 26), (0, 15))
    np.testing.assert_array_equal(small["dig_area_integral"], by_hand["integral"])
    assert by_hand["channel"].values.tolist() == [0, 2]


def test_bytes_that_do_not_add_up_are_named_with_their_event(tmp_path: Path, xtc2: ModuleType) -> None:
    t = xtc2.Table(3, "dig", "raw", [("eventHeader", "u4", 1), ("chan00", "u1", 1)], "hsd")
    header, data = encode([1, 2, 3], None)
    blocks = [xtc2.block(t, header, data), xtc2.block(t, header, data[:-1])]
    path = tmp_path / "run.xtc2"
    path.write_bytes(xtc2.start(t) + b"".join(xtc2.datagram(xtc2.L1, 5 + k, b) for k, b in enumerate(blocks)))
    waves = xs.open_run(path)["dig/waveform"]
    assert waves[:1].values[0, 0].tolist() == [1, 2, 3]
    with pytest.raises(DamagedDataError, match=r"(?s)event 1: dig.raw.chan00.*leave the event out"):
        waves.compute()
