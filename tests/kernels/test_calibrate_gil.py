"""Kernels of calibration work without the GIL: another thread keeps running while they do."""

from collections.abc import Callable

import numpy as np
import pytest

from xsmall.kernels.calibrate import calibrate_plain, calibrate_stack
from xsmall.kernels.calibrate_cells import (
    calibrate_cells,
    flag_cells,
    participation_cells,
    scale_cells,
    stages_of_gain,
    subtract_cells,
    variance_cells,
)
from xsmall.kernels.calibrate_variance import variance_stack
from xsmall.kernels.common_mode import MEDIAN, N_LIMIT, N_STEP
from xsmall.kernels.common_mode_tiles import calibrate_tiles
from xsmall.kernels.gain_code import participation_stack
from xsmall.kernels.scale import scale_stack
from xsmall.kernels.trust import flags_stack

K, N = 8, 500_000
PLANE = np.array([0, 1, -1, 2])
RAW = np.full((K, N), 3000, np.uint16)
RAW[:, ::100] |= np.uint16(1 << 14)
TABLE = np.ones((3, N), np.float32)
OUT, SPREAD, FLAGS = np.empty((K, N), np.float32), np.empty((K, N), np.float32), np.empty((K, N), np.uint32)
CODES, CELL = np.zeros((K, N), np.uint8), np.zeros(K, np.int64)
OF_CELLS = np.zeros(K * N, np.uint8), N, CELL, np.array([0, 1, 2, -1])
LIMITS = np.zeros((4, 4), np.int32)
NAMES = np.array([1, 2, 4], np.uint32)
STEPS = np.zeros((1, N_STEP), np.int64)
STEPS[0, :5] = MEDIAN, 1, 100, 0, 100
BOUNDS = np.full((1, N_LIMIT), 1e6, np.float32)

CALLS: dict[str, Callable[[], object]] = {
    "calibrate": lambda: calibrate_stack(
        RAW.ravel(), N, K, PLANE, TABLE, TABLE, 14, 3, 0x3FFF, np.empty((0, 2), np.int32), OUT.ravel(), N
    ),
    "plain": lambda: calibrate_plain(RAW.ravel(), N, K, TABLE[0], TABLE[0], OUT.ravel(), N),
    "scale": lambda: scale_stack(RAW.ravel(), N, K, PLANE, TABLE, 14, 3, OUT.ravel(), N),
    "tiles": lambda: calibrate_tiles(
        RAW.ravel(), N, K, PLANE, TABLE, TABLE, TABLE, 14, 3, 0x3FFF, np.empty((0, 2), np.int32),
        np.ones((4, 1), np.uint8), np.ones(N, np.uint8), STEPS, BOUNDS, (5000, 100), (500, 100), OUT.ravel(), N,
    ),
    "variance": lambda: variance_stack(
        RAW.ravel(), N, K, PLANE, TABLE, 14, 3, 9.5, OUT.ravel(), N, SPREAD.ravel(), N
    ),
    "participation": lambda: participation_stack(
        RAW.ravel(), N, K, np.ones((4, 1), np.uint8), np.ones(N, np.uint8), 14, 3, CODES
    ),
    "trust": lambda: flags_stack(
        RAW.ravel(), N, K, FLAGS[0], PLANE, np.zeros((3, N), np.uint32), 14, 3, 0x3FFF, LIMITS, NAMES, FLAGS.ravel(), N
    ),
    "cells": lambda: calibrate_cells(
        RAW.ravel(), N, *OF_CELLS, TABLE[None], TABLE[None], np.empty((0, 2), np.uint16), OUT.ravel(), N
    ),
    "subtract cells": lambda: subtract_cells(
        RAW.ravel(), N, *OF_CELLS, TABLE[None], np.empty((0, 2), np.uint16), OUT.ravel(), N
    ),
    "scale cells": lambda: scale_cells(*OF_CELLS, TABLE[None], OUT.ravel(), N),
    "variance cells": lambda: variance_cells(OUT.ravel(), N, *OF_CELLS, TABLE[None], 9.5, SPREAD.ravel(), N),
    "participation cells": lambda: participation_cells(*OF_CELLS, np.ones(3, np.uint8), TABLE[None], CODES),
    "flag cells": lambda: flag_cells(
        RAW.ravel(), N, *OF_CELLS, np.zeros((1, 3, N), np.uint8), np.zeros(N, np.uint32), np.empty((0, 4), np.uint16),
        np.ones(5, np.uint32), FLAGS.ravel(), N,
    ),
    "stages": lambda: stages_of_gain(RAW.ravel(), N, CELL, TABLE[None, :2], CODES),
}  # fmt: skip


@pytest.mark.parametrize("kernel", CALLS)
def test_the_kernel_releases_the_gil(kernel: str, lets_others_run: Callable[..., bool]) -> None:
    assert lets_others_run(CALLS[kernel])
