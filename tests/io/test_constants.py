"""Constants from other people's files: the right file of a run, shapes, and what a gain means."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xsmall as xs
from xsmall.calibration.constants import constants
from xsmall.errors import CalibrationError, FileFormatError, ParameterError, XsmallError
from xsmall.io.constants.open import open_constants
from xsmall.io.constants.psana import read_text_array, run_file

RNG = np.random.default_rng(3)


def write_text(path: Path, array: np.ndarray) -> None:
    """Write an array as psana does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"TITLE test\nDTYPE float32\nNDIM {array.ndim}\n"
    header += "".join(f"DIM:{i} {n}\n" for i, n in enumerate(array.shape, start=1))
    np.savetxt(path, array.reshape(-1, array.shape[-1]), fmt="%.3f", header=header)


def folder(tmp_path: Path, group: str, source: str, arrays: Mapping[str, np.ndarray], name: str = "0-end") -> Path:
    for kind, array in arrays.items():
        write_text(tmp_path / "calib" / group / source / kind / f"{name}.data", array)
    return tmp_path / "calib"


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30) | st.none()), min_size=1, max_size=8, unique=True),
    st.integers(0, 30),
)
def test_the_file_of_a_run_has_the_latest_first_run_and_then_the_narrowest_range(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int | None]], run: int
) -> None:
    here = tmp_path_factory.mktemp("type")
    for begin, end in ranges:
        (here / f"{begin}-{'end' if end is None else end}.data").touch()
    (here / "HISTORY").touch()
    (here / "1-2-3.data").touch()
    covering = [(b, 9999 if e is None else e) for b, e in ranges if b <= run <= (9999 if e is None else e)]
    found = run_file(here, run)
    if not covering:
        assert found is None
    else:
        latest = max(b for b, _ in covering)
        assert found is not None
        assert found[1:] == (latest, min(e for b, e in covering if b == latest))


def test_status_of_some_gain_stages_is_refused(tmp_path: Path) -> None:
    about = {"detector": "epix10ka_000001"}
    planes = {"pedestals": (np.zeros((7, 1, 4, 6)), about), "pixel_status": (np.zeros((5, 1, 4, 6), "u8"), {})}
    with pytest.raises(CalibrationError, match="pixel_status has another shape"):
        open_constants(planes)


def test_a_jungfrau_folder_divides_by_its_gain(tmp_path: Path) -> None:
    shape = (3, 2, 512, 1024)
    small = {k: np.round(RNG.uniform(1, 50, (3, 1, 1, 1)) * np.ones(shape), 3) for k in ("pedestals", "pixel_gain")}
    status = np.zeros(shape)
    status[1, 0, 5, 6] = 4
    path = folder(tmp_path, "Jungfrau::CalibV1", "Exp.0:Jungfrau.0", {**small, "pixel_status": status})
    found = open_constants(path, run=7)
    assert found.attrs["detector_type"] == "jungfrau"
    assert found.attrs["run_range"] == [0, 9999]
    assert found["gain"].attrs["units"] == "ADU/keV"
    np.testing.assert_allclose(found["gain"], small["pixel_gain"], rtol=1e-6)
    assert np.argwhere(found["status"].values).tolist() == [[1, 0, 5, 6]]


def test_an_epix100_folder_of_psana1_multiplies_by_its_gain(tmp_path: Path) -> None:
    arrays = {"pedestals": np.full((704, 768), 100.0), "pixel_gain": np.full((704, 768), 0.5)}
    path = folder(tmp_path, "Epix100a::CalibV1", "Xcs.0:Epix100a.1", arrays)
    found = open_constants(path, detector="epix100a")
    words = np.full((1, 1, 704, 768), 300, np.uint16)
    words[0, 0, 0, 0] = 302  # words that are all one value are padding
    raw = xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "epix100"})
    value = xs.calibrate(raw, found)
    assert value.attrs["units"] == "ADU"
    np.testing.assert_array_equal(value.values, (words - 100.0) * 0.5)


