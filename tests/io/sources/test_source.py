"""The contract of sources: any package can bring one, and nothing that a user names is guessed at or waited for."""

import importlib
import os
import pickle
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.info import describe
from xsmall.io.sources import source as sources
from xsmall.io.sources.source import RunSpec, source_of


class TextRun(xs.RunSource):
    """One event of each line of a text file, as somebody else's package would bring it."""

    name = "text"
    title = "a run in a text file"

    def recognises(self, spec: xs.RunSpec) -> bool:
        return spec.head.startswith(b"frames")

    def open(self, spec: xs.RunSpec, *, chunks: int | str | None, skip: int = 0) -> xr.DataTree:
        assert spec.path is not None
        lines = spec.path.read_text().splitlines()[1 + skip :]
        words = np.array([[int(word) for word in line.split()] for line in lines], np.uint16)[:, None, None]
        times = np.arange(len(lines)).astype("M8[s]").astype("M8[ns]")
        raw = xr.DataArray(words, dims=("event", "segment", "row", "column")).chunk(event=1)
        events = xr.Dataset(coords={"event": times})
        camera = xr.Dataset({"raw": raw}, {"event": times})
        return xr.DataTree.from_dict({"/": xr.Dataset(), "/events": events, "/camera": camera})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "run.txt"
    path.write_text("frames\n1 2 3\n4 5 6\n")
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the source and one that is broken, found by their entry points as pip leaves them."""
    module = ModuleType("somebodys_reader")
    module.TextRun = TextRun  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_reader", module)
    about = tmp_path / "site" / "somebodys_reader-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-reader\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[xsmall.sources]\nbroken = not_there_at_all:Run\nodd = builtins:dict\ntext = somebodys_reader:TextRun\n"
    )
    monkeypatch.syspath_prepend(about.parent)
    importlib.invalidate_caches()


def test_a_reader_of_another_package_opens_runs_and_info_describes_them(text: Path, installed: None) -> None:
    run = xs.open_run(text)
    assert run["camera/raw"].values.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert run["camera/raw"].attrs["source"] == str(text)
    assert describe(text).startswith("run.txt: a run in a text file, ")
    assert "raw (event 2, segment 1, row 1, column 3) uint16" in describe(text)


def test_a_reader_of_this_session_opens_runs(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_registered", {})
    with pytest.raises(FileFormatError, match="not a run that xsmall can open"):
        xs.open_run(text)
    xs.register_source(TextRun())
    assert xs.open_run(text, engine="text")["camera/raw"].sizes["event"] == 2
    with pytest.raises(ParameterError, match="no source of runs"):
        xs.register_source(TextRun)  # type: ignore[arg-type]


def test_options_are_checked_by_the_source(text: Path, installed: None) -> None:
    assert xs.open_run(text, skip=1)["camera/raw"].values.ravel().tolist() == [4, 5, 6]
    with pytest.raises(ParameterError, match=r"(?s)text file cannot be opened with skap=.*chunks, engine, skip"):
        xs.open_run(text, skap=1)
    path = xs.save(xs.simulate(2, shape=(1, 16, 16)).run, text.with_name("run.zarr"))
    with pytest.raises(ParameterError, match="skip="):
        xs.open_run(path, skip=1)


def test_a_reader_that_cannot_be_loaded_is_told_where_nothing_opens_the_run(tmp_path: Path, installed: None) -> None:
    (tmp_path / "other.txt").write_text("nothing known")
    with pytest.raises(FileFormatError, match=r"(?s)'broken' could not be loaded: ModuleNotFoundError.*'odd'"):
        xs.open_run(tmp_path / "other.txt")
    with pytest.raises(ParameterError, match=r"(?s)unknown engine.*'zarr'.*'text'"):
        xs.open_run(tmp_path / "other.txt", engine="texd")


def test_an_engine_that_is_named_wins(tmp_path: Path, xtc2: ModuleType) -> None:
    path = tmp_path / "run.of.no.ending"
    path.write_bytes(xtc2.plain_run(3)[0])
    with pytest.raises(FileFormatError, match="not a run that xsmall can open"):
        xs.open_run(path)
    assert xs.open_run(path, engine="xtc2")["events"].sizes["event"] == 3


def test_what_a_user_names_becomes_paths_or_a_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.x", "a.x", "c[1].x"):
        (tmp_path / name).write_text("")
    assert RunSpec.of(str(tmp_path / "?.x")).paths == (tmp_path / "a.x", tmp_path / "b.x")
    assert RunSpec.of(tmp_path / "c[1].x").paths == (tmp_path / "c[1].x",)  # it is there: no pattern
    assert RunSpec.of([tmp_path / "b.x", str(tmp_path / "a.x")]).paths == (tmp_path / "b.x", tmp_path / "a.x")
    assert dict(RunSpec.of("exp=mfx101332224, run=7").query) == {"exp": "mfx101332224", "run": "7"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp=a,run=1").mkdir()
    assert RunSpec.of("exp=a,run=1").path == tmp_path / "exp=a,run=1"
    with pytest.raises(FileFormatError, match="no file matches"):
        RunSpec.of(str(tmp_path / "*.y"))
    with pytest.raises(FileFormatError, match=r'do this:  xs.open_run\("exp=xpptut15,run=54"\)'):  # psana1 has colons
        RunSpec.of("exp=xpptut15:run=54:smd")
    with pytest.raises(FileFormatError, match="no such file"):
        RunSpec.of("a\0b")
    with pytest.raises(FileFormatError, match="cannot be opened"):
        RunSpec.of("x" * 5000)
    for odd in (None, 7, [], [3], {}):
        with pytest.raises(ParameterError, match="opened by its path"):
            RunSpec.of(odd)
    (tmp_path / "link.x").symlink_to("a.x")
    for again in ("a.x", "link.x", str(tmp_path / "?.x")):
        with pytest.raises(ParameterError, match="named twice"):
            RunSpec.of(["a.x", again])


def test_an_identity_says_which_bytes_are_meant(tmp_path: Path) -> None:
    for ending in ("zarr", "h5"):
        path = xs.save(xs.simulate(2, shape=(1, 16, 16)).run, tmp_path / f"run.{ending}")
        spec = RunSpec.of(path)
        source = source_of(spec)
        first = source.identity(spec)
        assert first == source.identity(RunSpec.of(str(path)))
        xs.save(xs.simulate(2, shape=(1, 16, 16), seed=2).run, path, overwrite=True)
        assert source.identity(spec) != first


DOORS = {
    "info": describe,
    "config": lambda path: xs.convert_config(path, 1),
    "table": lambda path: xs.event_variables(xs.simulate(2, shape=(1, 4, 4)).run, "xpp", table=path),
    **{
        name: getattr(xs, f"open_{name}")
        for name in ("run", "constants", "geometry", "beam", "mask", "result", "cube", "smalldata", "frames", "recipe")
    },
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path: Path, door: object) -> None:
    os.mkfifo(tmp_path / "run.xtc2")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.h5"))
        for path, word in ((tmp_path / "run.xtc2", "a pipe"), (tmp_path / "s.h5", "a socket"), ("/dev/zero", "device")):
            with pytest.raises(FileFormatError, match=word):
                _within_seconds(door, path)


def _within_seconds(door: object, path: object) -> None:
    """Call it in a thread that the test does not wait for."""
    raised: list[BaseException] = []

    def act() -> None:
        try:
            door(path)  # type: ignore[operator]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(30)
    assert raised, f"{path}: still waiting"
    raise raised[0]


def test_a_name_that_is_misspelt_is_told_with_those_there_are(tmp_path: Path, xtc2: ModuleType) -> None:
    path = tmp_path / "a.xtc2"
    path.write_bytes(xtc2.plain_run()[0])
    run = xs.open_run(path)
    with pytest.raises(KeyError, match=r"(?s)a\.xtc2: nothing of this name.*'dett'.*events, det.*run\['det/raw'\]"):
        run["dett/raw"]
    with pytest.raises(ParameterError, match=r"(?s)a\.xtc2/det: nothing.*'raww'.*raw, frame_cnt.*run\['det/raw'\]"):
        run["det/raww"]
    with pytest.raises(ParameterError, match=r"'frame_count'.*"):
        run["det"]["frame_count"]
    assert "dett" not in run.children
    assert run.get("dett") is None
    assert isinstance(run["det"], xr.DataTree)
    again = pickle.loads(pickle.dumps(run))
    xr.testing.assert_identical(again.compute(), run.compute())
    assert type(run.map_over_datasets(lambda x: x)["det"].to_dataset()) is xr.Dataset
