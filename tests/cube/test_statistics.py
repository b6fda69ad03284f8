"""What a cube has beside means: ratios of images pixel by pixel, extremes, sums, medians; and images in small data."""

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

N = 700
BINS = {"on": xs.categories(), "scan": xs.bins(0, 3, n=3)}
DIMS = ("event", "segment", "row", "column")


def run(n: int = N, seed: int = 1, *, offset: float = 0.0) -> tuple[xr.Dataset, xr.DataArray]:
    """Images whose pixels follow I0: 5 photons per unit of I0 and column number, with noise and holes."""
    rng = np.random.default_rng(seed)
    i0 = rng.normal(1, 0.2, n).clip(0.2)
    i0[[0, 20, 30]] = [-0.1, 0.0, np.nan]
    times = np.datetime64("2026-01-01", "ns") + (np.arange(n) + seed * 10**6)
    small = xr.Dataset(
        {
            "on": ("event", rng.random(n) < 0.5),
            "scan": ("event", rng.random(n) * 3.2),
            "i0": ("event", i0, {"units": "uJ"}),
            "spectrum": (("event", "q"), rng.normal(3, 1, (n, 4))),
        },
        {"event": times},
    )
    rate = 5.0 * np.arange(1, 7) * np.ones((2, 3, 1))
    frames = rate * np.nan_to_num(i0, nan=1.0)[:, None, None, None] + rng.normal(offset, 0.5, (n, 2, 3, 6))
    frames[rng.random(frames.shape) < 0.05] = np.nan
    frames[4, 0, 0, 0] = np.inf
    return small, xr.DataArray(
        frames.astype(np.float32), dims=DIMS, coords={"event": times}, name="camera"
    ).assign_attrs(units="keV")


def lit(small: xr.Dataset) -> np.ndarray:
    return np.isfinite(small.i0.values) & (small.i0.values > 0)


def in_bin(small: xr.Dataset, on: bool, k: int) -> np.ndarray:
    return lit(small) & (small.on.values == on) & (np.floor(small.scan.values) == k)


def test_weights_of_pixels_are_those_of_numpy() -> None:
    small, frames = run()
    lazy = frames.chunk(event=90)
    cube = small.sd.cube(BINS, images={"camera": lazy}, weights="i0", statistics="ratio").compute()
    w = small.i0.values
    for on in (False, True):
        for k in range(3):
            some = in_bin(small, on, k)
            for pixel in ((0, 0, 0), (1, 2, 5)):
                x = frames.values[(some, *pixel)].astype(float)
                good = np.isfinite(x)
                at = cube.sel(on=on).isel(scan=k)
                here = {key: float(at[key].values[pixel]) for key in cube.data_vars if key.startswith("camera")}
                assert here["camera_weight"] == pytest.approx(w[some][good].mean(), rel=1e-12)
                assert here["camera_weight_std"] == pytest.approx(w[some][good].std(ddof=1), rel=1e-12)
                assert here["camera_covariance"] == pytest.approx(np.cov(x[good], w[some][good])[0, 1], rel=1e-9)
                ratios = x[good] / w[some][good]
                assert here["camera_ratio"] == pytest.approx(ratios.mean(), rel=1e-12)
                assert here["camera_ratio_stderr"] == pytest.approx(ratios.std(ddof=1) / ratios.size**0.5, rel=1e-9)
    assert cube["camera_weight"].attrs["units"] == "uJ"
    assert cube.attrs["n_bad_weights"] == 3


@pytest.mark.parametrize("estimator", ["sums", "ratios", "through_zero", "regression"])
def test_ratios_of_images_have_pulls_of_unit_width(estimator: str) -> None:
    small, frames = run(6000, offset=2.0 if estimator == "regression" else 0.0)
    cube = small.sd.cube(BINS, images={"camera": frames}, weights="i0", statistics="ratio")
    ratio = cube.sd.ratio(estimator)
    pulls = (ratio["camera"].values - 5.0 * np.arange(1, 7)) / ratio["camera_stderr"].values
    assert abs(pulls.std() - 1) < 0.12  # 216 pixels and bins
    assert abs(pulls.mean()) < 0.25
    assert ratio["camera"].attrs["units"] == "keV (uJ)-1"
    change = cube.sd.difference("on", relative=True, normalize=estimator)
    assert abs((change["camera"] / change["camera_stderr"]).values.std() - 1) < 0.15


@pytest.mark.parametrize("memory", [None, 300e6])
@pytest.mark.parametrize("chunk", [64, 300])
def test_the_bits_do_not_depend_on_chunks_or_tiles(chunk: int, memory: float | None) -> None:
    small, frames = run()
    asked: dict[str, Any] = {"weights": "i0", "statistics": ("min", "max", "sum", "ratio")}
    whole = small.sd.cube(BINS, images={"camera": frames}, **asked)
    lazy = small.sd.cube(BINS, images={"camera": frames.chunk(event=chunk, segment=1)}, memory=memory, **asked)
    with dask.config.set(scheduler="threads", num_workers=2):
        xr.testing.assert_identical(lazy.compute(), whole)


