"""Common mode: the kernel beside its twin."""

import numpy as np
import pytest

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.kernels.common_mode import apply_common_mode
from xsmall.kernels.reference.common_mode import apply_common_mode as slow_common_mode

SECTION = Subtract(
    name="segment", rows=185, columns=388, estimator="peak", max_correction=25, sigma_max=40, fallback=True
)
SMALL = {
    "banks, rows, columns": CommonMode(
        steps=(
            Subtract(name="bank", rows=16, columns=8, max_correction=8, limit_included=False, min_count=100),
            Subtract(name="row", rows=1, columns=8, max_correction=8, min_count=6),
            Subtract(name="column", rows=16, columns=1, max_correction=8, min_count=14),
        )
    ),
    "window, from all pixels": CommonMode(
        steps=(Subtract(name="row", rows=1, columns=8, within=6, min_count=4, applied_to="all"),)
    ),
    "mean below": CommonMode(steps=(Subtract(name="stretch", pixels=16, estimator="mean", below=10),)),
    "integer median": CommonMode(steps=(Subtract(name="stretch", pixels=8, estimator="integer_median", below=10),)),
    "exclusion and mean": CommonMode(
        steps=(
            Exclude(n_sigma=4, neighbours=True, within=30),
            Subtract(name="segment", estimator="mean"),
            Subtract(name="column", rows=16, columns=1, min_count=4, applied_to="all"),
        )
    ),
    "no mask": CommonMode(
        steps=(Exclude(within=20, mask=False), Subtract(name="bank", rows=16, columns=8, mask=False))
    ),
    "overscan": CommonMode(steps=(Subtract(name="row", rows=1, columns=16, columns_used=(12, 16), applied_to="all"),)),
    "NaN where there is none": CommonMode(
        steps=(
            Subtract(name="row", rows=1, columns=8, max_correction=4, min_count=6),
            Subtract(name="column", rows=16, columns=1, max_correction=3, applied_to="all"),
        )
    ).strict(),
    "interleaved": CommonMode(
        steps=(
            Subtract(name="row", rows=1, columns=16, interleave=2, max_correction=8, min_count=4, applied_to="all"),
            Subtract(name="bank", rows=16, columns=16, interleave=4, estimator="mean"),
        )
    ),
    "histogram median": CommonMode(
        steps=(
            Exclude(within=40),
            Subtract(name="row", rows=1, columns=32, interleave=2, estimator="histogram_median", half_range=10),
            Subtract(name="column", rows=32, columns=4, estimator="histogram_median", max_correction=3, min_count=90),
        )
    ),
    "recorded only": CommonMode(steps=(Subtract(name="row", rows=1, applied_to="nothing"),)),
}


