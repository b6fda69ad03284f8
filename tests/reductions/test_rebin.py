"""``rebin``: no signal is lost or made; ``lineout``; the image as a record."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.variance import paired
from xsmall.kernels.rebin import rebin as kernel
from xsmall.kernels.reference.rebin import rebin as twin

FACTORS = [(1, 1), (4, 7), (2.5, 3.3), (40, 70), (13, 1.1), (100, 100)]


@pytest.mark.parametrize("factors", FACTORS)
def test_larger_pixels_hold_the_same_signal(frames: xr.DataArray, factors: tuple[float, float]) -> None:
    out = frames.sd.rebin(factors)
    valid = frames.where(np.isfinite(frames)).astype(float)
    np.testing.assert_allclose(
        out["rebinned"].sum(("row", "column"), dtype="f8"), valid.sum(("row", "column")), rtol=1e-6
    )
    np.testing.assert_allclose(
        out["n_valid"].sum(("row", "column"), dtype="f8"), valid.notnull().sum(("row", "column")), rtol=1e-6
    )
    for e, s in ((0, 0), (3, 1)):
        frame = frames.values[e, s]
        np.testing.assert_allclose(out["rebinned"][e, s].fillna(0), twin(frame, frame, factors), rtol=2e-6, atol=1e-5)
    mean = frames.sd.rebin(factors, statistic="mean")
    np.testing.assert_allclose(mean["rebinned"] * mean["n_valid"], out["rebinned"], rtol=1e-5)
    assert out["rebinned"].dtype == frames.dtype


def test_whole_factors_are_those_of_coarsen(frames: xr.DataArray) -> None:
    valid = frames.where(np.isfinite(frames))
    expected = valid.coarsen(row=4, column=7).sum()
    out = frames.sd.rebin((4, 7))
    np.testing.assert_allclose(out["rebinned"].fillna(0), expected, rtol=1e-5)
    assert out["row"].values[:2].tolist() == [1.5, 5.5]
    assert np.isnan(out["rebinned"][2, 1]).all(), "of a missing segment nothing is known"


def test_variances_are_those_of_shared_pixels(frames: xr.DataArray) -> None:
    spread = np.random.default_rng(0).random(frames.shape).astype("f4")
    both = paired(xr.Dataset({"cal": frames, "cal_variance": frames.copy(data=spread)}))
    out = both.sd.rebin((2.5, 3.3))
    expected = twin(frames.values[0, 1], spread[0, 1], (2.5, 3.3), 2)
    np.testing.assert_allclose(out["rebinned_variance"][0, 1], expected, rtol=1e-5)


def test_masks_thresholds_slices_and_chunks(placed: xr.DataArray, computing_is_forbidden: Any) -> None:
    mask = np.random.default_rng(1).random(placed.shape[1:]) > 0.4
    out = placed.sd.rebin(3, mask=mask, threshold=1.0)
    labelled = xr.DataArray(mask, dims=placed.dims[1:])
    kept = placed.where(labelled & np.isfinite(placed))
    np.testing.assert_array_equal(out["rebinned"], kept.where((kept >= 1) | kept.isnull(), 0).sd.rebin(3)["rebinned"])
    flipped = placed.isel(row=slice(None, None, -1)).sd.rebin(3)
    np.testing.assert_array_equal(flipped["rebinned"], placed.sd.rebin(3)["rebinned"])
    with computing_is_forbidden():
        lazy = placed.chunk(event=2).sd.rebin(3)
    xr.testing.assert_identical(lazy.compute(), placed.sd.rebin(3))
    with pytest.raises(DataError, match="neighbours"):
        placed.isel(row=[0, 2]).sd.rebin(3)


@pytest.mark.parametrize("factor", [0.5, "4", (1, 2, 3), np.nan, (4, np.inf), None])
def test_factors_that_make_no_larger_pixels_are_refused(factor: Any) -> None:
    if factor == "4":
        factor = "four"
    with pytest.raises(ParameterError, match="invalid factor"):
        xs.rebin(factor)
    with pytest.raises(ParameterError, match="statistic"):
        xs.rebin(2, statistic="median")


def test_the_kernel_lets_others_run(lets_others_run: Any) -> None:
    frame, out = np.ones((512, 512), "f4"), np.zeros((512, 512))
    index, share = np.arange(512) // 2, np.tile([1.0, 0.0], (512, 1))
    assert lets_others_run(lambda: kernel(frame, frame, index, share, index, share, out))


def test_a_line_is_the_pixels_themselves(frames: xr.DataArray) -> None:
    line = frames.sd.lineout("row", 12, segment=0)["projection"]
    expected = frames[:, 0, :, 12].where(np.isfinite(frames[:, 0, :, 12]))
    np.testing.assert_array_equal(line, expected)
    mask = np.random.default_rng(4).random(frames.shape[1:]) < 0.5
    masked = frames.sd.lineout("row", 12, segment=0, mask=mask)
    np.testing.assert_array_equal(masked["projection"], line.where(mask[0, :, 12]))
    assert (masked["n_valid"] <= mask[0, :, 12]).all()
    wide = frames.sd.lineout("column", 12, segment=1, width=3)["projection"]
    several = frames[:, 1, 12:15].where(np.isfinite(frames[:, 1, 12:15])).astype(float)
    np.testing.assert_allclose(wide, several.mean("row"), rtol=1e-12)
    for wrong in ({"along": "x", "at": 1}, {"along": "row", "at": 1, "width": 0}, {"along": "row", "at": 1.5}):
        with pytest.raises(ParameterError):
            xs.lineout(**wrong)


@pytest.mark.parametrize("method", ["nearest", "area"])
def test_the_image_in_the_pass_is_that_of_the_array(
    placed: xr.DataArray, method: str, computing_is_forbidden: Any
) -> None:
    options = {"method": method, "pixel_size": 1.3e-4, "x": (-4e-3, 1e-3)}
    both = paired(xr.Dataset({"cal": placed, "cal_variance": xr.full_like(placed, 0.25)}))
    expected = both.sd.image(**options)
    with computing_is_forbidden():
        lazy = both.chunk(event=3).sd.reduce({"a": xs.image(**options), "rows": xs.projection("row")})
    found = lazy.compute()
    np.testing.assert_allclose(found["a_image"], expected["cal"], rtol=1e-6)
    np.testing.assert_allclose(found["a_image_variance"], expected["cal_variance"], rtol=1e-5)
    np.testing.assert_array_equal(found["image_x"], expected["image_x"])
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.2
    masked = xs.apply(placed, xs.image(mask=mask, **options))["image"]
    bare = placed.where(xr.DataArray(mask, dims=placed.dims[1:])).sd.image(**options)
    np.testing.assert_allclose(masked, bare, rtol=1e-6)


def test_images_that_cannot_be_made(frames: xr.DataArray, placed: xr.DataArray) -> None:
    with pytest.raises(GeometryError, match="where the pixels are"):
        xs.apply(frames, xs.image())
    with pytest.raises(ParameterError, match="unknown way"):
        xs.image(method="cubic")
    with pytest.raises(ParameterError, match="for the record"):
        xs.image(placed, mask=np.ones(placed.shape[1:], bool))
