"""Exact medians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xsmall.kernels.median import column_medians, row_medians, unit_medians
from xsmall.kernels.median_network import comparators

SHAPE = (8, 32)
values = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


def expected(image: np.ndarray, use: np.ndarray, axis: int) -> np.ndarray:
    """Median of the finite pixels in use, in 64 bits, by sorting."""
    kept = np.where((use != 0) & np.isfinite(image), image.astype(float), np.nan)
    rows = kept if axis == 1 else kept.T
    return np.array([np.median(r[np.isfinite(r)]) if np.isfinite(r).any() else np.nan for r in rows])


@given(image=arrays(np.float32, SHAPE, elements=values), use=arrays(np.uint8, SHAPE, elements=st.integers(0, 1)))
@settings(max_examples=200, deadline=None)
def test_medians_are_exact_whatever_the_pixels_hold(image: np.ndarray, use: np.ndarray) -> None:
    for medians, axis in ((row_medians, 1), (column_medians, 0)):
        found, counts = medians(image, use)
        np.testing.assert_array_equal(found.ravel(), expected(image, use, axis))
        np.testing.assert_array_equal(counts.ravel(), ((use != 0) & np.isfinite(image)).sum(axis))


@pytest.mark.parametrize("step", [0.0, 1e-40, 1.0, 1e30])
def test_medians_of_values_with_many_ties_are_exact(step: float) -> None:
    rng = np.random.default_rng(3)
    image = (rng.integers(-2, 3, (64, 512)) * step).astype(np.float32)
    found, _ = row_medians(image, width=64)
    np.testing.assert_array_equal(found, np.median(image.reshape(64, 8, 64).astype(float), axis=2))
    found, _ = column_medians(image, height=16)
    np.testing.assert_array_equal(found, np.median(image.reshape(4, 16, 512).astype(float), axis=1))


def test_medians_do_not_depend_on_the_stretch_before() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(0, 3, (6, 64)).astype(np.float32)
    image[::2] += 1e6  # a guess far off the mark for every second row
    alone = [row_medians(image[i : i + 1])[0].item() for i in range(6)]
    np.testing.assert_array_equal(row_medians(image)[0].ravel(), alone)


@pytest.mark.parametrize("width", [1, 2, 3, 48, 64, 96, 128, 130, 192])
def test_stretches_of_any_length_are_exact(width: int) -> None:
    rng = np.random.default_rng(width)
    image = rng.normal(0, 3, (7, 11 * width)).astype(np.float32)
    image[rng.random(image.shape) < 0.05] = np.nan
    use = (rng.random(image.shape) < 0.8).astype(np.uint8)
    found, counts = row_medians(image, use, width)
    kept = np.where((use != 0) & np.isfinite(image), image, np.nan).reshape(77, width).astype(float)
    expected = [np.median(r[np.isfinite(r)]) if np.isfinite(r).any() else np.nan for r in kept]
    np.testing.assert_array_equal(found.ravel(), expected)
    np.testing.assert_array_equal(counts.ravel(), np.isfinite(kept).sum(1))


def test_columns_that_do_not_fill_a_strip_are_all_there() -> None:
    image = np.arange(3 * 21, dtype=np.float32).reshape(3, 21)
    np.testing.assert_array_equal(column_medians(image)[0][0], image[1])


@pytest.mark.parametrize(("rows", "pitch", "first", "stop"), [(5, 20, 3, 17), (64, 96, 0, 96), (2, 300, 264, 300)])
@pytest.mark.parametrize("spread", ["normal", "every exponent", "two values", "mostly unused"])
def test_rectangles_of_any_size_are_exact(rows: int, pitch: int, first: int, stop: int, spread: str) -> None:
    rng = np.random.default_rng(rows)
    shape = (3 * rows, 4 * pitch)
    image = {
        "normal": rng.normal(0, 3, shape),
        "every exponent": rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.integers(-149, 127, shape),
        "two values": rng.choice([-0.0, 0.0, 7.0], shape),
        "mostly unused": rng.normal(1e30, 1e20, shape),
    }[spread].astype(np.float32)
    use = (rng.random(shape) < (0.02 if spread == "mostly unused" else 0.9)).astype(np.uint8)
    medians, lower, counts = np.empty(12), np.empty(12, np.float32), np.empty(12, np.int32)
    limit = np.float32(2.0**100)
    unit_medians(image, use, rows, pitch, first, stop, -limit, limit, medians, lower, counts)
    taking = (use != 0) & (abs(image) <= limit)
    for u in range(12):
        unit = np.s_[u // 4 * rows : (u // 4 + 1) * rows, u % 4 * pitch + first : u % 4 * pitch + stop]
        kept = np.sort(image[unit][taking[unit]].astype(float))
        assert counts[u] == kept.size
        if kept.size:
            assert lower[u] == kept[(kept.size - 1) // 2]
        np.testing.assert_array_equal(medians[u], np.median(kept) if kept.size else np.nan)


def test_the_network_sorts_whatever_sorts_of_zeros_and_ones_there_are() -> None:
    places = np.arange(2**8)[:, None] >> np.arange(8) & 1  # what sorts all of these sorts everything
    for i, j in comparators(8):
        places[:, [i, j]] = np.sort(places[:, [i, j]], axis=1)
    np.testing.assert_array_equal(places, np.sort(places, axis=1))
    assert len(list(comparators(32))) == 191  # as many as Batcher's


@pytest.mark.parametrize("missing", range(65))
def test_any_number_of_pixels_may_be_missing_in_a_stretch(missing: int) -> None:
    rng = np.random.default_rng(missing)
    image = rng.normal(0, 3, (1, 64)).astype(np.float32)
    image[0, rng.permutation(64)[:missing]] = np.nan
    found, counts = row_medians(image, width=64)
    kept = image[np.isfinite(image)].astype(float)
    np.testing.assert_array_equal(found.item(), np.median(kept) if kept.size else np.nan)
    assert counts.item() == 64 - missing
