"""A call that does not fit what is there is told the one that does, and that one works when it is typed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import FileFormatError

CONSTANTS = {"pedestals": np.zeros((1, 4, 4)), "pixel_rms": np.ones((1, 4, 4))}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, xtc2: ModuleType) -> Path:
    """A file or folder of each kind."""
    folder = tmp_path_factory.mktemp("doors")
    run = xs.simulate(4, shape=(1, 8, 8)).run
    for ending in ("zarr", "h5"):
        xs.save(run, folder / f"run.{ending}")
        xs.save(xr.Dataset({"i0": ("event", [1.0, 2.0])}, {"event": [0, 1]}), folder / f"small.{ending}")
    with h5py.File(folder / "stack.h5", "w") as file:
        file["images"] = np.zeros((5, 8, 16), "u2")
    with h5py.File(folder / "xpp_Run0007.h5", "w") as file:
        file["event_time"] = (1_700_000_000 + np.arange(4)) << 32
        file["ipm2/sum"] = np.ones(4)
    (folder / "xtc").mkdir()
    (folder / "xtc/abcx12345-r0007-s000-c000.xtc2").write_bytes(xtc2.plain_run()[0])
    return folder


WAYS = {
    "run.zarr": "open_run", "run.h5": "open_run", "xtc": "open_run", "xtc/abcx12345-r0007-s000-c000.xtc2": "open_run",
    "small.zarr": "open_result", "small.h5": "open_result", "stack.h5": "open_frames",
    "xpp_Run0007.h5": "open_smalldata",
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("call", ["open_run", "open_frames", "open_smalldata", "open_result"])
def test_what_opens_with_another_call_is_told_that_call(doors: Path, name: str, call: str) -> None:
    if call == WAYS[name] or (call == "open_frames" and WAYS[name] in ("open_result", "open_smalldata")):
        return  # frames are looked for in any other HDF5 file
    with pytest.raises(xs.XsmallError) as told:
        getattr(xs, call)(doors / name)
    advice = str(told.value).split("do this:  ")[1]
    assert advice.startswith(f"xs.{WAYS[name]}(")
    assert eval(advice, {"xs": xs}) is not None


def test_a_folder_of_several_things_is_told_of_a_run_in_it(doors: Path, tmp_path: Path) -> None:
    shutil.copy(doors / "stack.h5", tmp_path)
    shutil.copy(doors / "run.h5", tmp_path)
    with pytest.raises(FileFormatError) as told:
        xs.open_run(tmp_path)
    assert eval(str(told.value).split("do this:  ")[1], {"xs": xs})["jungfrau/raw"].shape == (4, 1, 8, 8)
    with pytest.raises(FileFormatError, match=r"(?s)a folder.*xs\.open_frames\('.*\*\.h5'\)"):
        xs.open_frames(tmp_path)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda d: xs.open_run(d / "xtc", chunk=5), "chunks=..."),
        (lambda d: xs.open_run(d / "run.h5", chunk=5), "chunks=..."),
        (lambda d: xs.open_frames(d / "stack.h5", chunk=5), "xs.open_frames(path, chunks=5)"),
        (lambda d: xs.open_frames(d / "stack.h5", unit="ADU"), "xs.open_frames(path, units="),
        (lambda d: xs.open_frames(d / "stack.h5", units="photns"), "units='photon'"),
        (lambda d: xs.open_frames(d / "stack.h5", units="kev"), "units='keV'"),
        (lambda d: xs.open_frames(d / "stack.h5", detector_type="jungfrua"), 'detector_type="jungfrau"'),
        (lambda d: xs.open_run("exp=abcx12345", run=7, dir=d), 'xs.open_run("exp=abcx12345,run=7")'),
        (lambda d: xs.open_run(exp="abcx12345", run=7, dir=d), 'xs.open_run("exp=abcx12345,run=7")'),
        (lambda d: xs.open_run(d / "xtc", run="7"), "run=7"),
        (lambda _: xs.Box(rows=(0, 3)), "xs.Box(row=(0, 3))"),
        (lambda _: xs.Box(row=(0, 3), cols=(0, 3)), "xs.Box(row=(0, 3), column=(0, 3))"),
        (lambda _: xs.open_constants(CONSTANTS), 'xs.open_constants({"pedestal": ..., "noise": ...})'),
        (lambda _: xs.open_constants(CONSTANTS["pedestals"]), "xs.open_constants({"),
    ],
)
def test_hasty_fingers_are_told_the_right_word(doors: Path, call: Callable[[Path], Any], advice: str) -> None:
    with pytest.raises(xs.XsmallError) as told:
        call(doors)
    assert advice in str(told.value).split("do this:  ")[1]


def test_a_misspelt_detector_type_in_a_file_is_told_on_opening(tmp_path: Path) -> None:
    def written(name: str, advice: str) -> Path:
        with h5py.File(tmp_path / name, "w") as file:
            file["camera/event"] = np.arange(3)
            file["camera/raw"] = np.zeros((3, 1, 4, 4), "u2")
            exec(advice, {"file": file})
            file.attrs["xsmall_layout"] = "xsmall-run 2"
        return tmp_path / name

    with pytest.raises(FileFormatError, match="unknown detector type of /camera/raw") as told:
        xs.open_run(written("a.h5", 'file["camera/raw"].attrs["detector_type"] = "jungfrua"'))
    run = xs.open_run(written("b.h5", str(told.value).split("do this:  ")[1]))
    assert run["camera/raw"].attrs["detector_type"] == "jungfrau"
    own = xs.open_run(written("c.h5", 'file["camera/raw"].attrs["detector_type"] = "mine"'))
    assert own["camera/raw"].attrs["detector_type"] == "mine"


def test_a_folder_of_constants_is_told_of_its_geometry_and_its_detectors(tmp_path: Path) -> None:
    for name in ("XcsEndstation.0:Epix100a.1", "XcsEndstation.0:Epix100a.2"):
        source = tmp_path / "calib/Epix100a::CalibV1" / name
        for kind in ("geometry", "pedestals"):
            (source / kind).mkdir(parents=True)
        panel = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0\nCAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0\n"
        (source / "geometry/0-end.data").write_text(panel)
        (source / "pedestals/notes.txt").write_text("kept")
        for runs in ("0-end", "5-9"):
            (source / f"pedestals/{runs}.data").write_text("1 " * 768 + "\n")
    for folder in (tmp_path, tmp_path / "calib"):
        with pytest.raises(FileFormatError, match="is a folder") as told:
            xs.open_geometry(folder)
        assert eval(str(told.value).split("do this:  ")[1], {"xs": xs}).shape == (1, 704, 768)
    with pytest.raises(FileFormatError, match=r"found:    0-end.data, 5-9.data, notes.txt\n"):
        xs.open_geometry(tmp_path / "calib/Epix100a::CalibV1/XcsEndstation.0:Epix100a.1/pedestals")
    with pytest.raises(FileFormatError, match="which detector") as told:
        xs.open_constants(tmp_path / "calib")
    advice = str(told.value).split("do this:  ")[1]
    with pytest.raises(xs.XsmallError, match="several ranges") as told:
        eval(advice, {"xs": xs})
    assert str(told.value).endswith(f"{advice[:-1]}, run=5)")  # what was typed, and what is lacking


def test_advice_repeats_what_was_typed(tmp_path: Path) -> None:
    np.save(tmp_path / "dark.npy", np.ones((4, 4)))
    np.save(tmp_path / "gain.npy", np.full((4, 4), 2.0))
    files = {"pedestal": tmp_path / "dark.npy", "gain": str(tmp_path / "gain.npy")}
    with pytest.raises(xs.XsmallError, match="what their gain means") as told:
        xs.open_constants(files, detector_type="camera")
    assert eval(str(told.value).split("do this:  ")[1], {"xs": xs})["gain"].shape == (1, 1, 4, 4)
