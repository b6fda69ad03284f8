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

    Frames that are not ``present`` are not looked at. Two words tell already that nearly every frame is neither, and
    its first row that most others are; no more of them is read.
    """
    out = np.zeros(len(frames), bool)
    if frames[:1].size < _FEWEST:
        return out
    for j in range(len(frames)) if present is None else np.flatnonzero(present):
        one = frames[j : j + 1]
        if _begins_alike(frames[j], entry) and _alike(one[:, :1, :_FEWEST], entry).item():
            out[j] = _alike(one, entry).item()
    return out


def _begins_alike(frame: npt.NDArray[Any], entry: DetectorType) -> bool:
    """Whether the first two words of a frame are one value, or the first one is saturated."""
    first = frame.item(0)
    if first == frame.item(1):
        return True
    if not entry.saturation or frame.dtype != np.uint16:
        return False
    adc, code = (first & entry.data_mask) >> entry.data_shift, (first >> entry.code_shift) & (entry.n_codes - 1)
    return any(
        code == of_code and (adc >= value if sign > 0 else adc <= value) for of_code, value, sign in entry.saturation
    )


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