def test_cspad2x2_constants_come_in_the_order_of_segments(tmp_path: Path) -> None:
    arrays = {"pedestals": np.round(RNG.normal(1000, 10, (185, 388, 2)), 3), "pixel_mask": np.ones((185, 388, 2))}
    arrays["pixel_mask"][3, 4, 1] = 0
    found = open_constants(folder(tmp_path, "CsPad2x2::CalibV1", "Mec.0:Cspad2x2.1", arrays), run=3)
    assert found["pedestal"].shape == (1, 2, 185, 388)
    np.testing.assert_allclose(found["pedestal"][0, 1], arrays["pedestals"][..., 1], rtol=1e-6)
    assert np.argwhere(found["status"].values).tolist() == [[0, 1, 3, 4]]


def test_folders_that_leave_open_what_is_meant_say_so(tmp_path: Path) -> None:
    dark = {"pedestals": np.zeros((4, 6))}
    for source, name in (("A.0:Opal1000.0", "0-5"), ("A.0:Opal1000.0", "6-end"), ("A.0:Zyla.0", "3-end")):
        path = folder(tmp_path, "Camera::CalibV1", source, dark, name)
    with pytest.raises(FileFormatError, match="which detector"):
        open_constants(path, run=3)
    with pytest.raises(CalibrationError, match="several ranges"):
        open_constants(path, detector="opal")
    with pytest.raises(FileFormatError, match="no pedestals"):
        open_constants(path, detector="zyla", run=2)
    with pytest.raises(FileFormatError, match="no such detector"):
        open_constants(path, detector="jungfrau", run=2)
    assert open_constants(path, detector="opal", run=8).attrs["run_range"] == [6, 9999]


@pytest.mark.parametrize("text", ["# NDIM 3\n# DIM:1 2\n# DIM:2 2\n# DIM:3 2\n1 2\n", "a b\n", "1 2\n3\n"])
def test_text_that_is_no_array_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "0-end.data"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"0-end\.data"):
        read_text_array(path)


def test_arrays_and_files_by_name(tmp_path: Path) -> None:
    gain, dark = np.full((3, 8, 9), 2.0), RNG.normal(100, 1, (3, 8, 9)).astype("f4")
    np.save(tmp_path / "gain.npy", gain)
    write_text(tmp_path / "ped.txt", dark)
    files = {"pedestal": tmp_path / "ped.txt", "gain": str(tmp_path / "gain.npy")}
    with pytest.raises(ParameterError, match="multiplied by it, or divided"):
        open_constants(files, detector_type="jungfrau")
    found = open_constants(files, detector_type="jungfrau", gain="divide")
    assert found["pedestal"].shape == (3, 1, 8, 9)
    np.testing.assert_allclose(found["pedestal"][:, 0], dark, atol=1e-3)
    relative = open_constants(files, detector_type="jungfrau", gain="multiply")
    assert relative["gain"].attrs["units"] == "1"
    assert (relative["gain"].values == 0.5).all()
    nominal = open_constants({"pedestal": np.zeros((7, 4, 5))}, detector_type="epix10ka", gain="nominal")
    assert nominal["gain"][2, 0, 0, 0] == np.float32(0.164)
    for wrong, kind in (({"pedestals": dark}, "jungfrau"), ({"gain": gain}, "jungfrau"), ({"pedestal": dark}, None)):
        with pytest.raises(ParameterError):
            open_constants(wrong, detector_type=kind)


def test_our_own_files_come_back_equal_and_lazy(tmp_path: Path) -> None:
    table = constants(
        "jungfrau", RNG.normal(0, 1, (3, 2, 4, 6)), status=np.eye(4, 6) * np.ones((3, 2, 1, 1)), run_range=(3, 9)
    )
    for name in ("dark.zarr", "dark.h5"):
        xs.save(table, tmp_path / name)
        found = open_constants(tmp_path / name)
        assert found["pedestal"].chunks is not None
        for variable in table.data_vars:
            np.testing.assert_array_equal(found[variable].values, table[variable].values)
        assert list(found.attrs["run_range"]) == [3, 9]


