"""Kernels of moments, extremes and thresholds against their twins, and the GIL."""

from typing import Any

import numpy as np
import pytest

from xsmall.kernels.reference import roi as roi_twin
from xsmall.kernels.reference import threshold as threshold_twin
from xsmall.kernels.roi import extremes, moments
from xsmall.kernels.threshold import threshold


@pytest.fixture(params=["f4", "f8"])
def frame(request: Any) -> np.ndarray:
    rng = np.random.default_rng(3)
    out = rng.normal(1, 2, (24, 37)).astype(request.param)
    out[rng.random(out.shape) < 0.1] = np.nan
    out[3, 3] = np.inf
    return out


def test_moments_and_extremes_are_those_of_the_twin(frame: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    use, spread = rng.random((11, 17)) < 0.7, rng.random(frame.shape).astype(frame.dtype)
    p, q = rng.normal(size=(2, 11, 17))
    part = slice(5, 16), slice(9, 26)
    for values in (frame, spread):
        out = np.zeros(6)
        moments(frame, values, 5, 9, use, p, q, out)
        np.testing.assert_allclose(out, roi_twin.moments(frame[part], values[part], use, p, q), rtol=1e-12)
    found = np.array([np.inf, 0])
    extremes(frame, 5, 9, use, 1.5, found)
    assert tuple(found) == roi_twin.extremes(frame[part], use, 1.5)


def test_thresholds_are_those_of_the_twin(frame: np.ndarray) -> None:
    stack = np.stack([frame, -frame])
    noise = np.random.default_rng(5).random(frame.shape)
    noise[0, :5] = np.nan
    for low, high, level in ((0.5, 2.5, None), (-np.inf, 2.0, noise), (1.0, np.inf, noise), (0.0, np.inf, None)):
        out = np.empty_like(stack)
        threshold(stack, low, high, np.empty((0, 0)) if level is None else level, out)
        np.testing.assert_array_equal(out, threshold_twin.threshold(stack, low, high, level).astype(stack.dtype))


def test_they_let_others_run(lets_others_run: Any) -> None:
    frame, use = np.ones((512, 512), "f4"), np.ones((512, 512), bool)
    p = np.ones((512, 512))
    assert lets_others_run(lambda: moments(frame, frame, 0, 0, use, p, p, np.zeros(6)))
    assert lets_others_run(lambda: extremes(frame, 0, 0, use, 1.0, np.zeros(2)))
    assert lets_others_run(lambda: threshold(frame[None], 0.5, 2.0, np.empty((0, 0)), np.empty_like(frame[None])))