def frames(shape: tuple[int, int, int], seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dark-like frames with offsets of rows and columns, photons, NaN and infinities; pixels in use; noise."""
    rng = np.random.default_rng(seed)
    stack = rng.normal(0, 3, shape) + rng.normal(0, 4, (*shape[:2], 1)) + rng.normal(0, 4, (shape[0], 1, shape[2]))
    stack[rng.random(shape) < 0.03] += 60
    stack[rng.random(shape) < 0.01] = np.nan
    stack[rng.random(shape) < 0.005] = -np.inf
    use = (rng.random(shape) < 0.9).astype(np.uint8)
    use[0, :1] = 0  # a unit without any pixel
    return stack.astype(np.float32), use, rng.uniform(2, 4, shape[1:]).astype(np.float32)


def both(mode: CommonMode, stack: np.ndarray, use: np.ndarray, noise: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    plan = compile_plan(mode, range(stack.shape[1]), range(stack.shape[2]), noise)
    out = []
    for function in (apply_common_mode, slow_common_mode):
        corrected = stack.copy()
        corrections = np.full((len(stack), plan.n_units), -1, np.float32)
        counts = np.full((len(stack), plan.n_units), -1, np.int32)
        function(corrected, use, plan, corrections, counts)
        out.append((corrected, corrections, counts))
    return out


@pytest.mark.parametrize("name", SMALL)
def test_the_kernel_equals_its_twin(name: str) -> None:
    (a, a_corrections, a_counts), (b, b_corrections, b_counts) = both(SMALL[name], *frames((3, 32, 32)))
    np.testing.assert_array_equal(a_counts, b_counts)
    np.testing.assert_allclose(a_corrections, b_corrections, rtol=0, atol=2e-6)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert np.isfinite(a_corrections).any()


@pytest.mark.parametrize("shift", [0.0, 17.3, -900.0])
@pytest.mark.parametrize("photons", [0.0, 0.7])
def test_the_peak_fit_equals_its_twin(shift: float, photons: float) -> None:
    rng = np.random.default_rng(int(abs(shift)))
    stack = rng.normal(shift, 4, (1, 185, 388)).astype(np.float32)
    stack[rng.random(stack.shape) < photons] += 300
    use = (rng.random(stack.shape) < 0.95).astype(np.uint8)
    (a, a_corrections, _), (b, b_corrections, _) = both(CommonMode(steps=(SECTION,)), stack, use, np.empty((0, 0)))
    np.testing.assert_allclose(a_corrections, b_corrections, rtol=1e-5)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("estimator", ["peak", "unbonded"])
def test_sections_without_a_pixel_in_use_equal_their_twin(estimator: str) -> None:
    stack = np.random.default_rng(1).normal(3, 4, (1, 185, 388)).astype(np.float32)
    mode = CommonMode(steps=(Subtract(name="segment", rows=185, columns=388, estimator=estimator),))
    none = np.zeros(stack.shape, np.uint8)
    (a, a_corrections, a_counts), (b, b_corrections, b_counts) = both(mode, stack, none, np.empty((0, 0)))
    np.testing.assert_array_equal(a_counts, b_counts)
    np.testing.assert_allclose(a_corrections, b_corrections, rtol=1e-6)
    np.testing.assert_array_equal(a, b)
    assert np.isnan(a_corrections).all() == (estimator == "peak")


@pytest.mark.parametrize("name", ["banks, rows, columns", "exclusion and mean"])
def test_one_event_does_not_depend_on_the_others(name: str) -> None:
    stack, use, noise = frames((4, 32, 32))
    together = both(SMALL[name], stack, use, noise)[0]
    for e in range(4):
        alone = both(SMALL[name], stack[e : e + 1], use[e : e + 1], noise)[0]
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[e], one[0])


def test_strict_leaves_no_uncorrected_pixel() -> None:
    stack, use, noise = frames((3, 32, 32))
    loose = CommonMode(steps=(Subtract(name="row", rows=1, columns=8, max_correction=4, min_count=6),))
    kept, corrections, _ = both(loose, stack, use, noise)[0]
    blanked, _, _ = both(loose.strict(), stack, use, noise)[0]
    failed = np.repeat(np.isnan(corrections).reshape(3, 32, 4), 8, axis=2) & (use == 1)
    assert failed.any()
    assert np.isnan(blanked[failed]).all()
    np.testing.assert_array_equal(blanked[~failed], kept[~failed])


def test_one_mask_stands_for_all_events() -> None:
    stack, use, noise = frames((3, 32, 32))
    same = np.broadcast_to(use[:1], use.shape).copy()
    for whole, one in zip(
        both(SMALL["banks, rows, columns"], stack, same, noise)[0],
        both(SMALL["banks, rows, columns"], stack, use[:1].copy(), noise)[0],
        strict=True,
    ):
        np.testing.assert_array_equal(whole, one)


@pytest.mark.parametrize(("limit_included", "applied"), [(True, True), (False, False)])
def test_a_correction_of_exactly_the_limit_is_applied_or_not_as_asked(limit_included: bool, applied: bool) -> None:
    mode = CommonMode(steps=(Subtract(name="row", rows=1, max_correction=5, limit_included=limit_included),))
    stack = np.full((1, 2, 8), 5, np.float32)
    corrected, corrections, _ = both(mode, stack, np.ones(stack.shape, np.uint8), np.empty((0, 0)))[0]
    np.testing.assert_array_equal(corrected, 0 if applied else 5)
    np.testing.assert_array_equal(corrections, 5 if applied else np.nan)


def test_a_unit_with_too_few_pixels_stays_and_says_so() -> None:
    mode = CommonMode(steps=(Subtract(name="row", rows=1, min_count=8),))
    stack = np.full((1, 2, 8), 3, np.float32)
    use = np.ones(stack.shape, np.uint8)
    use[0, 1, 0] = 0
    corrected, corrections, counts = both(mode, stack, use, np.empty((0, 0)))[0]
    np.testing.assert_array_equal(corrected[0, :, 1], [0, 3])
    np.testing.assert_array_equal(corrections, [[3, np.nan]])
    np.testing.assert_array_equal(counts, [[8, 7]])
