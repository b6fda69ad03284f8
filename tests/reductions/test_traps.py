"""Mistakes that programs for the same purpose are known to make, and that are not made here."""

import numpy as np
import xarray as xr

import xsmall as xs


def flat(placed: xr.DataArray, value: float = 1.0) -> xr.DataArray:
    return placed.copy(data=np.full(placed.shape, value, np.float32))


def half(placed: xr.DataArray) -> np.ndarray:
    return np.random.default_rng(5).random(placed.shape[1:]) > 0.5


def test_a_mask_does_not_lower_the_mean_of_a_box(placed: xr.DataArray) -> None:
    out = flat(placed).sd.roi(xs.Box(segment=1), mask=half(placed))
    np.testing.assert_array_equal(out["mean"], 1)
    assert (out["n_valid"] < 0.6 * placed[0, 0].size).all()


def test_pixels_that_cancel_have_no_centre_and_not_an_infinite_one(placed: xr.DataArray) -> None:
    pair = flat(placed, 0)
    pair.data[:, 1, 12, 30], pair.data[:, 1, 20, 40] = 3, -3
    also = ["x", "y", "moment_row_row", "moment_row_column", "moment_column_column", "moment_x_x"]
    out = pair.sd.roi(xs.Box(segment=1, row=(10, 30), column=(20, 60)), also=also)
    assert (out["sum"] == 0).all()
    for name in ("com_row", "com_column", *also):
        assert np.isnan(out[name]).all(), name


def test_a_pixel_at_the_level_is_saturated_and_one_below_it_is_not(placed: xr.DataArray) -> None:
    spots = flat(placed, 0)
    spots.data[:, 1, 12, 30], spots.data[:, 1, 20, 40], spots.data[:, 1, 21, 40] = 8, np.nextafter(np.float32(8), 0), 9
    out = spots.sd.roi(xs.Box(segment=1), also="n_saturated", saturation=8.0)
    assert out["n_saturated"].values.tolist() == [[2]] * 7


def test_the_centre_of_mass_of_one_segment_of_several_is_a_number_in_labels_of_the_detector(
    placed: xr.DataArray,
) -> None:
    spot = flat(placed, 0)
    spot.data[:, 1, 17, 33] = 4
    out = spot.sd.roi(xs.Box(segment=1, row=(10, 30), column=(20, 60)))
    assert out["com_row"].values.tolist() == [[17]] * 7
    assert out["com_column"].values.tolist() == [[33]] * 7


def test_masked_pixels_do_not_count_into_the_first_bin(placed: xr.DataArray) -> None:
    q = np.asarray(placed.sd.pixel("q").values)
    for bins in (40, np.linspace(np.quantile(q, 0.2), np.quantile(q, 0.7), 12)):
        out = flat(placed).sd.azint(bins=bins, mask=half(placed))
        filled = out["n_valid"] > 0
        np.testing.assert_array_equal(out["intensity"].where(filled, 1), 1)
        assert filled.all()


def test_one_bad_pixel_does_not_spoil_its_bin(placed: xr.DataArray) -> None:
    holes = flat(placed)
    holes.data[:, 0, 3, 3] = np.nan
    holes.data[:, 1, 3, 3] = np.inf
    assert float(holes.sd.azint(bins=5)["intensity"].max()) == 1
    assert float(holes.sd.projection("row", statistic="mean")["projection"].max()) == 1
    assert not holes.sd.droplet(2.0)["n_droplets"].any()


def test_a_detector_that_covers_a_part_of_the_circle_fills_only_those_sectors(placed: xr.DataArray) -> None:
    azimuth = np.asarray(placed.sd.pixel("azimuth").values)
    use = (azimuth >= 15) & (azimuth < 75)
    out = flat(placed).sd.azint(bins=1, azimuth_bins=24, mask=use)
    filled = out["azimuth"].values[(out["n_valid"].isel(event=0, q=0) > 0).values]
    assert filled.tolist() == [22.5, 37.5, 52.5, 67.5]
    expected = np.histogram(azimuth[use], bins=[15, 30, 45, 60, 75])[0]
    np.testing.assert_array_equal(out["n_valid"].isel(event=0, q=0).sel(azimuth=filled), expected)


def test_reductions_leave_the_frames_as_they_are(placed: xr.DataArray) -> None:
    before = placed.copy(deep=True)
    box = xs.Box(segment=0)
    placed.sd.reduce(
        {
            "roi": xs.roi(box),
            "azint": xs.azint(bins=9),
            "droplet": xs.droplet(4.0, 1.0),
            "projection": xs.projection("row"),
            "autocorrelation": xs.autocorrelation(box, max_lag=3),
        }
    )
    np.testing.assert_array_equal(placed.values, before.values)


def test_two_boxes_keep_their_names(placed: xr.DataArray) -> None:
    boxes = {"left": xs.Box(segment=0, column=(0, 30)), "right": xs.Box(segment=0, column=(30, 70))}
    out = placed.sd.roi(boxes)
    whole = placed.sd.roi(xs.Box(segment=0))
    np.testing.assert_allclose(out["sum"].sum("roi"), whole["sum"].isel(roi=0), rtol=1e-12)
