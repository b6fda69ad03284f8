"""Kernels of common mode and darks let other threads run."""

from collections.abc import Callable

import numpy as np
import pytest

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.calibration.dark.sums import DarkLimits, DarkSums
from xsmall.detector.types import detector_type
from xsmall.kernels import common_mode as k
from xsmall.kernels.dark import codes_in, moments_of_sums
from xsmall.kernels.median import column_medians, row_medians

SHAPE = (185, 388)
FRAMES = np.random.default_rng(0).normal(0, 3, (8, *SHAPE)).astype(np.float32)
WORDS = np.full((8, *SHAPE), 3000, np.uint16)
USE = np.ones(SHAPE, np.uint8)
NOISE = np.full(SHAPE, 3, np.float32)
KEEP = np.empty(SHAPE, np.uint8)
MODE = CommonMode(
    steps=(
        Exclude(n_sigma=10, neighbours=True),
        Subtract(name="row", rows=1, columns=194),
        Subtract(name="column", rows=37, columns=1),
        Subtract(name="mean", rows=37, columns=194, estimator="mean"),
        Subtract(name="peak", rows=185, columns=388, estimator="peak"),
    )
)
PLAN = compile_plan(MODE, range(185), range(388), NOISE)
VALUES, COUNTS = np.zeros(PLAN.n_units, np.float32), np.zeros(PLAN.n_units, np.int32)
SUMS = DarkSums(detector_type("cspad"), DarkLimits(), (1, *SHAPE))
FLAT = np.zeros(SHAPE[0] * SHAPE[1])


def step(kernel: Callable[..., object], i: int) -> Callable[[int], object]:
    first = PLAN.steps[i][k.OFFSET]
    units = slice(first, first + (SHAPE[0] // PLAN.steps[i][k.ROWS]) * (SHAPE[1] // PLAN.steps[i][k.COLUMNS]))
    return lambda e: kernel(FRAMES[e], USE, PLAN.steps[i], PLAN.limits[i], VALUES[units], COUNTS[units])


CALLS: dict[str, Callable[[int], object]] = {
    "exclude": lambda e: k._exclude(FRAMES[e], USE, PLAN.steps[0], PLAN.limits[0], NOISE, KEEP),
    "rectangles": step(k.median_estimates, 1),
    "columns": step(k.median_estimates, 2),
    "mean": step(k._mean_estimates, 3),
    "section": step(k._section_estimates, 4),
    "subtract": step(k.subtract_estimates, 1),
    "medians of rows": lambda e: row_medians(FRAMES[e], USE),
    "medians of columns": lambda e: column_medians(FRAMES[e], USE),
    "codes": lambda e: codes_in(WORDS[e].ravel(), FLAT.size, 1, FLAT.size, 14, 3),
    "dark": lambda e: SUMS.add(0, WORDS[e : e + 1]),
    "dark moments": lambda e: moments_of_sums(*(a[0, 0] for a in SUMS.arrays[:3]), FLAT, FLAT.copy()),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_kernel_lets_other_threads_run(name: str, lets_others_run: Callable[..., bool]) -> None:
    SUMS.add(0, WORDS[:1])
    assert lets_others_run(lambda: [CALLS[name](e) for e in range(8)])
