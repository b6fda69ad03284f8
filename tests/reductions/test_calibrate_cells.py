"""Calibration by memory cell and gain stage: against the obvious formula, for any chunking, and on mock AGIPD files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import CalibrationError, ParameterError
from xsmall.vocabulary import Reason

RNG = np.random.default_rng(4)
CELLS = np.array([0, 4, 8])
DIMS = ("event", "segment", "row", "column")


def agipd(n: int = 5, shape: tuple[int, int, int] = (2, 6, 4)) -> tuple[xr.DataArray, xr.DataArray, xr.Dataset]:
    """Frames, analogue gain and constants of three memory cells."""
    signal = RNG.integers(4000, 9000, (n, *shape)).astype(np.uint16)
    gain = RNG.integers(5000, 9000, (n, *shape)).astype(np.uint16)
    dims = ("memory_cell", "gain_stage", "segment", "row", "column")
    table = xr.Dataset(
        {
            "pedestal": (dims, RNG.normal(4500, 50, (3, 3, *shape)).astype("f4")),
            "gain": (dims, RNG.uniform(0.5, 2, (3, 3, *shape)).astype("f4"), {"units": "1"}),
            "status": (dims, np.where(RNG.random((3, 3, *shape)) < 0.1, 2, 1 << 22).astype(np.uint64)),
            "threshold": (
                ("memory_cell", "threshold_number", *dims[2:]),
                np.sort(RNG.uniform(5500, 8500, (3, 2, *shape)), axis=1).astype("f4"),
            ),
        },
        coords={"memory_cell": CELLS},
        attrs={"detector_type": "agipd"},
    )
    coords = {"memory_cell": ("event", RNG.choice(CELLS, n))}
    raw = xr.DataArray(signal, dims=DIMS, coords=coords, attrs={"detector_type": "agipd"}, name="raw")
    return raw, raw.copy(data=gain), table


def by_hand(raw: xr.DataArray, gain: xr.DataArray, table: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Values, and whether the status of the own cell and stage forbids trust, pixel by pixel."""
    values, bad = np.empty(raw.shape), np.empty(raw.shape, bool)
    for index in np.ndindex(*raw.shape):
        cell = int(np.flatnonzero(int(raw.memory_cell[index[0]]) == CELLS)[0])
        stage = int((gain.values[index] > table.threshold.values[(cell, slice(None), *index[1:])]).sum())
        at = (cell, stage, *index[1:])
        values[index] = (raw.values[index] - table.pedestal.values[at]) / table.gain.values[at]
        bad[index] = (table.status.values[at] & 0xFFFF) != 0
    return values, bad


def test_every_pixel_takes_the_constants_of_its_cell_and_stage() -> None:
    raw, gain, table = agipd()
    values, bad = by_hand(raw, gain, table)
    out = xs.calibrate(raw, table, gain_stage=gain)
    np.testing.assert_allclose(out.values, np.where(bad, np.nan, values), rtol=1e-4, atol=1e-2)
    assert out.attrs["units"] == "ADU"
    flags = xs.trust(raw, table, gain_stage=gain)
    np.testing.assert_array_equal(flags.values != 0, bad)
    assert set(np.unique(flags.values)) <= {0, int(Reason.MEMORY_CELL_STATUS)}
    everything = xs.calibrate(raw, table, gain_stage=gain, trust=[])
    np.testing.assert_allclose(everything.values, values, rtol=1e-4, atol=1e-2)


def test_stages_may_be_given_and_bad_codes_are_nan() -> None:
    raw, gain, table = agipd()
    stage = (gain.values[:, None] > table.sel(memory_cell=raw.memory_cell).threshold.values).sum(axis=1)
    of_gain = xs.calibrate(raw, table, gain_stage=gain)
    given = xs.calibrate(raw, table.drop_vars("threshold"), gain_stage=gain.copy(data=stage.astype(np.uint8)))
    np.testing.assert_array_equal(given.values, of_gain.values)
    codes = gain.copy(data=np.full(raw.shape, 3, np.uint8))
    assert np.isnan(xs.calibrate(raw, table, gain_stage=codes, trust=[]).values).all()
    assert (xs.trust(raw, table, gain_stage=codes).values == int(Reason.BAD_GAIN_CODE)).all()


def test_the_same_for_any_chunking_and_nothing_computes(computing_is_forbidden: Callable[[], Any]) -> None:
    raw, gain, table = agipd(7)
    present = np.ones((7, 2), bool)
    present[3, 1] = False
    raw = raw.assign_coords(present=(("event", "segment"), present))
    mask = RNG.random(raw.shape[1:]) < 0.9
    eager = xs.calibrate(raw, table, gain_stage=gain, mask=mask)
    flags = xs.trust(raw, table, gain_stage=gain, mask=mask)
    np.testing.assert_array_equal(np.isnan(eager.values), flags.values != 0)
    for chunks in ({"event": 1}, {"event": (3, 4), "segment": 1, "row": 2}):
        lazy_raw, lazy_gain = raw.copy(data=raw.chunk(chunks).data), gain.chunk(event=2)
        with computing_is_forbidden():
            lazy = xs.calibrate(lazy_raw, table.chunk(segment=1), gain_stage=lazy_gain, mask=mask)
            lazy_flags = xs.trust(lazy_raw, table, gain_stage=lazy_gain, mask=mask)
        xr.testing.assert_identical(lazy.compute(), eager)
        xr.testing.assert_identical(lazy_flags.compute(), flags)
    part = xs.calibrate(raw.isel(segment=[1]).assign_coords(segment=[1]), table, gain_stage=gain.isel(segment=[1]))
    np.testing.assert_array_equal(part.values, xs.calibrate(raw, table, gain_stage=gain).values[:, [1]])


