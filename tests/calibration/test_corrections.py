"""Common mode on labelled data."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.common_mode.mode import CommonMode, Subtract
from xsmall.calibration.constants import constants as make_constants
from xsmall.calibration.corrections import common_mode
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.vocabulary import FRAME_DIMS, PIXEL_DIMS

ROWS = CommonMode(steps=(Subtract(name="row", rows=1, columns=8, min_count=3),), segment_shape=(6, 16))


def adu(n: int = 5) -> xr.DataArray:
    """Frames of two small segments with an offset of each row, one segment of one event missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (n, 2, 6, 16)) + rng.normal(0, 5, (n, 2, 6, 1))
    present = np.ones((n, 2), bool)
    present[2, 1] = False
    return xr.DataArray(
        values.astype(np.float32),
        dims=FRAME_DIMS,
        coords={"present": (("event", "segment"), present), "segment": [3, 5], "row": range(6), "column": range(16)},
        attrs={"units": "ADU", "detector_type": "camera"},
    )


def test_corrections_add_up_to_what_was_subtracted() -> None:
    data = adu()
    result = common_mode(data, ROWS)
    assert result["row_correction"].dims == ("event", "segment", "row_row", "row_column")
    assert result["row_column"].values.tolist() == [0, 8]
    spread = np.repeat(result["row_correction"].values, 8, axis=3)
    here = data["present"].values
    np.testing.assert_allclose((data.values - result["corrected"].values)[here], spread[here], atol=1e-5)
    medians = np.median(data.values.reshape(5, 2, 6, 2, 8), axis=4)
    np.testing.assert_allclose(result["row_correction"].values[here], medians[here], atol=1e-5)
    assert (result["row_n_pixels"].values[here] == 8).all()


def test_a_missing_segment_is_not_corrected_and_says_so() -> None:
    result = common_mode(adu(), ROWS).isel(event=2, segment=1)
    assert np.isnan(result["corrected"]).all()
    assert np.isnan(result["row_correction"]).all()
    assert (result["row_n_pixels"] == 0).all()


@pytest.mark.parametrize("chunks", [{"event": 1}, {"event": 2, "row": 4}, {"event": 5, "segment": 1}])
def test_any_chunking_gives_the_same_bits(chunks: dict[str, int]) -> None:
    data = adu()
    xr.testing.assert_identical(common_mode(data.chunk(chunks), ROWS).compute(), common_mode(data, ROWS))


def test_nothing_computes_until_asked(no_compute: None) -> None:
    data = adu()
    result = common_mode(data.copy(data=da.from_array(data.values, chunks=(2, -1, -1, -1))), ROWS)
    assert result["corrected"].chunks is not None
    assert result["row_correction"].chunks is not None


def test_masked_pixels_take_no_part() -> None:
    data = adu()
    data[..., 0] = 1e4
    mask = np.ones((2, 6, 16), bool)
    mask[..., 0] = False
    labelled = xr.DataArray(mask, dims=PIXEL_DIMS, coords={"segment": [3, 5]})
    for given in (mask, labelled):
        result = common_mode(data, ROWS, mask=given)
        assert (result["row_n_pixels"].isel(event=0, row_column=0) == 7).all()
        assert (result["corrected"].isel(event=0, column=0) == 1e4).all()


def test_raw_jungfrau_words_give_what_psana_subtracts(shared: Path) -> None:
    with np.load(shared / "oracles" / "calib-jungfrau.npz") as file:
        known = make_constants(
            "jungfrau", file["pedestals"], gain=np.where(file["pixel_gain"] == 0, np.nan, file["pixel_gain"]),
            offset=file["pixel_offset"], status=file["pixel_status"],
        )  # fmt: skip
        raw = xr.DataArray(file["raw"][None], dims=FRAME_DIMS, attrs={"detector_type": "jungfrau"})
        result = common_mode(raw.chunk(event=1), 7, known)
        code = file["raw"][0] >> 14
        stage = np.array([0, 1, 0, 2])[code]
        gain = np.take_along_axis(file["pixel_gain"][:, 0], stage[None], 0)[0]
        good = ((file["pixel_status"][:, 0] & 0xFFFF) == 0).all(0) & (code != 2) & (gain != 0)
        out = result["corrected"].values[0, 0][good] / gain[good]
        np.testing.assert_allclose(out, file["psana2_v0_cm7_3"][0][good], rtol=1e-6, atol=2e-3)
        assert result["row_correction"].shape == (1, 1, 512, 4)
        assert result["column_correction"].shape == (1, 1, 2, 256)


def test_recommended_is_written_down() -> None:
    data = adu().assign_attrs(detector_type="opal")
    result = common_mode(data)
    assert result.attrs["common_mode"] == "recommended for camera: none: no common mode"
    np.testing.assert_array_equal(result["corrected"], data.where(data["present"]))


def test_recommended_goes_by_the_whole_detector_where_data_are_a_slice_of_it() -> None:
    words = np.full((1, 16, 352, 384), 2000, np.uint16)
    raw = xr.DataArray(words, dims=FRAME_DIMS, coords={"segment": range(16)}, attrs={"detector_type": "epix10ka"})
    raw = raw.assign_coords(gain_control=(PIXEL_DIMS, np.full(words.shape[1:], 28, np.uint8)))
    known = make_constants("epix10ka", np.full((7, 16, 352, 384), 1999.0))
    for part in (raw, raw.isel(segment=[3])):
        assert common_mode(part, "recommended", known).attrs["common_mode"].startswith("recommended for epix10ka: 84")


