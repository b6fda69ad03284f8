"""Kernels of calibration against their NumPy twins, for words of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels.calibrate import calibrate_stack
from xsmall.kernels.calibrate_variance import variance_plain, variance_stack
from xsmall.kernels.gain_code import BLOCK, participation_stack
from xsmall.kernels.reference import calibrate as twin
from xsmall.kernels.scale import scale_stack
from xsmall.kernels.stack import flat_frames, flat_target

JUNGFRAU = np.array([0, 1, -1, 2])
NO_LIMITS = np.empty((0, 2), np.int32)


def tables(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    pedestal = rng.normal(3000, 50, (3, n)).astype(np.float32)
    factor = rng.normal(0.02, 0.001, (3, n)).astype(np.float32)
    factor[rng.random((3, n)) < 0.02] = np.nan
    return pedestal, factor


def words(rng: np.random.Generator, k: int, n: int, switched: float, held: int = 0) -> np.ndarray:
    """ADC values of any size, other gain codes than that of most in a fraction of the pixels."""
    code = np.where(rng.random((k, n)) < switched, rng.integers(0, 4, (k, n)), held)
    return (rng.integers(0, 2**14, (k, n)) | code << 14).astype(np.uint16)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 5),
    n=st.sampled_from([1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]),
    switched=st.sampled_from([0.0, 0.003, 0.3, 1.0]),
    held=st.integers(0, 3),
    gap=st.integers(0, 3),
    checked=st.booleans(),
)
def test_calibration_equals_its_twin(
    seed: int, k: int, n: int, switched: float, held: int, gap: int, checked: bool
) -> None:
    rng = np.random.default_rng(seed)
    raw = words(rng, k, n + gap, switched, held)[:, :n]
    pedestal, factor = tables(rng, n)
    limits = np.array([[0, 12000], [100, 16383], [0, 16383], [1, 16383]], np.int32) if checked else NO_LIMITS
    out = np.full((k, n + gap), -1.0, np.float32)
    flat, step = flat_frames(raw)
    target = flat_target(out[:, :n])
    assert target is not None
    calibrate_stack(flat, step, k, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF, limits, *target)
    expected = twin.calibrate(raw, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF, limits)
    np.testing.assert_array_equal(out[:, :n], expected)
    assert (out[:, n:] == -1).all()


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_frames_of_one_gain_code_equal_the_twin(code: int) -> None:
    rng = np.random.default_rng(code)
    raw = (words(rng, 4, 2 * BLOCK, 0.0) | code << 14).astype(np.uint16)
    pedestal, factor = tables(rng, 2 * BLOCK)
    out = np.empty(raw.shape, np.float32)
    calibrate_stack(
        raw.reshape(-1), 2 * BLOCK, 4, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF, NO_LIMITS, out.reshape(-1), 2 * BLOCK
    )
    np.testing.assert_array_equal(out, twin.calibrate(raw, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_variance_without_gain_codes_equals_its_twin(k: int) -> None:
    rng = np.random.default_rng(k)
    values, dark = rng.normal(0, 3, (k, 21)).astype(np.float32), rng.uniform(0, 2, (1, 21)).astype(np.float32)
    values[0, :3] = np.nan
    out = np.empty_like(values)
    variance_plain(k, dark[0], 9.5, values.reshape(-1), 21, out.reshape(-1), 21)
    np.testing.assert_allclose(out, twin.variance(np.zeros((k, 21), int), [0], dark, values, 9.5), rtol=1e-6)


@pytest.mark.parametrize("held", range(4))
@pytest.mark.parametrize("switched", [0.0, 0.01, 0.5])
def test_variance_equals_its_twin(switched: float, held: int) -> None:
    rng = np.random.default_rng(5)
    n = BLOCK + 9
    raw = words(rng, 3, n, switched, held)
    pedestal, factor = tables(rng, n)
    values = twin.calibrate(raw, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF)
    dark = rng.uniform(0, 2, (3, n)).astype(np.float32)
    out = np.empty(raw.shape, np.float32)
    variance_stack(raw.reshape(-1), n, 3, JUNGFRAU, dark, 14, 3, 9.5, values.reshape(-1), n, out.reshape(-1), n)
    np.testing.assert_allclose(out, twin.variance(raw, JUNGFRAU, dark, values, 9.5, 14, 3), rtol=1e-6)


@pytest.mark.parametrize("held", range(4))
def test_pedestals_then_gains_equal_both_at_once(held: int) -> None:
    rng = np.random.default_rng(6)
    n = 700
    raw = words(rng, 3, n, 0.2, held)
    pedestal, factor = tables(rng, n)
    step = np.empty(raw.shape, np.float32)
    calibrate_stack(
        raw.reshape(-1), n, 3, JUNGFRAU, pedestal, np.ones_like(factor), 14, 3, 0x3FFF, NO_LIMITS, step.reshape(-1), n
    )
    scale_stack(raw.reshape(-1), n, 3, JUNGFRAU, factor, 14, 3, step.reshape(-1), n)
    np.testing.assert_array_equal(step, twin.calibrate(raw, JUNGFRAU, pedestal, factor, 14, 3, 0x3FFF))


@pytest.mark.parametrize("per_pixel", [False, True])
def test_pixels_that_are_good_and_in_a_chosen_gain_code_take_part(per_pixel: bool) -> None:
    rng = np.random.default_rng(8)
    n = BLOCK + 70
    raw = words(rng, 2, n, 0.5)
    good = (rng.random(n) < 0.8).astype(np.uint8)
    use = np.empty((2, n), np.uint8)
    chosen = np.array([[1], [0], [0], [1]], np.uint8)
    if per_pixel:
        chosen = rng.integers(0, 2, (4, n)).astype(np.uint8)
    participation_stack(raw.reshape(-1), n, 2, chosen, good, 14, 3, use)
    expected = np.take_along_axis(np.broadcast_to(chosen, (4, n)), (raw >> 14).astype(np.int64), axis=0) & good
    np.testing.assert_array_equal(use, expected)


@pytest.mark.parametrize("view", ["plain", "strided frames", "transposed", "swapped bytes", "one frame", "reversed"])
def test_a_stack_seen_flat_holds_the_same_frames(view: str) -> None:
    base = np.arange(4 * 2 * 3 * 5, dtype=np.uint16).reshape(4, 2, 3, 5)
    stack = {
        "plain": base[:, 0],
        "strided frames": base[::2, 1],
        "transposed": base[:, 0].swapaxes(1, 2),
        "swapped bytes": base[:, 1].astype(">u2"),
        "one frame": base[2:3, 1],
        "reversed": base[::-1, 1],
    }[view]
    flat, step = flat_frames(stack)
    n = stack[0].size
    assert not flat.flags.writeable
    for j, frame in enumerate(stack):
        np.testing.assert_array_equal(flat[j * step : j * step + n], frame.reshape(-1))
