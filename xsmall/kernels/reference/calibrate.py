"""The slow, obvious NumPy twin of :mod:`xsmall.kernels.calibrate`: the oracle of its tests."""

import numpy as np
import numpy.typing as npt

__all__ = ["calibrate", "variance"]


def calibrate(
    raw: npt.NDArray[np.integer],
    plane: npt.NDArray[np.integer],
    pedestal: npt.NDArray[np.float32],
    factor: npt.NDArray[np.float32],
    code_shift: int = 0,
    code_mask: int = 0,
    data_mask: int = 0xFFFF,
    limits: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.float32]:
    """Calibrate frames (k, pixel): every code is worked out everywhere, then chosen."""
    words = raw.astype(np.int64)
    code = (words >> code_shift) & code_mask
    adc = (words & data_mask).astype(np.float32)
    out = np.full(raw.shape, np.nan, np.float32)
    for c, p in enumerate(plane):
        if p >= 0:
            out = np.where(code == c, (adc - pedestal[p]) * factor[p], out)
        if limits is not None and len(limits):
            out = np.where((code == c) & ((adc < limits[c, 0]) | (adc > limits[c, 1])), np.nan, out)
    return out.astype(np.float32)


def variance(
    raw: npt.NDArray[np.integer],
    plane: npt.NDArray[np.integer],
    dark: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    photon: float,
    code_shift: int = 0,
    code_mask: int = 0,
) -> npt.NDArray[np.float32]:
    """Variance of calibrated frames (k, pixel): dark variance of the stage in use, and one photon's per photon."""
    code = (raw.astype(np.int64) >> code_shift) & code_mask
    out = np.full(raw.shape, np.nan, np.float32)
    for c, p in enumerate(plane):
        if p >= 0:
            counted = np.where((values > 0) & (values**2 > 9 * dark[p]), values * np.float32(photon), 0)
            out = np.where(code == c, dark[p] + counted, out)
    return np.where(np.isnan(values), np.nan, out).astype(np.float32)