def test_what_cannot_be_corrected_is_refused() -> None:
    data = adu()
    with pytest.raises(CalibrationError, match="no constants"):
        common_mode((data * 10).astype("int16"), ROWS)
    with pytest.raises(DataError, match="before the gain"):
        common_mode(data.assign_attrs(units="keV"), ROWS)
    with pytest.raises(DataError, match="whole units"):
        common_mode(data.isel(column=slice(3, 11)), ROWS)
    with pytest.raises(ParameterError, match="boolean"):
        common_mode(data, ROWS, mask=np.ones((2, 6, 16), int))
    with pytest.raises(ParameterError, match="no common mode 84"):
        common_mode(data, 84)
    with pytest.raises(ParameterError, match="raw data"):
        common_mode(data, -1)


def test_calibrate_subtracts_the_same(shared: Path) -> None:
    with np.load(shared / "oracles" / "calib-epix10ka.npz") as file:
        known = make_constants("epix10ka", file["pedestals"], gain=file["pixel_gain"])
        raw = xr.DataArray(file["raw"][None], dims=FRAME_DIMS, attrs={"detector_type": "epix10ka"})
        raw = raw.assign_coords(gain_control=(PIXEL_DIMS, file["cbits"]))
        mask = file["mask"] == 1
        gain = np.take_along_axis(file["pixel_gain"], file["grange"][None], 0)[0]
        for spec, mode in ((83, 1), (85, 3), ((7, 3, 100, 10), 3)):
            calibrated = calibrate(raw, known, common_mode=spec, mask=mask)
            looked_at = common_mode(raw, spec, known, mask=mask)["corrected"]
            np.testing.assert_allclose(
                calibrated.values[0][mask], (looked_at.values[0] / gain)[mask], rtol=1e-5, atol=1e-5
            )
            expected = file[f"calib_alg7_mode{mode}"][mask]
            np.testing.assert_allclose(calibrated.values[0][mask], expected, rtol=1e-6, atol=2e-3)


def test_cameras_with_numbers_of_their_own_have_them_in_calibrate() -> None:
    words = np.random.default_rng(0).normal(500, 3, (2, 1, 1024, 512)).round().astype(np.uint16)
    raw = xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "icarus"})
    known = make_constants("icarus", np.full((1, 1, 1024, 512), 490.0))
    corrected = calibrate(raw, known, common_mode=99).values
    gap = np.median(words[:, 0, :, 255:257].reshape(2, -1), axis=1)[:, None, None, None]
    np.testing.assert_allclose(corrected, words - gap, atol=1e-4)


@pytest.mark.parametrize("chunks", [{"event": 1}, {"event": 3, "column": 8}, {"event": 5, "segment": 1}])
def test_calibrate_with_common_mode_gives_the_same_bits_for_any_chunking(chunks: dict[str, int]) -> None:
    data = adu()
    raw = (data * 10 + 1000).astype("uint16").assign_attrs(units="ADU", detector_type="camera")
    known = make_constants("camera", np.full((1, 2, 6, 16), 1000.0), segment=[3, 5])
    whole = calibrate(raw, known, common_mode=ROWS)
    lazy = calibrate(raw.chunk(chunks), known, common_mode=ROWS)
    np.testing.assert_array_equal(lazy.values, whole.values)
    looked_at = common_mode(raw, ROWS, known)["corrected"]
    np.testing.assert_array_equal(looked_at.values, whole.values)


def test_of_words_that_do_not_begin_at_bit_zero_limits_are_in_adu() -> None:
    rng = np.random.default_rng(0)
    adc = rng.normal(700, 3, (2, 1, 6, 16)).round().astype(np.uint16)
    raw = xr.DataArray(adc << 1, dims=FRAME_DIMS, attrs={"detector_type": "epixuhr"})
    raw = raw.assign_coords(gain_control=(PIXEL_DIMS, np.full((1, 6, 16), 32, np.uint8)))
    known = make_constants("epixuhr", np.full((12, 1, 6, 16), 690.0), gain=np.full((12, 1, 6, 16), 2.0))
    mode = CommonMode(steps=(Subtract(name="segment", max_correction=15),))
    median = np.median(adc - 690.0, axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(calibrate(raw, known, common_mode=mode), (adc - 690.0 - median) / 2, atol=1e-5)
    np.testing.assert_allclose(common_mode(raw, mode, known)["corrected"], adc - 690.0 - median, atol=1e-5)


def test_of_floats_the_configured_stages_take_part() -> None:
    data = adu().assign_attrs(detector_type="epix10ka").drop_vars("present")
    with pytest.raises(CalibrationError, match="configuration of each pixel"):
        common_mode(data, ROWS)
    bits = np.full((2, 6, 16), 28, np.uint8)
    bits[..., :2] = 8
    mode = CommonMode(steps=ROWS.steps, gain_stages=(0,))
    result = common_mode(data, mode, gain_control=bits)
    assert result["row_n_pixels"].isel(event=0, segment=0, row_row=0).values.tolist() == [6, 8]
    with pytest.raises(ParameterError, match="not looked at"):
        common_mode(data, mode, gain_control=bits, gain_stage=data)