def test_what_is_missing_is_named() -> None:
    raw, gain, table = agipd()
    with pytest.raises(CalibrationError, match="lies beside"):
        xs.calibrate(raw, table)
    with pytest.raises(CalibrationError, match="thresholds"):
        xs.calibrate(raw, table.drop_vars("threshold"), gain_stage=gain)
    with pytest.raises(CalibrationError, match="memory cell of each frame"):
        xs.calibrate(raw.drop_vars("memory_cell"), table, gain_stage=gain)
    with pytest.raises(CalibrationError, match="no constants for some memory cells"):
        xs.calibrate(raw, table.isel(memory_cell=[0]), gain_stage=gain)
    with pytest.raises(ParameterError, match="plain calibration"):
        xs.calibrate(raw, table, gain_stage=gain, variance="noise")


def test_jungfrau_of_the_european_xfel_has_codes_zero_one_three() -> None:
    shape = (1, 2, 4)
    words = np.full((1, *shape), 5000, np.uint16)
    codes = np.array([0, 1, 2, 3, 0, 1, 3, 9], np.uint8).reshape(1, *shape)
    dims = ("gain_stage", "segment", "row", "column")
    pedestal = np.array([1000.0, 2000.0, 3000.0])[:, None, None, None] * np.ones(shape)
    table = xr.Dataset(
        {"pedestal": (dims, pedestal), "gain": (dims, np.full((3, *shape), 40.0))},
        attrs={"detector_type": "jungfrau_euxfel"},
    )
    raw = xr.DataArray(words, dims=DIMS, attrs={"detector_type": "jungfrau_euxfel"})
    out = xs.calibrate(raw, table, gain_stage=raw.copy(data=codes))
    assert out.attrs["units"] == "keV"
    expected = np.array([100, 75, np.nan, 50, 100, 75, 50, np.nan], np.float32)
    np.testing.assert_allclose(out.values.reshape(-1), expected)


@pytest.mark.validation
def test_mock_agipd_files_of_extra_data(tmp_path: Path) -> None:
    extra_data = pytest.importorskip("extra_data", exc_type=ImportError)
    examples = pytest.importorskip("extra_data.tests.make_examples", exc_type=ImportError)
    components = pytest.importorskip("extra_data.components", exc_type=ImportError)
    examples.make_spb_run(str(tmp_path), raw=True)
    for path in tmp_path.glob("RAW-*-AGIPD0[01]-S00000.h5"):  # the frames of mock files are empty
        with h5py.File(path, "r+") as file:
            (device,) = (d for d in file["INSTRUMENT/SPB_DET_AGIPD1M-1/DET"] if "0CH0" in d or "1CH0" in d)
            data = file[f"INSTRUMENT/SPB_DET_AGIPD1M-1/DET/{device}/image/data"]
            data[:3] = RNG.integers(4000, 9000, (3, *data.shape[1:]))
    detector = components.AGIPD1M(extra_data.RunDirectory(str(tmp_path)), modules=[0, 1], raw=True)
    picked = detector.select_trains(np.s_[:1])
    planes = picked["image.data"].xarray().isel(train_pulse=[0, 1, 2]).transpose("data_gain", "train_pulse", ...)
    cells = picked["image.cellId"].ndarray()[0, :3]
    frames, gain = (planes.values[plane] for plane in (0, 1))
    assert frames.shape == (3, 2, 512, 128)
    assert frames.any()
    _, _, table = agipd(1, (2, 512, 128))
    table = table.assign_coords(memory_cell=[0, 1, 2])
    attrs = {"detector_type": "agipd"}
    raw = xr.DataArray(frames, dims=DIMS, coords={"memory_cell": ("event", cells)}, attrs=attrs)
    out = xs.calibrate(raw, table, gain_stage=raw.copy(data=gain))
    threshold = table.threshold.values[cells]
    stage = (gain[:, None] > threshold).sum(axis=1)
    pick = lambda t: np.take_along_axis(t.values[cells], stage[:, None], axis=1)[:, 0]  # noqa: E731
    expected = (frames - pick(table.pedestal)) / pick(table.gain)
    bad = (pick(table.status) & 0xFFFF) != 0
    np.testing.assert_allclose(out.values, np.where(bad, np.nan, expected), rtol=1e-4, atol=1e-2)
    flags = xs.trust(raw, table, gain_stage=raw.copy(data=gain))
    np.testing.assert_array_equal(flags.values, np.where(bad, np.uint32(Reason.MEMORY_CELL_STATUS), 0))
