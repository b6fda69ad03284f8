"""The comparison of common modes."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.common_mode.mode import CommonMode, Subtract
from xsmall.calibration.compare_common_modes import compare_common_modes
from xsmall.calibration.constants import constants as make_constants
from xsmall.errors import ParameterError
from xsmall.vocabulary import FRAME_DIMS

ROWS = CommonMode(steps=(Subtract(name="row", rows=1),), origin="rows")


def frames(detector: str, shape: tuple[int, int, int], n: int = 4) -> xr.DataArray:
    """ADU with the noise 3, offsets of rows of 6 and a few photons."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, (n, *shape)) + rng.normal(0, 6, (n, *shape[:2], 1))
    values[rng.random(values.shape) < 0.02] += 300
    return xr.DataArray(values.astype(np.float32), dims=FRAME_DIMS, attrs={"units": "ADU", "detector_type": detector})


def test_the_mode_that_fits_the_offsets_leaves_the_noise_of_the_pixels() -> None:
    result = compare_common_modes(frames("camera", (2, 64, 128)), modes=[ROWS])
    noise = result["noise"].mean("event")
    np.testing.assert_allclose(noise.sel(mode="rows"), 3.05, atol=0.15)  # 2 % photons widen it a little
    np.testing.assert_allclose(noise.sel(mode="none"), np.hypot(3, 6), rtol=0.2)
    assert (result["fraction_corrected"].sel(mode="rows") == 1).all()


def test_all_numbers_of_a_detector_are_compared_where_the_constants_allow() -> None:
    data = frames("epix100", (1, 704, 768), n=1)
    assert set(compare_common_modes(data)["mode"].values) == {"none", "4", "7", "34"}
    known = make_constants("epix100", np.zeros((704, 768)), noise=np.full((704, 768), 3.0))
    result = compare_common_modes(data, known)
    assert {"none", "46", "47", "6"} <= set(result["mode"].values)
    noise = result["noise"].mean(("event", "segment"))
    assert float(noise.sel(mode="none")) > 1.5 * float(noise.sel(mode="46"))
    assert (result["fraction_corrected"].sel(mode="46") > 0.9).all()


def test_noise_is_that_of_the_same_pixels_in_every_mode() -> None:
    rng = np.random.default_rng(0)
    words = rng.normal(2800, 3, (2, 1, 512, 1024)).round().astype(np.uint16)
    words[:, :, :, ::3] = rng.normal(9000, 900, words[:, :, :, ::3].shape).round().astype(np.uint16) | 1 << 14
    raw = xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "jungfrau"})
    known = make_constants("jungfrau", np.full((3, 1, 512, 1024), 2800.0))
    noise = compare_common_modes(raw, known, modes=[71])["noise"]
    assert (noise.sel(mode="none") < 3.5).all()
    assert (noise.sel(mode="71") < 3.5).all()


@pytest.mark.parametrize("n", [1, 3])
def test_any_chunking_gives_the_same_bits_lazily(n: int) -> None:
    data = frames("camera", (2, 16, 32)).assign_coords(present=(("event", "segment"), np.arange(8).reshape(4, 2) != 5))
    lazy = compare_common_modes(data.copy(data=da.from_array(data.values, chunks=(n, -1, -1, -1))), modes=[ROWS])
    assert lazy["noise"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), compare_common_modes(data, modes=[ROWS]))
    assert np.isnan(lazy["noise"].isel(event=2, segment=1)).all()


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ParameterError, match="no common mode to compare"):
        compare_common_modes(frames("epixm320", (1, 192, 384)))


def test_of_a_camera_the_numbers_that_fit_its_rows_are_compared() -> None:
    values = np.random.default_rng(4).normal(0, 3, (3, 1, 20, 30)).astype("f4")
    frames = xr.DataArray(values, dims=("event", "segment", "row", "column"), attrs={"units": "ADU"})
    assert compare_common_modes(frames.assign_attrs(detector_type="opal")).mode.values.tolist() == ["none", "1", "2"]
    with pytest.raises(ParameterError, match="end within a row"):
        compare_common_modes(frames.assign_attrs(detector_type="opal"), modes=[3])
