"""Constants from dark runs."""

import json
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.constants import check_constants
from xsmall.calibration.constants import constants as make_constants
from xsmall.calibration.dark.dark import DarkWarning, dark, derive_low_pedestals
from xsmall.calibration.dark.sums import DarkLimits
from xsmall.errors import CalibrationError, DataError
from xsmall.vocabulary import FRAME_DIMS

PEDESTALS = {0: 2800.0, 1: 13500.0, 3: 14200.0}


def jungfrau(code: int, n: int = 120, seed: int = 0, shape: tuple[int, int, int] = (2, 8, 32)) -> xr.DataArray:
    """Dark Jungfrau words in one gain: pedestal and noise by pixel."""
    rng = np.random.default_rng(seed + code)
    pedestal = PEDESTALS[code] + rng.normal(0, 20, shape)
    adc = rng.normal(pedestal, 4.0, (n, *shape)).round().astype(np.uint16)
    return xr.DataArray(adc | np.uint16(code << 14), dims=FRAME_DIMS, attrs={"detector_type": "jungfrau"})


def lazy(data: xr.DataArray, n: int = 7) -> xr.DataArray:
    return data.copy(data=da.from_array(data.values, chunks=(n, -1, -1, -1)))


def test_pedestal_and_noise_are_those_of_each_gain_stage() -> None:
    runs = [jungfrau(code) for code in (0, 1, 3)]
    result = dark(runs)
    for stage, run in enumerate(runs):
        values = (run.values & 0x3FFF).astype(float)
        np.testing.assert_allclose(result["pedestal"][stage], values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(result["noise"][stage], values.std(0, ddof=1), rtol=1e-6)
        np.testing.assert_array_equal(result["minimum"][stage], values.min(0))
        np.testing.assert_array_equal(result["maximum"][stage], values.max(0))
    assert (result["count"] == 120).all()
    assert (result["status"] == 0).mean() > 0.99
    check_constants(result)


def test_constants_say_what_they_were_made_with_and_survive_a_file(tmp_path: Path) -> None:
    result = dark_quietly([jungfrau(0), jungfrau(1)], limits=DarkLimits(n_sigma=8))
    said = json.loads(result.attrs["parameters"])
    assert said["events"] == [120, 120]
    assert said["n_sigma"] == 8
    result.to_zarr(tmp_path / "dark.zarr", zarr_format=3, consolidated=False)
    back = xr.open_zarr(tmp_path / "dark.zarr", consolidated=False)
    xr.testing.assert_equal(back, result)
    assert back.status.attrs["flag_meanings"].split()[7] == "too_few_events"
    check_constants(back)


def test_runs_may_come_in_one_array_and_in_any_order() -> None:
    runs = [jungfrau(code) for code in (0, 1, 3)]
    apart = dark(runs)
    for order in ([2, 0, 1], [1, 2, 0]):
        joined = xr.concat([runs[i] for i in order], "event")
        for name in ("pedestal", "noise", "count", "status"):
            np.testing.assert_array_equal(dark(joined)[name], apart[name])


@pytest.mark.parametrize("n", [1, 7, 120])
def test_any_chunking_gives_the_same_bits(n: int) -> None:
    runs = [jungfrau(code) for code in (0, 1, 3)]
    xr.testing.assert_identical(dark([lazy(r, n) for r in runs]).compute(), dark(runs))


def test_nothing_computes_until_asked(no_compute: None) -> None:
    result = dark([lazy(jungfrau(code)) for code in (0, 1, 3)])
    assert all(result[name].chunks is not None for name in ("pedestal", "noise", "status", "count"))


def test_missing_and_damaged_segments_are_left_out() -> None:
    data = jungfrau(0)
    clean = dark_quietly(data.isel(event=slice(20, None)))
    data[:10, 1] = 0
    data[10:20, 1] = 9999
    present, damage = np.ones((120, 2), bool), np.zeros((120, 2), int)
    present[:10, 1] = False
    damage[10:20, 1] = 4
    found = dark_quietly(
        data.assign_coords(present=(("event", "segment"), present), damage=(("event", "segment"), damage))
    )
    np.testing.assert_array_equal(found["pedestal"][0, 1], clean["pedestal"][0, 1])
    assert (found["count"][0].values == np.array([120, 100])[:, None, None]).all()


def dark_quietly(*args: object, **kwargs: object) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DarkWarning)
        return dark(*args, **kwargs)  # type: ignore[arg-type]


def test_each_fault_sets_its_bit() -> None:
    data = jungfrau(0, n=200, shape=(1, 64, 64))
    rng = np.random.default_rng(5)
    data[:, 0, 0, 0] = rng.normal(3000, 500, 200).round()
    data[:, 0, 0, 1] = 2800
    data[:, 0, 0, 2] = np.where(np.arange(200) % 5 == 0, 0x3FFF, 2800)
    data[:, 0, 0, 3] = np.where(np.arange(200) % 5 == 0, 0, 2800)
    data[:, 0, 0, 4] = rng.normal(9000, 4, 200).round()
    data[:, 0, 0, 5] = rng.normal(200, 4, 200).round()
    data[7, 0, 0, 6] = 2 << 14 | 2800
    data[5:, 0, 0, 7] |= 1 << 14
    status = dark_quietly(data)["status"].values[0, 0]
    bits = {0: 1, 2: 4, 3: 8, 4: 16, 5: 32, 6: 64, 7: 128}
    for column, bit in bits.items():
        assert status[0, column] & bit, (column, bit)
    assert status[0, 1] & 2
    assert (status[1:] == 0).mean() > 0.999


