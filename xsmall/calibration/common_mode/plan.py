"""Common modes as the tables that the kernel reads, and their use on frames of a segment.

A calibration that corrects common mode does three things with frames of a segment: pedestals off, which leaves ADU;
:meth:`CommonModeTables.correct`; gains divided out and untrusted pixels made NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract, UnitGrid
from xsmall.calibration.decoders import Decoder, Flat, GainWords, Stack
from xsmall.calibration.tables import Settings, ValueTables, control_stages, good_of_run, of_cell
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import CalibrationError
from xsmall.kernels import common_mode as k
from xsmall.kernels.common_mode_tiles import tile_of
from xsmall.vocabulary import GAIN_CONTROL, NOISE

__all__ = ["CommonModeTables", "compile_plan", "pixels_of_estimates"]

_ESTIMATORS = {
    "median": k.MEDIAN,
    "integer_median": k.INTEGER_MEDIAN,
    "histogram_median": k.HISTOGRAM_MEDIAN,
    "mean": k.MEAN,
    "peak": k.PEAK,
    "unbonded": k.UNBONDED,
}
_APPLY = {"nothing": k.NOTHING, "used": k.USED, "all": k.ALL}


def compile_plan(
    mode: CommonMode, row: Sequence[int], column: Sequence[int], noise: npt.NDArray[np.floating] | None = None
) -> k.StepTables:
    """Write the steps of a common mode into tables, for one segment whose pixels have these labels.

    Parameters
    ----------
    mode
        The common mode.
    row, column
        Labels of the pixels, as in :meth:`CommonMode.grids`.
    noise
        Dark noise of the pixels in ADU (row, column), in the gain stage that is corrected; needed where
        ``mode.needs_noise``.

    Returns
    -------
    The tables that ``xsmall.kernels.common_mode.apply_common_mode`` reads.

    Raises
    ------
    DataError
        Labels that cut units.
    CalibrationError
        ``noise`` is needed and missing, or has another shape.
    """
    grids = mode.grids(row, column)
    shape = len(row), len(column)
    if mode.needs_noise and (noise is None or noise.shape != shape):
        raise CalibrationError(
            "this common mode compares pixels with their dark noise",
            found="no noise in the constants" if noise is None else f"noise of shape {noise.shape}",
            expected=f"noise in ADU of shape {shape}",
            fix="constants with a variable 'noise', as xsmall.dark makes them",
        )
    kept = mode.steps if grids else ()
    steps = np.zeros((len(kept), k.N_STEP), np.int64)
    limits = np.zeros((len(kept), k.N_LIMIT), np.float32)
    largest = np.finfo(np.float32).max  # infinities never take part
    limits[:, k.LOW], limits[:, k.HIGH] = -largest, largest
    limits[:, k.MAX_CORRECTION] = np.inf
    left = iter(grids)
    for step, number, limit in zip(kept, steps, limits, strict=True):
        if isinstance(step, Exclude):
            _write_exclusion(step, number, limit)
        else:
            _write_subtraction(step, next(left), number, limit)
    n_units = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    needed = noise if mode.needs_noise else None
    table = np.empty((0, 0), np.float32) if needed is None else np.ascontiguousarray(needed, np.float32)
    return k.StepTables(steps, limits, table, n_units)


def _write_exclusion(step: Exclude, row: npt.NDArray[np.int64], limit: npt.NDArray[np.float32]) -> None:
    row[k.ESTIMATOR] = k.EXCLUDE
    row[k.NEIGHBOURS] = step.neighbours
    row[k.IGNORE_USE] = not step.mask
    limit[k.N_SIGMA] = step.n_sigma or 0
    if step.within is not None:
        limit[k.LOW], limit[k.HIGH] = -step.within, step.within


def _write_subtraction(
    step: Subtract, grid: UnitGrid, row: npt.NDArray[np.int64], limit: npt.NDArray[np.float32]
) -> None:
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


class CommonModeTables:
    """A common mode of one segment, ready to run: a plan for each memory cell, and which pixels take part.

    Parameters
    ----------
    settings
        Detector, labels and memory cells; their mode does not count.
    mode
        The common mode.
    held
        Constants of the segment as in :func:`xsmall.calibration.tables.pack`: ``noise`` where the mode needs it, and
        ``gain_control`` where the type does.
    good
        Pixels that may take part: uint8 (pixel), or, where the gain lies beside the frames, float32 (memory cell,
        stage, pixel) that are numbers where they may.
    of_words
        False where frames were not made from raw words here: gain stages are then not looked at.

    Raises
    ------
    DataError
        The labels cut units.
    CalibrationError
        Noise is needed and missing.
    """

    def __init__(
        self, settings: Settings, mode: CommonMode, held: Mapping[str, Any], good: npt.NDArray[Any], *,
        of_words: bool = True,
    ) -> None:  # fmt: skip
        self._good = good
        self._shape = settings.shape
        self._takes = _taking_part(settings.entry, mode, held) if of_words else np.empty((0, 0), np.uint8)
        cells = settings.cells if mode.needs_noise else settings.cells[:1]
        noise = [_noise_of(settings, mode, held, c) for c in cells]
        self._plans = [compile_plan(mode, settings.part.row, settings.part.column, of_cell) for of_cell in noise]
        self.n_units = self._plans[0].n_units
        self._tile = tile_of(self._plans[0].steps, self._shape) if self.n_units else None

    def calibrate(self, decoder: Decoder, stack: Stack, table: ValueTables, out: Flat) -> None:
        """Calibrate frames of one segment, the common mode taken off between pedestals and gains."""
        if self._tile is not None and isinstance(decoder, GainWords) and decoder.has_tiles and stack.k:
            plan = self._plans[0]
            decoder.calibrate_tiles(stack, table, self._takes, self._good, plan, self._shape, self._tile, out)
            return
        decoder.subtract(stack, table, out)
        self.correct(decoder, stack, out)
        decoder.scale(stack, table, out)

    def correct(
        self,
        decoder: Decoder,
        stack: Stack,
        adu: Flat,
        corrections: npt.NDArray[np.float32] | None = None,
        counts: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Correct frames of one segment in place, one after the other: each is contiguous even where the stack is not.

        Parameters
        ----------
        decoder, stack
            The frames that ``adu`` was made from.
        adu
            float32: ADU minus pedestal, bad pixels included (some estimates use them, such as overscans and unbonded
            pixels).
        corrections, counts
            Where given, filled: float32 and int32 (frame, n_units), contiguous.
        """
        if self.n_units == 0 or stack.k == 0:
            return
        use = self.use(decoder, stack)
        n, (values, step) = use[0].size, adu
        for j in range(stack.k):
            frame = values[j * step : j * step + n].reshape(1, *self._shape)
            plan = self._plans[stack.cell[j] if len(self._plans) > 1 else 0]
            taken = np.empty((1, plan.n_units), np.float32) if corrections is None else corrections[j : j + 1]
            pixels = np.empty((1, plan.n_units), np.int32) if counts is None else counts[j : j + 1]
            decoder.to_one_scale(stack, j, frame)
            k.apply_common_mode(frame, use[j if len(use) > 1 else 0][None], plan, taken, pixels)
            decoder.to_one_scale(stack, j, frame, back=True)

    def use(self, decoder: Decoder, stack: Stack) -> npt.NDArray[np.uint8]:
        """Return which pixels take part, uint8 (frame, row, column); one frame stands for all where it has length 1."""
        shaped: npt.NDArray[np.uint8] = decoder.use(stack, self._takes, self._good).reshape(-1, *self._shape)
        return shaped