def test_small_data_files_hold_the_constants_of_their_detectors(tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    with h5py.File(path, "w") as file:
        for name, shape in (("jungfrau1M", (3, 2, 4, 6)), ("epix_1", (4, 6))):
            group = file.create_group(f"UserDataCfg/{name}")
            group["ped"], group["rms"] = np.full(shape, 9.0), np.full(shape, 2.0)
            group["gain"], group["mask"] = np.full(shape, 4.0), np.ones(shape[-3:] if len(shape) == 4 else shape)
    found = open_constants(path, detector="jungfrau1M")
    assert found["gain"].attrs["units"] == "ADU/keV"
    assert not found["status"].values.any()
    with pytest.raises(ParameterError, match="multiplied by it, or divided"):
        open_constants(path, detector="epix_1")
    multiplied = open_constants(path, detector="epix_1", gain="multiply")
    assert multiplied["gain"].values.min() == 0.25
    assert multiplied.attrs["detector_type"] == "epix100"
    with pytest.raises(FileFormatError, match="which detector"):
        open_constants(path)


def test_an_epixuhr_of_psana_has_eight_stages_and_those_after_switching_are_like_the_fixed_low_ones() -> None:
    planes = np.arange(8.0, dtype="f4")[:, None, None, None] * np.ones((1, 2, 3), "f4")
    found = open_constants({"pedestals": (planes, {"detector": "epixuhr3x2_000001"}), "pixel_gain": (planes + 1, {})})
    assert found["pedestal"].values[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 2, 3]
    assert found["gain"].values[8:, 0, 0, 0].tolist() == [3, 4, 3, 4]


def test_a_detector_of_psana_divides_by_its_gain() -> None:
    class Detector:
        calibconst: Mapping[str, Any] = {
            "pedestals": (
                np.full((3, 1, 4, 6), 5.0, "f4"),
                {
                    "run": 3,
                    "run_end": "end",
                    "detector": "jungfrau_000003",
                    "experiment": "xpp1",
                    "longname": "jungfrau_20-1",
                },
            ),
            "pixel_gain": (np.full((3, 1, 4, 6), 40.0, "f4"), {}),
            "pixel_status": (np.zeros((3, 1, 4, 6), "u8"), {}),
            "geometry": ("text", {}),
        }

    found = open_constants(Detector())
    assert found.attrs["detector_type"] == "jungfrau"
    assert found.attrs["run_range"] == [3, 9999]
    assert found.attrs["experiment"] == "xpp1"
    assert found.attrs["segment_ids"] == '{"0": "20-1"}'
    assert found["gain"].attrs["units"] == "ADU/keV"
    with pytest.raises(CalibrationError, match="does not say which detector"):
        open_constants({"pedestals": (np.zeros((4, 6)), {})})
    with pytest.raises(CalibrationError, match="no pedestals for this detector and run"):
        open_constants({"pedestals": (None, {"detector": "jungfrau_000003"})})  # the document is there, the data not


def test_constants_of_the_european_xfel_by_module_cell_and_stage(tmp_path: Path) -> None:
    path = tmp_path / "agipd.h5"
    cells = 4
    offset = RNG.normal(5000, 100, (2, 128, 512, cells, 3)).astype("f4")
    with h5py.File(path, "w") as file:
        for m in range(2):
            name = f"AGIPD_M{m:03d}"
            file[f"{name}/Offset/0/data"] = offset[m]
            file[f"{name}/BadPixelsDark/0/data"] = np.full((128, 512, cells, 3), m, np.uint32)
            file[f"{name}/BadPixelsFF/0/data"] = np.full((128, 512, cells, 3), 4 * m, np.uint32)
            file[f"{name}/ThresholdsDark/0/data"] = np.full((128, 512, cells, 2), 7000, np.float32)
    found = open_constants(path, detector_type="agipd")
    assert found["pedestal"].dims == ("memory_cell", "gain_stage", "segment", "row", "column")
    assert found["pedestal"].shape == (cells, 3, 2, 512, 128)
    np.testing.assert_array_equal(found["pedestal"][2, 1, 1].values, offset[1, :, :, 2, 1].T)
    assert np.unique(found["status"].values).tolist() == [0, 5]
    assert found["threshold"].shape == (cells, 2, 2, 512, 128)
    with pytest.raises(ParameterError, match="detector_type"):
        open_constants(path)


def test_constants_of_lpd_and_dssc(tmp_path: Path) -> None:
    lpd = RNG.normal(1000, 100, (256, 256, 2, 3)).astype("f4")  # square: (fast, slow), as the catalogue has them
    dssc = RNG.normal(40, 1, (512, 128, 2)).astype("f4")  # of one gain: no axis for it
    with h5py.File(tmp_path / "lpd.h5", "w") as file:
        file["LPD03/Offset/0/data"] = lpd
        file["LPD03/FFMap/0/data"] = lpd[..., 0]
    with h5py.File(tmp_path / "dssc.h5", "w") as file:
        file["DSSC01/Offset/0/data"] = dssc
        file["DSSC01/Noise/0/data"] = dssc.transpose(1, 0, 2)
    found = open_constants(tmp_path / "lpd.h5", detector_type="lpd")
    np.testing.assert_array_equal(found["pedestal"].values[:, :, 0], lpd.transpose(2, 3, 1, 0))
    assert found["segment"].item() == 3
    assert found.attrs["left_out"] == "FFMap: not used"
    found = open_constants(tmp_path / "dssc.h5", detector_type="dssc")
    assert found["pedestal"].shape == (2, 1, 1, 128, 512)
    np.testing.assert_array_equal(found["pedestal"].values[:, 0, 0], dssc.transpose(2, 1, 0))
    np.testing.assert_array_equal(found["noise"], found["pedestal"])
    with pytest.raises(FileFormatError, match="has another shape"):
        open_constants(tmp_path / "dssc.h5", detector_type="lpd")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["JNGFR01", "JNGFR02", "JNGFR04"], [0, 1, 3]),
        (["JNGFR9", "JNGFR10", "JNGFR11"], [8, 9, 10]),
        (["Q1M2", "Q2M1", "Q4M4"], [1, 4, 15]),
        (["left", "right"], [0, 1]),
    ],
)
def test_modules_are_labelled_by_their_numbers(names: list[str], labels: list[int], tmp_path: Path) -> None:
    path = tmp_path / "jungfrau.h5"
    with h5py.File(path, "w") as file:
        for name in names:
            file[f"{name}/Offset10Hz/0/data"] = np.zeros((1024, 512, 1, 3), np.float32)
    found = open_constants(path, detector_type="jungfrau_euxfel")
    assert found["segment"].values.tolist() == labels
    assert found["segment"].attrs["modules"] == " ".join(names)