def test_limits_by_quantiles_are_not_moved_by_a_few_wild_pixels() -> None:
    data = jungfrau(0, shape=(1, 64, 64))
    calm = dark_quietly(data)["pedestal_limits"].values[0]
    data[:, 0, 0, :10] = 16000
    np.testing.assert_allclose(dark_quietly(data)["pedestal_limits"].values[0], calm, rtol=0.01)
    wide = dark_quietly(data, limits=DarkLimits(spread="rms"))["pedestal_limits"].values[0]
    assert wide[1] - wide[0] > 3 * (calm[1] - calm[0])


def test_epix10ka_darks_fill_the_ranges_that_were_configured() -> None:
    rng = np.random.default_rng(0)
    control = rng.choice([28, 12, 16, 0], (1, 8, 16)).astype(np.uint8)
    pedestal = {28: 2000, 12: 2200, 16: 2400, 0: 2600}
    base = np.vectorize(pedestal.get)(control)
    words = (rng.normal(0, 3, (150, 1, 8, 16)) + base).round().astype(np.uint16)
    data = xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "epix10ka"})
    result = dark(data.assign_coords(gain_control=(("segment", "row", "column"), control)))
    for value, stage in ((28, 0), (12, 1), (16, 3), (0, 4)):
        mine = control == value
        np.testing.assert_allclose(result["pedestal"].values[stage][mine], words[:, mine].mean(0), rtol=1e-6)
        assert np.isnan(result["pedestal"].values[stage][~mine]).all()
    assert np.isnan(result["pedestal"][5:]).all()
    with pytest.raises(CalibrationError, match="gain_control"):
        dark(data)


def test_low_ranges_of_epix10ka_follow_from_charge_injection() -> None:
    rng = np.random.default_rng(0)
    shape = (7, 1, 4, 6)
    known = make_constants("epix10ka", rng.normal(2000, 50, shape))
    known["pedestal"][5:] = np.nan
    lines = xr.Dataset(
        {
            "offset": (known["pedestal"].dims, rng.normal(2100, 50, shape)),
            "gain": (known["pedestal"].dims, rng.uniform(1, 2, shape)),
        }
    )
    for data in (known, known.chunk()):
        filled = derive_low_pedestals(data, lines)["pedestal"].values
        ped, off, gain = known["pedestal"].values, lines["offset"].values, lines["gain"].values
        np.testing.assert_allclose(filled[5], off[5] - (off[3] - ped[3]) * gain[5] / gain[3], rtol=1e-6)
        np.testing.assert_allclose(filled[6], off[6] - (off[4] - ped[4]) * gain[6] / gain[4], rtol=1e-6)
        np.testing.assert_array_equal(filled[:5], ped[:5])
    with pytest.raises(CalibrationError, match="offset and gain"):
        derive_low_pedestals(known, lines.drop_vars("gain"))


def test_few_events_are_warned_of_and_one_is_refused() -> None:
    camera = jungfrau(0, n=50).assign_attrs(detector_type="opal")
    with pytest.warns(DarkWarning, match="50 dark events"):
        dark(camera)
    with pytest.raises(DataError, match="1 events"):
        dark(camera.isel(event=[0]))


def test_pixels_that_stray_into_a_gain_stage_do_not_make_it_measured() -> None:
    words = jungfrau(0)
    words[:60, 0, 0, :2] |= 1 << 14
    with pytest.warns(DarkWarning, match="gain stage G1, G2"):
        result = dark(words)
    assert np.isfinite(result["pedestal"][1, 0, 0, :2]).all()
    assert np.isnan(result["pedestal"][1]).sum() == result["pedestal"][1].size - 2
    assert not (result["status"][1] & 128).any()  # nothing is held against the others: calibrate asks for the stage


def test_pixels_of_another_configuration_are_not_blamed_for_too_few_events() -> None:
    rng = np.random.default_rng(0)
    bits = np.full((1, 8, 16), 16, np.uint8)
    bits[0, :, 12:] = 28
    words = rng.normal(3000, 3, (120, 1, 8, 16)).round().astype(np.uint16)
    data = xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "epix10ka"})
    result = dark(data, gain_control=bits)
    assert not (result["status"] & 128).any()
    assert (result["count"].sum("gain_stage") == 120).all()


def test_a_gain_stage_without_data_is_warned_of() -> None:
    with pytest.warns(DarkWarning, match="no pixel, or few, were in gain stage G1, G2"):
        result = dark(jungfrau(0))
    assert np.isnan(result["pedestal"][1:]).all()
    assert (result["status"][1:] == 0).all()


