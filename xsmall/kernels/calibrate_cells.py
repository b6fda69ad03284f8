"""Calibration of detectors whose constants depend on the memory cell of a frame and on a gain that lies beside it.

Constants are (cell, stage, pixel): each frame takes those of its own cell, each pixel those of the stage that its gain
code names. A factor of NaN makes a pixel NaN, so that the status of a cell and stage costs nothing.

Nearly all pixels have code 0. So a block of pixels is calibrated as if all had, without a test; where the codes of the
block say otherwise, pieces of it are mended pixel by pixel, or the whole block code by code. Where codes are inside the
words: :mod:`xsmall.kernels.calibrate`.

All kernels work on ``k`` frames of one segment. ``raw``, ``code`` and ``out`` are flat, frame j of each begins at j
times its step; ``cell`` (k) int64 are positions in the constants; ``plane`` (code) int64 is the stage of each gain
code, -1 where a working pixel never has it; code 0 has one, and the last entry is -1 and stands for all codes beyond.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.kernels.calibrate_variance import with_counting
from xsmall.kernels.gain_code import Integers, Values, Words
from xsmall.kernels.jit import njit

__all__ = [
    "calibrate_cells",
    "flag_cells",
    "participation_cells",
    "scale_cells",
    "stages_of_gain",
    "subtract_cells",
    "variance_cells",
]

Codes: TypeAlias = npt.NDArray[np.uint8]
Flags: TypeAlias = npt.NDArray[np.uint32]
OneCode: TypeAlias = int | np.uint8

BLOCK = 1024
PIECE = 32
FEW = 8
"""Pieces of a block that are mended pixel by pixel; more of them code by code, over the whole block."""

_EXACT = frozenset({"nsz"})


@njit(fastmath=_EXACT, inline="always")
def _union(code: Codes) -> OneCode:
    """Return the OR of the codes."""
    union = np.uint8(0)
    for i in range(code.size):
        union = np.uint8(union | code[i])
    return union


@njit(fastmath=_EXACT, inline="always")
def _switched(code: Codes) -> tuple[int, int]:
    """Return which pieces of a block have a pixel of another code than 0, as bits, and how many."""
    bits, n = 0, 0
    for first in range(0, code.size, PIECE):
        if _union(code[first : first + PIECE]):
            bits |= 1 << (first // PIECE)
            n += 1
    return bits, n


@njit(fastmath=_EXACT, inline="always")
def _plane_of(code: OneCode, plane: Integers) -> Any:
    at, last = np.int64(code), plane.size - 1
    return plane[at if at < last else last]


@njit(fastmath=_EXACT, inline="always")
def _possible(code: int, union: OneCode, plane: Integers) -> Any:
    """Whether a code has a stage, and some pixel may have it: bits that are not in the OR of the codes nobody has."""
    return plane[code] >= 0 and not code & ~np.int64(union)


@njit(fastmath=_EXACT, inline="always")
def _one_plane(words: Words, pedestal: Values, factor: Values, out: Values) -> None:
    for i in range(words.size):
        out[i] = (np.float32(words[i]) - pedestal[i]) * factor[i]


@njit(fastmath=_EXACT, inline="always")
def _one_code(words: Words, code: Codes, wanted: OneCode, pedestal: Values, factor: Values, out: Values) -> None:
    """Calibrate the pixels of one code, and leave the others."""
    for i in range(words.size):
        value = (np.float32(words[i]) - pedestal[i]) * factor[i]
        out[i] = value if code[i] == wanted else out[i]


@njit(fastmath=_EXACT, inline="always")
def _blank_switched(code: Codes, out: Values) -> None:
    """Make the pixels of all codes but 0 NaN."""
    for i in range(code.size):
        out[i] = out[i] if code[i] == np.uint8(0) else np.float32(np.nan)


@njit(fastmath=_EXACT, inline="always")
def _mend(
    words: Words,
    code: Codes,
    union: OneCode,
    start: int,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    out: Values,
) -> None:
    """Do again the pixels of a block that have another code than 0; ``pedestal``, ``factor`` (stage, pixel)."""
    bits, n = _switched(code)
    if n <= FEW:
        first = 0
        while bits:
            if bits & 1:
                for i in range(first, min(first + PIECE, code.size)):
                    if code[i]:
                        p = _plane_of(code[i], plane)
                        if p < 0:
                            out[i] = np.float32(np.nan)
                        else:
                            out[i] = (np.float32(words[i]) - pedestal[p, start + i]) * factor[p, start + i]
            bits >>= 1
            first += PIECE
        return
    _blank_switched(code, out)
    stop = start + code.size
    for c in range(1, plane.size):
        if _possible(c, union, plane):
            p = plane[c]
            _one_code(words, code, np.uint8(c), pedestal[p, start:stop], factor[p, start:stop], out)


@njit(fastmath=_EXACT, inline="always")
def _blank_outside(words: Words, code: Codes, wanted: OneCode, low: Any, high: Any, out: Values) -> None:
    """Make the pixels of one code NaN whose ADC value lies outside [low, high]."""
    for i in range(words.size):
        outside = (code[i] == wanted) & ((words[i] < low) | (words[i] > high))
        out[i] = np.float32(np.nan) if outside else out[i]


@njit(fastmath=_EXACT)
def calibrate_cells(
    raw: Words,
    raw_step: int,
    code: Codes,
    code_step: int,
    cell: Integers,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    limits: Words,
    out: Values,
    out_step: int,
) -> None:
    """Calibrate frames with the constants of their memory cells and of each pixel's stage.

    Parameters
    ----------
    raw
        ADC values, numbers of any dtype.
    pedestal, factor
        (cell, stage, pixel) float32, ADU and unit/ADU.
    limits
        (code, 2) of the dtype of ``raw``, or wide enough: lowest and highest ADC value that is trusted; (0, 2) where
        none is checked.
    out
        float32.
    """
    n = pedestal.shape[2]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(cell.size):
            c, p = cell[j], plane[0]
            words = raw[j * raw_step + start : j * raw_step + stop]
            codes = code[j * code_step + start : j * code_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            _one_plane(words, pedestal[c, p, start:stop], factor[c, p, start:stop], values)
            union = _union(codes)
            if union:
                _mend(words, codes, union, start, plane, pedestal[c], factor[c], values)
            for g in range(limits.shape[0]):
                if not g & ~np.int64(union):
                    _blank_outside(words, codes, np.uint8(g), limits[g, 0], limits[g, 1], values)


@njit(fastmath=_EXACT)
def subtract_cells(
    raw: Words,
    raw_step: int,
    code: Codes,
    code_step: int,
    cell: Integers,
    plane: Integers,
    pedestal: Values,
    limits: Words,
    out: Values,
    out_step: int,
) -> None:
    """Subtract the pedestals only, for a common mode in ADU; :func:`scale_cells` then does the rest.

    Arguments as of :func:`calibrate_cells`.
    """
    n = pedestal.shape[2]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(cell.size):
            words = raw[j * raw_step + start : j * raw_step + stop]
            codes = code[j * code_step + start : j * code_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            for i in range(words.size):
                p = _plane_of(codes[i], plane)
                values[i] = np.float32(words[i]) - pedestal[cell[j], p, start + i] if p >= 0 else np.float32(np.nan)
            for g in range(limits.shape[0]):
                _blank_outside(words, codes, np.uint8(g), limits[g, 0], limits[g, 1], values)


@njit(fastmath=_EXACT)
def scale_cells(
    code: Codes, code_step: int, cell: Integers, plane: Integers, factor: Values, out: Values, out_step: int
) -> None:
    """Multiply frames, pedestal and common mode subtracted, by the factors of their cells and of each pixel's stage.

    Arguments as of :func:`calibrate_cells`; ``out`` is changed in place.
    """
    for j in range(cell.size):
        for i in range(factor.shape[2]):
            p = _plane_of(code[j * code_step + i], plane)
            out[j * out_step + i] *= factor[cell[j], p, i] if p >= 0 else np.float32(np.nan)


@njit(fastmath=_EXACT)
def participation_cells(
    code: Codes, code_step: int, cell: Integers, plane: Integers, takes_part: Integers, factor: Values, use: Integers
) -> None:
    """Say which pixels take part in the estimate of a common mode: of a chosen stage, and usable in it.

    ``takes_part`` (stage) is 1 where pixels of this stage do; ``use`` (k, pixel) uint8 is filled. A pixel is usable
    where its factor is a number. Other arguments as of :func:`calibrate_cells`.
    """
    for j in range(cell.size):
        for i in range(factor.shape[2]):
            p = _plane_of(code[j * code_step + i], plane)
            usable = p >= 0 and takes_part[p] != 0 and abs(factor[cell[j], p, i]) < np.float32(np.inf)
            use[j, i] = np.uint8(usable)


@njit(fastmath=_EXACT)
def variance_cells(
    values: Values,
    values_step: int,
    code: Codes,
    code_step: int,
    cell: Integers,
    plane: Integers,
    dark: Values,
    photon: float,
    out: Values,
    out_step: int,
) -> None:
    """Variance of calibrated frames: noise of each pixel's own cell and stage, and counting statistics.

    ``values`` are the calibrated frames; ``dark`` (cell, stage, pixel) is the dark variance in the square of the data's
    unit; ``photon`` is one photon in the data's unit, or 0 to leave counting out, as in
    :func:`xsmall.kernels.calibrate_variance.variance_stack`. NaN where the value is NaN or the code bad. Other
    arguments as of :func:`calibrate_cells`.
    """
    n = dark.shape[2]
    of_one = np.float32(photon)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(cell.size):
            c = cell[j]
            seen = values[j * values_step + start : j * values_step + stop]
            codes = code[j * code_step + start : j * code_step + stop]
            variances = out[j * out_step + start : j * out_step + stop]
            first = dark[c, plane[0], start:stop]
            for i in range(seen.size):
                variances[i] = with_counting(seen[i], first[i], of_one)
            union = _union(codes)
            if not union:
                continue
            _blank_switched(codes, variances)
            for g in range(1, plane.size):
                if _possible(g, union, plane):
                    noise = dark[c, plane[g], start:stop]
                    for i in range(seen.size):
                        value = with_counting(seen[i], noise[i], of_one)
                        variances[i] = value if codes[i] == np.uint8(g) else variances[i]


@njit(fastmath=_EXACT)
def stages_of_gain(gain: Words, gain_step: int, cell: Integers, threshold: Words, out: Codes) -> None:
    """Find gain stages from the analogue gain: a stage more for each threshold that the value is above.

    ``gain`` is flat as ``raw`` of :func:`calibrate_cells`; ``threshold`` (cell, threshold, pixel); ``out`` (k, pixel)
    uint8.
    """
    n = threshold.shape[2]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(cell.size):
            values = gain[j * gain_step + start : j * gain_step + stop]
            stage = out[j, start:stop]
            stage[:] = 0
            for t in range(threshold.shape[1]):
                limit = threshold[cell[j], t, start:stop]
                for i in range(values.size):
                    stage[i] = np.uint8(stage[i] + np.uint8(values[i] > limit[i]))


@njit(inline="always")
def _chosen(yes: Any, flag: np.uint32) -> Any:
    return flag if yes else np.uint32(0)


@njit(inline="always")
def _held(status: OneCode, bad: np.uint32, unusable: np.uint32) -> Any:
    return _chosen(status & np.uint8(1), bad) | _chosen(status & np.uint8(2), unusable)


@njit
def flag_cells(
    raw: Words,
    raw_step: int,
    code: Codes,
    code_step: int,
    cell: Integers,
    plane: Integers,
    status: Codes,
    static: Flags,
    limits: Words,
    flags: Flags,
    out: Flags,
    out_step: int,
) -> None:
    """Flag frames: the reasons of their own cells and stages, bad codes, and ADC values beyond limits.

    Parameters
    ----------
    status
        (cell, stage, pixel) uint8: bit 0 set gives ``flags[0]``, bit 1 gives ``flags[1]``.
    static
        (pixel) uint32 reasons that hold for the whole run.
    limits
        (code, 4) of the dtype of ``raw``, or wide enough: ADC values below the first or above the second get
        ``flags[3]``, below the third or above the fourth ``flags[4]``; (0, 4) where none is checked.
    flags
        uint32: reasons of the status bits 0 and 1, of a bad gain code, of saturation, of the switching zone.
    out
        uint32.

    Notes
    -----
    Other arguments as of :func:`calibrate_cells`.
    """
    n = status.shape[2]
    bad, unusable, bad_code, saturated, near = flags[0], flags[1], flags[2], flags[3], flags[4]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(cell.size):
            c = cell[j]
            words = raw[j * raw_step + start : j * raw_step + stop]
            codes = code[j * code_step + start : j * code_step + stop]
            found = out[j * out_step + start : j * out_step + stop]
            always, first = static[start:stop], status[c, plane[0], start:stop]
            for i in range(words.size):
                found[i] = always[i] | _held(first[i], bad, unusable)
            union = _union(codes)
            if union:
                for i in range(words.size):
                    value = always[i] | bad_code
                    found[i] = found[i] if codes[i] == np.uint8(0) else value
            for g in range(1, plane.size):
                if _possible(g, union, plane):
                    of_stage = status[c, plane[g], start:stop]
                    for i in range(words.size):
                        value = always[i] | _held(of_stage[i], bad, unusable)
                        found[i] = value if codes[i] == np.uint8(g) else found[i]
            for g in range(limits.shape[0]):
                if _possible(g, union, plane):
                    low, high, below, above = limits[g, 0], limits[g, 1], limits[g, 2], limits[g, 3]
                    for i in range(words.size):
                        of_code = codes[i] == np.uint8(g)
                        beyond = _chosen(of_code & ((words[i] < low) | (words[i] > high)), saturated)
                        found[i] |= beyond | _chosen(of_code & ((words[i] < below) | (words[i] > above)), near)
