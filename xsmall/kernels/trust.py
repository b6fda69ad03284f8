"""Reasons against the pixels of an event: static ones, and those that the raw word itself tells."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.kernels.calibrate import BLOCK
from xsmall.kernels.jit import njit

__all__ = ["flags_stack"]

Words: TypeAlias = npt.NDArray[Any]
Flags: TypeAlias = npt.NDArray[np.uint32]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]


@njit(inline="always")
def _flag_code_zero(
    words: Words, static: Flags, of_stage: Flags, data_mask: np.int32, limits: Integers, flags: Flags, out: Flags
) -> int | np.int32:
    """Flag as if every pixel had code 0; return the OR of the words."""
    union = np.int32(0)
    low, high, below, above = limits[0, 0], limits[0, 1], limits[0, 2], limits[0, 3]
    saturated, near = flags[0], flags[1]
    for i in range(words.size):
        word = np.int32(words[i])
        union |= word
        value = word & data_mask
        found = static[i] | of_stage[i]
        found |= saturated if (value < low) | (value > high) else np.uint32(0)
        found |= near if (value < below) | (value > above) else np.uint32(0)
        out[i] = found
    return union


@njit
def flags_stack(
    raw: Words, raw_step: int, k: int, static: Flags, plane: Integers, of_stage: Flags, code_shift: int,
    code_mask: int, data_mask: int, limits: Integers, flags: Flags, out: Flags, out_step: int,
) -> None:  # fmt: skip
    """Flag ``k`` frames of a segment.

    Parameters
    ----------
    raw
        uint16 words of all frames, flat; frame j starts at ``j * raw_step``.
    static
        (pixel) uint32 reasons that hold for the whole run.
    plane
        Plane of ``of_stage`` for each gain code, -1 for a code that belongs to no stage.
    of_stage
        (plane, pixel) uint32 reasons that hold while the pixel is in that stage.
    code_shift, code_mask, data_mask
        As in :func:`xsmall.kernels.calibrate.calibrate_stack`.
    limits
        (code, 4) int32: ADC values below the first or above the second get ``flags[0]``, below the third or above the
        fourth ``flags[1]``.
    flags
        uint32: reasons of saturation, of the switching zone, of a bad gain code.
    out
        uint32, flat; frame j starts at ``j * out_step``.
    """
    n = static.size
    value_mask = np.int32(data_mask)
    code_bits = np.int32(code_mask << code_shift)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            found = out[j * out_step + start : j * out_step + stop]
            union = _flag_code_zero(
                words, static[start:stop], of_stage[0, start:stop], value_mask, limits, flags, found
            )
            if union & code_bits:
                for i in range(words.size):
                    word = np.int32(words[i])
                    code = (word & code_bits) >> code_shift
                    if code == 0:
                        continue
                    p = plane[code]
                    if p < 0:
                        found[i] = static[start + i] | flags[2]
                        continue
                    value = word & value_mask
                    reasons = static[start + i] | of_stage[p, start + i]
                    if value < limits[code, 0] or value > limits[code, 1]:
                        reasons |= flags[0]
                    if value < limits[code, 2] or value > limits[code, 3]:
                        reasons |= flags[1]
                    found[i] = reasons