@pytest.mark.parametrize("photons", ["rare", "many", "flicker"])
def test_beam_in_a_dark_run_is_warned_of(photons: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 3, (400, 1, 32, 32))
    if photons == "rare":
        values += 300 * (rng.random(values.shape) < 0.01)
    elif photons == "many":
        values += 300 * rng.poisson(0.2, values.shape)
    else:
        values += 50 * rng.random((400, 1, 1, 1))
    data = xr.DataArray(values.round().astype(np.uint16), dims=FRAME_DIMS, attrs={"detector_type": "opal"})
    with pytest.warns(DarkWarning, match="shutter closed"):
        dark(data)


def test_a_dark_run_with_common_mode_is_not_taken_for_beam() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 3, (400, 1, 32, 32)) + rng.normal(0, 4, (400, 1, 1, 1))
    data = xr.DataArray(values.round().astype(np.uint16), dims=FRAME_DIMS, attrs={"detector_type": "opal"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dark(data)


def test_pixels_at_the_lower_end_of_the_range_are_not_taken_for_lit() -> None:
    values = np.random.default_rng(0).exponential(1.0, (400, 1, 32, 32)).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dark(xr.DataArray(values, dims=FRAME_DIMS, attrs={"detector_type": "opal"}))


def test_what_cannot_be_a_dark_run_is_refused() -> None:
    data = jungfrau(0)
    with pytest.raises(DataError, match="raw words"):
        dark(data.astype(float))
    with pytest.raises(DataError, match="different detectors"):
        dark([data, data.assign_attrs(detector_type="opal")])
    with pytest.raises(DataError, match="differ in 'row'"):
        dark([data, data.isel(row=slice(2))])
    with pytest.raises(DataError, match="no dark run"):
        dark([])
    with pytest.raises(CalibrationError, match="agipd"):
        dark(data.assign_attrs(detector_type="agipd"))
    with pytest.raises(CalibrationError):
        dark(data.drop_attrs())


@pytest.mark.validation
def test_status_and_moments_equal_those_of_psana() -> None:
    calib = pytest.importorskip("psana.detector.UtilsCalib")
    rng = np.random.default_rng(2)
    words = jungfrau(0, n=300, shape=(1, 32, 64)).values
    words[:, 0, 0, 0] = rng.normal(3000, 200, 300).round()
    words[:, 0, 0, 1] = 9000
    words[::4, 0, 0, 2] = 0x3FFF
    words[::4, 0, 0, 3] = 0
    process = calib.DarkProc(datbits=0x3FFF, int_lo=1, int_hi=16382, rms_lo=0.001, rms_hi=16382, nsigma=6, intnlo=6,
                             intnhi=6, rmsnlo=6, rmsnhi=6, fraclm=0.1, info_block_results=False)  # fmt: skip
    process.gate_lo = np.zeros((32, 64), np.uint16)
    process.gate_hi = np.full((32, 64), 0x3FFF, np.uint16)
    process.int_lo, process.int_hi = 0, 0x3FFF  # open gates: ours adds every value
    process.init_proc()
    process.int_lo, process.int_hi = 1, 16382
    process.irec = 0
    for i, frame in enumerate(words[:, 0]):
        process.add_event(frame, i)
        process.irec += 1
    process.arr_av1, process.arr_rms = process.arrs_ave_rms()
    found = dark_quietly(
        xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "jungfrau"}), limits=DarkLimits(spread="rms")
    )
    np.testing.assert_allclose(found["pedestal"][0, 0], process.arr_av1, rtol=1e-6)
    np.testing.assert_allclose(found["noise"][0, 0] * np.sqrt(299 / 300), process.arr_rms, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["status"][0, 0], process.arr_status())


@pytest.mark.parametrize(("dtype", "level"), [("int16", -5), ("int16", 400), ("int32", -70000), ("uint32", 100000)])
def test_numbers_of_wider_and_signed_cameras_are_taken_as_they_are(dtype: str, level: int) -> None:
    values = np.random.default_rng(7).normal(level, 3, (200, 1, 12, 20)).round().astype(dtype)
    frames = xr.DataArray(values, dims=FRAME_DIMS, attrs={"detector_type": "opal"})
    found = dark(frames)  # and no warning of beam
    np.testing.assert_allclose(found["pedestal"][0], values.mean(axis=0, dtype=float), atol=1e-2)
    np.testing.assert_allclose(found["noise"][0], values.std(axis=0, ddof=1, dtype=float), rtol=1e-4)
    np.testing.assert_array_equal(found["maximum"][0], values.max(axis=0))
    assert not found["status"].values.any()
    xr.testing.assert_equal(dark(frames.chunk(event=30)).compute(), found)
    lit = frames.copy(data=np.where(np.arange(200)[:, None, None, None] % 2, values + 300, values).astype(dtype))
    with pytest.warns(DarkWarning, match="do not look dark"):
        dark(lit)
    with pytest.raises(DataError, match="at most 32 bits"):
        dark(frames.astype("int64"))
