"""Synthetic XTC2 files: what was written comes back, whatever the order, the junk and the damage."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, FileFormatError, ParameterError
from xsmall.events.ragged import is_ragged


def save(folder: Path, data: bytes, name: str = "a.xtc2") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", [{}, {"data_first": True}, {"extra_shapes": b"\1\2\3\4"}], ids=str)
@pytest.mark.parametrize("segments", [1, 3])
def test_frames_and_numbers_come_back(tmp_path: Path, xtc2: ModuleType, segments: int, how: dict[str, object]) -> None:
    data, frames = xtc2.plain_run(5, segments, **how)
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2", detector="det")
    assert det.raw.dims == ("event", "segment", "row", "column")
    assert det.raw.dtype == np.uint16
    np.testing.assert_array_equal(det.raw, frames)
    times = (2 << 32) + np.arange(5)
    np.testing.assert_array_equal(det.psana_timestamp, times)
    np.testing.assert_array_equal(det.frame_cnt, np.repeat(times[:, None], segments, 1))
    np.testing.assert_array_equal(det.temperature, np.repeat(np.arange(5)[:, None], segments, 1) / 8)
    assert det.event.values[1] == np.datetime64("1990-01-01T00:00:02.000000001", "ns")
    assert det.present.values.all()
    assert not det.damage.values.any()
    assert det.attrs["experiment"] == "exp123"
    assert det.attrs["run"] == 7


def test_the_order_of_segments_and_parents_changes_from_event_to_event(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(s) for s in (4, 0, 2)]
    frames = xtc2.frames(6, 3)
    data = xtc2.start(*tables)
    for k in range(6):
        order = np.random.default_rng(k).permutation(3)
        parts = [xtc2.block(tables[i], frames[k, i], k, 0.5) for i in order]
        if k % 2:
            parts = [xtc2.xtc(xtc2.PARENT, p, src=i) for i, p in enumerate(parts)]
        data += xtc2.datagram(xtc2.L1, (2 << 32) + k, *parts)
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    assert det.segment.values.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(det.raw, frames[:, [1, 2, 0]])


def test_a_missing_segment_is_zero_and_not_present(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(s) for s in range(3)]
    frames = xtc2.frames(3, 3)
    data = xtc2.start(*tables)
    for k, there in enumerate([(0, 1, 2), (0, 2), ()]):
        data += xtc2.event((2 << 32) + k, [tables[s] for s in there], frames[k, list(there)])
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    expected = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
    np.testing.assert_array_equal(det.present, expected)
    np.testing.assert_array_equal(det.raw, np.where(expected[..., None, None], frames, 0))
    assert np.isnan(det.temperature.values[~expected]).all()


def test_damage_is_that_of_all_four_levels_together(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(s) for s in range(2)]
    frames = xtc2.frames(5, 2)
    good = [xtc2.block(t, frames[0, s], 0, 0.0) for s, t in enumerate(tables)]

    def second(k: int, **how: int) -> bytes:
        return xtc2.block(tables[1], frames[k, 1], k, 0.0, **how)

    data = xtc2.start(*tables)
    data += xtc2.datagram(xtc2.L1, 10, *good)
    data += xtc2.datagram(xtc2.L1, 11, good[0], second(1), damage=1 << 4)
    data += xtc2.datagram(xtc2.L1, 12, good[0], second(2, damage=1 << 5))
    data += xtc2.datagram(xtc2.L1, 13, good[0], second(3, shapes_damage=1 << 6))
    data += xtc2.datagram(xtc2.L1, 14, good[0], second(4, data_damage=1 << 12), damage=1)
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    np.testing.assert_array_equal(det.damage, [[0, 0], [16, 16], [0, 32], [0, 64], [1, 1 | 1 << 12]])
    assert det.present.values.all()
    np.testing.assert_array_equal(det.raw[:, 1], frames[:, 1])


@pytest.mark.parametrize("level", ["datagram", "parent", "block", "shapes", "data"])
def test_what_is_corrupted_is_flagged_and_not_entered(tmp_path: Path, xtc2: ModuleType, level: str) -> None:
    tables = [xtc2.area(s) for s in range(2)]
    frames = xtc2.frames(1, 2)
    how = {"block": "damage", "shapes": "shapes_damage", "data": "data_damage"}.get(level)
    good = xtc2.block(tables[0], frames[0, 0], 0, 0.0)
    bad = xtc2.block(tables[1], frames[0, 1], 0, 0.0, **({how: 8} if how else {}))
    if level == "parent":
        bad = xtc2.xtc(xtc2.PARENT, b"\xff" * 40, damage=8)
    data = xtc2.start(*tables) + xtc2.datagram(xtc2.L1, 10, good, bad, damage=8 if level == "datagram" else 0)
    data += xtc2.event(11, tables, frames[0])
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    first_there = level != "datagram"
    np.testing.assert_array_equal(det.present, [[first_there, False], [True, True]])
    first_damaged = level in ("datagram", "parent")  # nobody knows whose data a corrupted Parent held
    np.testing.assert_array_equal(det.damage & 8 > 0, [[first_damaged, True], [False, False]])
    np.testing.assert_array_equal(det.raw[0, 1], 0)
    np.testing.assert_array_equal(det.raw[1], frames[0])


def test_an_event_that_cannot_be_understood_is_flagged_and_reported(tmp_path: Path, xtc2: ModuleType) -> None:
    t = xtc2.area()
    frames = xtc2.frames(4, 1)
    good = [xtc2.event(10 + k, [t], frames[k]) for k in range(4)]
    unknown = xtc2.datagram(xtc2.L1, 11, xtc2.block(t, frames[1, 0], 1, 0.0, names_id=0x999))
    endless = xtc2.datagram(xtc2.L1, 12, xtc2.xtc(xtc2.SHAPES_DATA, bytes(40), src=t.names_id, extent=0))
    head = xtc2.start(t)
    path = save(tmp_path, head + good[0] + unknown + endless + good[3])
    det = xr.open_dataset(path, engine="xtc2")
    np.testing.assert_array_equal(det.present[:, 0], [True, False, False, True])
    np.testing.assert_array_equal(det.damage[:, 0] & 8 > 0, [False, True, True, False])
    np.testing.assert_array_equal(det.raw[[0, 3]], frames[[0, 3]])
    assert not det.raw.values[1:3].any()
    assert det.attrs["unreadable_events"] == 2
    report = det.attrs["unreadable"]
    assert "event 1" in report
    assert "0x999" in report
    assert f"byte {len(head) + len(good[0]) + len(unknown) + 24}" in report
    assert "impossible extent" in report
    tree = xs.open_run(path)
    assert tree.attrs["unreadable_events"] == 2


@pytest.mark.parametrize("cut", [1, 12, 23, 40])
def test_a_cut_tail_is_dropped_and_counted(tmp_path: Path, xtc2: ModuleType, cut: int) -> None:
    data, frames = xtc2.plain_run(4, 1)
    whole = len(xtc2.event(1, [xtc2.area()], frames[0]))
    run = xs.open_run(save(tmp_path, data[: len(data) - whole + cut]))
    assert run["det"].sizes["event"] == 3
    assert run.attrs["truncated_bytes"] == cut
    np.testing.assert_array_equal(run["det/raw"], frames[:3])


def test_a_run_without_events_is_empty(tmp_path: Path, xtc2: ModuleType) -> None:
    run = xs.open_run(save(tmp_path, xtc2.start(xtc2.area(0), xtc2.area(1))))
    assert run["det/raw"].shape == (0, 2, 0, 0)
    assert run["det/raw"].dtype == np.uint16
    assert run["det/raw"].compute().size == 0
    assert run["events"].sizes["event"] == 0


def test_panels_inside_a_segment_become_segments(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(s, rank=3) for s in range(2)]
    frames = xtc2.frames(3, 4).reshape(3, 2, 2, 3, 4)
    data = xtc2.start(*tables) + b"".join(xtc2.event(10 + k, tables, frames[k]) for k in range(3))
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    assert det.segment.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(det.raw, frames.reshape(3, 4, 3, 4))
    np.testing.assert_array_equal(det.raw[1, 2], frames[1, 1, 0])
    assert det.frame_cnt.dims == ("event", "module")
    assert det.present.shape == (3, 4)


def test_a_run_of_panels_without_events_is_empty(tmp_path: Path, xtc2: ModuleType) -> None:
    run = xs.open_run(save(tmp_path, xtc2.start(xtc2.area(0, rank=3), xtc2.area(1, rank=3))))
    assert run["det/raw"].shape == (0, 2, 0, 0)


def test_arrays_of_another_form_keep_their_own_dims(tmp_path: Path, xtc2: ModuleType) -> None:
    fields = [("raw", "u2", 3), ("dark", "u2", 3), ("gain", "u1", 3)]
    t = xtc2.Table(3, "det", "raw", fields)
    raw, dark, gain = np.arange(12).reshape(1, 3, 4), np.arange(24).reshape(2, 3, 4), np.ones((1, 3, 4))
    data = xtc2.start(t) + xtc2.datagram(xtc2.L1, 10, xtc2.block(t, raw, dark, gain))
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    np.testing.assert_array_equal(det.raw[0], raw)
    assert det.gain.dims == det.raw.dims
    assert det.dark.dims == ("event", "segment", "dark_0", "dark_1", "dark_2")
    np.testing.assert_array_equal(det.dark[0, 0], dark)


def test_an_algorithm_on_other_segments_has_its_own_dim(tmp_path: Path, xtc2: ModuleType) -> None:
    raw = [xtc2.area(s) for s in range(3)]
    fex = xtc2.Table(4, "det", "fex", [("edge", "f4", 0)], segment=2)
    frames = xtc2.frames(1, 3)
    parts = [xtc2.block(t, frames[0, s], 1, 0.0) for s, t in enumerate(raw)]
    data = xtc2.start(*raw, fex) + xtc2.datagram(xtc2.L1, 10, *parts, xtc2.block(fex, 2.5))
    data += xtc2.datagram(xtc2.L1, 11, *parts)
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    assert det.edge.dims == ("event", "fex_segment")
    assert det.fex_segment.values.tolist() == [2]
    np.testing.assert_array_equal(det.edge[:, 0], [2.5, np.nan])
    assert det.present_fex.values.tolist() == [[True], [False]]


def test_a_field_that_some_segments_lack_says_so(tmp_path: Path, xtc2: ModuleType) -> None:
    full = xtc2.area(0)
    short = xtc2.Table(0x11, "det", "raw", [("raw", "u2", 2)], segment=1)
    frames = xtc2.frames(1, 2)
    parts = [xtc2.block(full, frames[0, 0], 7, 0.5), xtc2.block(short, frames[0, 1])]
    det = xr.open_dataset(save(tmp_path, xtc2.start(full, short) + xtc2.datagram(xtc2.L1, 10, *parts)), engine="xtc2")
    np.testing.assert_array_equal(det.raw, frames)
    assert det.present.values.tolist() == [[True, True]]
    assert det.frame_cnt.values.tolist() == [[7, 0]]
    assert det.present_frame_cnt.values.tolist() == [[True, False]]
    np.testing.assert_array_equal(det.temperature, [[0.5, np.nan]])


@pytest.mark.parametrize("lazy", ["backend", "run"])
def test_ragged_fields_are_lists_of_each_event(tmp_path: Path, xtc2: ModuleType, lazy: str) -> None:
    fields = [
        ("wave", "u2", 1),
        ("image", "f4", 2),
        ("peak", "f8", 0),
        ("x", "f4", 1),
        ("y", "f4", 1),
        ("note", "text", 1),
    ]
    t = xtc2.Table(3, "hsd", "raw", [*fields, ("roi", "i2", 2)], "hsd")
    image = np.arange(6, dtype="f4").reshape(2, 3)
    waves = [np.arange(k % 3) + 60_000 for k in range(5)]
    places = [np.linspace(0, 1, 4 - k) for k in range(5)]
    rois = [np.full((1 + k, 2), -k) for k in range(5)]
    data = xtc2.start(t)
    for k in range(5):
        values = (waves[k], image + k, k, places[k], 2 * places[k], "abc"[:k] * k, rois[k])
        parts = [] if k == 3 else [xtc2.block(t, *values)]
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    path = save(tmp_path, data)
    det = xr.open_dataset(path, engine="xtc2") if lazy == "backend" else xs.open_run(path, chunks=2)["hsd"].to_dataset()
    assert "left_out" not in det.attrs
    there = [0, 1, 2, 4]
    for name, expected, dtype in (("wave", waves, "u2"), ("x", places, "f4"), ("roi", rois, "i2")):
        assert det[name].dtype == object
        assert is_ragged(det[name])
        for k in range(5):
            found = det[name][k, 0].compute().item()
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, np.ravel(expected[k]).astype(dtype) if k in there else [])
    assert det.roi_shape[:, 0].values.tolist() == [[1, 2], [2, 2], [3, 2], [0, 0], [5, 2]]
    assert det.note[:, 0].values.tolist() == ["", "a", "abab", "", "abcabcabcabc"]
    assert det.note[[4, 1], 0].values.tolist() == ["abcabcabcabc", "a"]
    assert det.x.attrs["ragged_dim"] == det.y.attrs["ragged_dim"] != det.wave.attrs["ragged_dim"]
    np.testing.assert_array_equal(det.peak[there, 0], there)  # behind the ragged field: another place each time
    np.testing.assert_array_equal(det.image[there, 0], image + np.array(there)[:, None, None])
    flat = xs.flatten(det.drop_vars(["wave", "roi"]))
    np.testing.assert_array_equal(flat.y, np.concatenate([2 * places[k] for k in there]).astype("f4"))
    assert set(xr.open_dataset(path, engine="xtc2", fields=["wave"]).data_vars) == {"wave"}
    with pytest.raises(ParameterError, match=r"'nothing'(.|\n)*wave, image, peak"):
        xr.open_dataset(path, engine="xtc2", fields=["nothing"])


def test_a_field_whose_type_changes_is_left_out_and_named(tmp_path: Path, xtc2: ModuleType) -> None:
    data = b""
    for k, kind in enumerate(("u2", "f4")):
        t = xtc2.Table(3, "hsd", "raw", [("wave", kind, 1), ("peak", "f8", 0)], "hsd")
        data += xtc2.configure(t, time=10 * k + 1) + xtc2.datagram(xtc2.L1, 10 * k + 2, xtc2.block(t, [1, 2], k))
    path = save(tmp_path, data)
    det = xr.open_dataset(path, engine="xtc2")
    assert "hsd.raw.wave: its type changes" in det.attrs["left_out"]
    assert det.peak[:, 0].values.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no type of its own(.|\n)*leave it out"):
        xr.open_dataset(path, engine="xtc2", fields=["wave"])


def test_equal_size_does_not_mean_equal_layout(tmp_path: Path, xtc2: ModuleType) -> None:
    """Two images of one size and different shapes in turn: ragged; what stands behind is still right."""
    t = xtc2.Table(3, "cam", "raw", [("a", "u1", 1), ("b", "u1", 1), ("x", "u2", 0)], "cam")
    data = xtc2.start(t)
    for k in range(6):
        n = 5 if k % 2 else 3
        data += xtc2.datagram(xtc2.L1, 10 + k, xtc2.block(t, np.full(n, k), np.full(8 - n, 100 + k), 1000 + k))
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    np.testing.assert_array_equal(det.x[:, 0], 1000 + np.arange(6))
    assert [x.tolist() for x in det.a[:, 0].values] == [[k] * (5 if k % 2 else 3) for k in range(6)]


def test_a_second_configure_moves_the_fields(tmp_path: Path, xtc2: ModuleType) -> None:
    """Two runs in one file, the second with another table of the same detector and another NamesId."""
    first = xtc2.area(0)
    second = xtc2.Table(0x77, "det", "raw", [("frame_cnt", "u8", 0), ("raw", "u2", 2), ("temperature", "f4", 0)])
    frames = xtc2.frames(2, 1)
    data = xtc2.start(first) + xtc2.event(2 << 32, [first], frames[0])
    data += xtc2.datagram(xtc2.END_RUN, 3 << 32) + xtc2.datagram(xtc2.UNCONFIGURE, 3 << 32)
    data += xtc2.start(second, time=4 << 32, run=8)
    data += xtc2.datagram(xtc2.L1, 5 << 32, xtc2.block(second, 17, frames[1, 0], 2.5))
    run = xs.open_run(save(tmp_path, data))
    np.testing.assert_array_equal(run["det/raw"], frames)
    assert run["det/frame_cnt"].values[:, 0].tolist() == [2 << 32, 17]
    assert run["events/run"].values.tolist() == [7, 8]
    assert list(run.attrs["run"]) == [7, 8]


def test_steps_scan_and_slow_control_hold_until_the_next(tmp_path: Path, xtc2: ModuleType) -> None:
    scan = xtc2.Table(1, "scan", "raw", [("motor", "f8", 0), ("step_value", "i4", 0)], "scan")
    epics = xtc2.Table(
        2, "epics", "raw", [("PV:1", "f4", 0), ("state", "i4", 0), ("note", "text", 1), ("arr", "f4", 1)], "epics"
    )
    names = xtc2.Table(9, "epicsinfo", "epicsinfo", [("keys", "text", 1), ("state", "text", 1)], "epicsinfo")
    det = xtc2.area()
    frame = xtc2.frames(1, 1)[0]
    configure = xtc2.datagram(
        xtc2.CONFIGURE, 1, *map(xtc2.table, (scan, epics, names, det, xtc2.RUN_INFO)), xtc2.block(names, "x", "REAL:PV")
    )
    data = configure + xtc2.event(5, [det], frame)
    data += xtc2.datagram(xtc2.BEGIN_STEP, 10, xtc2.block(scan, 1.5, 0)) + xtc2.event(11, [det], frame)
    data += xtc2.datagram(xtc2.SLOW_UPDATE, 12, xtc2.block(epics, 0.5, 3, "on", np.arange(3)))
    data += xtc2.event(12, [det], frame) + xtc2.event(13, [det], frame)
    data += xtc2.datagram(xtc2.BEGIN_STEP, 20, xtc2.block(scan, 2.5, 1)) + xtc2.event(21, [det], frame)
    # written late, but earlier than the event before it
    data += xtc2.datagram(xtc2.SLOW_UPDATE, 20, xtc2.block(epics, 1.5, 4, "off", np.arange(3) + 1))
    events = xs.open_run(save(tmp_path, data))["events"].to_dataset()
    assert events.step.values.tolist() == [-1, 0, 0, 0, 1]
    np.testing.assert_array_equal(events.scan_motor, [np.nan, 1.5, 1.5, 1.5, 2.5])
    np.testing.assert_array_equal(events.step_value, [np.nan, 0, 0, 0, 1])
    np.testing.assert_array_equal(events["PV:1"], [np.nan, np.nan, 0.5, 0.5, 1.5])
    np.testing.assert_array_equal(events.state, [np.nan, np.nan, 3, 3, 4])
    assert events.state.attrs["long_name"] == "REAL:PV"
    assert events.note.values.tolist() == ["", "", "on", "on", "off"]
    np.testing.assert_array_equal(events.arr, np.array([[np.nan] * 3] * 2 + [[0, 1, 2]] * 2 + [[1, 2, 3]]))


def test_configuration_is_overlaid_by_steps_and_keeps_its_labels(tmp_path: Path, xtc2: ModuleType) -> None:
    full = [
        ("gain:mode", "value", 0),
        ("LOW:mode", "label", 0),
        ("HIGH:mode", "label", 0),
        ("bias", "f4", 0),
        ("name", "text", 1),
    ]
    tables = [xtc2.Table(5 + s, "det", "config", full, segment=s) for s in range(2)]
    update = xtc2.Table(8, "det", "config", [("gain:mode", "value", 0)], segment=1)
    det = [xtc2.area(s, names_id=0x20 + s) for s in range(2)]
    values = [xtc2.block(t, -2, -2, 1, 200 + s, "chip") for s, t in enumerate(tables)]
    data = xtc2.datagram(xtc2.CONFIGURE, 1, *values, *map(xtc2.table, (*tables, update, *det)))  # values before tables
    data += xtc2.datagram(xtc2.BEGIN_STEP, 2) + xtc2.event(3, det, xtc2.frames(1, 2)[0])
    data += xtc2.datagram(xtc2.BEGIN_STEP, 4, xtc2.block(update, 1)) + xtc2.event(5, det, xtc2.frames(1, 2)[0])
    config = xs.open_run(save(tmp_path, data))["det/config"].to_dataset()
    assert config.attrs["name"] == "chip"
    assert config.bias.dims == ("segment",)
    assert config.bias.values.tolist() == [200, 201]
    assert config.gain.dims == ("config_step", "segment")
    assert config.gain.values.tolist() == [[-2, -2], [-2, 1]]
    assert config.gain.attrs["flag_values"] == [-2, 1]
    assert config.gain.attrs["flag_meanings"] == "LOW HIGH"


def test_one_configuration_for_all_is_an_attribute_with_its_label(tmp_path: Path, xtc2: ModuleType) -> None:
    config = xtc2.Table(5, "det", "config", [("gain:mode", "value", 0), ("HIGH:mode", "label", 0), ("n", "u8", 0)])
    data = xtc2.datagram(xtc2.CONFIGURE, 1, xtc2.table(config), xtc2.block(config, 3, 3, 1 << 63))
    attrs = xs.open_run(save(tmp_path, data))["det/config"].attrs
    assert attrs["gain"] == "HIGH"
    assert attrs["gain.value"] == 3
    assert attrs["n"] == 1 << 63


@pytest.mark.parametrize("rows", [352, 350, None])
def test_gain_control_goes_with_frames_of_its_shape_only(tmp_path: Path, xtc2: ModuleType, rows: int | None) -> None:
    config = xtc2.Table(5, "det", "config", [("asicPixelConfig", "u1", 3), ("trbit", "u1", 1)], "epix10ka")
    raw = xtc2.Table(6, "det", "raw", [("raw", "u2", 2)], "epix10ka")
    values = xtc2.block(config, np.full((4, 178, 192), 12), [1, 1, 1, 1])
    data = xtc2.datagram(xtc2.CONFIGURE, 1, xtc2.table(config), xtc2.table(raw), values)
    if rows is not None:
        data += xtc2.datagram(xtc2.L1, 10, xtc2.block(raw, np.zeros((rows, 384))))
    path = save(tmp_path, data)
    run = xs.open_run(path)
    fits = rows == 352
    assert ("gain_control" in run["det/config"]) == ("gain_control" in run["det/raw"].coords) == fits
    assert ("gain_control" in xr.open_dataset(path, engine="xtc2")) == fits
    if fits:
        assert np.unique(run["det/raw"].gain_control).tolist() == [28]


@pytest.mark.parametrize(
    ("kind", "shape", "fields", "values"),
    [
        ("epixhr2x2", (288, 384), [("asicPixelConfig", "u1", 1), ("trbit", "u1", 1)], (np.full(110592, 12), [1] * 4)),
        ("epix10ka", (352, 384), [("cbitsConfig", "u1", 2)], (np.full((352, 384), 28),)),
        ("epixuhr3x2", (336, 576), [("gainAsic", "u1", 1), ("gainCSVAsic", "u1", 2)], ([28] * 6, np.zeros((6, 32256)))),
    ],
)
def test_gain_control_of_other_firmware(
    tmp_path: Path, xtc2: ModuleType, kind: str, shape: tuple[int, int], fields: list, values: tuple
) -> None:
    config = xtc2.Table(5, "det", "config", fields, kind)
    raw = xtc2.Table(6, "det", "raw", [("raw", "u2", 2)], kind)
    data = xtc2.datagram(xtc2.CONFIGURE, 1, xtc2.table(config), xtc2.table(raw), xtc2.block(config, *values))
    data += xtc2.datagram(xtc2.L1, 10, xtc2.block(raw, np.zeros(shape)))
    bits = xs.open_run(save(tmp_path, data))["det/raw"].gain_control
    assert bits.shape == (1, *shape)
    assert np.unique(bits).tolist() == [28]


def test_detectors_without_arrays_are_event_variables(tmp_path: Path, xtc2: ModuleType) -> None:
    det = xtc2.area()
    diode = xtc2.Table(4, "ipm", "fex", [("sum", "f8", 0), ("code", "u2", 0)], "ipm")
    frames = xtc2.frames(3, 1)
    data = xtc2.start(det, diode)
    for k in range(3):
        parts = [xtc2.block(det, frames[k, 0], k, 0.0)] + ([xtc2.block(diode, k / 2, k)] if k != 1 else [])
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    run = xs.open_run(save(tmp_path, data))
    np.testing.assert_array_equal(run["events/ipm_sum"], [0, np.nan, 1])
    assert run["events/ipm_present"].values.tolist() == [True, False, True]
    assert run["events/ipm_code"].values.tolist() == [0, 0, 2]
    np.testing.assert_array_equal(run["det/raw"].ipm_sum, [0, np.nan, 1])
    assert "ipm" not in run.children
    assert not run["events/ipm_damage"].values.any()


def test_numbers_and_text_without_arrays_are_event_variables(tmp_path: Path, xtc2: ModuleType) -> None:
    scan = xtc2.Table(1, "scan", "raw", [("motor", "f8", 0)], "scan")
    fields = [("note", "text", 1), ("peak", "f8", 0)]
    tables = [xtc2.Table(4 + s, "diode", "raw", fields, "diode", segment=s) for s in (0, 2)]
    data = xtc2.start(scan, *tables) + xtc2.datagram(xtc2.BEGIN_STEP, 9, xtc2.block(scan, 1.5))
    for k in range(3):
        data += xtc2.datagram(xtc2.L1, 10 + k, *(xtc2.block(t, "ab" * k, k + t.segment) for t in tables))
    events = xs.open_run(save(tmp_path, data))["events"].to_dataset()
    assert events.diode_peak.dims == ("event", "diode_segment")
    assert events.diode_segment.values.tolist() == [0, 2]
    assert events.diode_peak.values.tolist() == [[0, 2], [1, 3], [2, 4]]
    assert events.diode_note.values.tolist() == [[""] * 2, ["ab"] * 2, ["abab"] * 2]
    assert events.diode_present.values.all()
    assert "diode_scan_motor" not in events
    assert events.scan_motor.values.tolist() == [1.5] * 3


def test_event_codes_and_destination_come_from_the_timing_detector(tmp_path: Path, xtc2: ModuleType) -> None:
    fields = [("pulseId", "u8", 0), ("ebeamDestn", "u1", 0), ("sequenceValues", "u2", 1)]
    ts = xtc2.Table(3, "timing", "raw", fields, "ts")
    det, frames = xtc2.area(), xtc2.frames(3, 1)
    words = np.zeros((3, 18), np.uint16)
    for event, code in ((0, 0), (0, 17), (1, 287), (2, 15)):
        words[event, code >> 4] |= 1 << (code & 15)
    data = xtc2.start(ts, det)
    for k in range(3):
        parts = [xtc2.block(det, frames[k, 0], k, 0.5)] + (
            [xtc2.block(ts, (1 << 63) + k, 3, words[k])] if k < 2 else []
        )
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    run = xs.open_run(save(tmp_path, data))
    events = run["events"].to_dataset()
    assert events.event_codes.sizes == {"event": 3, "event_code": 288}
    assert events.event_codes.chunks is not None
    fired = events.event_codes.compute()
    assert [fired[k].event_code[fired[k]].values.tolist() for k in range(3)] == [[0, 17], [287], []]
    assert events.timing_present.values.tolist() == [True, True, False]
    assert events.destination.values.tolist() == [3, 3, -1]
    assert "pulse_id" not in events  # an integer has no form for what is missing


@pytest.mark.parametrize("missing", [False, True])
def test_the_pulse_id_is_that_of_the_timing_detector(tmp_path: Path, xtc2: ModuleType, missing: bool) -> None:
    det = xtc2.area()
    timing = xtc2.Table(4, "timing", "raw", [("pulseId", "u8", 0), ("fixedRates", "u1", 1)], "ts")
    frames = xtc2.frames(3, 1)
    data = xtc2.start(det, timing)
    for k in range(3):
        parts = [xtc2.block(det, frames[k, 0], k, 0.0)]
        if not (missing and k == 1):
            parts.append(xtc2.block(timing, (1 << 60) + k, np.arange(10)))
        data += xtc2.datagram(xtc2.L1, 10 + k, *parts)
    run = xs.open_run(save(tmp_path, data))
    np.testing.assert_array_equal(run["timing/fixedRates"][0, 0], np.arange(10))
    if missing:
        assert "pulse_id" not in run["events"]
        assert run["timing/present"].values[:, 0].tolist() == [True, False, True]
    else:
        assert run["det/raw"].pulse_id.values.tolist() == [(1 << 60) + k for k in range(3)]


def test_another_algorithm_says_where_it_is_missing(tmp_path: Path, xtc2: ModuleType) -> None:
    raw = xtc2.area()
    fex = xtc2.Table(4, "det", "fex", [("raw", "f4", 0), ("edge", "f4", 0)])
    frames = xtc2.frames(2, 1)
    data = xtc2.start(raw, fex)
    data += xtc2.datagram(xtc2.L1, 10, xtc2.block(raw, frames[0, 0], 1, 0.0))
    data += xtc2.datagram(xtc2.L1, 11, xtc2.block(raw, frames[1, 0], 1, 0.0), xtc2.block(fex, 1.5, 2.5))
    det = xr.open_dataset(save(tmp_path, data), engine="xtc2")
    np.testing.assert_array_equal(det.raw_raw, frames)
    np.testing.assert_array_equal(det.edge[:, 0], [np.nan, 2.5])
    np.testing.assert_array_equal(det.present, [[True], [True]])
    np.testing.assert_array_equal(det.present_fex, [[False], [True]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an XTC2 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no XTC2 datagram"),
        (bytes(24), r"(?s)no XTC2 datagram.*extent 0"),
        (b"Lorem ipsum dolor sit amet, consetetur", "no XTC2 datagram"),
    ],
    ids=["empty", "hdf5", "zeros", "text"],
)
def test_what_is_no_xtc2_is_refused_with_path_and_byte(tmp_path: Path, data: bytes, message: str) -> None:
    path = save(tmp_path, data)
    with pytest.raises(FileFormatError, match=message) as error:
        xr.open_dataset(path, engine="xtc2")
    assert f"{path}, byte 0" in str(error.value)


def test_a_broken_frame_of_the_file_is_refused_with_its_byte(tmp_path: Path, xtc2: ModuleType) -> None:
    t = xtc2.area()
    head = xtc2.start(t) + xtc2.event(5, [t], xtc2.frames(1, 1)[0])
    for extent in (0, 11):
        data = head + xtc2.datagram(xtc2.L1, 6, bytes(50), extent=extent)
        with pytest.raises(FileFormatError, match=rf"byte {len(head)}: no XTC2 datagram begins here"):
            xs.open_run(save(tmp_path, data, f"{extent}.xtc2"))


def test_a_file_without_configure_says_what_it_may_be(tmp_path: Path, xtc2: ModuleType) -> None:
    data = xtc2.event(5, [xtc2.area()], xtc2.frames(1, 1)[0])
    with pytest.raises(FileFormatError, match="-c000"):
        xs.open_run(save(tmp_path, data))


def test_broken_tables_are_refused_with_their_byte(tmp_path: Path, xtc2: ModuleType) -> None:
    table = xtc2.table(xtc2.area())
    cases = {
        "impossible size": table[:8] + (len(table) - 4).to_bytes(4, "little") + table[12:-4],
        "miscounts": table[:12] + (5).to_bytes(4, "little") + table[16:],
        "unknown data type or rank": table[:-8] + (99).to_bytes(4, "little") + table[-4:],
        "two Names tables": table + xtc2.table(xtc2.area(0, detector="other")),
    }
    for k, (message, tables) in enumerate(cases.items()):
        path = save(tmp_path, xtc2.datagram(xtc2.CONFIGURE, 1, tables), f"{k}.xtc2")
        with pytest.raises(FileFormatError, match=rf"byte \d+: .*{message}"):
            xs.open_run(path)


def test_a_broken_transition_is_refused_with_its_byte(tmp_path: Path, xtc2: ModuleType) -> None:
    scan = xtc2.Table(1, "scan", "raw", [("motor", "f8", 0)], "scan")
    head = xtc2.start(scan)
    data = head + xtc2.datagram(xtc2.BEGIN_STEP, 5, xtc2.block(scan, 1.0, names_id=0x55))
    with pytest.raises(FileFormatError, match=rf"(?s)byte {len(head) + 24}: .*unknown NamesId.*0x55"):
        xs.open_run(save(tmp_path, data))


def test_shapes_that_do_not_fit_the_data_flag_the_event(tmp_path: Path, xtc2: ModuleType) -> None:
    t = xtc2.area()
    frames = xtc2.frames(2, 1)
    good = xtc2.event(5, [t], frames[0])
    at = good.index((3).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    huge = good[:at] + b"\xff" * 8 + good[at + 8 :]
    det = xr.open_dataset(save(tmp_path, xtc2.start(t) + good + huge), engine="xtc2")
    assert det.present.values[:, 0].tolist() == [True, False]
    assert "do not add up" in det.attrs["unreadable"]


def test_the_detector_has_to_be_named_where_there_are_several(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(0, 1, "a"), xtc2.area(0, 2, "b")]
    path = save(tmp_path, xtc2.start(*tables) + xtc2.event(5, tables, xtc2.frames(1, 2)[0]))
    with pytest.raises(ParameterError, match=r"(?s)several detectors.*'a', 'b'.*detector='a'"):
        xr.open_dataset(path, engine="xtc2")
    with pytest.raises(ParameterError, match=r"(?s)no detector of this name.*'c'.*'a', 'b'"):
        xr.open_dataset(path, engine="xtc2", detector="c")
    dropped = xr.open_dataset(path, engine="xtc2", detector="b", drop_variables=["raw"])
    assert set(dropped.data_vars) == {"frame_cnt", "temperature"}


def test_a_file_that_changed_since_is_refused(tmp_path: Path, xtc2: ModuleType) -> None:
    data, _ = xtc2.plain_run(3, 1)
    path = save(tmp_path, data)
    run = xs.open_run(path)
    from xsmall.io import files
    from xsmall.io.sources.xtc2 import kept, run_index

    for cache in (files._open_identified, run_index._make_index):
        cache.cache_clear()  # as in another process
    kept.forget()
    path.write_bytes(data[:-30])
    with pytest.raises(FileFormatError, match="has changed since it was opened"):
        run["det/raw"].compute()


def test_a_file_that_grows_keeps_its_events(tmp_path: Path, xtc2: ModuleType) -> None:
    data, frames = xtc2.plain_run(3, 1)
    path = save(tmp_path, data)
    run = xs.open_run(path)
    from xsmall.io import files
    from xsmall.io.sources.xtc2 import fields, kept, run_index

    for cache in (files._open_identified, run_index._make_index):
        cache.cache_clear()
    kept.forget()
    fields._fields.clear()
    path.write_bytes(data + xtc2.event(9 << 32, [xtc2.area()], frames[0]))
    np.testing.assert_array_equal(run["det/raw"].compute(), frames)
    assert xs.open_run(path)["det"].sizes["event"] == 4


def test_names_are_recognised_by_their_ending_only(tmp_path: Path, xtc2: ModuleType) -> None:
    from xsmall.io.sources.xtc2.backend import Xtc2Backend

    backend = Xtc2Backend()
    assert backend.guess_can_open("somewhere/run.xtc2")
    assert not backend.guess_can_open("run.h5")
    assert not backend.guess_can_open(3)
    data, frames = xtc2.plain_run(2, 1)
    np.testing.assert_array_equal(xr.open_dataset(save(tmp_path, data)).raw, frames)
