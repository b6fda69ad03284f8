"""``autocorrelation``: truth from the twin, lags, errors."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.kernels.reference.autocorrelation import autocorrelation as twin

BOX = xs.Box(segment=1, row=(3, 20), column=(10, 41))


def test_correlations_are_those_of_the_twin(placed: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.1
    out = placed.isel(column=slice(2, None)).sd.autocorrelation(BOX, max_lag=(3, 5), mask=mask[..., 2:])
    assert out["autocorrelation"].dims == ("event", "lag_row", "lag_column")
    np.testing.assert_array_equal(out["lag_column"], np.arange(-5, 6))
    for event in range(placed.sizes["event"]):
        expected = twin(placed.values[event, 1, 3:20, 10:41], mask[1, 3:20, 10:41], (3, 5))
        np.testing.assert_allclose(out["autocorrelation"][event], expected, rtol=1e-9)
    assert np.isnan(out["autocorrelation"][2]).all()  # the segment is missing there


def test_contrast_of_independent_pixels_is_their_relative_variance() -> None:
    values = np.random.default_rng(1).exponential(1, (2, 1, 200, 200))
    out = xr.DataArray(values, dims=("event", "segment", "row", "column")).sd.autocorrelation(max_lag=2)
    peak = out["autocorrelation"].sel(lag_row=0, lag_column=0)
    np.testing.assert_allclose(peak, 2, rtol=0.05)  # speckle of contrast 1
    np.testing.assert_allclose(out["autocorrelation"].sel(lag_row=1, lag_column=2), 1, rtol=0.05)


def test_all_lags_are_there_without_a_limit_and_chunks_do_not_matter(frames: xr.DataArray) -> None:
    whole = frames.sd.autocorrelation(BOX)
    assert whole["autocorrelation"].shape == (7, 33, 61)
    for chunks in (1, 2, 5):
        xr.testing.assert_identical(frames.chunk(event=chunks).sd.autocorrelation(BOX).compute(), whole)
    assert frames[:0].sd.autocorrelation(BOX)["autocorrelation"].shape == (0, 33, 61)


def test_lags_beyond_the_box_and_odd_ones_are_refused(frames: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="beyond the box"):
        frames.sd.autocorrelation(BOX, max_lag=(17, 3))
    with pytest.raises(ParameterError, match="needs its segment"):
        frames.sd.autocorrelation(max_lag=3)
    for lag in (-1, 1.5, (1, 2, 3), "3"):
        with pytest.raises(ParameterError, match="max_lag"):
            xs.autocorrelation(BOX, max_lag=lag)  # type: ignore[arg-type]


def test_frames_with_pixels_left_out_are_refused(placed: xr.DataArray) -> None:
    with pytest.raises(DataError, match="neighbours"):
        placed.isel(row=slice(None, None, 2)).sd.autocorrelation(xs.Box(segment=0), max_lag=1)
