"""Straightened spectrometer images: the right way round, no flux lost, nothing wrapped around."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.frames.straighten import straighten

RNG = np.random.default_rng(9)


def image(n: int = 2, rows: int = 40, columns: int = 30, **coords: Any) -> xr.DataArray:
    return xr.DataArray(
        RNG.uniform(0, 9, (n, rows, columns)).astype("f4"), dims=("event", "row", "column"), coords=coords
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.015, 0.015), min_size=1, max_size=3), st.sampled_from(["row", "column"]))
def test_the_sum_along_the_shift_stays(coefficients: list[float], along: str) -> None:
    frames = image()
    out = straighten(frames, coefficients, along=along)  # type: ignore[arg-type]
    np.testing.assert_allclose(out.sum(along).values, frames.sum(along).values, rtol=1e-5)


def test_whole_shifts_move_pixels_as_a_roll_without_the_wrap() -> None:
    frames = image(1)
    shift = (np.arange(30) * 0.5).astype(int).astype(float)  # not a polynomial, so one column at a time
    for column in (0, 7, 29):
        part = frames.isel(column=[0, column])
        out = straighten(part.assign_coords(column=[0, 1]), [shift[column], 0.0])
        s = int(shift[column])
        assert out.row.values.tolist() == list(range(40 + s))
        np.testing.assert_array_equal(out.values[0, :40, 1], frames.values[0, :, column])
        np.testing.assert_array_equal(out.values[0, s:, 0], frames.values[0, :, 0])
        assert np.isnan(out.values[0, 40:, 1]).all()
        assert np.isnan(out.values[0, :s, 0]).all()


def test_a_curved_line_becomes_straight() -> None:
    column = np.arange(60)
    coefficients = [0.01, -0.4, 30.0]
    line = np.polyval(coefficients, column)
    row = np.arange(80)[:, None]
    frames = xr.DataArray(np.exp(-0.5 * ((row - line) / 2.0) ** 2), dims=("row", "column"))
    out = straighten(frames, coefficients)
    centre = (out * out.row).sum("row") / out.sum("row")
    np.testing.assert_allclose(centre.values, line.min() + np.ceil(np.ptp(line)), atol=0.01)
    assert float(out.sum("column").max()) > 0.95 * 60 * 0.9


def test_lazy_images_stay_lazy_and_are_the_same(no_compute: None) -> None:
    frames = image(4, x=(("row", "column"), np.zeros((40, 30))))
    lazy = straighten(frames.chunk(event=1, row=7), [0.1, 0.0])
    assert lazy.chunks is not None
    assert "x" not in lazy.coords
    eager = straighten(frames, [0.1, 0.0])
    np.testing.assert_array_equal(lazy.data.compute(scheduler="sync"), eager.values)


def test_nan_stays_where_it_was_shared() -> None:
    frames = image(1, 6, 2)
    frames[0, 3, 1] = np.nan
    out = straighten(frames, [0.5, 0.0])
    assert np.argwhere(np.isnan(out.values[0])).tolist() == [[0, 0], [3, 1], [4, 1]]


def test_rows_that_the_detector_does_not_have_do_not_lower_a_mean() -> None:
    flat = xr.ones_like(image(2)).expand_dims(segment=1, axis=1)
    means = flat.sd.apply(xs.straighten([0.5, 0.0]) | xs.projection("row", statistic="mean"))
    whole = flat.sd.apply(xs.straighten([1.0, 0.0]) | xs.projection("row", statistic="mean"))
    assert (whole["projection"] == 1).all()
    assert whole["n_valid"][0, 0].values.tolist()[:3] == [1, 2, 3]
    assert int(whole["n_valid"][0].sum()) == 40 * 30
    assert (means["projection"][:, :, 15:40] == 1).all()
    assert float(means["projection"].min()) >= 0.5  # a half of one pixel, and no more


def test_invalid_arguments_are_refused() -> None:
    frames = image()
    with pytest.raises(ParameterError, match="more than the image"):
        straighten(frames, [30.0, 1.0])
    for coefficients in ([], [np.nan], [[1.0]]):
        with pytest.raises(ParameterError, match="polynomial"):
            straighten(frames, coefficients)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="dim"):
        straighten(frames, [1.0], along="event")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rows and columns"):
        straighten(frames.isel(row=0), [1.0])
    with pytest.raises(DataError, match="consecutive"):
        straighten(frames.assign_coords(row=np.arange(40) * 2), [1.0, 0.0])


def test_the_variance_of_shared_pixels_has_pulls_of_unit_width() -> None:
    rng = np.random.default_rng(2)
    sigma = rng.uniform(1, 3, (1, 40, 30)).astype("f4")
    values = xr.DataArray(
        rng.normal(0, sigma, (3000, 1, 40, 30)).astype("f4"), dims=("event", "segment", "row", "column")
    )
    both = xs.with_variance(values.rename("calibrated"), values * 0 + sigma**2)
    out = both.sd.straighten([0.01, 0.13, 0.0])
    inside = out.isel(row=slice(14, 38))
    pulls = (inside["calibrated"] / np.sqrt(inside["calibrated_variance"])).std("event")
    np.testing.assert_allclose(pulls.values, 1, atol=0.06)
    assert out["calibrated"].dims == values.dims
