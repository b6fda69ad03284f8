"""Frames that a writer has padded: segments whose words are all one value, or all saturated."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.detector.types import DetectorType

__all__ = ["are_padded"]

_FEWEST: Final = 64
"""Pixels of a part of a segment that is too small to be judged: by chance a few words are alike."""


def are_padded(
    frames: npt.NDArray[Any], entry: DetectorType, present: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.bool_]:
    """Which frames (k, row, column) of a segment hold no measurement: all words are one value, or all are saturated.

    Frames that are not ``present`` are not looked at. Where the first row tells already that a frame is neither, the
    rest of it is not read.
    """
    out = np.zeros(len(frames), bool)
    if frames[:1].size < _FEWEST:
        return out
    likely = _alike(frames[:, :1, :_FEWEST], entry)
    for j in np.flatnonzero(likely if present is None else likely & present):
        out[j] = _alike(frames[j : j + 1], entry).item()
    return out


def _alike(frames: npt.NDArray[Any], entry: DetectorType) -> npt.NDArray[np.bool_]:
    """Which frames are one value, or saturated, as far as they are given."""
    one_value: npt.NDArray[np.bool_] = (frames == frames[:, :1, :1]).all(axis=(1, 2))
    if not entry.saturation or frames.dtype != np.uint16:
        return one_value
    adc = (frames & np.uint16(entry.data_mask)) >> entry.data_shift
    code = (frames >> entry.code_shift) & (entry.n_codes - 1)
    full = np.zeros(frames.shape, bool)
    for of_code, value, sign in entry.saturation:
        full |= (code == of_code) & ((adc >= value) if sign > 0 else (adc <= value))
    return one_value | full.all(axis=(1, 2))
