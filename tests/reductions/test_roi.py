"""``roi``: truth from NumPy, labels of the detector, errors."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.frames.variance import paired

BOX = xs.Box(segment=1, row=(3, 30), column=(10, 69))


def test_numbers_are_those_of_numpy_over_finite_pixels(frames: xr.DataArray) -> None:
    out = frames.sd.roi({"a": BOX, "all": xs.Box(segment=0)})
    for name, part in (("a", frames[:, 1, 3:30, 10:69]), ("all", frames[:, 0])):
        values = part.values.astype(float)
        values[~np.isfinite(values)] = np.nan
        got = out.sel(roi=name)
        n = np.isfinite(values).sum(axis=(1, 2))
        np.testing.assert_array_equal(got["n_valid"], n)
        some = n > 0
        for variable, function in (("sum", np.nansum), ("mean", np.nanmean), ("max", np.nanmax)):
            np.testing.assert_allclose(got[variable][some], function(values[some], axis=(1, 2)), rtol=1e-12)
            assert np.isnan(got[variable][~some]).all()
        first = (3, 10) if name == "a" else (0, 0)
        row, column = np.indices(values.shape[1:])
        for variable, place, start in (("com_row", row, first[0]), ("com_column", column, first[1])):
            center = np.nansum(values * place, axis=(1, 2))[some] / np.nansum(values, axis=(1, 2))[some] + start
            np.testing.assert_allclose(got[variable][some], center, rtol=1e-12)
    assert out["sum"].attrs["units"] == "keV"
    assert out["max"].dtype == np.float32


def test_a_box_finds_its_pixels_by_label_in_a_slice(placed: xr.DataArray) -> None:
    whole = placed.sd.roi(BOX)
    cut = placed.isel(segment=[1], row=slice(3, 33), column=slice(8, None)).sd.roi(BOX)
    xr.testing.assert_identical(whole.drop_attrs(), cut.drop_attrs())
    flipped = placed.isel(row=slice(None, None, -1)).sd.roi(BOX)
    np.testing.assert_allclose(flipped["com_row"], whole["com_row"], rtol=1e-12)


def test_masked_pixels_are_left_out_by_label(placed: xr.DataArray) -> None:
    mask = xr.DataArray(
        np.random.default_rng(0).random(placed.shape[1:]) > 0.3,
        dims=("segment", "row", "column"),
        coords={d: placed[d] for d in ("segment", "row", "column")},
    )
    cut = placed.isel(row=slice(2, 35))
    out = cut.sd.roi(BOX, mask=mask)
    expected = cut.where(mask).sd.roi(BOX)
    xr.testing.assert_equal(out, expected)
    xr.testing.assert_equal(placed.sd.roi(BOX, mask=mask.values), placed.where(mask).sd.roi(BOX))


def test_all_masked_is_nan_and_counts_none(frames: xr.DataArray) -> None:
    out = frames.sd.roi(BOX, mask=np.zeros(frames.shape[1:], bool))
    assert not out["n_valid"].any()
    assert all(np.isnan(out[v]).all() for v in ("sum", "mean", "max", "com_row", "com_column"))


def test_variances_are_propagated(frames: xr.DataArray) -> None:
    both = paired(xr.Dataset({"cal": frames, "cal_variance": xr.full_like(frames, 0.25)}))
    out = both.sd.roi(BOX)
    np.testing.assert_allclose(out["sum_variance"], (0.25 * out["n_valid"]).where(out["n_valid"] > 0))
    np.testing.assert_allclose(out["mean_variance"], (0.25 / out["n_valid"]).where(out["n_valid"] > 0))


def test_zero_events_give_empty_results(frames: xr.DataArray) -> None:
    assert frames[:0].sd.roi(BOX)["sum"].shape == (0, 1)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"row": (0, 5)}, "needs its segment"),
        ({"segment": 2}, "not there"),
        ({"segment": 0, "row": (30, 41)}, "reaches beyond"),
        ({"segment": 0, "column": (100, 120)}, "reaches beyond"),
    ],
)
def test_a_box_that_misses_the_frames_is_refused(frames: xr.DataArray, box: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        frames.sd.roi(xs.Box(**box))


@pytest.mark.parametrize("limits", [(5, 5), (6, 5), (-1, 5), (1.5, 3), (True, 5), (1, 2, 3), 7, np.int64(7), True])
def test_a_box_without_pixels_or_with_odd_limits_is_refused(limits: object) -> None:
    with pytest.raises(ParameterError, match="of a box"):
        xs.Box(segment=0, row=limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [7, np.int64(7), slice(7, 8), slice(np.int64(7), 8)])
def test_the_limits_that_are_meant_are_told(limits: object) -> None:
    with pytest.raises(ParameterError, match=r"row=\(7, 8\)"):
        xs.Box(segment=0, row=limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("boxes", [{}, None, [BOX], {"a": (1, 2)}])
def test_what_is_no_box_is_refused(boxes: object) -> None:
    with pytest.raises(ParameterError, match="needs boxes"):
        xs.roi(boxes)  # type: ignore[arg-type]


def test_integer_masks_are_refused_until_their_convention_is_named(frames: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="mask == 1"):
        frames.sd.roi(BOX, mask=np.ones(frames.shape[1:], int))


def test_masks_of_another_shape_are_refused(frames: xr.DataArray) -> None:
    with pytest.raises(DataError, match="another shape"):
        frames.sd.roi(BOX, mask=np.ones((2, 40, 69), bool))
    with pytest.raises(ParameterError, match="other dims"):
        frames.sd.roi(BOX, mask=np.ones((40, 70), bool))


def test_rows_out_of_order_are_found_by_their_labels(placed: xr.DataArray) -> None:
    box = xs.Box(segment=0, row=(1, 3))
    mixed = placed.isel(row=[3, 1, 0, 2]).sd.roi(box)
    xr.testing.assert_allclose(mixed, placed.isel(row=slice(0, 4)).sd.roi(box), rtol=1e-6)


def test_nothing_computes_and_chunks_do_not_matter(frames: xr.DataArray, computing_is_forbidden) -> None:  # type: ignore[no-untyped-def]
    whole = frames.sd.roi(BOX)
    for chunks in (1, 3, (2, 4, 1)):
        with computing_is_forbidden():
            lazy = frames.chunk(event=chunks).sd.roi(BOX)
        xr.testing.assert_identical(lazy.compute(), whole)
