"""Calibration by memory cell and gain stage: against the obvious formula, for any chunking, and on mock AGIPD files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.geometry import Panel
from xsmall.errors import CalibrationError, DataError, ParameterError
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
    with pytest.raises(ParameterError, match="saturates is not known"):
        xs.calibrate(raw, table, gain_stage=gain, trust=["saturated"])
    with pytest.raises(ParameterError, match="memory_cell_status"):
        xs.calibrate(raw, table, gain_stage=gain, trust=["noisy"])
    with pytest.raises(ParameterError, match="has no common mode 7"):
        xs.calibrate(raw, table, gain_stage=gain, common_mode=7)
    with pytest.raises(DataError, match="differ in shape"):
        xs.calibrate(raw, table, gain_stage=gain.isel(segment=[0]))
    for variance in (True, "noise"):
        with pytest.raises(CalibrationError, match="noise of each pixel"):
            xs.calibrate(raw, table, gain_stage=gain, variance=variance)
    noisy = table.assign(noise=table["pedestal"] * 0 + 9)
    with pytest.raises(ParameterError, match="in keV or photons"):
        xs.calibrate(raw, noisy, gain_stage=gain, variance=True)
    in_kev = noisy.assign(gain=table["gain"].assign_attrs(units="ADU/keV"))
    with pytest.raises(ParameterError, match="one photon energy"):
        xs.calibrate(raw, in_kev, gain_stage=gain, variance=True)


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


CODES = {"agipd": np.array([0, 1, 2], np.uint8), "jungfrau_euxfel": np.array([0, 1, 3], np.uint8)}
ENERGY = 9.5  # keV
N_CELLS = len(CELLS)


def drawn(
    detector: str, photons: float, n: int, seed: int, shape: tuple[int, int, int] = (1, 6, 6)
) -> tuple[xr.DataArray, xr.DataArray, xr.Dataset, np.ndarray]:
    """Frames of Poisson photons and Gaussian noise of their own cell and stage; gain codes, constants, stages."""
    rng = np.random.default_rng(seed)
    tables = (N_CELLS, 3, *shape)
    dims = ("memory_cell", "gain_stage", "segment", "row", "column")
    gain = np.array([10.0, 4.0, 1.5])[:, None, None, None] * rng.uniform(0.9, 1.1, tables)  # ADU/keV
    noise = np.array([[5.0, 12, 30], [20, 6, 14], [9, 33, 7]])[..., None, None, None] * gain  # ADU, of keV
    pedestal = rng.normal(3000, 50, tables)
    cell, stage = rng.integers(0, N_CELLS, n), rng.integers(0, 3, (n, *shape))
    pick = lambda t: np.take_along_axis(t[cell], stage[:, None], axis=1)[:, 0]  # noqa: E731
    light = rng.poisson(photons, (n, *shape)) * ENERGY
    adc = np.rint(pick(pedestal) + light * pick(gain) + rng.normal(0, 1, stage.shape) * pick(noise))
    assert 0 <= adc.min() <= adc.max() < 2**16
    coords = {"memory_cell": ("event", CELLS[cell])}
    raw = xr.DataArray(adc.astype(np.uint16), dims=DIMS, coords=coords, attrs={"detector_type": detector}, name="raw")
    table = xr.Dataset(
        {"pedestal": (dims, pedestal), "gain": (dims, gain, {"units": "ADU/keV"}), "noise": (dims, noise)},
        coords={"memory_cell": CELLS},
        attrs={"detector_type": detector},
    )
    return raw, raw.copy(data=CODES[detector][stage]), table, stage


@pytest.mark.parametrize("detector", CODES)
def test_pulls_without_light_have_unit_width_in_every_cell_and_stage(detector: str) -> None:
    raw, codes, table, stage = drawn(detector, 0, 600, seed=1)
    both = xs.calibrate(raw, table, gain_stage=codes, variance="noise")
    pull = both["calibrated"].values / np.sqrt(both["calibrated_variance"].values)
    assert both["calibrated_variance"].attrs["units"] == "keV2"
    for cell in CELLS:
        for s in range(3):
            mine = pull[(raw["memory_cell"].values == cell)[:, None, None, None] & (stage == s)]
            assert mine.size > 1500
            assert abs(mine.mean()) < 4 / np.sqrt(mine.size)
            assert abs(mine.std() - 1) < 4 / np.sqrt(2 * mine.size)


@pytest.mark.parametrize("detector", CODES)
@pytest.mark.parametrize("unit", ["keV", "photon"])
def test_pulls_of_sums_and_profiles_with_light_have_unit_width(detector: str, unit: str) -> None:
    photons, n = 60, 3000
    raw, codes, table, _ = drawn(detector, photons, n, seed=2)
    geometry = xs.Geometry.from_panels([Panel((0.0, 0.0, 0.1), (1e-4, 0.0, 0.0), (0.0, 1e-4, 0.0), (6, 6))])
    placed = raw.chunk(event=700).sd.assign_geometry(geometry).sd.assign_beam(photon_energy=1e3 * ENERGY)
    both = placed.sd.calibrate(table, gain_stage=codes, unit=unit, variance=True)
    records = {"roi": xs.roi(xs.Box(segment=0)), "ring": xs.azint(np.array([0.0, 5e-4, 1e-3]), quantity="radius")}
    found = both.sd.reduce(records).compute()
    truth = photons * (ENERGY if unit == "keV" else 1)
    pulls = {
        "sum": (found["roi_sum"] - 36 * truth) / np.sqrt(found["roi_sum_variance"]),
        "ring": (found["ring_intensity"] - truth) / np.sqrt(found["ring_intensity_variance"]),
    }
    for pull in pulls.values():
        values = pull.values.ravel()
        assert np.isfinite(values).all()
        # the value stands in for its mean: pulls of N photons are off by up to 1 / (2 sqrt(N))
        assert abs(values.mean()) < 4 / np.sqrt(values.size) + 0.5 / np.sqrt(10 * photons)
        assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)


def test_variances_are_the_same_for_any_chunking_and_nan_where_values_are(
    computing_is_forbidden: Callable[[], Any],
) -> None:
    raw, codes, table, _ = drawn("jungfrau_euxfel", 30, 7, seed=3, shape=(2, 6, 4))
    codes.values[0, 0, 0] = 2  # no stage has this code
    present = np.ones((7, 2), bool)
    present[3, 1] = False
    raw = raw.assign_coords(present=(("event", "segment"), present))
    mask = RNG.random(raw.shape[1:]) < 0.9
    options = {"mask": mask, "variance": True, "photon_energy": 1e3 * ENERGY}
    eager = xs.calibrate(raw, table, gain_stage=codes, **options)
    plain = xs.calibrate(raw, table, gain_stage=codes, mask=mask)
    xr.testing.assert_identical(eager["calibrated"], plain)
    np.testing.assert_array_equal(np.isnan(eager["calibrated_variance"]), np.isnan(plain))
    assert np.isnan(plain).any()
    for chunks in ({"event": 1}, {"event": (3, 4), "segment": 1, "row": 2}):
        lazy_raw, lazy_codes = raw.copy(data=raw.chunk(chunks).data), codes.chunk(event=2)
        with computing_is_forbidden():
            lazy = xs.calibrate(lazy_raw, table.chunk(segment=1), gain_stage=lazy_codes, **options)
        xr.testing.assert_identical(lazy.compute(), eager)


def test_variances_of_an_analogue_gain_are_those_of_its_stages() -> None:
    raw, gain, table = agipd()
    table = table.assign(noise=(table["pedestal"].dims, RNG.uniform(3, 30, table["pedestal"].shape)))
    both = xs.calibrate(raw, table, gain_stage=gain, variance="noise", trust=[])
    for index in np.ndindex(*raw.shape):
        cell = int(np.flatnonzero(int(raw.memory_cell[index[0]]) == CELLS)[0])
        stage = int((gain.values[index] > table.threshold.values[(cell, slice(None), *index[1:])]).sum())
        at = (cell, stage, *index[1:])
        expected = (table.noise.values[at] / table.gain.values[at]) ** 2
        np.testing.assert_allclose(both["calibrated_variance"].values[index], expected, rtol=1e-5)


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


@pytest.mark.parametrize(("name", "value"), [("gain", 0.0), ("gain", np.nan), ("pedestal", np.nan)])
def test_constants_that_make_no_value_of_a_cell_and_stage_are_refused(name: str, value: float) -> None:
    raw, gain, table = agipd()
    table[name] = table[name].where((table.memory_cell != 4) | (table.gain_stage != 1), value)
    cells = np.array([4, 0, 4, 8, 0])
    raw, gain = (a.assign_coords(memory_cell=("event", cells)) for a in (raw, gain))
    with pytest.raises(CalibrationError, match=rf"usable {name} in gain stage MG of the memory cell at position 1"):
        xs.calibrate(raw, table, gain_stage=gain)
    others = {"event": np.flatnonzero(cells != 4)}
    assert np.isfinite(
        xs.calibrate(raw.isel(others), table, gain_stage=gain.isel(others))
    ).any()  # other cells are well


def test_lpd_has_its_gain_in_the_word() -> None:
    _, _, table = agipd()
    table = table.drop_vars("threshold").assign_attrs(detector_type="lpd")
    words = RNG.integers(0, 1 << 14, (5, 2, 6, 4)).astype(np.uint16)
    words[0, 0, 0] |= 0xC000  # the two upper bits mean nothing
    cell = RNG.choice(CELLS, 5)
    raw = xr.DataArray(words, dims=DIMS, coords={"memory_cell": ("event", cell)}, attrs={"detector_type": "lpd"})
    adc, stage = words & 0xFFF, (words >> 12) & 3
    at = np.searchsorted(CELLS, cell)
    pedestal, gain, status = (table[name].values[at] for name in ("pedestal", "gain", "status"))
    expected = np.full(words.shape, np.nan)
    for g in range(3):
        bad = ((status[:, g] & 0xFFFF) != 0) | (adc >= 0xFFF)
        value = np.where(bad, np.nan, (adc - pedestal[:, g].astype("f8")) / gain[:, g])
        expected = np.where(stage == g, value, expected)
    assert {0, 1, 2, 3} == set(np.unique(stage).tolist())
    np.testing.assert_allclose(xs.calibrate(raw, table).values, expected, rtol=1e-4, atol=1e-2)
    flags = xs.trust(raw, table).values
    np.testing.assert_array_equal((flags & int(Reason.BAD_GAIN_CODE)) != 0, stage == 3)


def test_dssc_has_one_gain_and_memory_cells() -> None:
    raw, _, table = agipd()
    table = table.isel(gain_stage=[0]).drop_vars("threshold").assign_attrs(detector_type="dssc")
    raw = raw.assign_attrs(detector_type="dssc")
    at = np.searchsorted(CELLS, raw.memory_cell.values)
    pedestal, gain, status = (table[name].values[at, 0] for name in ("pedestal", "gain", "status"))
    expected = np.where((status & 0xFFFF) != 0, np.nan, (raw.values - pedestal.astype("f8")) / gain)
    np.testing.assert_allclose(xs.calibrate(raw, table).values, expected, rtol=1e-4, atol=1e-2)
