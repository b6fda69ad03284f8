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
from xsmall.errors import DataError, FileFormatError, GainBitsWarning, MissingDependency, ParameterError
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
    with pytest.warns(GainBitsWarning, match="'lpd'"):  # the gain is in its words
        sums = raw.sd.roi(xs.Box(segment=1, row=(0, 4), column=(0, 4)))
    n_valid = sums.compute()["n_valid"].values.ravel()
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


def test_files_of_two_runs_and_files_that_are_cut_are_told(lpd: Path, tmp_path: Path) -> None:
    files = sorted(shutil.copy(file, tmp_path) for file in lpd.glob("*.h5"))
    whole = Path(files[0]).read_bytes()
    Path(files[0]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"(?s)cannot be opened.*LPD00") as told:
        xs.open_run(tmp_path)
    run = eval(str(told.value).split("do this:  ")[1], {"xs": xs})
    assert run.attrs["missing_files"] == Path(files[0]).name
    assert "missing_files" in run["FXE_DET_LPD1M-1/raw"].attrs["lost"]
    with pytest.raises(ParameterError, match="invalid missing="):
        xs.open_run(tmp_path, missing="skip")
    shutil.copy(files[1], files[1].replace("R0450", "R0451"))
    with pytest.raises(FileFormatError, match="run 450, run 451 of RAW-LPD01"):
        xs.open_run(tmp_path)


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
    with pytest.raises(DataError, match=r"(?s)pulses are repeated.*open_run\(path, parallel_gain=True\)"):
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


def test_what_is_not_opened_is_named_with_the_way_to_it(tmp_path: Path) -> None:
    folder = make("make_spb_run", tmp_path)
    told = xs.open_run(folder)["events"].attrs["left_out"]
    assert "SPB_XTD9_XGM/DOOCS/MAIN" in told
    assert "variables={name: (source, key)}" in told
    assert "AGIPD" not in told
    assert "left out: " in describe(folder)
    assert "SPB_DET_AGIPD1M-1: not among detectors=" in xs.open_run(folder, detectors=[])["events"].attrs["left_out"]
    (file, *_) = folder.glob("*AGIPD00-S00000.h5")
    with pytest.raises(FileFormatError, match="do this:") as error:
        xs.open_run(file)
    call = str(error.value).split("do this:  ")[1]
    assert "SPB_DET_AGIPD1M-1" in eval(call, {"xs": xs}).children


def test_a_detector_without_frames_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = make("make_lpd_run_mini_missed_train", tmp_path)
    for path in folder.glob("*.h5"):
        with h5py.File(path, "a") as file:
            for detector in file["INDEX"].values():
                for source in _detector_groups(detector, "xtdf") if isinstance(detector, h5py.Group) else []:
                    detector[source]["image/count"][...] = 0
    run = xs.open_run(folder)
    assert list(run.children) == ["events"]
    assert "no area detector that is known has frames" in run["events"].attrs["left_out"]


def test_lpd_read_in_three_gains_beside_extra_data(tmp_path: Path) -> None:
    folder = make("make_lpd_parallelgain_run", tmp_path)
    for file in sorted(folder.glob("*LPD0[03]-S*.h5")):
        with h5py.File(file, "a") as f:
            for name in _names_of(f, "image/data"):
                for k in (0, 99, 100, 199, 200, 299, 300, 400, 500, 29_799, 29_899, 29_999):
                    f[name][k, ..., 0, 0] = k
    run = xs.open_run(folder, parallel_gain=True)
    from extra_data import RunDirectory
    from extra_data.components import LPD1M

    theirs = LPD1M(RunDirectory(str(folder)), parallel_gain=True, raw=True)
    nodes = ["FXE_DET_LPD1M-1", "FXE_DET_LPD1M-1_medium_gain", "FXE_DET_LPD1M-1_low_gain"]
    for k, name in enumerate(nodes):
        raw = run[name]["raw"]
        assert raw.sizes["event"] == 100 * 100
        values = raw.isel(event=[0, 99, 100, 9999], row=0, column=0).values
        for module in (0, 3):
            expected = [300 * train + 100 * k + pulse for train, pulse in ((0, 0), (0, 99), (1, 0), (99, 99))]
            np.testing.assert_array_equal(values[:, module], expected)
    np.testing.assert_array_equal(run[nodes[0]]["raw"].event, run[nodes[2]]["raw"].event)
    of_gain = theirs["image.pulseId"].xarray().isel(module=0)
    pulses = of_gain.values.reshape(100, 3, 100)[:, 0]
    np.testing.assert_array_equal(run[nodes[1]]["raw"].pulse_id, pulses.ravel())
    with pytest.raises(ParameterError, match="no LPD"):
        xs.open_run(epix(tmp_path / "epix"), parallel_gain=True)


