"""Kernels of the reductions against their NumPy twins, scipy and each other."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from xsmall.kernels import add_frames as adding
from xsmall.kernels import autocorrelation, azint, droplet, projection, roi
from xsmall.kernels.reference import autocorrelation as slow_autocorrelation
from xsmall.kernels.reference import azint as slow_azint
from xsmall.kernels.reference import droplet as slow_droplet
from xsmall.kernels.reference import moments as slow_moments
from xsmall.kernels.reference import projection as slow_projection
from xsmall.kernels.reference import roi as slow_roi
from xsmall.kernels.stack import flat_frames

DTYPES = (np.float32, np.float64)


def frame(
    seed: int, shape: tuple[int, int], dtype: Any = np.float32, bad: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Noise with photons on it, NaN, infinities and a mask."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.1, shape) + (rng.random(shape) < 0.1) * rng.random(shape) * 2
    values[rng.random(shape) < bad] = np.nan
    values[rng.random(shape) < bad / 5] = np.inf
    return values.astype(dtype), rng.random(shape) > bad


def roi_of(values: np.ndarray, use: np.ndarray) -> tuple[float, ...]:
    """Sum, maximum, centre of mass and number of valid pixels of a whole frame, by the kernel of boxes."""
    rows, columns = (np.arange(float(n)) for n in values.shape)
    out = np.empty(5)
    roi.box(values, 0, 0, use, rows, columns, np.empty(values.shape[1], values.dtype), out)
    total, most, along_row, along_column, n = out.tolist()
    if n == 0:
        return np.nan, most, np.nan, np.nan, 0
    return total, most, along_row / total if total else np.nan, along_column / total if total else np.nan, n


def droplets_of(values: np.ndarray, use: np.ndarray, high: float, low: float) -> list[np.ndarray]:
    """Sum, number of pixels, row and column of each droplet of a frame, by the kernel that the reducer calls."""
    real, n = values.dtype.type, values.size
    lists = [np.empty(n, values.dtype), np.empty(n, np.int32), np.empty(n), np.empty(n)]
    empty = np.empty(0, values.dtype), np.empty((0, droplet.DETAILS), np.int32), *[np.empty(0)] * 3
    borders, thresholds = np.zeros(2, np.int64), (real(high), real(low), np.finfo(real).max)
    words = droplet.mask_words(use)
    words.flags.writeable = False  # as the package gives them, for which it is compiled anyway
    done, _ = droplet.list_droplets(
        flat_frames(values[None]), values.shape, None, None, words, thresholds, (None, None, None),
        droplet.Workspace(*values.shape).arrays, (0, 0.0, 0.0, 1.0, 1.0), (-np.inf, np.inf, 0, n), borders, 0,
        (*lists, np.empty(n, np.int32), *empty),
    )  # fmt: skip
    assert done == 1
    return [of_each[: borders[1]] for of_each in lists]


def test_azint_refuses_strided_frames_that_it_would_misread() -> None:
    with pytest.raises(TypingError, match="contiguous"):
        scatter(np.ones((1, 600), np.float32)[:, ::2], np.zeros(300, np.uint16), 1)


shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 63, 64, 65, 130]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from(DTYPES))
def test_roi_equals_its_twin(seed: int, shape: tuple[int, int], dtype: Any) -> None:
    values, use = frame(seed, shape, dtype)
    np.testing.assert_allclose(roi_of(values, use), slow_roi.roi(values, use), rtol=1e-9)


def test_roi_without_a_valid_pixel_is_nan_and_counts_none() -> None:
    values, use = np.full((3, 4), np.nan, np.float32), np.ones((3, 4), bool)
    np.testing.assert_array_equal(roi_of(values, use), (np.nan, np.nan, np.nan, np.nan, 0))
    np.testing.assert_array_equal(roi_of(np.ones((3, 4), np.float32), ~use), (np.nan, np.nan, np.nan, np.nan, 0))


def test_roi_whose_pixels_cancel_has_no_centre() -> None:
    frame, use = np.array([[1.0, -1.0], [2.0, -2.0]]), np.ones((2, 2), bool)
    found = roi_of(frame, use)
    np.testing.assert_array_equal([float(v) for v in found], [float(v) for v in slow_roi.roi(frame, use)])
    assert np.isnan([found[2], found[3]]).all()


def test_roi_of_negative_pixels_has_a_negative_maximum() -> None:
    values = np.full((3, 70), -2.0, np.float32)
    values[1, 5] = np.nan
    assert roi_of(values, np.ones(values.shape, bool))[1] == -2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from(DTYPES))
def test_azint_equals_its_twin(seed: int, shape: tuple[int, int], dtype: Any) -> None:
    values, use = frame(seed, shape, dtype)
    radius = np.hypot(*np.indices(shape))
    edges = np.linspace(0, radius.max() / 1.3 + 1, 8)
    index = (np.digitize(radius, edges) - 1).astype(np.uint16).ravel()
    index[~use.ravel()] = 7
    sums, lost, _ = scatter(values.reshape(1, -1), index, 7)
    n_valid = np.bincount(index, minlength=8)[:7] - lost[:7, 0]
    intensity = np.divide(sums[:7].sum(axis=1)[:, 0], n_valid, out=np.full(7, np.nan), where=n_valid > 0)
    slow, n_slow = slow_azint.azint(np.where(use, values, np.nan), radius, edges)
    np.testing.assert_array_equal(n_valid, n_slow)
    np.testing.assert_allclose(intensity, slow, rtol=1e-9)


def scatter(values: np.ndarray, index: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four lanes of ``values`` (k, pixel) through the engine's kernel."""
    sums, lost, weight = np.zeros((n + 1, 2, 4)), np.zeros((n + 1, 4), np.int64), np.zeros((n + 1, 4))
    lanes = [values[min(j, len(values) - 1)] for j in range(4)]
    azint.scatter(*lanes, azint.arrange(index, n), index, np.ones(index.size, np.float32), sums, lost, weight)
    return sums, lost, weight


