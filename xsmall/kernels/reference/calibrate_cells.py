"""The slow, obvious NumPy twin of :mod:`xsmall.kernels.calibrate_cells`: the oracle of its tests.

Frames are (k, pixel), constants (cell, stage, pixel); ``plane`` is the stage of each gain code, -1 for none.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["calibrate_cells", "flag_cells", "participation_cells", "stages_of_gain", "variance_cells"]

Codes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer]
Values = npt.NDArray[np.float32]


def stages_of_gain(gain: npt.NDArray[Any], cell: Integers, threshold: Values) -> Codes:
    """Count the thresholds (cell, threshold, pixel) that the analogue gain (k, pixel) is above."""
    stage: Codes = (gain[:, None] > threshold[cell]).sum(axis=1).astype(np.uint8)
    return stage


def calibrate_cells(
    raw: npt.NDArray[Any],
    code: Codes,
    cell: Integers,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    limits: Integers | None = None,
) -> Values:
    """Calibrate frame by frame, stage by stage; NaN beyond ``limits`` (code, 2)."""
    out = np.full(raw.shape, np.nan, np.float32)
    for j, c in enumerate(cell):
        for g, p in enumerate(plane):
            if p >= 0:
                value = (raw[j].astype(np.float32) - pedestal[c, p]) * factor[c, p]
                if limits is not None:
                    value[(raw[j] < limits[g, 0]) | (raw[j] > limits[g, 1])] = np.nan
                out[j] = np.where(code[j] == g, value, out[j])
    return out


def participation_cells(code: Codes, cell: Integers, plane: Integers, takes_part: Integers, factor: Values) -> Codes:
    """Pixels of the chosen stages (takes_part) whose factor is a number."""
    out = np.zeros(code.shape, np.uint8)
    for j, c in enumerate(cell):
        for g, p in enumerate(plane):
            if p >= 0 and takes_part[p]:
                out[j] |= (code[j] == g) & np.isfinite(factor[c, p])
    return out


def variance_cells(values: Values, code: Codes, cell: Integers, plane: Integers, dark: Values, photon: float) -> Values:
    """Variance frame by frame, stage by stage: dark variance, and one photon's per photon above three sigma."""
    out = np.full(values.shape, np.nan, np.float32)
    for j, c in enumerate(cell):
        for g, p in enumerate(plane):
            if p >= 0:
                seen = (values[j] > 0) & (values[j] ** 2 > 9 * dark[c, p])
                out[j] = np.where(code[j] == g, dark[c, p] + np.where(seen, values[j] * photon, 0), out[j])
    return np.where(np.isnan(values), np.float32(np.nan), out)


def flag_cells(
    raw: npt.NDArray[Any],
    code: Codes,
    cell: Integers,
    plane: Integers,
    status: Codes,
    static: npt.NDArray[np.uint32],
    limits: Integers,
    flags: npt.NDArray[np.uint32],
) -> npt.NDArray[np.uint32]:
    """Flag frame by frame, stage by stage; ``flags`` of status bits 0 and 1, bad code, saturation, switching zone."""
    out = np.empty(raw.shape, np.uint32)
    for j, c in enumerate(cell):
        out[j] = flags[2]
        for g, p in enumerate(plane):
            if p >= 0:
                found = (status[c, p] & 1) * flags[0] | (status[c, p] >> 1 & 1) * flags[1]
                found |= ((raw[j] < limits[g, 0]) | (raw[j] > limits[g, 1])) * flags[3]
                found |= ((raw[j] < limits[g, 2]) | (raw[j] > limits[g, 3])) * flags[4]
                out[j] = np.where(code[j] == g, found, out[j])
        out[j] |= static
    return out
