"""Frames and constants that are not of the same detector: sizes, modules, experiments."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import CalibrationError, DataError
from xsmall.vocabulary import FRAME_DIMS


def frames(n_segments: int = 2, n_rows: int = 4, kind: str = "jungfrau", **attrs: Any) -> xr.DataArray:
    words = np.full((2, n_segments, n_rows, 6), 100, np.uint16)
    labels = {dim: np.arange(n) for dim, n in zip(FRAME_DIMS[1:], words.shape[1:], strict=True)}
    return xr.DataArray(words, dims=FRAME_DIMS, coords=labels, attrs={"detector_type": kind, **attrs})


def table(n_segments: int = 2, n_rows: int = 4, kind: str = "jungfrau", **attrs: Any) -> xr.Dataset:
    pedestal = np.zeros((3 if kind == "jungfrau" else 1, n_segments, n_rows, 6)) + np.arange(n_segments)[:, None, None]
    return xs.constants(kind, pedestal, gain=np.ones_like(pedestal)).assign_attrs(attrs)


def test_first_segments_are_no_part_of_a_larger_detector_unless_somebody_says_so() -> None:
    raw, larger = frames(1), table(2)
    for use in (xs.calibrate, xs.trust, lambda raw, c: xs.common_mode(raw, 0, c)):
        with pytest.raises(CalibrationError, match=r"constants.sel\(segment=raw.segment\)"):
            use(raw, larger)
    chosen = xs.calibrate(raw, larger.sel(segment=raw.segment))
    np.testing.assert_array_equal(chosen.values, 100)
    told = xs.calibrate(raw.assign_attrs(detector_shape=[2, 4, 6]), larger)
    np.testing.assert_array_equal(told.values, 100)
    np.testing.assert_array_equal(xs.calibrate(frames(2).isel(segment=[1]), larger).values, 99)  # 1 is no first one
    with pytest.raises(CalibrationError, match="larger detector"):
        xs.calibrate(raw.assign_attrs(detector_shape=[1, 4, 6]), larger)


@pytest.mark.parametrize("kind", ["jungfrau", "camera"])
def test_first_rows_are_no_part_of_a_larger_detector_either(kind: str) -> None:
    if kind == "camera":  # its size is anybody's guess
        with pytest.raises(CalibrationError, match=r"constants.sel\(row=raw.row\)"):
            xs.calibrate(frames(n_rows=4, kind=kind), table(n_rows=8, kind=kind))
    with pytest.raises(CalibrationError, match="larger detector"):
        xs.calibrate(frames(n_rows=4, kind=kind, detector_shape=[2, 4, 6]), table(n_rows=8, kind=kind))
    inner = frames(n_rows=8, kind=kind).isel(row=slice(2, 6), column=slice(1, 4))
    assert xs.calibrate(inner, table(n_rows=8, kind=kind)).shape == inner.shape  # row 2 is no first one
    part = frames(n_rows=8, kind=kind, detector_shape=[2, 8, 6]).isel(row=slice(0, 4))
    assert xs.calibrate(part, table(n_rows=8, kind=kind)).sizes["row"] == 4


def test_a_type_whose_segments_have_one_size_says_that_rows_are_a_part() -> None:
    raw, pedestal = frames(1, 4), np.zeros((3, 1, 512, 1024), np.float32)
    constants = xs.constants("jungfrau", pedestal, gain=pedestal + 1)
    assert xs.calibrate(raw, constants).shape == raw.shape


def test_modules_are_known_by_their_serial_numbers() -> None:
    ids = {"segment_ids": json.dumps({"0": "a", "1": "b"})}
    raw = frames(2, **ids)
    np.testing.assert_array_equal(xs.calibrate(raw, table(2, **ids)).values[0, :, 0, 0], [100, 99])
    swapped = table(2, segment_ids=json.dumps({"0": "b", "1": "a"}))
    with pytest.raises(CalibrationError, match="in another order"):
        xs.calibrate(raw, swapped)
    with pytest.raises(CalibrationError, match="in another order"):
        xs.calibrate(raw.isel(segment=[1]), swapped)
    with pytest.raises(CalibrationError, match="another detector"):
        xs.trust(raw, table(2, segment_ids=json.dumps({"0": "a", "1": "c"})))
    assert xs.calibrate(raw, table(2)).shape == raw.shape  # nothing is known of these


def test_run_ranges_hold_within_an_experiment() -> None:
    constants = table(2, run_range=[10, 20], experiment="xpp1")
    with pytest.raises(CalibrationError, match="not valid for this run"):
        xs.calibrate(frames(2, run=9, experiment="xpp1"), constants)
    with pytest.raises(CalibrationError, match="not valid for this run"):
        xs.calibrate(frames(2, run=9), constants)
    assert xs.calibrate(frames(2, run=9, experiment="xpp2"), constants).sizes["event"] == 2
    assert xs.calibrate(frames(2, run=12345), table(2, run_range=[10, 9999])).sizes["event"] == 2  # 9999 is no end


@pytest.mark.filterwarnings("ignore")
def test_darks_keep_what_tells_the_detector(tmp_path: Path) -> None:
    about = {"segment_ids": json.dumps({"0": "a", "1": "b"}), "experiment": "xpp1", "detector_shape": [2, 4, 6]}
    runs = [frames(2, kind="camera", **about), frames(2, kind="camera", **about)]
    xs.save(xs.dark(runs), tmp_path / "dark.zarr")
    constants = xs.open_constants(tmp_path / "dark.zarr")
    assert {name: constants.attrs[name] for name in about} == about
    other = json.dumps({"0": "a", "1": "c"})
    with pytest.raises(CalibrationError, match="another detector"):
        xs.calibrate(frames(2, kind="camera", segment_ids=other), constants)
    with pytest.raises(DataError, match="different detectors"):
        xs.dark([runs[0], runs[1].assign_attrs(segment_ids=other)])


def test_frames_of_a_file_know_their_modules(shared: Path) -> None:
    raw = xs.open_run(shared / "data/xtc2/jungfrau05M_mfx101332224_run7.xtc2")["jungfrau"]["raw"]
    assert json.loads(raw.attrs["segment_ids"]) == {"0": "8000000020000-230920-20004002c"}
    assert raw.attrs["detector_shape"] == [1, 512, 1024]
    assert raw.attrs["experiment"] == "mfx101332224"
    pedestal = np.zeros((3, 2, 512, 1024), np.float32)
    with pytest.raises(CalibrationError, match="larger detector"):
        xs.calibrate(raw, xs.constants("jungfrau", pedestal, gain=pedestal + 1))
