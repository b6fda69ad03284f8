"""Common modes as the tables that the kernel reads, and the tables of all segments of a detector.

A calibration that corrects common mode does three things with a stack of frames of a segment: pedestals off, which
leaves ADU; :meth:`CommonModeTables.correct`; gains divided out and untrusted pixels made NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Grid, Subtract
from xsmall.calibration.tables import control_stages
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import CalibrationError, ParameterError
from xsmall.kernels import common_mode as k
from xsmall.kernels.gain_code import participation_stack, scale_codes

__all__ = ["CommonModeTables", "compile_plan", "taking_part"]

_ESTIMATORS = {
    "median": k.MEDIAN,
    "integer_median": k.INTEGER_MEDIAN,
    "histogram_median": k.HISTOGRAM_MEDIAN,
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
    row[k.ROWS], row[k.COLUMNS] = grid.rows, grid.columns // grid.interleave
    row[k.INTERLEAVE] = grid.interleave
    row[k.FIRST], row[k.STOP] = step.columns_used or (0, row[k.COLUMNS])
    row[k.MIN_COUNT] = step.min_count
    row[k.APPLY] = _APPLY[step.applied_to]
    row[k.IGNORE_USE] = not step.mask
    row[k.OFFSET] = grid.offset
    row[k.FALLBACK] = step.fallback
    row[k.BLANK] = step.failed == "nan"
    if step.within is not None:
        limit[k.LOW], limit[k.HIGH] = -step.within, step.within
    if step.estimator == "histogram_median":
        limit[k.LOW], limit[k.HIGH] = -step.half_range, step.half_range
    if step.below is not None:
        limit[k.HIGH] = min(limit[k.HIGH], np.nextafter(np.float32(step.below), np.float32(-np.inf)))
    if step.max_correction is not None:
        largest = np.float32(step.max_correction)
        limit[k.MAX_CORRECTION] = largest if step.limit_included else np.nextafter(largest, np.float32(0))
    limit[k.SIGMA_MAX] = np.inf if step.sigma_max is None else step.sigma_max
    limit[k.MIN_PEAK] = step.min_peak


def taking_part(
    mode: CommonMode, entry: DetectorType, gain_control: npt.NDArray[np.integer[Any]] | None = None
) -> npt.NDArray[np.uint8]:
    """Say which gain codes take part in the estimates of a common mode.

    Parameters
    ----------
    mode
        The common mode; its ``gain_stages`` choose.
    entry
        Type of the detector.
    gain_control
        Configuration bits (segment, row, column), for detectors that need them.

    Returns
    -------
    uint8 (segment, code, pixel), 1 = takes part; axes along which nothing changes have length 1.
    """
    if mode.gain_stages is None and not mode.steps:
        return np.ones((1, entry.n_codes, 1), np.uint8)
    stages = range(entry.n_stages) if mode.gain_stages is None else mode.gain_stages
    if entry.decoding is Decoding.FIXED:
        return np.ones((1, 1, 1), np.uint8)
    if entry.decoding is Decoding.CODE:
        return np.isin(entry.stage_of_code, stages).astype(np.uint8)[None, :, None]
    if entry.decoding is Decoding.CONTROL and gain_control is not None:
        used = np.isin(control_stages(entry, gain_control), stages).astype(np.uint8)
        return np.ascontiguousarray(used.swapaxes(0, 1).reshape(used.shape[1], 2, -1))
    if entry.decoding is Decoding.CONTROL:
        raise CalibrationError(
            f"which pixels of {entry.name!r} take part depends on their configuration",
            found="no gain_control",
            expected="gain_control (segment, row, column)",
        )
    raise ParameterError(f"no common mode is known for {entry.name!r}", found=mode.describe(), fix="common_mode=None")


class CommonModeTables:
    """The common mode of all segments of a detector, ready to run: plans, and which pixels take part.

    Parameters
    ----------
    mode
        The common mode.
    entry
        Type of the detector.
    row, column
        Labels of the pixels.
    good
        (segment, row, column) bool: pixels with nothing static against them.
    noise
        Dark noise in ADU, (gain_stage, segment, row, column), where ``mode.needs_noise``.
    gain_control
        Configuration bits (segment, row, column), for detectors that need them.

    Raises
    ------
    DataError
        The labels cut units.
    CalibrationError
        Noise or configuration is needed and missing.
    """

    def __init__(
        self,
        mode: CommonMode,
        entry: DetectorType,
        row: Sequence[int],
        column: Sequence[int],
        good: npt.NDArray[np.bool_],
        noise: npt.NDArray[np.floating[Any]] | None = None,
        gain_control: npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        self._shape = len(row), len(column)
        self._entry = entry
        self._good = np.ascontiguousarray(good.reshape(len(good), -1), dtype=np.uint8)
        self._takes_part = taking_part(mode, entry, gain_control)
        dark = _noise_of(mode, entry, noise, gain_control) if mode.needs_noise else None
        plans = [
            mode.plan(row, column, None if dark is None else dark[s])
            for s in range(len(good) if dark is not None else 1)
        ]
        self._plans = plans
        self._scale = _scale_of_codes(entry)
        self.n_units = plans[0].n_units

    def correct(
        self,
        s: int,
        words: npt.NDArray[Any] | None,
        step: int,
        stack: npt.NDArray[np.float32],
        corrections: npt.NDArray[np.float32] | None = None,
        counts: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Correct some events of one segment in place.

        Parameters
        ----------
        s
            Position of the segment.
        words, step
            The raw words, flat; event j starts at ``j * step``. None where ``stack`` was not made from raw words:
            then gain stages are not looked at.
        stack
            float32 (event, row, column), contiguous: ADU minus pedestal, bad pixels included (some estimates use
            them, such as overscans and unbonded pixels).
        corrections, counts
            Where given, filled: float32 and int32 (event, n_units), contiguous.
        """
        n = len(stack)
        plan = self._plans[s if len(self._plans) > 1 else 0]
        if plan.n_units == 0:
            return
        use = self.use(s, words, step, n)
        taken = np.empty((n, plan.n_units), np.float32) if corrections is None else corrections
        pixels = np.empty((n, plan.n_units), np.int32) if counts is None else counts
        self._rescale(words, step, stack, self._scale)
        k.apply_common_mode(stack, use, plan, taken, pixels)
        self._rescale(words, step, stack, None if self._scale is None else np.float32(1) / self._scale)

    def _rescale(
        self,
        words: npt.NDArray[Any] | None,
        step: int,
        stack: npt.NDArray[np.float32],
        factor: npt.NDArray[np.float32] | None,
    ) -> None:
        """Multiply each pixel by the factor of its gain code, in place."""
        if words is not None and factor is not None:
            n, entry = len(stack), self._entry
            flat = stack.reshape(-1)  # a view: the stack is contiguous
            scale_codes(words, step, n, factor, entry.code_shift, entry.n_codes - 1, flat, flat.size // max(n, 1))

    def use(self, s: int, words: npt.NDArray[Any] | None, step: int, n: int) -> npt.NDArray[np.uint8]:
        """Return which pixels of segment ``s`` take part, uint8 (event, row, column); one event stands for all."""
        entry = self._entry
        if words is None or entry.n_codes == 1:
            good: npt.NDArray[np.uint8] = self._good[s].reshape(1, *self._shape)
            return good
        use: npt.NDArray[np.uint8] = np.empty((n, self._good.shape[1]), np.uint8)
        takes = self._takes_part[s if len(self._takes_part) > 1 else 0]
        participation_stack(words, step, n, takes, self._good[s], entry.code_shift, entry.n_codes - 1, use)
        shaped: npt.NDArray[np.uint8] = use.reshape(n, *self._shape)
        return shaped


def _scale_of_codes(entry: DetectorType) -> npt.NDArray[np.float32] | None:
    """Return the factor of each gain code that brings stages to ADU of the first, None where there are none."""
    if not entry.common_mode_scale:
        return None
    stage = np.asarray(entry.stage_of_code)
    return np.where(stage < 0, 1, np.asarray(entry.common_mode_scale)[stage]).astype(np.float32)


def _noise_of(
    mode: CommonMode,
    entry: DetectorType,
    noise: npt.NDArray[np.floating[Any]] | None,
    gain_control: npt.NDArray[np.integer[Any]] | None,
) -> npt.NDArray[np.floating[Any]]:
    """Dark noise (segment, row, column) of the stage in which each pixel takes part."""
    if noise is None:
        raise CalibrationError(
            "this common mode compares pixels with their dark noise",
            found="no noise in the constants",
            expected="noise [ADU] (gain_stage, segment, row, column)",
            fix="constants with noise, as xsmall.dark makes them",
        )
    dark: npt.NDArray[np.floating[Any]] = noise[(mode.gain_stages or (0,))[0]]
    if entry.decoding is Decoding.CONTROL and gain_control is not None:
        stage = np.maximum(control_stages(entry, gain_control)[0].astype(np.int64), 0)
        dark = np.take_along_axis(noise, stage[None], axis=0)[0]
    return dark
