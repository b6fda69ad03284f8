"""Whole runs: streams of any rate, chunks, several runs, and what is told where something is missing."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.utils import format_bytes

import xsmall as xs
from xsmall.errors import DamagedDataError, DamagedDataWarning, FileFormatError, ParameterError
from xsmall.io.info import describe
from xsmall.io.sources.streams import join_streams
from xsmall.io.stores.runs import write_run

FIRST = 2 << 32
EXP = "abcx12345"


def name(stream: int = 0, chunk: int = 0, run: int = 7) -> str:
    return f"{EXP}-r{run:04d}-s{stream:03d}-c{chunk:03d}.xtc2"


def stream(x: ModuleType, segments: list[int], times: list[int], seed: int = 1, **how: object):
    """A stream with some segments of one detector; returns its bytes and its frames."""
    tables = [x.area(s) for s in segments]
    data = x.frames(max(1, len(times)), len(segments), seed=seed)
    events = b"".join(x.event(FIRST + t, tables, data[k], **how) for k, t in enumerate(times))
    return x.start(*tables) + events, data


def end(x: ModuleType, time: int = 1000) -> bytes:
    return x.datagram(x.END_RUN, FIRST + time)


@pytest.fixture
def mixed(tmp_path: Path, xtc2: ModuleType) -> tuple[Path, np.ndarray, np.ndarray]:
    """Ten events of segments 0 and 2, three of them with segment 1, and one that the second stream alone has."""
    fast, a = stream(xtc2, [0, 2], list(range(0, 20, 2)))
    slow, b = stream(xtc2, [1], [0, 8, 9, 18], seed=2)
    (tmp_path / name(0)).write_bytes(fast + end(xtc2))
    (tmp_path / name(1)).write_bytes(slow + end(xtc2))
    return tmp_path, a, b


def test_streams_come_together_by_time(mixed: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, a, b = mixed
    run = xs.open_run(folder)
    det = run["det"].to_dataset()
    times = [0, 2, 4, 6, 8, 9, 10, 12, 14, 16, 18]
    assert det.psana_timestamp.dtype == np.uint64
    assert (det.psana_timestamp - FIRST).values.tolist() == times
    assert det.raw.dtype == np.uint16
    assert det.segment.values.tolist() == [0, 1, 2]
    there = np.array([[t % 2 == 0, t in (0, 8, 9, 18), t % 2 == 0] for t in times])
    np.testing.assert_array_equal(det.present, there)
    expected = np.zeros((11, 3, 3, 4), np.uint16)
    expected[np.ix_(there[:, 0], [0, 2])] = a
    expected[there[:, 1], 1] = b[:, 0]
    np.testing.assert_array_equal(det.raw, expected)
    np.testing.assert_array_equal(det.raw.isel(event=[5, 0], segment=1), expected[[5, 0], 1])
    assert np.isnan(det.temperature.values[~there]).all()
    assert run.attrs["run"] == 7
    assert "missing_files" not in run.attrs


def test_every_way_to_name_a_run_gives_the_same(
    mixed: tuple[Path, np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = mixed[0]
    whole = xs.open_run(folder)["det"].to_dataset()
    monkeypatch.setenv("XSMALL_DATA", str(folder))
    ways = [
        xs.open_run(str(folder / "*.xtc2")),
        xs.open_run([folder / name(1), folder / name(0)]),
        xs.open_run(f"exp={EXP},run=7"),
        xs.open_run(f"exp={EXP},run=7", dir=folder),
        xs.open_run(folder, run=7, chunks=3),
    ]
    for run in ways:
        xr.testing.assert_equal(run["det"].to_dataset(), whole)
    root = tmp_path_factory.mktemp("data")
    (root / "abc" / EXP).mkdir(parents=True)
    (root / "abc" / EXP / "xtc").symlink_to(folder)
    xr.testing.assert_equal(xs.open_run(f"exp={EXP},run=7", dir=root)["det"].to_dataset(), whole)
    with pytest.raises(FileFormatError, match=r"no file of this experiment(.|\n)*dir="):
        xs.open_run("exp=nowhere,run=7")
    with pytest.raises(ParameterError, match=r"no run of this number(.|\n)*run 7") as told:
        xs.open_run(f"exp={EXP},run=8")
    xr.testing.assert_equal(xs.open_run(str(told.value).split("do this:  ")[1])["det"].to_dataset(), whole)
    size = sum(path.stat().st_size for path in folder.glob("*.xtc2"))
    assert format_bytes(size) in describe(f"exp={EXP},run=7").splitlines()[0]
    with pytest.raises(ParameterError, match=r"no run of this number(.|\n)*7"):
        xs.open_run(folder, run=8)
    with pytest.raises(ParameterError, match=r"exp= and run="):
        xs.open_run("exp=abc", engine="xtc2")
    with pytest.raises(ParameterError, match=r"dir= out"):
        xs.open_run(folder, dir=folder)


def test_the_lazy_arrays_of_a_run_travel(mixed: tuple[Path, np.ndarray, np.ndarray]) -> None:
    raw = xs.open_run(mixed[0], chunks=2)["det/raw"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raw)), raw)
    assert len(pickle.dumps(raw.data)) < 20_000


@pytest.mark.parametrize("second", ["other-r0001-s000-c001.xtc2", name(0, 1)])
def test_a_stream_goes_on_in_its_next_chunk(tmp_path: Path, xtc2: ModuleType, second: str) -> None:
    tables = [xtc2.area(0)]
    frames = xtc2.frames(5, 1)
    head = xtc2.configure(*tables, xtc2.RUN_INFO, xtc2.CHUNK_INFO)
    head += xtc2.datagram(xtc2.BEGIN_RUN, 2, xtc2.block(xtc2.RUN_INFO, "exp", 7))
    first = b"".join(xtc2.event(10 + k, tables, frames[k]) for k in range(3)) + xtc2.next_chunk(20, second)
    rest = b"".join(xtc2.event(30 + k, tables, frames[3 + k]) for k in range(2)) + xtc2.datagram(xtc2.END_RUN, 40)
    (tmp_path / name(0)).write_bytes(head + first)
    with pytest.raises(FileFormatError, match=rf"(?s){second}.*missing=\"flag\""):
        xs.open_run(tmp_path)
    flagged = xs.open_run(tmp_path / name(0), missing="flag")
    assert flagged.attrs["missing_files"] == second
    assert flagged["det"].sizes["event"] == 3
    (tmp_path / second).write_bytes(rest)
    for source in (tmp_path, tmp_path / name(0), [tmp_path / name(0), tmp_path / second]):
        run = xs.open_run(source)
        np.testing.assert_array_equal(run["det/raw"], frames)
        np.testing.assert_array_equal(run["det/raw"][2:4], frames[2:4])
    np.testing.assert_array_equal(xr.open_dataset(tmp_path / name(0), engine="xtc2").raw, frames)
    with pytest.raises(FileFormatError, match="-c000"):
        xs.open_run(tmp_path / second)


def test_what_is_missing_is_told_with_the_call_that_does_without(tmp_path: Path, xtc2: ModuleType) -> None:
    table = xtc2.area()
    frames = xtc2.frames(1, 1)
    for run in (7, 8):
        head = xtc2.configure(table, xtc2.RUN_INFO, xtc2.CHUNK_INFO)
        head += xtc2.datagram(xtc2.BEGIN_RUN, 2, xtc2.block(xtc2.RUN_INFO, "abc12345", run))
        data = head + xtc2.event(10, [table], frames[0]) + xtc2.next_chunk(20, f"abc12345-r{run:04d}-s000-c001.xtc2")
        (tmp_path / f"abc12345-r{run:04d}-s000-c000.xtc2").write_bytes(data)
    one = tmp_path / "abc12345-r0007-s000-c000.xtc2"
    calls = [
        lambda: xs.open_run(tmp_path, run=8),
        lambda: xs.open_run("exp=abc12345,run=7", dir=tmp_path),
        lambda: xs.open_run([str(one)], chunks=1),
        lambda: xr.open_dataset(one, engine="xtc2"),
    ]
    for call, run in zip(calls, (8, 7, 7, 7), strict=True):
        with pytest.raises(FileFormatError, match="missing") as told:
            call()
        tree = eval(str(told.value).split("do this:  ")[1], {"xs": xs})
        assert (tree.attrs["run"], tree.attrs["missing_files"]) == (run, f"abc12345-r{run:04d}-s000-c001.xtc2")


def test_chunks_that_run_in_a_circle_are_refused(tmp_path: Path, xtc2: ModuleType) -> None:
    data = xtc2.configure(xtc2.area(), xtc2.CHUNK_INFO) + xtc2.next_chunk(20, name(0))
    (tmp_path / name(0)).write_bytes(data)
    with pytest.raises(FileFormatError, match="circle"):
        xs.open_run(tmp_path)


def test_an_index_alone_is_told_to_be_one(mixed: tuple[Path, np.ndarray, np.ndarray], xtc2: ModuleType) -> None:
    folder = mixed[0]
    small = folder / "smalldata"
    small.mkdir()
    for k in range(2):
        (small / name(k).replace(".xtc2", ".smd.xtc2")).write_bytes(xtc2.index_of((folder / name(k)).read_bytes()))
    assert xs.open_run(folder)["det"].sizes["event"] == 11
    for source in (small, small / name(0).replace(".xtc2", ".smd.xtc2")):
        with pytest.raises(FileFormatError, match=rf"(?s)an index.*{name(0)}"):
            xs.open_run(source)
    (folder / name(1)).unlink()
    with pytest.raises(FileFormatError, match=rf"(?s)missing.*{name(1)}.*missing=\"flag\""):
        xs.open_run(folder)
    run = xs.open_run(folder, missing="flag")
    assert run.attrs["missing_files"] == name(1)
    assert run["det"].sizes["event"] == 11  # the index knows the event that this stream alone had
    assert run.attrs["lost_events"] == 1
    raw = run["det/raw"].assign_attrs(detector_type="camera")
    small = raw.sd.roi(xs.Box(segment=0, row=(0, 3), column=(0, 4))).squeeze(drop=True)
    cube = small.assign(half=("event", np.arange(11) % 2)).sd.cube({"half": xs.categories()}, images={"det": raw})
    for result in (raw, small, raw.sd.average(), raw.sd.projection("row"), cube):
        assert json.loads(result.attrs["lost"]) == {"lost_events": 1, "missing_files": 1}
    assert not run["det"].present[5].any()


def test_a_folder_of_an_experiment_or_of_indices_alone(
    mixed: tuple[Path, np.ndarray, np.ndarray], xtc2: ModuleType
) -> None:
    folder = mixed[0]
    (folder / EXP / "xtc" / "smalldata").mkdir(parents=True)
    for k in range(2):
        (folder / name(k)).rename(folder / EXP / "xtc" / name(k))
    assert xs.open_run(folder / EXP)["det"].sizes["event"] == 11
    for k in range(2):
        data = (folder / EXP / "xtc" / name(k)).read_bytes()
        index = name(k).replace(".xtc2", ".smd.xtc2")
        (folder / EXP / "xtc" / "smalldata" / index).write_bytes(xtc2.index_of(data))
        (folder / EXP / "xtc" / name(k)).unlink()
    with pytest.raises(FileFormatError, match=rf"(?s)an index.*{name(0)}.*it is not there"):
        xs.open_run(folder / EXP / "xtc")
    with pytest.raises(FileFormatError, match=rf"(?s)an index.*{name(0)}.*it is not there"):
        xs.open_run(f"exp={EXP},run=7", dir=folder)
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(FileFormatError, match=r"(?s)a folder with nothing in it.*check the path"):
        xs.open_run(empty)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("xsmall.io.sources.xtc2.find.os.listdir", refuse)
    with pytest.raises(FileFormatError, match=r"(?s)cannot be read.*Permission denied.*ask for the permission"):
        xs.open_run(tmp_path)


def test_an_index_knows_the_events_that_were_cut_off(tmp_path: Path, xtc2: ModuleType) -> None:
    data, frames = stream(xtc2, [0], list(range(6)))
    small = tmp_path / "smalldata"
    small.mkdir()
    (small / name(0).replace(".xtc2", ".smd.xtc2")).write_bytes(xtc2.index_of(data))
    path = tmp_path / name(0)
    path.write_bytes(data[: -(len(xtc2.event(5, [xtc2.area()], frames[0])) + 5)])
    for source in (tmp_path, path):
        run = xs.open_run(source)
        assert run["det"].present[:, 0].values.tolist() == [True] * 4 + [False] * 2
        assert run.attrs["lost_events"] == 2
        np.testing.assert_array_equal(run["det/raw"][:4], frames[:4])
    other, _ = stream(xtc2, [0], list(range(50, 56)))
    (small / name(0).replace(".xtc2", ".smd.xtc2")).write_bytes(xtc2.index_of(other))
    run = xs.open_run(tmp_path)
    assert "of another run" in run.attrs["missing_files"]
    assert run["det"].sizes["event"] == 4
    (small / name(0).replace(".xtc2", ".smd.xtc2")).write_bytes(b"nonsense" * 9)
    assert "cannot be read" in xs.open_run(tmp_path).attrs["missing_files"]


def test_frames_that_cannot_be_read_are_left_out_of_results_and_named(
    tmp_path: Path, xtc2: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xsmall.io.files import File

    data, frames = stream(xtc2, [0], list(range(6)))
    path = tmp_path / name(0)
    path.write_bytes(data)
    run = xs.open_run(path)
    bad = len(data) - 20  # inside the last event

    def broken(read: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(file: File, at: Any, other: Any) -> Any:
            offset = at if isinstance(other, list) else other
            n = sum(b.nbytes for b in other) if isinstance(other, list) else at
            if offset + n > bad:
                raise OSError(5, "Input/output error")
            return read(file, at, other)

        return refuse

    monkeypatch.setattr(File, "read_into", broken(File.read_into))
    with pytest.raises(DamagedDataError, match=rf"(?s){name(0)}, byte \d+.*Input/output error"):
        run["det/raw"].compute()
    np.testing.assert_array_equal(run["det/raw"][:5], frames[:5])
    with pytest.warns(DamagedDataWarning, match=name(0)):
        sums = run["det/raw"].assign_attrs(detector_type="camera").sd.roi(xs.Box(row=(0, 3), column=(0, 4))).compute()
    assert sums.n_valid.squeeze().values.tolist() == [12] * 5 + [0]


def test_two_runs_in_a_folder_have_to_be_told_apart(tmp_path: Path, xtc2: ModuleType) -> None:
    for number in (7, 8):
        tables = [xtc2.area()]
        data = xtc2.start(*tables, run=number) + xtc2.event(FIRST, tables, xtc2.frames(1, 1, seed=number)[0])
        (tmp_path / name(0, run=number)).write_bytes(data)
    with pytest.raises(FileFormatError, match=r"(?s)several runs.*run 7.*run 8.*run=7"):
        xs.open_run(tmp_path)
    assert xs.open_run(tmp_path, run=8).attrs["run"] == 8
    with pytest.raises(ParameterError, match="run 7"):
        xs.open_run(tmp_path, run=9)


def test_several_runs_in_a_file_are_opened_one_by_one(tmp_path: Path, xtc2: ModuleType) -> None:
    det, other = xtc2.area(), xtc2.area(detector="other")
    scan = xtc2.Table(5, "scan", "raw", [("motor", "f8", 0)], "scan")
    frames = xtc2.frames(5, 1)
    data, at = b"", 0
    for run, (table, n) in enumerate([(det, 2), (other, 3)], start=1):
        time = (10 * run) << 32
        data += xtc2.configure(table, scan, xtc2.RUN_INFO, time=time)
        data += xtc2.datagram(xtc2.BEGIN_RUN, time + 1, xtc2.block(xtc2.RUN_INFO, "exp", run))
        data += xtc2.datagram(xtc2.BEGIN_STEP, time + 2, xtc2.block(scan, run / 2))
        data += b"".join(xtc2.event(time + 3 + k, [table], frames[at + k]) for k in range(n))
        data += xtc2.datagram(xtc2.END_STEP, time + 10) + xtc2.datagram(xtc2.END_RUN, time + 11)
        at += n
    path = tmp_path / "several.xtc2"
    path.write_bytes(data)
    whole = xs.open_run(path)
    assert whole["events"].run.values.tolist() == [1, 1, 2, 2, 2]
    second = xs.open_run(path, run=2)
    assert second.attrs["run"] == 2
    assert "det" not in second
    np.testing.assert_array_equal(second["other/raw"], frames[2:])
    assert second["events"].step.values.tolist() == [0, 0, 0]
    assert second["events"].scan_motor.values.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ParameterError, match=r"(?s)no run of this number.*1, 2"):
        xs.open_run(path, run=3)


def test_a_field_of_another_type_in_the_next_run_is_told_with_the_way_to_it(tmp_path: Path, xtc2: ModuleType) -> None:
    data = b""
    for run, kind in ((1, "u2"), (2, "f4")):
        table = xtc2.Table(1, "det", "raw", [("raw", kind, 2)])
        event = xtc2.datagram(xtc2.L1, run * 100 + 9, xtc2.block(table, np.full((3, 4), run)))
        data += xtc2.start(table, time=run * 100, run=run) + event + xtc2.datagram(xtc2.END_RUN, run * 100 + 10)
    (tmp_path / "a.xtc2").write_bytes(data)
    both = xs.open_run(tmp_path / "a.xtc2")
    assert both["events"].attrs["left_out"] == "det.raw.raw: its type changes: 2 forms, run=1 opens one run by itself"
    for run, dtype in ((1, np.uint16), (2, np.float32)):
        raw = xs.open_run(tmp_path / "a.xtc2", run=run)["det/raw"]
        assert raw.dtype == dtype
        np.testing.assert_array_equal(raw, np.full((1, 1, 3, 4), run))


def test_values_come_from_whichever_stream_has_them(tmp_path: Path, xtc2: ModuleType) -> None:
    scan = xtc2.Table(5, "scan", "raw", [("motor", "f8", 0)], "scan")
    epics = xtc2.Table(6, "epics", "epics", [("pv", "f4", 0)], "epics")
    config = [xtc2.Table(7 + s, "det", "config", [("gain", "i4", 0)], segment=s) for s in range(2)]
    frames = xtc2.frames(4, 1)

    def one(segment: int, says: bool) -> bytes:
        det = xtc2.area(segment)
        head = xtc2.datagram(
            xtc2.CONFIGURE,
            1,
            *map(xtc2.table, (scan, epics, det, config[segment], xtc2.RUN_INFO)),
            xtc2.block(config[segment], segment),
        )
        head += xtc2.datagram(xtc2.BEGIN_RUN, 2, *([xtc2.block(xtc2.RUN_INFO, "exp", 9)] if says else []))
        for step in range(2):
            t = 100 * (step + 1)
            head += xtc2.datagram(xtc2.BEGIN_STEP, t, *([xtc2.block(scan, step + 0.5)] if says else []))
            if segment == 1 and step == 1:
                head = head[:-24] + xtc2.datagram(xtc2.BEGIN_STEP, t, xtc2.block(config[1], 17))
            head += xtc2.datagram(xtc2.SLOW_UPDATE, t + 1, *([] if says else [xtc2.block(epics, step)]))
            head += b"".join(xtc2.event(t + 2 + k, [det], frames[2 * step + k]) for k in range(2))
        return head + xtc2.datagram(xtc2.END_RUN, 999)

    (tmp_path / name(0)).write_bytes(one(0, says=True))
    (tmp_path / name(1)).write_bytes(one(1, says=False))
    run = xs.open_run(tmp_path)
    events = run["events"].to_dataset()
    assert (run.attrs["experiment"], run.attrs["run"]) == ("exp", 9)
    assert events.step.values.tolist() == [0, 0, 1, 1]
    assert events.scan_motor.values.tolist() == [0.5, 0.5, 1.5, 1.5]
    assert events.pv.values.tolist() == [0, 0, 1, 1]
    assert run["det/config"].gain.values.tolist() == [[0, 1], [0, 17]]


@pytest.mark.parametrize(("between", "steps"), [("", [0, 0]), ("ended", [1, 1]), ("event", [0, 1])])
def test_a_step_that_is_announced_twice_is_one(
    tmp_path: Path, xtc2: ModuleType, between: str, steps: list[int]
) -> None:
    det, frames = xtc2.area(), xtc2.frames(2, 1)
    data = xtc2.start(det) + xtc2.datagram(xtc2.BEGIN_STEP, FIRST)
    if between == "ended":
        data += xtc2.datagram(xtc2.ENABLE, FIRST + 1) + xtc2.datagram(xtc2.END_STEP, FIRST + 2)
    if between == "event":
        data += xtc2.event(FIRST + 2, [det], frames[0])
    data += xtc2.datagram(xtc2.BEGIN_STEP, FIRST + 3)
    data += b"".join(xtc2.event(FIRST + 4 + k, [det], frames[k]) for k in range(2 - (between == "event")))
    path = tmp_path / "a.xtc2"
    path.write_bytes(data)
    assert xs.open_run(path)["events"].step.values.tolist() == steps


def test_damage_of_a_datagram_is_that_of_its_own_segments(tmp_path: Path, xtc2: ModuleType) -> None:
    good, _ = stream(xtc2, [0], [1, 2])
    bad, _ = stream(xtc2, [1], [1], data_damage=4)
    (tmp_path / name(0)).write_bytes(good + end(xtc2))
    (tmp_path / name(1)).write_bytes(bad + xtc2.datagram(xtc2.L1, FIRST + 2, damage=8) + end(xtc2))
    det = xs.open_run(tmp_path)["det"].to_dataset()
    assert det.damage.values.tolist() == [[0, 4], [0, 8]]
    assert det.present.values.tolist() == [[True, True], [True, False]]


def test_times_out_of_order_or_repeated_are_counted_and_kept(tmp_path: Path, xtc2: ModuleType) -> None:
    a, frames = stream(xtc2, [0], [5, 3, 7, 7])
    b, other = stream(xtc2, [1], [3, 7], seed=2)
    (tmp_path / name(0)).write_bytes(a + end(xtc2))
    (tmp_path / name(1)).write_bytes(b + end(xtc2))
    run = xs.open_run(tmp_path)
    assert (run.attrs["repeated_times"], run.attrs["out_of_order_times"]) == (1, 1)
    det = run["det"].to_dataset()
    assert (det.psana_timestamp - FIRST).values.tolist() == [3, 5, 7, 7]
    np.testing.assert_array_equal(det.raw[:, 0], frames[[1, 0, 2, 3], 0])
    np.testing.assert_array_equal(det.raw[[0, 2], 1], other[:, 0])
    assert det.present[:, 1].values.tolist() == [True, False, True, False]


def test_the_same_segment_in_two_streams_is_refused(tmp_path: Path, xtc2: ModuleType) -> None:
    for k in range(2):
        (tmp_path / name(k)).write_bytes(stream(xtc2, [0], [1, 2])[0])
    with pytest.raises(FileFormatError, match=rf"(?s)same segment.*{name(0)}.*{name(1)}"):
        xs.open_run(tmp_path)


def test_a_growing_run_holds_back_what_a_stream_has_not_reached(tmp_path: Path, xtc2: ModuleType) -> None:
    a, frames = stream(xtc2, [0], list(range(6)))
    b, others = stream(xtc2, [1], list(range(6)), seed=2)
    size = (len(b) - len(stream(xtc2, [1], [])[0])) // 6
    paths = [tmp_path / f"{name(k)}.inprogress" for k in range(2)]
    paths[0].write_bytes(a)
    paths[1].write_bytes(b[: -3 * size - 10])
    run = xs.open_run(tmp_path)
    assert run["det"].sizes["event"] == 2
    assert run.attrs["waiting_events"] == 4
    paths[1].write_bytes(b[:-size])
    grown = xs.open_run(tmp_path)
    assert grown["det"].sizes["event"] == 5
    np.testing.assert_array_equal(run["det/raw"][:, 0], frames[:2, 0])  # the snapshot stays what it was
    for path, data in zip(paths, (a, b), strict=True):
        path.write_bytes(data + end(xtc2))
        path.rename(path.with_suffix(""))
    np.testing.assert_array_equal(grown["det/raw"][:, 1], others[:5, 0])  # renamed: the same bytes
    done = xs.open_run(tmp_path)
    assert done["det"].sizes["event"] == 6
    assert "waiting_events" not in done.attrs
    assert not run.equals(done)


def test_a_stream_that_was_cut_loses_no_event_of_the_others(tmp_path: Path, xtc2: ModuleType) -> None:
    a, _ = stream(xtc2, [0], list(range(6)))
    b, _ = stream(xtc2, [1], list(range(6)))
    (tmp_path / name(0)).write_bytes(a + end(xtc2))
    (tmp_path / name(1)).write_bytes(b[:-10])
    run = xs.open_run(tmp_path)
    assert run["det"].present.values[-1].tolist() == [True, False]
    assert run.attrs["truncated_bytes"] > 0


def test_a_reopened_file_is_walked_on_from_where_it_ended(
    tmp_path: Path, xtc2: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xsmall.io.sources.xtc2 import walk

    walked = []
    read = walk.read_datagram
    data, frames = stream(xtc2, [0], list(range(50)))
    more = xtc2.event(FIRST + 60, [xtc2.area()], frames[0])
    path = tmp_path / name(0)
    path.write_bytes(data)
    xs.open_run(path)
    path.write_bytes(data + more)
    monkeypatch.setattr(walk, "read_datagram", lambda *a: walked.append(a[1]) or read(*a))
    run = xs.open_run(path)
    assert run["det"].sizes["event"] == 51
    assert len(walked) < 6
    np.testing.assert_array_equal(run["det/raw"][-1], frames[0])
    changed, other = stream(xtc2, [0], list(range(100, 160)), seed=5)
    path.write_bytes(changed)  # another run of the same name, and longer
    np.testing.assert_array_equal(xs.open_run(path)["det/raw"], other)


def test_many_small_events_are_walked_together_and_alike(tmp_path: Path, xtc2: ModuleType) -> None:
    """Hundreds of equal events with others among them: what each is made of is found as one by one."""
    from xsmall.io.files import identify
    from xsmall.io.sources.xtc2 import walk

    det, wave = xtc2.area(), xtc2.Table(3, "hsd", "raw", [("wave", "u1", 1), ("n", "u4", 0)], "hsd")
    rng = np.random.default_rng(4)
    frames = xtc2.frames(4, 1)
    data = xtc2.start(det, wave)
    for k in range(700):
        if rng.random() < 0.01:
            data += xtc2.datagram(xtc2.SLOW_UPDATE, FIRST + k)
        damage = int(rng.random() < 0.01) * 2
        same_size = rng.random() < 0.01  # the same bytes in another layout
        parts = [xtc2.block(det, frames[k % 4, 0], k, 0.5, data_damage=damage)]
        parts += [xtc2.block(wave, np.full(3 + same_size, k % 7), k)] if rng.random() < 0.02 else []
        data += xtc2.datagram(xtc2.L1, (FIRST + k) << (k > 600), *parts, low=k & 0xFF, damage=4 * (rng.random() < 0.01))
    path = tmp_path / "a.xtc2"
    path.write_bytes(data)
    together = walk.build(identify(path))
    walk_patience = walk._PATIENCE
    try:
        walk._PATIENCE = 10**9
        singly = walk.build(identify(path))
    finally:
        walk._PATIENCE = walk_patience
    assert len(together.layouts) > 1
    assert together.block_damage
    for name in ("offset", "size", "time", "damage", "layout"):
        np.testing.assert_array_equal(getattr(together, name), getattr(singly, name), err_msg=name)
    for name in ("layouts", "transitions", "block_damage", "last_time", "truncated_bytes"):
        assert getattr(together, name) == getattr(singly, name)


@pytest.mark.parametrize("change", ["", "grown", "replaced", "broken"])
def test_an_index_is_kept_for_the_next_process(
    tmp_path: Path, xtc2: ModuleType, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from xsmall.io.sources.xtc2 import kept, run_index, walk

    def forget() -> None:
        kept.forget()
        run_index._make_index.cache_clear()

    monkeypatch.setenv("XSMALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "ENOUGH_EVENTS", 5)
    data, frames = stream(xtc2, [0], list(range(40)), data_damage=2)
    path = tmp_path / name(0)
    path.write_bytes(data)
    before = xs.open_run(path)["det"].to_dataset().load()
    (entry,) = (tmp_path / "cache" / "indices").iterdir()
    forget()
    walked = []
    read = walk.read_datagram
    monkeypatch.setattr(walk, "read_datagram", lambda *a: walked.append(a[1]) or read(*a))
    if change == "grown":
        path.write_bytes(data + xtc2.event(FIRST + 60, [xtc2.area()], frames[0]))
    if change == "replaced":
        data, frames = stream(xtc2, [0], list(range(100, 150)), seed=9)
        path.write_bytes(data)
    if change == "broken":
        raw = bytearray(entry.read_bytes())
        raw[raw.index(b'"last_time": ') + 13] ^= 1
        entry.write_bytes(bytes(raw))
    after = xs.open_run(path)["det"].to_dataset().load()
    if change == "replaced":
        np.testing.assert_array_equal(after.raw, frames)
    else:
        xr.testing.assert_identical(after.isel(event=slice(40)), before)
        assert after.sizes["event"] == 40 + (change == "grown")
    assert len(walked) < 5 if change in ("", "grown") else len(walked) > 20


@pytest.mark.parametrize("what", ["vanishes", "shrinks"])
def test_a_file_that_vanishes_or_shrinks_is_named(tmp_path: Path, xtc2: ModuleType, what: str) -> None:
    from xsmall.io import files

    data, _ = stream(xtc2, [0], list(range(6)))
    path = tmp_path / name(0)
    path.write_bytes(data)
    run = xs.open_run(path)
    files._open_identified.cache_clear()
    if what == "vanishes":
        path.unlink()
    else:
        path.write_bytes(data[:-10])
    with pytest.raises(xs.XsmallError, match=rf"(?s){name(0)}.*open the run again"):
        run["det/raw"].compute()


@pytest.mark.parametrize("what", ["written over", "cut"])
def test_a_file_that_changes_while_it_is_open_gives_no_mixture(tmp_path: Path, xtc2: ModuleType, what: str) -> None:
    data, frames = stream(xtc2, [0], list(range(6)))
    path = tmp_path / name(0)
    path.write_bytes(data)
    run = xs.open_run(path)
    np.testing.assert_array_equal(run["det/raw"][0], frames[0])  # and the file stays open
    raw, box = run["det/raw"].assign_attrs(detector_type="camera"), xs.Box(row=(0, 3), column=(0, 4))
    if what == "cut":
        os.truncate(path, len(data) - 30)
        with pytest.warns(DamagedDataWarning, match=name(0)):
            sums = raw.sd.roi(box).compute()
        assert sums.n_valid.squeeze().values.tolist() == [12] * 5 + [0]
    else:
        before = path.stat()
        path.write_bytes(stream(xtc2, [0], list(range(6)), seed=5)[0])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
        for call in (raw, raw.sd.roi(box)):
            with pytest.raises(FileFormatError, match=rf"(?s){name(0)}.*has changed.*open the run again"):
                call.compute()


def test_lists_that_cannot_be_read_are_named(tmp_path: Path, xtc2: ModuleType) -> None:
    wave = xtc2.Table(3, "cam", "raw", [("wave", "u2", 1), ("says", "text", 1)], "cam")
    data = xtc2.start(wave)
    data += b"".join(xtc2.datagram(xtc2.L1, FIRST + k, xtc2.block(wave, np.arange(k), "x" * k)) for k in range(6))
    path = tmp_path / name(0)
    path.write_bytes(data)
    run = xs.open_run(path)
    assert run["cam/wave"][1].values[0].tolist() == [0]
    os.truncate(path, len(data) - 30)
    for field in ("wave", "says"):
        with pytest.raises(DamagedDataError, match=rf"(?s){name(0)}, byte \d+.*open the run again"):
            run[f"cam/{field}"].compute()


def test_numbers_that_stand_for_words_say_which(tmp_path: Path, xtc2: ModuleType) -> None:
    fields = [("mode:Gain", "value", 0), ("high gain:Gain", "label", 0), ("low:Gain", "label", 0), ("roi", "u2", 1)]
    table = xtc2.Table(3, "cam", "fex", fields, "cam")
    path = tmp_path / name(0)
    events = (xtc2.datagram(xtc2.L1, FIRST + k, xtc2.block(table, 2 - k, 1, 2, [k, k])) for k in range(3))
    path.write_bytes(xtc2.start(table) + b"".join(events))
    mode = xs.open_run(path)["cam/mode"]
    assert mode.squeeze().values.tolist() == [2, 1, 0]
    assert (mode.attrs["flag_values"].tolist(), mode.attrs["flag_meanings"]) == ([1, 2], "high_gain low")
    assert xr.open_dataset(path, engine="xtc2", fields=["mode"]).mode.attrs["flag_meanings"] == "high_gain low"
    again = xs.open_run(write_run(xs.open_run(path), tmp_path / "run.zarr"))["cam/mode"]
    assert list(again.attrs["flag_values"]) == [1, 2]


def test_arrays_of_an_enumeration_are_numbers(tmp_path: Path, xtc2: ModuleType) -> None:
    fields = [("modes:Gain", "value", 1), ("mode:Gain", "value", 0), ("high:Gain", "label", 0), (":Kind", "value", 0)]
    table = xtc2.Table(3, "cam", "fex", fields, "cam")
    config = xtc2.Table(4, "cam", "config", fields, "cam")
    path = tmp_path / name(0)
    events = (xtc2.datagram(xtc2.L1, FIRST + k, xtc2.block(table, [k, 1, 2], k, 1, k)) for k in range(3))
    told = xtc2.datagram(
        xtc2.CONFIGURE, 1, xtc2.table(table), xtc2.table(config), xtc2.block(config, [4, 5], 1, 1, 3)
    )  # fmt: skip
    path.write_bytes(told + b"".join(events))
    run = xs.open_run(path)
    assert run["cam/config/modes:Gain"].values.tolist() == [[4, 5]]
    assert run["cam/modes:Gain"].squeeze().values.tolist() == [[k, 1, 2] for k in range(3)]
    assert run["cam/mode"].attrs["flag_meanings"] == "high"
    assert run["cam/Kind"].squeeze().values.tolist() == [0, 1, 2]
    again = xs.open_run(write_run(run, tmp_path / "run.zarr"))
    np.testing.assert_array_equal(again["cam/modes:Gain"], run["cam/modes:Gain"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_told(tmp_path: Path, xtc2: ModuleType) -> None:
    path = tmp_path / name(0)
    path.write_bytes(stream(xtc2, [0], [1])[0])
    path.chmod(0)
    with pytest.raises(FileFormatError, match=name(0)):
        xs.open_run(path)


@pytest.mark.parametrize("ending", [".zarr", ".h5"])
def test_lists_and_text_are_saved_and_come_back(tmp_path: Path, xtc2: ModuleType, ending: str) -> None:
    t = xtc2.Table(3, "hsd", "raw", [("wave", "u2", 1), ("note", "text", 1), ("roi", "f4", 2)], "hsd")
    parts = [xtc2.block(t, np.arange(k), "x" * k, np.full((2, k), k / 2)) for k in range(5)]
    data = b"".join(xtc2.datagram(xtc2.L1, FIRST + k, *([] if k == 3 else [parts[k]])) for k in range(5))
    path = tmp_path / name(0)
    path.write_bytes(xtc2.start(t) + data)
    run = xs.open_run(path, chunks=2)
    again = xs.open_run(write_run(run, tmp_path / f"run{ending}"))
    for variable in ("wave", "roi"):
        a, b = run[f"hsd/{variable}"], again[f"hsd/{variable}"]
        assert b.dims == a.dims
        assert b.attrs["ragged_dtype"] == a.attrs["ragged_dtype"]
        for k in range(5):
            np.testing.assert_array_equal(a[k : k + 1].values[0, 0], b[k : k + 1].values[0, 0])
    np.testing.assert_array_equal(again["hsd/roi_shape"], run["hsd/roi_shape"])
    np.testing.assert_array_equal(again["hsd/note"], run["hsd/note"])


@pytest.mark.parametrize("folder", ["fakesteps", "multi-seg-epics"])
def test_public_runs_are_built_as_psana_builds_them(shared: Path, folder: str) -> None:
    path = shared / "data" / "xtc2" / folder
    run = xs.open_run("exp=xpptut15,run=14", dir=path)
    events = run["events"].to_dataset()
    streams = [run[d].present.values.any(axis=1) for d in ("hsd", "andor")]
    together = np.logical_and(*streams).sum()
    if folder == "fakesteps":
        assert events.sizes["event"] == 10
        assert (together, (streams[0] & ~streams[1]).sum()) == (4, 6)
        assert np.bincount(events.step).tolist() == [5, 5]
    else:
        assert (events.sizes["event"], together) == (15, 15)
        assert {"epicsvar1", "epicsvar2", "background"} <= set(events)
    for k, one in enumerate(("hsd", "andor")):
        alone = xs.open_run(path / f"xpptut15-r0014-s{k:03d}-c000.xtc2")[one].to_dataset()
        assert alone.data_vars
        for variable in alone.data_vars:
            np.testing.assert_array_equal(run[f"{one}/{variable}"][streams[k]], alone[variable])


def test_joining_keeps_every_record_once() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        times = [rng.integers(0, 30, rng.integers(0, 40)).astype(np.uint64) for _ in range(3)]
        joined = join_streams(times)
        assert np.array_equal(joined.time, np.sort(joined.time))
        for own, rows in zip(times, joined.rows, strict=True):
            there = rows >= 0
            assert sorted(rows[there]) == list(range(own.size))
            np.testing.assert_array_equal(own[rows[there]], joined.time[there])
        assert (np.stack(joined.rows) >= 0).any(axis=0).all()
        assert joined.repeated == sum(t.size - np.unique(t).size for t in times)
