"""Calibration of detectors whose constants depend on the memory cell of a frame and on a gain that lies beside it."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.kernels.calibrate_variance import with_counting
from xsmall.kernels.jit import njit

__all__ = ["calibrate_cells", "flag_cells", "stages_of_gain", "variance_cells"]

Words: TypeAlias = npt.NDArray[Any]
Codes: TypeAlias = npt.NDArray[np.uint8]
Values: TypeAlias = npt.NDArray[np.float32]
Flags: TypeAlias = npt.NDArray[np.uint32]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

_EXACT = frozenset({"nsz"})


@njit(fastmath=_EXACT)
def stages_of_gain(gain: Words, cell: Integers, threshold: Values, out: Codes) -> None:
    """Find gain stages from the analogue gain: a stage more for each threshold that the value is above.

    ``gain`` (k, pixel), ``cell`` (k), ``threshold`` (cell, threshold, pixel), ``out`` (k, pixel).
    """
    for j in range(gain.shape[0]):
        for i in range(gain.shape[1]):
            stage = 0
            for t in range(threshold.shape[1]):
                if gain[j, i] > threshold[cell[j], t, i]:
                    stage += 1
            out[j, i] = stage


@njit(fastmath=_EXACT)
def calibrate_cells(
    raw: Words, code: Codes, cell: Integers, plane: Integers, pedestal: Values, factor: Values, out: Values
) -> None:
    """Calibrate ``k`` frames of a segment with the constants of their memory cells and of each pixel's stage.

    Parameters
    ----------
    raw, code
        (k, pixel): ADC values and gain codes.
    cell
        (k) memory cells, as positions in the constants.
    plane
        Stage of each gain code, -1 for one that a working pixel never has; codes beyond it are as bad.
    pedestal, factor
        (cell, stage, pixel) float32.
    out
        (k, pixel) float32.
    """
    for j in range(raw.shape[0]):
        c = cell[j]
        for i in range(raw.shape[1]):
            g = np.int64(code[j, i])
            p = plane[g] if g < plane.size else -1
            if p < 0:
                out[j, i] = np.float32(np.nan)
            else:
                out[j, i] = (np.float32(raw[j, i]) - pedestal[c, p, i]) * factor[c, p, i]


@njit(fastmath=_EXACT)
def variance_cells(
    values: Values, code: Codes, cell: Integers, plane: Integers, dark: Values, photon: float, out: Values
) -> None:
    """Variance of ``k`` calibrated frames: noise of each pixel's own cell and stage, and counting statistics.

    ``values`` and ``out`` (k, pixel) float32; ``dark`` (cell, stage, pixel) is the dark variance in the square of the
    data's unit; ``photon`` is one photon in the data's unit, or 0 to leave counting out, as in
    :func:`xsmall.kernels.calibrate.variance_stack`. The other arguments are those of :func:`calibrate_cells`. NaN
    where the value is NaN or the code bad.
    """
    of_one = np.float32(photon)
    for j in range(values.shape[0]):
        c = cell[j]
        for i in range(values.shape[1]):
            g = np.int64(code[j, i])
            p = plane[g] if g < plane.size else -1
            if p < 0:
                out[j, i] = np.float32(np.nan)
            else:
                out[j, i] = with_counting(values[j, i], dark[c, p, i], of_one)


@njit(fastmath=_EXACT)
def flag_cells(code: Codes, cell: Integers, plane: Integers, status: Flags, bad_code: np.uint32, out: Flags) -> None:
    """Flag ``k`` frames: ``status`` (cell, stage, pixel) of their own cell and stage, ``bad_code`` for a bad code."""
    for j in range(code.shape[0]):
        c = cell[j]
        for i in range(code.shape[1]):
            g = np.int64(code[j, i])
            p = plane[g] if g < plane.size else -1
            out[j, i] = bad_code if p < 0 else status[c, p, i]
