"""Kernels of images against their slow twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.geometry.imaging import CellTable
from xsmall.kernels import image
from xsmall.kernels.reference import image as slow


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    n_pixels, n_cells = draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start = np.concatenate([[0], np.cumsum(rng.integers(0, 4, n_cells))]).astype(np.int32)
    pixel = rng.integers(0, n_pixels, start[-1]).astype(np.int32)
    weighted = draw(st.booleans())
    weight = rng.random(start[-1] if weighted else 0).astype(np.float32)
    return start, pixel, weight, n_pixels


@settings(max_examples=60, deadline=None)
@given(table=tables(), dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 1000))
def test_cells_hold_the_mean_of_their_valid_pixels(table, dtype, seed) -> None:
    start, pixel, weight, n_pixels = table
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(6, n_pixels)).astype(dtype)
    frames[rng.random(frames.shape) < 0.1], frames[1, 0], frames[3] = np.nan, np.inf, np.nan
    mean, total = np.empty((6, len(start) - 1), dtype), np.empty((6, len(start) - 1), np.float32)
    image.gather(frames, start, pixel, weight, mean, total)
    alone = np.empty_like(mean)
    for e in range(6):
        image.gather(frames[e : e + 1], start, pixel, weight, alone[e : e + 1])
    np.testing.assert_array_equal(alone, mean)
    expected_mean, expected_total = slow.gather(frames, start, pixel, weight)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total, expected_total, rtol=1e-6)
    if not weight.size:
        cells = CellTable(start, pixel, weight)
        image.take(frames, cells.first, cells.several, start, pixel, mean)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-5)


def test_flags_of_a_cell_are_united() -> None:
    start, pixel = np.array([0, 2, 2, 3], np.int32), np.array([0, 1, 2], np.int32)
    out = np.empty((1, 3), np.uint32)
    image.gather_flags(np.array([[1, 4, 8]], np.uint32), start, pixel, np.uint32(1 << 21), out)
    assert out.tolist() == [[5, 1 << 21, 8]]


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(st.integers(-1, 5), min_size=1, max_size=40))
def test_entries_come_into_the_order_of_the_cells_and_stay_in_order_within_one(cells: list[int]) -> None:
    cell = np.array(cells, np.int32)
    start = np.empty(7, np.int32)
    image.count_cells(cell, start)
    pixel = np.empty(start[-1], np.int32)
    weight = np.empty(start[-1], np.float32)
    weights = np.arange(len(cells), dtype=np.float32)
    image.sort_by_cell(cell, np.arange(len(cells), dtype=np.int32), weights, start, pixel, weight)
    for i in range(6):
        expected = [j for j, c in enumerate(cells) if c == i]
        assert pixel[start[i] : start[i + 1]].tolist() == expected
        assert weight[start[i] : start[i + 1]].tolist() == expected


@st.composite
def quadrilaterals(draw: st.DrawFn) -> np.ndarray:
    angle, shear = draw(st.floats(0, 2 * np.pi)), draw(st.floats(-0.5, 0.5))
    slow_axis = np.array([np.cos(angle), np.sin(angle)]) * draw(st.floats(0.3, 3))
    fast_axis = np.array([-np.sin(angle) + shear, np.cos(angle)]) * draw(st.floats(0.3, 3))
    corner = np.array([draw(st.floats(-3, 3)), draw(st.floats(-3, 3))])
    return np.stack([corner, corner + slow_axis, corner + slow_axis + fast_axis, corner + fast_axis])


@settings(max_examples=30, deadline=None)
@given(corners=quadrilaterals())
def test_shared_areas_are_those_that_counting_points_gives(corners: np.ndarray) -> None:
    cell, weight = np.empty((1, 4), np.int32), np.zeros((1, 4), np.float32)
    assert image.share_area(corners[None], (2, 2), cell, weight) == 0
    shared = np.zeros(4)
    shared[cell[cell >= 0]] = weight[cell >= 0]
    boxes = [(x, x + 1.0, y, y + 1.0) for y in (0.0, 1.0) for x in (0.0, 1.0)]
    np.testing.assert_allclose(shared, [slow.shared_area(corners, box) for box in boxes], atol=0.02)


@settings(max_examples=60, deadline=None)
@given(corners=quadrilaterals())
def test_a_pixel_is_spread_over_the_grid_without_loss(corners: np.ndarray) -> None:
    x, y = (corners + 10).T
    cell, weight = np.empty((1, 81), np.int32), np.zeros((1, 81), np.float32)
    assert image.share_area((corners + 10)[None], (20, 20), cell, weight) == 0
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert weight[cell >= 0].sum() == pytest.approx(area, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(corners=quadrilaterals(), split=st.integers(1, 6), low=st.floats(-180, 180))
def test_pixels_are_shared_among_polar_bins_as_their_points_fall(corners: np.ndarray, split: int, low: float) -> None:
    cell = np.empty((1, split * split), np.int32)
    weight = np.empty((1, split * split), np.float32)
    image.polar_cells(corners[None], split, (0.0, 0.7), (low, 45.0), (12, 8), cell, weight)
    share = np.zeros((8, 12))
    np.add.at(share.reshape(-1), cell[cell >= 0], weight[cell >= 0])
    expected = slow.polar_share(corners, split, np.arange(13) * 0.7, low + np.arange(9) * 45.0)
    assert share.sum() == pytest.approx(1, abs=1e-5)
    # a point on a border may fall to either side
    assert abs(share - expected).sum() <= 2.001 / split**2


def test_pixels_without_a_place_go_nowhere() -> None:
    nowhere = np.full((1, 4, 2), np.nan)
    cell, weight = np.empty((1, 4), np.int32), np.empty((1, 4), np.float32)
    assert image.share_area(nowhere, (5, 5), cell, weight) == 0
    assert (cell == -1).all()
    image.polar_cells(nowhere, 2, (0.0, 1.0), (0.0, 90.0), (3, 4), cell, weight)
    assert (cell == -1).all()
