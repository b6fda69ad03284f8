"""Moments against the formulas of the books, and as a monoid."""

from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels import add_frames as adding
from xsmall.kernels import jit, moments
from xsmall.kernels.add_whole import MOST_WHOLE, STRIP, add_whole, begin_whole, merge_whole
from xsmall.kernels.reference import moments as twin


def groups(index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    bins, first = np.unique(index[order], return_index=True)
    return order, np.r_[first, order.size].astype(np.int64), bins.astype(np.int64), adding.all_go_on(bins)


def accumulator(n_bins: int, n_pixels: int) -> tuple[npt.NDArray[np.uint32], ...]:
    return np.zeros((n_bins, n_pixels), np.uint32), np.zeros((n_bins, n_pixels)), np.zeros((n_bins, n_pixels))


def batch_by_batch(
    frames: npt.NDArray[np.float32], index: npt.NDArray[np.int64], n_bins: int, batch: int
) -> tuple[npt.NDArray[np.float64], ...]:
    state = accumulator(n_bins, frames.shape[1])
    for start in range(0, len(frames), batch):
        adding.add_frames(
            *adding.flat(frames[start : start + batch]),
            *groups(index[start : start + batch]),
            *state,
            0,
            frames.shape[1],
            0,
        )
    return state


def test_moments_equal_those_of_the_books_with_nan_and_frames_of_no_bin() -> None:
    rng = np.random.default_rng(1)
    frames = rng.normal(100, 3, (97, 9000)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.1] = np.nan
    frames[:, 7] = np.nan
    index = rng.integers(-1, 5, 97)
    found = batch_by_batch(frames, index, 5, 32)
    expected = twin.moments_of(frames, index, 5)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-14)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-12)


def test_equal_values_have_no_spread_at_all() -> None:
    frames = np.full((70, 600), 0.1, np.float32)
    _, mean, m2 = batch_by_batch(frames, np.zeros(70, np.int64), 1, 16)
    assert (mean == np.float64(np.float32(0.1))).all()
    assert (m2 == 0).all()


@pytest.mark.parametrize("outlier", [0, 20, 69])
def test_an_outlier_anywhere_costs_no_accuracy(outlier: int) -> None:
    frames = np.random.default_rng(2).normal(1, 1e-3, (70, 5)).astype(np.float64)
    frames[outlier] = 1e9
    found = batch_by_batch(frames, np.zeros(70, np.int64), 1, 16)
    expected = twin.moments_of(frames, np.zeros(70, np.int64), 1)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-13)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-12)


