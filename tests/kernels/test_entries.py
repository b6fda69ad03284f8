"""Kernels of sparse frames give what those of whole frames give."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from xsmall.engine.entries import pixels_of_runs
from xsmall.kernels.bins import first_bins
from xsmall.kernels.entries import add_to_bins, box_of_entries, histogram_of_entries, lost_runs
from xsmall.kernels.reference.entries import whole
from xsmall.kernels.reference.roi import roi as roi_twin

SHAPE = (9, 13)
Sparse = tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]


@st.composite
def sparse_frames(draw: st.DrawFn) -> Sparse:
    """Entries, runs of lost pixels between them, and pixels that may be used."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    used = rng.random(SHAPE) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    frame = np.where(used, rng.integers(-2, 4, SHAPE) * (rng.random(SHAPE) < 0.3), 0).astype(float)
    bad = used & (rng.random(SHAPE) < draw(st.sampled_from([0.0, 0.2])))
    frame[bad] = np.nan
    out = np.empty(frame.size + 2, np.int32)
    n = lost_runs(frame.ravel(), np.finfo(float).max, used.ravel(), 0, out)
    pixel = np.flatnonzero(np.nan_to_num(frame).ravel())
    return pixel.astype(np.int32), frame.ravel()[pixel], out[:n].copy(), used


@given(sparse_frames())
def test_runs_of_lost_pixels_are_those_that_are_not_finite(given: Sparse) -> None:
    pixel, value, lost, used = given
    frame = whole(pixel, value, lost, used)
    assert pixels_of_runs(lost).tolist() == np.flatnonzero(~np.isfinite(frame.ravel()) & used.ravel()).tolist()
    assert (np.diff(lost) > 0).all()


@given(sparse_frames(), st.integers(1, 6))
def test_sums_in_bins_are_those_of_the_whole_frame(given: Sparse, n: int) -> None:
    pixel, value, lost, used = given
    frame = whole(pixel, value, lost, used).ravel()
    index = np.random.default_rng(n).integers(0, n + 1, frame.size)
    sums = np.zeros(n)
    add_to_bins(pixel, value, index, sums)
    assert sums.tolist() == [np.nansum(frame[index == b], dtype=float) for b in range(n)]


@given(sparse_frames(), st.integers(0, 4), st.integers(0, 5))
def test_a_box_of_entries_is_the_box_of_the_whole_frame(given: Sparse, top: int, left: int) -> None:
    pixel, value, lost, used = given
    frame = whole(pixel, value, lost, used)
    use = np.random.default_rng(top).random((4, 6)) < 0.8
    row, column, out = np.arange(4.0), np.arange(6.0), np.zeros(5)
    box_of_entries(pixel, value, SHAPE[1], top, left, use, row, column, out)
    part = np.where(use, frame[top : top + 4, left : left + 6], np.nan)
    total, largest, *_ = roi_twin(part, use)
    held = part[np.isfinite(part) & (part != 0)]
    assert out[[0, 4]].tolist() == [np.nan_to_num(total), held.size]
    assert out[1] == held.max() if held.size else np.isnan(out[1])
    if held.size == np.isfinite(part).sum() and held.size:
        assert out[1] == largest
    assert out[2:4].tolist() == [np.nansum(part * row[:, None]), np.nansum(part * column)]


@given(sparse_frames(), st.floats(-2.5, 0.5))
def test_histograms_of_entries_are_those_of_what_is_not_zero(given: Sparse, low: float) -> None:
    pixel, value, lost, used = given
    frame = whole(pixel, value, lost, used)
    inside = np.random.default_rng(1).random(SHAPE) < 0.7
    edges = low + np.arange(5.0)
    counts, beyond = np.zeros(4, np.int64), np.zeros(3, np.int64)
    histogram_of_entries(pixel, value, inside.ravel(), edges, first_bins(edges), counts, beyond)
    held = frame[inside & np.isfinite(frame) & (frame != 0)]
    at = np.searchsorted(edges, held, side="right")
    assert counts.tolist() == [int((at == b).sum()) for b in range(1, 5)]
    assert beyond.tolist() == [int((at == 0).sum()), int((at == 5).sum()), held.size]


def test_kernels_of_entries_let_other_threads_run(lets_others_run: Callable[..., bool]) -> None:
    n = 4_000_000
    pixel, value, index = np.arange(n, dtype=np.int32), np.ones(n), np.zeros(n, np.int32)
    frame, use, out = np.zeros(n, np.float32), np.ones(n, bool), np.empty(n + 2, np.int32)
    edges = np.array([0.0, 2.0])
    calls = {
        "add_to_bins": lambda: add_to_bins(pixel, value, index, np.zeros(1)),
        "lost_runs": lambda: lost_runs(frame, 1e30, use, 0, out),
        "box": lambda: box_of_entries(
            pixel, value, 2000, 0, 0, use.reshape(2000, 2000), np.zeros(2000), np.zeros(2000), np.zeros(5)
        ),
        "histogram": lambda: histogram_of_entries(
            pixel, value, use, edges, first_bins(edges), np.zeros(1, np.int64), np.zeros(3, np.int64)
        ),
    }
    assert all(lets_others_run(call) for call in calls.values())