def test_extremes_sums_and_medians_are_those_of_numpy() -> None:
    small, frames = run()
    asked = ("min", "max", "sum", "median")
    for data in (small, small.chunk(event=100)):
        cube = data.sd.cube(BINS, statistics=asked).compute()
        image = data.sd.cube(BINS, images={"camera": frames.chunk(event=90)}, statistics=asked[:3]).compute()
        for k in range(3):
            some = (small.on.values == 1) & (np.floor(small.scan.values) == k)
            x, pixels = small.spectrum.values[some], frames.values[some].astype(float)
            pixels = np.where(np.isfinite(pixels), pixels, np.nan)
            at = cube.sel(on=True).isel(scan=k)
            of = image.sel(on=True).isel(scan=k)
            np.testing.assert_array_equal(at["spectrum_min"], x.min(0))
            np.testing.assert_array_equal(at["spectrum_max"], x.max(0))
            np.testing.assert_allclose(at["spectrum_sum"], x.sum(0), rtol=1e-12)
            np.testing.assert_array_equal(at["spectrum_median"], np.median(x, 0))
            np.testing.assert_array_equal(of["camera_min"], np.nanmin(pixels, 0))
            np.testing.assert_array_equal(of["camera_max"], np.nanmax(pixels, 0))
            np.testing.assert_allclose(of["camera_sum"], np.nansum(pixels, 0), rtol=1e-12)


def test_an_empty_bin_has_no_extremes_and_a_sum_of_nothing() -> None:
    small, frames = run(40)
    bins = {"scan": xs.bins(0, 30, n=3)}
    cube = small.sd.cube(bins, images={"camera": frames}, statistics=("min", "max", "sum")).isel(scan=2)
    assert np.isnan(cube["camera_min"]).all()
    assert np.isnan(cube["spectrum_max"]).all()
    assert (cube["camera_sum"] == 0).all()


def test_extremes_and_sums_pool_with_merging_and_joining_and_medians_do_not() -> None:
    (a, x), (b, y) = run(seed=1), run(seed=2)
    asked: dict[str, Any] = {"weights": "i0", "statistics": ("min", "max", "sum", "ratio")}
    merged = xs.merge_cubes(*(s.sd.cube(BINS, images={"camera": f}, **asked) for s, f in ((a, x), (b, y))))
    both = xr.concat([a, b], "event").sd.cube(BINS, images={"camera": xr.concat([x, y], "event")}, **asked)
    wide = both.sd.rebin(scan=3)
    for name in ("camera_min", "camera_max", "camera_sum", "i0_min", "camera_covariance", "camera_weight_std",
                 "camera_ratio", "camera_ratio_std", "camera_ratio_stderr"):  # fmt: skip
        np.testing.assert_allclose(merged[name], both[name], rtol=1e-11)
    np.testing.assert_array_equal(wide["camera_min"].isel(scan=0), both["camera_min"].min("scan"))
    with pytest.raises(DataError, match="median"):
        a.sd.cube(BINS, statistics="median").sd.rebin(scan=3)


def test_what_cannot_be_asked_for_is_said() -> None:
    small, frames = run(40)
    with pytest.raises(ParameterError, match="unknown statistics"):
        small.sd.cube(BINS, statistics=("mode",))
    with pytest.raises(ParameterError, match="no median"):
        small.sd.cube(BINS, images={"camera": frames}, statistics=("median",))


@pytest.mark.parametrize("lazy", [False, True])
def test_images_inside_small_data_take_the_same_road(lazy: bool, computing_is_forbidden: Callable[[], Any]) -> None:
    small, frames = run()
    given = frames.chunk(event=64) if lazy else frames
    apart = small.sd.cube(BINS, images={"camera": given}, weights="i0")
    inside = small.assign(camera=given)
    if lazy:
        with computing_is_forbidden():
            made = inside.sd.cube(BINS, weights="i0")
        assert made.sd.plan().bytes_to_read == frames.nbytes
        made = made.compute()
    else:
        made = inside.sd.cube(BINS, weights="i0")
    for name in (n for n in apart.data_vars if n.startswith("camera")):
        np.testing.assert_array_equal(made[name].values, apart[name].values)


def test_images_of_two_dims_are_frames_of_one_segment() -> None:
    small, _ = run()
    picture = np.random.default_rng(3).normal(5, 1, (N, 64, 70)).astype(np.float32)
    lazy = xr.DataArray(picture, dims=("event", "image_y", "image_x"), coords={"event": small.event}).chunk(event=100)
    cube = small.assign(picture=lazy).sd.cube(BINS)
    assert cube.sd.plan().bytes_to_read == picture.nbytes
    some = (small.on.values == 0) & (np.floor(small.scan.values) == 1)
    found = cube["picture"].sel(on=False).isel(scan=1)
    assert found.dims == ("image_y", "image_x")
    np.testing.assert_allclose(found, picture[some].mean(0, dtype=float), rtol=1e-12)


def test_a_pair_in_small_data_keeps_its_variance() -> None:
    small, frames = run()
    pair = xs.with_variance(frames.chunk(event=64), 4.0)
    cube = small.merge(pair).sd.cube(BINS).compute()
    np.testing.assert_allclose(cube["camera_variance"], 4.0 / cube["camera_count"], rtol=1e-12)


def test_an_infinite_variance_makes_that_of_the_mean_unknown() -> None:
    values = xr.DataArray(np.arange(6.0), dims="event", name="y")
    pair = xs.with_variance(values, xr.DataArray([np.inf, 1.0, 1.0, 1.0, 2.0, 3.0], dims="event"))
    found = pair.assign(x=("event", np.repeat([0, 1], 3))).sd.cube({"x": xs.categories()})
    np.testing.assert_array_equal(found["y_variance"], [np.nan, 6 / 9])