def test_small_spread_on_a_large_offset_is_found() -> None:
    frames = 1e6 + np.random.default_rng(3).normal(0, 1e-3, (500, 8))
    found = batch_by_batch(frames, np.zeros(500, np.int64), 1, 64)
    expected = twin.moments_of(frames - 1e6, np.zeros(500, np.int64), 1)
    np.testing.assert_allclose(found[2], expected[2], rtol=2e-7)  # 2e-16 of the offset, in units of the spread


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 4999), seed=st.integers(0, 99))
def test_a_pixel_does_not_depend_on_how_pixels_are_cut_into_tiles(cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.normal(0, 1, (20, 5000)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.05] = np.nan
    index = rng.integers(-1, 3, 20)
    whole = batch_by_batch(frames, index, 3, 8)
    for part, both in zip(batch_by_batch(np.ascontiguousarray(frames[:, cut:]), index, 3, 8), whole, strict=True):
        np.testing.assert_array_equal(part, both[:, cut:])


@settings(max_examples=50, deadline=None)
@given(sizes=st.tuples(*[st.integers(0, 6)] * 3), seed=st.integers(0, 999))
def test_merging_is_associative_and_the_empty_one_changes_nothing(sizes: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for n in sizes:
        frames = rng.normal(5, 2, (n, 9)).astype(np.float32)
        frames[rng.random(frames.shape) < 0.2] = np.nan
        parts.append(tuple(a.ravel() for a in batch_by_batch(frames, np.zeros(n, np.int64), 1, 4)))

    def merged(a: tuple, b: tuple) -> tuple:
        out = tuple(a.ravel() for a in accumulator(1, 9))
        moments.merge(*a, *b, *out)
        for ours, theirs in zip(out, twin.merge(a, b), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-13)
        return out

    a, b, c = parts
    for left, right in zip(merged(merged(a, b), c), merged(a, merged(b, c)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)
    nothing = tuple(a.ravel() for a in accumulator(1, 9))
    for same in (merged(a, nothing), merged(nothing, a)):
        for ours, theirs in zip(same, a, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_statistics_equal_those_of_the_books() -> None:
    rng = np.random.default_rng(4)
    n = rng.integers(0, 4, 500).astype(np.uint32)
    state = (n, np.where(n > 0, rng.normal(size=n.shape), 0.0), np.where(n > 1, rng.random(n.shape), 0.0))
    mean, std, stderr, count = np.empty(500), np.empty(500), np.empty(500), np.empty(500, np.int32)
    moments.statistics(*state, mean, std, count)
    moments.standard_error(std, count, stderr)
    for ours, theirs in zip((mean, std, stderr, count), twin.statistics(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)


def test_pixels_that_threads_share_out_are_the_same_as_all_at_once() -> None:
    rng = np.random.default_rng(6)
    frames, index = rng.normal(5, 1, (33, 9000)).astype(np.float32), rng.integers(0, 3, 33)
    whole, parts = accumulator(3, 9000), accumulator(3, 9100)
    adding.add_frames(*adding.flat(frames), *groups(index), *whole, 0, 9000, 0)
    for low, high in ((0, 5), (4100, 9000), (5, 4100)):
        adding.add_frames(*adding.flat(frames), *groups(index), *parts, low, high, 100)
    for ours, theirs in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(ours[:, 100:], theirs)
        assert (ours[:, :100] == 0).all()


def test_merging_into_the_first_is_merging() -> None:
    rng = np.random.default_rng(7)
    a, b = (
        tuple(m.ravel() for m in batch_by_batch(rng.normal(5, 2, (9, 700)), np.zeros(9, np.int64), 1, 4)) for _ in "ab"
    )
    out = tuple(m.ravel() for m in accumulator(1, 700))
    moments.merge(*a, *b, *out)
    moments.merge(*a, *b, *a)
    for ours, theirs in zip(a, out, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_kernel_releases_the_gil(lets_others_run: Callable[..., bool]) -> None:
    frames = np.ones((8, 2_000_000), np.float32)
    which = groups(np.zeros(8, np.int64))
    state = accumulator(1, frames.shape[1])
    assert lets_others_run(lambda: adding.add_frames(*adding.flat(frames), *which, *state, 0, frames.shape[1], 0))


def test_a_bin_without_frames_stays_empty() -> None:
    frames, index = np.ones((3, 4), np.float32), np.zeros(3, np.int64)
    which = groups(index)
    state = accumulator(2, 4)
    adding.add_frames(*adding.flat(frames), *which, *state, 0, frames.shape[1], 0)
    for ours, theirs in zip(state, twin.moments_of(frames, index, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert state[0][:, 0].tolist() == [3, 0]


def test_infinite_values_are_skipped_as_in_the_reductions() -> None:
    frames = np.arange(12, dtype="f4").reshape(6, 2)
    holes = frames.copy()
    holes[[1, 4], 0] = np.inf, -np.inf
    index = np.zeros(6, dtype=np.int64)
    count, mean, m2 = np.zeros((1, 2), np.uint32), np.zeros((1, 2)), np.zeros((1, 2))
    adding.add_frames(*adding.flat(holes), *groups(index), count, mean, m2, 0, 2, 0)
    expected = twin.moments_of(holes, index, 1)
    assert count.tolist() == [[4, 6]]
    np.testing.assert_allclose(mean, expected[1])
    np.testing.assert_allclose(m2, expected[2])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 23])
def test_a_pixel_has_the_same_bits_whether_none_few_or_many_beside_it_are_missing(k: int) -> None:
    rng = np.random.default_rng(11)
    whole = rng.normal(5, 2, (k, 3000)).astype(np.float32)
    few, many = whole.copy(), whole.copy()
    few[rng.integers(0, k, 20), rng.choice(3000, 20, replace=False)] = [np.nan, np.inf] * 10
    holes = (rng.random(whole.shape) < 0.3) & np.isfinite(few).all(0)
    many[holes], many[~np.isfinite(few)] = np.nan, -np.inf
    index = np.zeros(k, np.int64)
    of_whole, of_few, of_many = (batch_by_batch(frames, index, 1, 16) for frames in (whole, few, many))
    finite = np.isfinite(few).all(0)
    for one, two, three in zip(of_whole, of_few, of_many, strict=True):
        np.testing.assert_array_equal(one[:, finite], two[:, finite])
        same = ~holes.any(0)
        np.testing.assert_array_equal(two[:, same], three[:, same])
    np.testing.assert_array_equal(of_few[0][0], np.isfinite(few).sum(0))
    np.testing.assert_array_equal(of_many[0][0], np.isfinite(many).sum(0))


def test_values_whose_squares_overflow_are_counted() -> None:
    frames = np.ones((6, 400))
    frames[2, 5] = 1e200
    count, mean, _ = batch_by_batch(frames, np.zeros(6, np.int64), 1, 6)
    assert (count == 6).all()
    assert mean[0, 5] == pytest.approx(1e200 / 6)


@pytest.mark.parametrize("how", [adding.BEGIN, adding.MERGE])
def test_a_group_is_begun_over_whatever_was_there_or_merged_as_merge_does(how: np.uint8) -> None:
    rng = np.random.default_rng(8)
    frames = rng.normal(5, 2, (40, 5000)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.1] = np.nan
    frames[:, 3], frames[20:, 4], frames[:20, 5] = np.nan, np.nan, np.nan
    before, after = frames[:20], frames[20:]
    (*group, _), index = groups(np.zeros(20, np.int64)), np.zeros(20, np.int64)
    state = batch_by_batch(before, index, 1, 20)
    alone = batch_by_batch(after, index, 1, 20)
    expected = [m.copy() for m in (alone if how == adding.BEGIN else state)]
    if how == adding.MERGE:
        moments.merge_into(*(m[0] for m in expected), *(m[0] for m in alone))
    else:
        state = (np.full_like(state[0], 77), np.full_like(state[1], np.nan), np.full_like(state[2], -3.0))
    adding.add_frames(*adding.flat(after), *group, np.array([how]), *state, 0, 5000, 0)
    for ours, theirs in zip(state, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    books = twin.moments_of(after if how == adding.BEGIN else frames, index if how == adding.BEGIN else np.zeros(40), 1)
    for ours, theirs in zip(state, books, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", [adding.ADD, adding.BEGIN, adding.MERGE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_what_misses_nothing_has_the_bits_that_it_has_beside_what_does(how: np.uint8, dtype: type) -> None:
    rng = np.random.default_rng(9)
    for k in range(1, 11):
        found = []
        for hole in ("none", "among the new", "before"):
            frames = np.random.default_rng(k).normal(500, 70, (20 + k, 2500)).astype(dtype)
            state = batch_by_batch(frames[:20].astype(np.float32), np.zeros(20, np.int64), 1, 20)
            if hole == "before":
                state[0][0, 7] -= 1
            new = frames[20:]
            if hole == "among the new" and dtype != np.uint16:
                new[rng.integers(k), 7] = np.nan
            group = np.arange(k), np.array([0, k]), np.zeros(1, np.int64), np.array([how])
            adding.add_frames(*adding.flat(new.copy()), *group, *state, 0, 2500, 0)
            found.append([np.delete(m, 7, axis=1) for m in state])
        for other in found[1:]:
            for ours, theirs in zip(found[0], other, strict=True):
                assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int16])
@pytest.mark.parametrize("missing", [0, 1 / 500, 1 / 20])
def test_pixels_that_go_together_have_the_bits_that_each_has_by_itself(missing: float, dtype: type) -> None:
    rng = np.random.default_rng(12)
    n_pixels = 4096 + 5
    for how in (adding.ADD, adding.BEGIN, adding.MERGE):
        for k in (*range(1, 10), 12, MOST_WHOLE, MOST_WHOLE + 3):
            before = rng.normal(0, 70, (3, n_pixels)).astype(np.float32)
            before[0, rng.random(n_pixels) < missing] = np.nan
            new = rng.normal(0, 700, (k, n_pixels)).astype(dtype)
            if missing and dtype in (np.float32, np.float64):
                new[rng.random(new.shape) < missing / k] = np.nan
                new[k // 2, 2048:2052] = np.inf, -np.inf, np.nan, 0
            group = rng.permutation(k), np.array([0, k]), np.zeros(1, np.int64), np.array([how])
            together, alone = (batch_by_batch(before, np.zeros(3, np.int64), 1, 3) for _ in range(2))
            adding.add_frames(*adding.flat(new), *group, *together, 0, n_pixels, 0)
            for low in range(0, n_pixels, STRIP - 1):  # too few to go together
                high = min(low + STRIP - 1, n_pixels)
                adding.add_frames(*adding.flat(new), *group, *alone, low, high, 0)
            for ours, theirs in zip(together, alone, strict=True):
                assert ours.tobytes() == theirs.tobytes()


@cache
def of_piece(piece: Callable[..., int]) -> Callable[..., int]:
    """A piece of vector code as a kernel, which can be called from here."""

    @numba.njit
    def run(values, places, count, mean, m2):  # type: ignore[no-untyped-def]
        return piece(values, places, len(places), len(count), count, mean, m2)

    return run


def test_pieces_stop_where_something_is_missing_and_do_all_else() -> None:
    frames = np.arange(200, dtype=np.float32).reshape(2, 100)
    places = np.array([0, 100])
    for piece in (add_whole, begin_whole, merge_whole):
        for hole, done in ((None, 96), (0, 0), (15, 0), (16, 16), (97, 96)):
            new, count, mean, m2 = frames.copy(), np.full(100, 2, np.uint32), np.ones(100), np.ones(100)
            if hole is not None:
                new[1, hole] = np.nan
            assert of_piece(piece)(new.reshape(-1), places, count, mean, m2) == (0 if jit.PLAIN else done)
            assert (count[done:] == 2).all()
            assert (mean[done:] == 1).all()
            if not jit.PLAIN:
                assert (count[:done] == (2 if piece is begin_whole else 4)).all()
    if not jit.PLAIN:
        count = np.full(100, 2, np.uint32)
        count[40] = 1
        for piece, done in ((add_whole, 32), (merge_whole, 32), (begin_whole, 96)):
            state = count.copy(), np.ones(100), np.ones(100)
            assert of_piece(piece)(frames.reshape(-1), places, *state) == done


def test_a_group_without_frames_changes_nothing_that_is_there() -> None:
    state = batch_by_batch(np.ones((4, 9), np.float32), np.zeros(4, np.int64), 1, 4)
    before = [m.copy() for m in state]
    for how in (adding.ADD, adding.MERGE):
        group = np.empty(0, np.int64), np.zeros(2, np.int64), np.zeros(1, np.int64), np.array([how])
        adding.add_frames(*adding.flat(np.ones((4, 9), np.float32)), *group, *state, 0, 9, 0)
        for ours, theirs in zip(state, before, strict=True):
            np.testing.assert_array_equal(ours, theirs)
