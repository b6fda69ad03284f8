"""Runs of the European XFEL beside extra_data's own mock runs: places, cells, pulses, and modules that miss trains."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, FileFormatError, MissingDependency, ParameterError
from xsmall.io.info import describe

pytest.importorskip("extra_data")
pytestmark = [
    pytest.mark.validation,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def make(name: str, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from extra_data.tests import make_examples

        getattr(make_examples, name)(str(folder))
    return folder


def number_frames(folder: Path, word: str, key: str, dtype: str) -> None:
    """Give every frame of every module a value of its own: its module, file and row."""
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file, "a") as f:
            for source in f.get("INSTRUMENT", {}):
                for name in _detector_groups(f["INSTRUMENT"][source], word):
                    data = f["INSTRUMENT"][source][name].get(key)
                    if data is not None:
                        values = np.arange(data.shape[0]) % 250 + 1
                        for k in range(data.shape[0]):
                            data[k, ..., 0, 0] = values[k]


def _detector_groups(group: Any, word: str) -> list[str]:
    found: list[str] = []
    group.visit(lambda name: found.append(name) if name.startswith("DET/") or name.startswith("CORR/") else None)
    return [name for name in found if word in name and name.count("/") == 1]


@pytest.fixture(scope="module")
def lpd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make("make_lpd_run_mini_missed_train", tmp_path_factory.mktemp("lpd"))
    number_frames(folder, "xtdf", "image/data", "u2")
    return folder


@pytest.fixture(scope="module")
def agipd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("make_agipd500k_run", tmp_path_factory.mktemp("agipd"))


def beside(folder: Path, cls: str, key: str, few: int = 0, **options: Any) -> xr.DataArray:
    import extra_data

    run = extra_data.RunDirectory(str(folder))
    if few:
        run = run.select_trains(np.s_[:few])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(extra_data.components, cls)(run, **options).get_array(key)


def test_a_module_that_misses_a_train_is_missing_and_not_zero(
    lpd: Path, computing_is_forbidden: Callable[[], object]
) -> None:
    with computing_is_forbidden():  # type: ignore[attr-defined]
        run = xs.open_run(lpd)
    node = run["FXE_DET_LPD1M-1"]
    raw = node["raw"]
    assert raw.dtype == np.uint16
    there = raw["present"].values
    trains = raw["train_id"].values
    np.testing.assert_array_equal(there[:, 0], True)
    np.testing.assert_array_equal(there[:, 1], trains != 10002)
    theirs = beside(lpd, "LPD1M", "image.data", min_modules=1).transpose("train", "pulse", "module", ...).values
    np.testing.assert_array_equal(raw.values, theirs.reshape(-1, *theirs.shape[2:]))
    assert (raw.values[there][:, 0, 0] > 0).all()
    n_valid = raw.sd.roi(xs.Box(segment=1, row=(0, 4), column=(0, 4))).compute()["n_valid"].values.ravel()
    np.testing.assert_array_equal(n_valid == 0, trains == 10002)


def test_events_are_labelled_by_train_and_pulse(lpd: Path) -> None:
    raw = xs.open_run(lpd)["FXE_DET_LPD1M-1/raw"]
    labels = raw["event"].values
    assert (np.diff(labels) > 0).all()
    np.testing.assert_array_equal(labels, raw["train_id"].values << 16 | raw["pulse_id"].values)
    np.testing.assert_array_equal(raw["train_id"], np.repeat(np.arange(10000, 10005), 10))
    np.testing.assert_array_equal(raw["pulse_id"], np.tile(np.arange(10), 5))
    cells = beside(lpd, "LPD1M", "image.cellId", min_modules=1).isel(module=0).values.ravel()
    np.testing.assert_array_equal(raw["memory_cell"], cells)
    assert raw["time"].dtype == np.dtype("M8[ns]")


@pytest.mark.parametrize("key", [(slice(3, 9), 1), ([7, 2, 30], slice(None), 0), (5, 0, slice(0, 3), 2)], ids=str)
def test_slices_are_as_numpy_takes_them(lpd: Path, key: Any) -> None:
    raw = xs.open_run(lpd)["FXE_DET_LPD1M-1/raw"]
    whole = raw.values
    keys = dict(zip(("event", "segment", "row", "column"), key, strict=False))
    np.testing.assert_array_equal(raw.isel(keys).values, xr.DataArray(whole, dims=raw.dims).isel(keys).values)


def test_agipd_has_its_gain_beside_the_words(agipd: Path) -> None:
    run = xs.open_run(agipd, detectors=["HED_DET_AGIPD500K2G"], chunks=64)
    node = run["HED_DET_AGIPD500K2G"]
    assert node["raw"].dims == node["gain"].dims == ("event", "segment", "row", "column")
    assert node["raw"].shape == (6400, 8, 512, 128)
    assert node["raw"].attrs["detector_type"] == "agipd"
    assert node["raw"]["present"].values.all()
    assert node["raw"].isel(event=slice(0, 2)).values.shape == (2, 8, 512, 128)
    with pytest.raises(ParameterError, match=r"(?s)no such detector.*HED_DET_AGIPD500K2G"):
        xs.open_run(agipd, detectors=["AGIPD"])
    assert describe(agipd).splitlines()[0].split(": ")[1].startswith("a run of the European XFEL")


def test_corrected_frames_come_with_gain_and_mask(tmp_path: Path) -> None:
    folder = make("make_modern_spb_proc_run", tmp_path)
    only = tmp_path / "corrected"
    only.mkdir()
    for file in folder.glob("CORR-*.h5"):
        shutil.move(file, only / file.name)
    node = xs.open_run(only)["SPB_DET_AGIPD1M-1"]
    assert node["calibrated"].dtype == np.float32
    assert node["gain"].shape == node["mask"].shape == node["calibrated"].shape
    assert node["calibrated"].shape == (64 * 32, 16, 512, 128)
    assert node["calibrated"].isel(event=[5], segment=[3]).values.shape == (1, 1, 512, 128)


def test_jungfrau_goes_by_memory_cell(tmp_path: Path) -> None:
    folder = make("make_fxe_jungfrau_run", tmp_path)
    run = xs.open_run(folder)
    assert {"FXE_XAD_JF1M", "FXE_XAD_JF500K"} <= set(run.children)
    node = run["FXE_XAD_JF1M"]
    frames = node["raw"] if "raw" in node else node["calibrated"]
    theirs = beside(folder, "JUNGFRAU", "data.adc", few=1, detector_name="FXE_XAD_JF1M")
    stacked = theirs.transpose("train", "cell", "module", ...) if "cell" in theirs.dims else theirs
    of_train = stacked.values.reshape(-1, *frames.shape[1:])
    assert frames.shape[0] == 100 * len(of_train)
    np.testing.assert_array_equal(frames.isel(event=slice(0, len(of_train))).values, of_train)
    np.testing.assert_array_equal(frames["segment"], theirs["module"].values - 1)
    assert (np.diff(frames["event"].values) > 0).all()


def test_pulses_that_are_repeated_are_refused_with_the_way_on(lpd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(lpd, folder)
    for file in folder.glob("*.h5"):
        with h5py.File(file, "a") as f:
            for source in f.get("INSTRUMENT", {}):
                for name in _detector_groups(f["INSTRUMENT"][source], "xtdf"):
                    f["INSTRUMENT"][source][name]["image/pulseId"][...] = 7
    with pytest.raises(DataError, match=r"(?s)pulses are repeated.*LPD1M\(run, parallel_gain=True\)"):
        xs.open_run(folder)


def test_without_extra_data_the_extra_is_named(lpd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(lpd, folder)
    monkeypatch.setitem(__import__("sys").modules, "extra_data", None)
    with pytest.raises(MissingDependency, match=r"xsmall\[extra\]"):
        xs.open_run(folder)


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileFormatError, match="not a run that xsmall can open"):
        xs.open_run(tmp_path)


def test_what_is_recorded_once_per_train_is_a_variable_of_events(tmp_path: Path) -> None:
    folder = make("make_spb_run", tmp_path)
    source, key = "SPB_XTD9_XGM/DOOCS/MAIN", "beamPosition.ixPos"
    (file,) = folder.glob("*DA01-S00000.h5")
    with h5py.File(file, "a") as f:
        positions = f[f"CONTROL/{source}/{key.replace('.', '/')}/value"]
        positions[...] = np.arange(positions.shape[0])
        ids = f["INDEX/trainId"][:]
    places = {"x": (source, key), "xgm_pulse_energy": (f"{source}:output", "data.intensityTD", 3)}
    events = xs.open_run(folder, variables=places)["events"].to_dataset()
    first = np.isin(events.train_id, ids)
    assert first.any()
    np.testing.assert_array_equal(events.x.values[first], events.train_id.values[first] - ids[0])
    assert xs.event_variables(events, "euxfel").i0.attrs["source"] == "xgm_pulse_energy"
    wrong = [("nowhere", key), (source, "nothing"), (f"{source}:output", "data.intensityTD"), (source,)]
    for place in wrong:
        with pytest.raises(ParameterError):
            xs.open_run(folder, variables={"x": place})
