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


def test_several_places_are_correlated_as_one_by_one(placed: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.1
    shape = np.hypot(*(i - n / 2 for i, n in zip(np.indices((40, 70)), (40, 70), strict=True))) < 15
    odd = np.zeros(placed.shape[1:], bool)
    odd[0] = shape
    places = {"box": BOX, "odd": odd, "ring": xs.Band("radius", 1e-3, 2.5e-3)}
    out = placed.sd.autocorrelation(places, max_lag=(3, 5), mask=mask)
    assert out["autocorrelation"].dims == ("event", "roi", "lag_row", "lag_column")
    for name, place in places.items():
        one = placed.sd.autocorrelation(place, max_lag=(3, 5), mask=mask)
        xr.testing.assert_equal(out["autocorrelation"].sel(roi=name, drop=True), one["autocorrelation"])
    expected = twin(placed.values[0, 0], mask[0] & shape, (3, 5))
    np.testing.assert_allclose(out["autocorrelation"].sel(roi="odd")[0], expected, rtol=1e-9)


def test_pairs_of_several_segments_are_added_up_and_never_made_across(frames: xr.DataArray) -> None:
    clean = frames.where(np.isfinite(frames), 0.5).assign_coords(segment=[0, 1])
    both = clean.sd.autocorrelation(np.ones(clean.shape[1:], bool), max_lag=2)
    # segments behind each other with a gap of masked rows between them have the same pairs
    gap = xr.full_like(clean[:, 0, :5], np.nan)
    long = xr.concat([clean[:, 0], gap, clean[:, 1]], "row", coords="minimal", compat="override").drop_vars("segment")
    long = long.expand_dims("segment", axis=1)
    one = long.sd.autocorrelation(max_lag=2)
    np.testing.assert_allclose(both["autocorrelation"], one["autocorrelation"], rtol=1e-9)


def test_variances_of_places_on_several_segments_are_those_of_their_derivatives(frames: xr.DataArray) -> None:
    small = frames[:1, :, :6, :7]
    small = small.where(np.isfinite(small), 0.5)
    both = xs.with_variance(small, xr.full_like(small, 0.25))
    place = np.ones(small.shape[1:], bool)
    light = np.linspace(1.0, 2.0, place.size).reshape(place.shape)
    out = both.sd.autocorrelation(place, max_lag=1, illumination=light)
    expected = np.zeros((3, 3))
    for at in np.ndindex(place.shape):
        sides = []
        for step in (1e-3, -1e-3):
            moved = small.astype(float)
            moved.values[(0, *at)] += step
            sides.append(moved.sd.autocorrelation(place, max_lag=1, illumination=light)["autocorrelation"][0])
        expected += 0.25 * ((sides[0] - sides[1]).values / 2e-3) ** 2
    np.testing.assert_allclose(out["autocorrelation_variance"][0], expected, rtol=1e-4)


def test_light_that_differs_between_pixels_is_taken_out() -> None:
    rng = np.random.default_rng(2)
    light = 1 + 0.8 * np.sin(np.arange(120) / 10) * np.ones((120, 1))
    frames = xr.DataArray(rng.exponential(1, (3, 1, 120, 120)) * light, dims=("event", "segment", "row", "column"))
    plain = frames.sd.autocorrelation(max_lag=4)["autocorrelation"]
    light[5, 5] = 0.0  # nothing is known there
    even = frames.sd.autocorrelation(max_lag=4, illumination=light[None])["autocorrelation"]
    off = {"lag_row": [-4, -3, 3, 4]}
    assert (plain.sel(off) > 1.2).all()
    np.testing.assert_allclose(even.sel(off), 1.0, atol=0.05)
    np.testing.assert_allclose(even.sel(lag_row=0, lag_column=0), 2.0, rtol=0.06)


def test_views_are_those_of_the_whole(placed: xr.DataArray) -> None:
    views = ["radial", "along_row", "along_column"]
    out = placed.sd.autocorrelation(BOX, max_lag=(3, 5), also=views)
    whole = out["autocorrelation"]
    xr.testing.assert_equal(out["along_row"], whole.sel(lag_column=0, drop=True).rename("along_row"))
    xr.testing.assert_equal(out["along_column"], whole.sel(lag_row=0, drop=True).rename("along_column"))
    assert out["radial"].dims == ("event", "lag")
    np.testing.assert_allclose(out["radial"][:, 0], whole.sel(lag_row=0, lag_column=0))
    values = placed.values[0, 1, 3:20, 10:41]
    valid = np.isfinite(values)
    near = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    pairs = [(valid[max(0, -r) : 17 - max(0, r), max(0, -c) : 31 - max(0, c)]
              & valid[max(0, r) : 17 + min(0, r), max(0, c) : 31 + min(0, c)]).sum() for r, c in near]  # fmt: skip
    terms = [float(whole[0].sel(lag_row=r, lag_column=c)) for r, c in near]
    assert float(out["radial"][0, 1]) == pytest.approx(np.average(terms, weights=pairs))
    with pytest.raises(ParameterError, match="invalid also"):
        placed.sd.autocorrelation(BOX, also="diagonal")
    with pytest.raises(ParameterError, match="none"):
        placed.sd.autocorrelation({})
    for light, words in ((-1.0, "illumination is positive"), (1j, "illumination is a number for each pixel")):
        with pytest.raises(ParameterError, match=rf"{words}[\s\S]*illumination=cal.mean"):
            placed.sd.autocorrelation(BOX, illumination=np.full(placed.shape[1:], light))


def test_the_true_peak_is_found_where_it_is() -> None:
    values = np.zeros((1, 1, 41, 41))
    values[0, 0, 20, 20] = values[0, 0, 25, 17] = 1.0  # two spots 5 rows and -3 columns apart
    frames = xr.DataArray(values, dims=("event", "segment", "row", "column"))
    out = frames.sd.autocorrelation(max_lag=8, also="radial")
    peak = out["autocorrelation"][0].where(abs(out["lag_row"]) + abs(out["lag_column"]) > 0, 0.0).fillna(0.0)
    assert {tuple(map(int, p)) for p in np.argwhere(peak.values == peak.values.max()) - 8} == {(5, -3), (-5, 3)}
    assert int(np.nanargmax(out["radial"].values[0, 1:])) + 1 == 6
