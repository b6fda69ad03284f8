"""The slow, obvious NumPy twin of :mod:`xsmall.kernels.calibrate_cells`: the oracle of its tests."""

import numpy as np
import numpy.typing as npt

__all__ = ["calibrate_cells", "stages_of_gain", "variance_cells"]


def stages_of_gain(
    gain: npt.NDArray[np.generic], cell: npt.NDArray[np.integer], threshold: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Count the thresholds (cell, threshold, pixel) that the analogue gain (k, pixel) is above."""
    stage: npt.NDArray[np.uint8] = (gain[:, None] > threshold[cell]).sum(axis=1).astype(np.uint8)
    return stage


def calibrate_cells(
    raw: npt.NDArray[np.generic],
    code: npt.NDArray[np.uint8],
    cell: npt.NDArray[np.integer],
    plane: npt.NDArray[np.integer],
    pedestal: npt.NDArray[np.float32],
    factor: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Calibrate frame by frame, stage by stage."""
    out = np.full(raw.shape, np.nan, np.float32)
    for j, c in enumerate(cell):
        for g, p in enumerate(plane):
            if p >= 0:
                value = (raw[j].astype(np.float32) - pedestal[c, p]) * factor[c, p]
                out[j] = np.where(code[j] == g, value, out[j])
    return out


def variance_cells(
    values: npt.NDArray[np.float32],
    code: npt.NDArray[np.uint8],
    cell: npt.NDArray[np.integer],
    plane: npt.NDArray[np.integer],
    dark: npt.NDArray[np.float32],
    photon: float,
) -> npt.NDArray[np.float32]:
    """Variance frame by frame, stage by stage: dark variance, and one photon's per photon above three sigma."""
    out = np.full(values.shape, np.nan, np.float32)
    for j, c in enumerate(cell):
        for g, p in enumerate(plane):
            if p >= 0:
                seen = (values[j] > 0) & (values[j] ** 2 > 9 * dark[c, p])
                out[j] = np.where(code[j] == g, dark[c, p] + np.where(seen, values[j] * photon, 0), out[j])
    return np.where(np.isnan(values), np.float32(np.nan), out)