def pixels_of_estimates(settings: Settings, held: Mapping[str, Any], values: ValueTables) -> npt.NDArray[Any]:
    """Pixels that may take part in the estimates of a common mode, as :class:`CommonModeTables` takes them."""
    if settings.entry.decoding is Decoding.BESIDE or settings.entry.memory_cell:
        return values.factor
    return np.ascontiguousarray(good_of_run(settings, of_cell(held, 0), (settings.n_pixels,)), dtype=np.uint8)


def _taking_part(entry: DetectorType, mode: CommonMode, held: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Say which gain codes take part in the estimates, uint8 (code, pixel); along pixels its length may be 1.

    Where the gain lies beside the frames: which stages do, (stage).
    """
    stages = tuple(range(entry.n_stages)) if mode.gain_stages is None else mode.gain_stages
    if entry.decoding is Decoding.BESIDE or entry.memory_cell:
        return np.isin(range(entry.n_stages), stages).astype(np.uint8)
    if entry.decoding is Decoding.FIXED:
        return np.ones((1, 1), np.uint8)
    if entry.decoding is Decoding.CONTROL:
        chosen = np.isin(control_stages(entry, held[GAIN_CONTROL].reshape(-1)), stages)
        return np.ascontiguousarray(chosen, dtype=np.uint8)
    return np.isin(entry.stage_of_code, stages).astype(np.uint8)[:, None]


def _noise_of(
    settings: Settings, mode: CommonMode, held: Mapping[str, Any], c: int
) -> npt.NDArray[np.floating[Any]] | None:
    """Dark noise (row, column) of a memory cell, in the stage in which each pixel takes part."""
    if not mode.needs_noise or NOISE not in held:
        return None
    noise: npt.NDArray[np.floating[Any]] = held[NOISE][c]
    if GAIN_CONTROL in held:
        stage = np.maximum(control_stages(settings.entry, held[GAIN_CONTROL])[0].astype(np.int64), 0)
        of_stage: npt.NDArray[np.floating[Any]] = np.take_along_axis(noise, stage[None], axis=0)[0]
        return of_stage
    dark: npt.NDArray[np.floating[Any]] = noise[(mode.gain_stages or (0,))[0]]
    return dark
