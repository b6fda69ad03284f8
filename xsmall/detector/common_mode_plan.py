"""Common modes as the tables that the kernel reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xsmall.detector.common_mode import CommonMode, Exclude, Grid, Subtract
from xsmall.kernels import common_mode as k

__all__ = ["compile_plan"]

_ESTIMATORS = {
    "median": k.MEDIAN,
    "integer_median": k.INTEGER_MEDIAN,
    "mean": k.MEAN,
    "peak": k.PEAK,
    "unbonded": k.UNBONDED,
}
_APPLY = {"nothing": k.NOTHING, "used": k.USED, "all": k.ALL}


def compile_plan(mode: CommonMode, grids: tuple[Grid, ...], noise: npt.NDArray[np.floating] | None = None) -> k.Plan:
    """Write the steps of a common mode into tables.

    Parameters
    ----------
    mode
        The common mode.
    grids
        The units of its subtractions, from ``mode.grids``.
    noise
        Dark noise in ADU (row, column), where a step asks for it.
    """
    kept = mode.steps if grids else ()
    steps = np.zeros((len(kept), k.N_STEP), np.int64)
    limits = np.zeros((len(kept), k.N_LIMIT), np.float32)
    largest = np.finfo(np.float32).max  # infinities never take part
    limits[:, k.LOW], limits[:, k.HIGH] = -largest, largest
    limits[:, k.MAX_CORRECTION] = np.inf
    left = iter(grids)
    for step, row, limit in zip(kept, steps, limits, strict=True):
        if isinstance(step, Exclude):
            _write_exclusion(step, row, limit)
        else:
            _write_subtraction(step, next(left), row, limit)
    n_units = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    table = np.empty((0, 0), np.float32) if noise is None else np.ascontiguousarray(noise, np.float32)
    return k.Plan(steps, limits, table, n_units)


def _write_exclusion(step: Exclude, row: npt.NDArray[np.int64], limit: npt.NDArray[np.float32]) -> None:
    row[k.ESTIMATOR] = k.EXCLUDE
    row[k.NEIGHBOURS] = step.neighbours
    row[k.IGNORE_USE] = not step.mask
    limit[k.N_SIGMA] = step.n_sigma or 0
    if step.within is not None:
        limit[k.LOW], limit[k.HIGH] = -step.within, step.within


def _write_subtraction(step: Subtract, grid: Grid, row: npt.NDArray[np.int64], limit: npt.NDArray[np.float32]) -> None:
    row[k.ESTIMATOR] = _ESTIMATORS[step.estimator]
    row[k.ROWS], row[k.COLUMNS] = grid.rows, grid.columns
    row[k.FIRST], row[k.STOP] = step.columns_used or (0, grid.columns)
    row[k.MIN_COUNT] = step.min_count
    row[k.APPLY] = _APPLY[step.applied_to]
    row[k.IGNORE_USE] = not step.mask
    row[k.OFFSET] = grid.offset
    row[k.FALLBACK] = step.fallback
    if step.within is not None:
        limit[k.LOW], limit[k.HIGH] = -step.within, step.within
    if step.below is not None:
        limit[k.HIGH] = min(limit[k.HIGH], np.nextafter(np.float32(step.below), np.float32(-np.inf)))
    if step.max_correction is not None:
        largest = np.float32(step.max_correction)
        limit[k.MAX_CORRECTION] = largest if step.limit_included else np.nextafter(largest, np.float32(0))
    limit[k.SIGMA_MAX] = np.inf if step.sigma_max is None else step.sigma_max
    limit[k.MIN_PEAK] = step.min_peak
