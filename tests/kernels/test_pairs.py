"""Pairs of pixel and weight, and extremes, against their NumPy twins."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.cube.moments import groups
from xsmall.kernels import add_frames as adding
from xsmall.kernels import moments, pairs
from xsmall.kernels.reference import pairs as twin

rng = np.random.default_rng(5)
FRAMES = rng.normal(100, 3, (90, 5000)).astype(np.float32)
FRAMES[rng.random(FRAMES.shape) < 0.1] = np.nan
FRAMES[3, 7], FRAMES[4, 8], FRAMES[:, 9] = np.inf, -np.inf, np.nan
WEIGHTS = rng.gamma(9, 1 / 9, 90)
INDEX = rng.integers(-1, 4, 90)


def gathered(frames: np.ndarray, weights: np.ndarray, index: np.ndarray, *, batch: int) -> list[np.ndarray]:
    """Count, mean and M2 of the values, then mean and M2 of the weights and the products; the last bin is empty."""
    state = [np.zeros((5, frames.shape[1]), t) for t in (np.uint32, *[np.float64] * 5)]
    for start in range(0, len(frames), batch):
        some, which = frames[start : start + batch], groups(index[start : start + batch])
        beside = weights[start : start + batch]
        pairs.add_pairs(some, beside, *which, *state[:2], *state[3:], 0, some.shape[1], 0)
        adding.add_frames(*adding.flat(some), *which, adding.all_go_on(which[2]), *state[:3], 0, some.shape[1], 0)
    return state


@pytest.mark.parametrize("batch", [7, 90])
def test_pairs_are_those_of_the_books(batch: int) -> None:
    found = gathered(FRAMES, WEIGHTS, INDEX, batch=batch)[3:]
    for ours, theirs in zip(found, twin.pairs_of(FRAMES, WEIGHTS, INDEX, 5), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, 90))
def test_merged_pairs_are_those_of_all_events(cut: int) -> None:
    a, b = (gathered(FRAMES[s], WEIGHTS[s], INDEX[s], batch=16) for s in (slice(0, cut), slice(cut, None)))
    whole = twin.pairs_of(FRAMES, WEIGHTS, INDEX, 4)
    for i in range(4):
        of = [[m[i] for m in (state[0], state[1], *state[3:])] for state in (a, b)]
        pairs.merge_pairs(*of[0], *of[1])
        for ours, theirs in zip(of[0][2:], whole, strict=True):
            np.testing.assert_allclose(ours, theirs[i], rtol=1e-9, atol=1e-9)


def gathered_ratios(some: slice, *, batch: int) -> list[np.ndarray]:
    """Count, mean and M2 of the values, then mean and M2 of the ratios."""
    frames, weights, index = FRAMES[some], WEIGHTS[some], INDEX[some]
    state = [np.zeros((5, frames.shape[1]), t) for t in (np.uint32, *[np.float64] * 4)]
    for start in range(0, len(frames), batch):
        part = slice(start, start + batch)
        which = groups(index[part])
        pairs.add_ratios(frames[part], weights[part], *which, state[0], *state[3:], 0, frames.shape[1], 0)
        flat = adding.flat(np.ascontiguousarray(frames[part]))
        adding.add_frames(*flat, *which, adding.all_go_on(which[2]), *state[:3], 0, frames.shape[1], 0)
    return state


@pytest.mark.parametrize("cut", [0, 1, 40, 90])
def test_ratios_are_those_of_the_books_in_parts_too(cut: int) -> None:
    whole = twin.ratios_of(FRAMES, WEIGHTS, INDEX, 5)
    a, b = (gathered_ratios(some, batch=7) for some in (slice(0, cut), slice(cut, None)))
    mine, theirs = ([m.reshape(-1) for m in (state[0], *state[3:])] for state in (a, b))
    pairs.merge_ratios(*mine, *theirs)
    for ours, expected in zip(mine[1:], whole, strict=True):
        np.testing.assert_allclose(ours, expected.reshape(-1), rtol=1e-9, atol=1e-9)


def test_extremes_are_those_of_numpy() -> None:
    low, high = np.full((4, 5000), np.inf), np.full((4, 5000), -np.inf)
    for start in range(0, 90, 16):
        some = slice(start, start + 16)
        pairs.add_extremes(FRAMES[some], *groups(INDEX[some]), low, high, 0, 5000, 0)
    np.testing.assert_array_equal([low, high], twin.extremes_of(FRAMES, INDEX, 4))


def test_rows_merge_as_one_by_one() -> None:
    a, b = ([np.zeros((4, 300), t) for t in (np.uint32, np.float64, np.float64)] for _ in range(2))
    for state, some in ((a, slice(0, 40)), (b, slice(40, 90))):
        which = groups(INDEX[some])
        adding.add_frames(*adding.flat(FRAMES[some]), *which, adding.all_go_on(which[2]), *state, 0, 300, 0)
    one = [m.copy() for m in a]
    for i in (0, 2):
        rows = [m[i] for m in one]
        moments.merge_into(*rows, *[m[i] for m in b])
    for m, of_b in zip(one, b, strict=True):
        m[3] = of_b[3]
    lane = [np.ascontiguousarray(m[[0, 2, 3]]) for m in b]
    moments.merge_rows(np.array([0, 2, 3]), np.array([False, False, True]), *lane, *a)
    for ours, theirs in zip(a, one, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_kernels_let_others_run(lets_others_run: Callable[..., bool]) -> None:
    frames = np.ones((8, 1 << 20), np.float32)
    which = groups(np.zeros(8, np.int64))
    state = [np.zeros((1, frames.shape[1]), t) for t in (np.uint32, *[np.float64] * 4)]
    assert lets_others_run(lambda: pairs.add_pairs(frames, np.ones(8), *which, *state, 0, frames.shape[1], 0))
    assert lets_others_run(lambda: pairs.add_extremes(frames, *which, *state[1:3], 0, frames.shape[1], 0))
    assert lets_others_run(lambda: pairs.add_ratios(frames, np.ones(8), *which, *state[:3], 0, frames.shape[1], 0))