def _names_of(file: Any, ending: str) -> list[str]:
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.endswith(ending) and name.startswith("INSTRUMENT") else None)
    return found


def epix(folder: Path, rows: int = 708, dtype: str = "u2") -> Path:
    """Eight trains of an ePix100, the fifth without a frame, after the layout of the European XFEL's files."""
    from extra_data.tests.mockdata import write_file
    from extra_data.tests.mockdata.base import DeviceBase

    class Epix(DeviceBase):
        output_channels = ("daqOutput/data",)
        instrument_keys = [("image/pixels", dtype, (rows, 768))]  # noqa: RUF012

    folder.mkdir(exist_ok=True)
    path = folder / "RAW-R0007-EPIX01-S00000.h5"
    write_file(str(path), [Epix("MID_EXP_EPIX-1/DET/RECEIVER")], ntrains=8, chunksize=8, format_version="1.0")
    with h5py.File(path, "a") as f:
        (name,) = _names_of(f, "image/pixels")
        f[name][...] = (np.arange(8)[:, None] * 1000 + np.arange(rows))[..., None]
        index = f["INDEX/MID_EXP_EPIX-1/DET/RECEIVER:daqOutput/data"]
        index["count"][4] = 0
        index["first"][5:] = np.arange(4, 7)
    return folder


@pytest.mark.parametrize("rows", [704, 708])
def test_epix100_without_the_rows_that_have_no_sensor(tmp_path: Path, rows: int) -> None:
    run = xs.open_run(epix(tmp_path / "run", rows))
    raw = run["MID_EXP_EPIX-1/raw"]
    assert raw.shape == (7, 1, 704, 768)
    assert raw.attrs["detector_type"] == "epix100"
    assert raw.row.values[[0, -1]].tolist() == [0, 703]
    first = (rows - 704) // 2
    trains = [0, 1, 2, 3, 5, 6, 7]
    np.testing.assert_array_equal(raw[:, 0, 0, 5], np.arange(7) * 1000 + first)
    np.testing.assert_array_equal(raw.train_id, 10_000 + np.array(trains))
    corrected = xs.open_run(epix(tmp_path / "proc", rows, "f4"))["MID_EXP_EPIX-1"]
    assert corrected["calibrated"].dtype == np.float32


@pytest.mark.parametrize(("maker", "kind"), [("make_lpd_run_mini_missed_train", "lpd"), ("make_scs_run", "dssc")])
def test_lpd_and_dssc_are_calibrated_by_memory_cell(tmp_path: Path, maker: str, kind: str) -> None:
    run = xs.open_run(make(maker, tmp_path))
    (node,) = (node for name, node in run.children.items() if name != "events")
    raw = node["raw"].isel(event=slice(0, 12), segment=slice(0, 2))
    words = np.random.default_rng(1).integers(1, 0xFFF, raw.shape).astype(np.uint16)
    raw = raw.copy(data=words)  # frames of nothing but zeros are taken for padding
    cells, stages = np.unique(raw.memory_cell), 3 if kind == "lpd" else 1
    shape = (cells.size, stages, *raw.shape[1:])
    pedestal = np.broadcast_to(10.0 * (1 + cells)[:, None, None, None, None], shape).astype("f4")
    dims = ("memory_cell", "gain_stage", "segment", "row", "column")
    labels = {"memory_cell": cells, "segment": raw.segment.values}
    constants = xr.Dataset({"pedestal": (dims, pedestal)}, labels, {"detector_type": kind})
    expected = words - 10.0 * (1 + raw.memory_cell.values)[:, None, None, None]
    expected[~raw.present.values] = np.nan
    np.testing.assert_array_equal(raw.sd.calibrate(constants, unit="ADU").values, expected)