@pytest.mark.parametrize("run", [1, 3, 17, 2000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_an_event_do_not_depend_on_its_company_bit_for_bit(dtype: Any, run: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 1, (4, 1003)).astype(dtype)
    values[2, ::77] = np.nan
    values[3, 5] = np.inf
    index = np.repeat(rng.integers(0, 10, 1003), rng.integers(1, 2 * run, 1003))[:1003].astype(np.uint16)
    together = scatter(values, index, 10)
    for j in range(4):
        alone = scatter(values[j : j + 1], index, 10)
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[..., 0], many[..., j])
    np.testing.assert_array_equal(together[1].sum(axis=0), (~np.isfinite(values)).sum(axis=1))
    np.testing.assert_array_equal(together[2], together[1])
    expected = [np.bincount(index, np.where(np.isfinite(v), v, 0), minlength=11) for v in values]
    np.testing.assert_allclose(together[0].sum(axis=1).T, expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 12, 60, 900]), st.integers(1, 1700), st.sampled_from(DTYPES))
def test_scattered_pixels_are_all_there_whatever_their_neighbours_are(seed: int, run: int, n: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    index = np.repeat(rng.integers(0, 8, n), rng.integers(1, 2 * run, n))[:n].astype(np.uint16)  # 7 stands for none
    values, _ = frame(seed, (4, n), dtype, bad=rng.choice([0.0, 0.01, 0.3]))
    weight = rng.random(n).astype(np.float32)
    sums, lost, weighed = np.zeros((8, 2, 4)), np.zeros((8, 4), np.int64), np.zeros((8, 4))
    azint.scatter(*values, azint.arrange(index, 7), index, weight, sums, lost, weighed)
    for lane in range(4):
        good = np.isfinite(values[lane])
        seen = sums[:7].sum(axis=1)[:, lane], lost[:7, lane], weighed[:7, lane]
        sizes = np.where(good, values[lane], 0).astype(float), ~good, np.where(good, 0, weight.astype(float))
        for found, size in zip(seen, sizes, strict=True):
            expected = np.array([size[index == b].sum() for b in range(7)])
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_huge_pixels_are_no_lost_ones() -> None:
    values, index = np.full((1, 64), 1.7e308), np.repeat([0, 1], [16, 48]).astype(np.uint16)
    values[0, 0] = -1.7e308
    sums, lost, _ = scatter(values, index, 2)
    assert not lost.any()
    assert np.isinf(sums[:2].sum(axis=1)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from(DTYPES), st.sampled_from([(1.0, 0.2), (0.4, 0.4), (0.2, 0.01)]))
def test_droplets_equal_their_twin(
    seed: int, shape: tuple[int, int], dtype: Any, thresholds: tuple[float, float]
) -> None:
    values, use = frame(seed, shape, dtype)
    found = droplets_of(values, use, *thresholds)
    expected = slow_droplet.droplet(values, use, *thresholds)
    assert len(found[0]) == len(expected)
    if expected:
        for fast, slow in zip(found, zip(*expected, strict=True), strict=False):
            np.testing.assert_allclose(fast, slow, rtol=1e-5 if dtype is np.float32 else 1e-9)


@pytest.mark.parametrize("n_photons", [3, 50, 900])
def test_droplets_equal_those_of_scipy_pixel_for_pixel(n_photons: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(n_photons)
    values = rng.normal(0, 0.1, (90, 150)).astype(np.float32)
    np.add.at(values, (rng.integers(0, 90, n_photons), rng.integers(0, 150, n_photons)), 1)
    values = ndimage.gaussian_filter(values, 0.6)
    use = rng.random(values.shape) > 0.01
    high, low = np.float32(0.3), np.float32(0.1)
    seed = (values >= high) & use
    labels, n = ndimage.label(seed | (ndimage.binary_dilation(seed) & (values >= low) & use))
    index = np.arange(1, n + 1)
    total, size, row, column = droplets_of(values, use, high, low)
    assert len(total) == n
    np.testing.assert_array_equal(size, np.bincount(labels.ravel())[1:])
    np.testing.assert_allclose(total, ndimage.sum(values.astype(float), labels, index), rtol=1e-6)
    np.testing.assert_allclose(
        np.stack([row, column], axis=1), ndimage.center_of_mass(values.astype(float), labels, index), rtol=1e-9
    )


def test_a_spiral_that_joins_at_its_end_is_one_droplet() -> None:
    values = np.zeros((7, 7), np.float32)
    values[0, :] = values[:, 6] = values[6, :] = values[2:, 0] = values[2, :5] = values[4, 2:5] = values[2:5, 4] = 1
    _, size, *_ = droplets_of(values, np.ones(values.shape, bool), 1.0, 1.0)
    assert size.tolist() == [(values > 0).sum()]


def test_the_ring_around_a_seed_is_one_pixel_wide() -> None:
    values = np.array([[0.5, 0.5, 1.0, 0.5, 0.5]], np.float32)
    _, size, *_ = droplets_of(values, np.ones(values.shape, bool), 1.0, 0.5)
    assert size.tolist() == [3]


def test_a_checkerboard_fills_the_labels() -> None:
    values = (np.indices((64, 65)).sum(axis=0) % 2 == 0).astype(np.float64)
    total, *_ = droplets_of(values, np.ones(values.shape, bool), 0.5, 0.5)
    assert total.tolist() == [1.0] * int(values.sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from(DTYPES))
def test_projections_equal_their_twin(seed: int, shape: tuple[int, int], dtype: Any) -> None:
    values, use = frame(seed, shape, dtype)
    for kernel, axis in ((projection.along_columns, 1), (projection.along_rows, 0)):
        found = np.zeros(shape[1 - axis]), np.zeros(shape[1 - axis], np.int64)
        kernel(values, 0, 0, use, *found)
        for fast, slow in zip(found, slow_projection.projection(values, use, axis), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.tuples(st.integers(2, 9), st.integers(2, 13)), st.sampled_from(DTYPES))
def test_autocorrelation_equals_its_twin(seed: int, shape: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    values, use = frame(seed, shape, dtype)
    values = np.abs(values) + dtype(rng.random())
    lags = shape[0] - 1, shape[1] // 2
    fast = autocorrelation.Correlator(shape, lags)(values, use)
    np.testing.assert_allclose(fast, slow_autocorrelation.autocorrelation(values, use, lags), rtol=1e-8, atol=1e-10)


def test_autocorrelation_does_not_wrap_and_has_its_peak_at_lag_zero() -> None:
    values = np.full((8, 9), 0.1)
    values[0, 0] = values[7, 8] = 100.0
    out = autocorrelation.Correlator((8, 9), (7, 8))(values, np.ones((8, 9), bool))
    assert np.unravel_index(np.nanargmax(out[4:11, 5:12]), (7, 7)) == (3, 3)
    assert out[7, 8 + 1] < 1.2  # a periodic transform would make corner and corner neighbours
    np.testing.assert_allclose(out, out[::-1, ::-1])


def test_autocorrelation_without_signal_is_nan() -> None:
    for nothing in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        use = np.ones((4, 4), bool)
        assert np.isnan(autocorrelation.Correlator((4, 4), (3, 3))(nothing, use)).all()
        assert np.isnan(slow_autocorrelation.autocorrelation(nothing, use, (3, 3))).all()


N, ROWS, COLUMNS = 8, 1024, 1024


def calls() -> dict[str, Callable[[np.ndarray], object]]:
    """Each kernel on one event, as a reducer calls it."""
    use = np.ones((ROWS, COLUMNS), bool)
    places = np.arange(float(ROWS))
    words, work = droplet.mask_words(use), droplet.Workspace(ROWS, COLUMNS).arrays
    words.flags.writeable = False
    thresholds = tuple(np.float32(v) for v in (0.4, 0.2, 3e38))
    line, out, found = np.empty(COLUMNS, np.float32), np.empty(6), np.ones(5)
    total = np.zeros((1, ROWS * COLUMNS))
    totals = np.empty(ROWS), np.empty(ROWS, np.int64)
    index = (np.hypot(*np.indices((ROWS, COLUMNS))) / 4).astype(np.uint16).ravel()
    correlate = autocorrelation.Correlator((ROWS, COLUMNS), (8, 8))
    return {
        "roi": lambda f: roi.box(f, 0, 0, use, places, places, line, out),
        "azint": lambda f: scatter(f.reshape(1, -1), index, 500),
        "droplet": lambda f: droplet.find(f, None, None, words, thresholds, (None, None, None), work),
        "projection": lambda f: projection.along_columns(f, 0, 0, use, *totals),
        "projection over rows": lambda f: projection.along_rows(f, 0, 0, use, *totals),
        "autocorrelation": lambda f: correlate(f, use),
        "variance of autocorrelation": lambda f: autocorrelation.variance_of_lag(
            f.astype(float), f.astype(float), f[1:-1, 1:-1].astype(float), 1, 1, 1.0, 1.0, 1.0
        ),
        "variance of roi": lambda f: roi.box_variance(f, f, 0, 0, use, places, places, found, out),
        "variance of a cube": lambda f: adding.add_variances(
            f.reshape(1, -1),
            f.reshape(1, -1),
            np.zeros(1, np.int64),
            np.array([0, 1]),
            np.zeros(1, np.int64),
            total,
            0,
            f.size,
            0,
        ),
    }


@pytest.mark.parametrize("name", list(calls()))
def test_every_kernel_lets_other_threads_run(name: str, lets_others_run: Callable[..., bool]) -> None:
    frames = np.random.default_rng(0).normal(0, 0.2, (N, ROWS, COLUMNS)).astype(np.float32)
    frames.flags.writeable = False
    call = calls()[name]
    assert lets_others_run(lambda: [call(f) for f in frames])


def test_a_kernel_that_kept_the_gil_would_be_found(lets_others_run: Callable[..., bool]) -> None:
    @numba.njit
    def greedy(frame):  # type: ignore[no-untyped-def]
        total = 0.0
        for row in frame:
            for value in row:
                total += value**0.3
        return total

    frame = np.ones((ROWS, COLUMNS), np.float32)
    assert not lets_others_run(lambda: greedy(frame), calls=40)


def test_variances_equal_their_twins() -> None:
    rng = np.random.default_rng(8)
    frame, variance = rng.normal(5, 1, (12, 17)), rng.uniform(0.1, 1, (12, 17))
    frame[3, 4] = np.nan
    use = rng.random(frame.shape) > 0.1
    places, line, found, out = np.arange(17.0), np.empty(17), np.empty(5), np.empty(4)
    roi.box(frame, 0, 0, use, places[:12], places, line, found)
    roi.box_variance(frame, variance, 0, 0, use, places[:12], places, found, out)
    np.testing.assert_allclose(out, slow_roi.box_variance(frame, variance, use), rtol=1e-12)
    total = np.zeros((2, frame.size))
    frames, variances = (
        np.stack([frame.ravel()] * 3),
        np.stack([variance.ravel(), variance.ravel() * 2, variance.ravel()]),
    )
    order, first, bins = np.array([2, 0, 1]), np.array([0, 1, 3]), np.array([1, 0])
    adding.add_variances(frames, variances, order, first, bins, total, 0, frames.shape[1], 0)
    np.testing.assert_allclose(total, slow_moments.add_variances(frames, variances, np.array([0, 0, 1]), 2), rtol=1e-15)
    lags = autocorrelation.Correlator(frame.shape, (2, 3)).with_variance(frame, use, variance)[1]
    np.testing.assert_allclose(lags, slow_autocorrelation.variance(frame, use, variance, (2, 3)), rtol=1e-5)