@pytest.mark.parametrize("content", [b"", b"not a file of constants", None])
def test_files_that_hold_no_constants_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "things.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["counts"] = np.zeros(3)
    else:
        path.write_bytes(content)
    with pytest.raises(XsmallError, match=r"things\.h5"):
        open_constants(path)
    with pytest.raises(FileFormatError, match="no such file"):
        open_constants(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "# NDIM 2\n# DIM:1 2\n# DIM:2 3\n", "\n\n"])
def test_a_text_file_without_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "0-end.data").write_text(text)
    with pytest.raises(FileFormatError, match="no numbers"):
        read_text_array(tmp_path / "0-end.data")


@pytest.mark.parametrize("begin", [b"", b"1 2 3\n" * 1000])
def test_a_text_file_of_holes_or_without_an_end_is_refused_at_once(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "0-end.data"
    path.write_bytes(begin)
    os.truncate(path, 200 << 30)  # takes no place on the disk
    with pytest.raises(FileFormatError, match=r"0-end\.data") as told:
        read_text_array(path)
    assert ("no text" in str(told.value)) == (not begin)


def test_a_text_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "0-end.data", np.arange(12.0).reshape(4, 3))
    lines = (tmp_path / "0-end.data").read_text().splitlines()
    (tmp_path / "0-end.data").write_text("\n".join(lines[:-1]))
    with pytest.raises(FileFormatError, match="header and numbers disagree"):
        read_text_array(tmp_path / "0-end.data")
