"""Raw words to calibrated values, one stack of frames of one segment at a time.

A raw word holds the ADC value and, in detectors that switch their gain, a gain code. Which constants a pixel uses is
said by two small tables: ``plane[code]`` is the plane of the constants (-1: no constants belong to this code, the
value is not to be trusted), and the constants of that plane per pixel. Value = (ADC - pedestal) * factor, where the
pedestal includes the offset and the factor is 1/gain, or NaN where the pixel must not be used.

Nearly all pixels carry code 0. So the formula of code 0 runs over a block of pixels without a test; the OR of the
block's words tells whether any pixel left code 0, and only such blocks are looked at again. Blocks are outside, frames
inside, so that the constants of a block are read from memory once for the stack.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import guvectorize, njit

__all__ = [
    "BLOCK",
    "calibrate_frame",
    "calibrate_plain",
    "calibrate_stack",
    "participation_stack",
    "scale_plain",
    "scale_stack",
    "variance_stack",
]

Words: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Int: TypeAlias = int | np.int32
Word: TypeAlias = int | np.uint16

BLOCK = 1024
"""Pixels that go through together: words, constants and results of a block stay in the first-level cache."""

PIECE = 32
"""Pixels of a block that are looked through one by one if any of them has left code 0; a block has up to 63 pieces."""

FEW = 4
"""Up to so many pieces of a block are mended one by one; more of them code by code, each over the whole block."""

# The arithmetic here is one subtraction and one product per pixel: nothing is gained by reordering it, and without
# it the numbers are the same on every machine.
_EXACT = frozenset({"nsz"})


@njit(fastmath=_EXACT, inline="always")
def _code_zero(words: Words, pedestal: Values, factor: Values, data_mask: Word, out: Values) -> Word:
    """Calibrate as if every pixel had code 0; return the OR of the words.

    Words stay 16 bits wide (the sums of mixed types would be 64): four times as many go through at once.
    """
    union = np.uint16(0)
    for i in range(words.size):
        union = np.uint16(union | words[i])
        out[i] = (np.float32(np.int32(np.uint16(words[i] & data_mask))) - pedestal[i]) * factor[i]
    return union


@njit(fastmath=_EXACT, inline="always")
def _survey(words: Words, code_bits: Word) -> tuple[Word, Word]:
    """Return the AND and the OR of the words of a block."""
    common, union = np.uint16(0xFFFF), np.uint16(0)
    for i in range(words.size):
        common = np.uint16(common & words[i])
        union = np.uint16(union | words[i])
    return np.uint16(common & code_bits), union


@njit(fastmath=_EXACT, inline="always")
def _pieces(words: Words, code_bits: Word) -> tuple[int, int]:
    """Return which pieces of a block have a pixel of another code than 0, as bits, and how many."""
    bits, n = 0, 0
    whole = words.size // PIECE
    for piece in range(whole):
        union = np.uint16(0)
        for i in range(PIECE):
            union = np.uint16(union | words[piece * PIECE + i])
        if union & code_bits:
            bits |= 1 << piece
            n += 1
    if whole * PIECE < words.size:
        bits |= 1 << whole  # a rest is looked through without asking
    return bits, n


@njit(fastmath=_EXACT, inline="always")
def _one_by_one(
    words: Words,
    first: int,
    start: int,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    code_shift: Int,
    code_bits: Word,
    data_mask: Word,
    out: Values,
) -> None:
    """Calibrate the pixels of other codes than 0 in the piece that begins at ``first``."""
    for i in range(first, min(first + PIECE, words.size)):
        word = words[i]
        if word & code_bits:
            p = plane[(word & code_bits) >> code_shift]
            if p < 0:
                out[i] = np.float32(np.nan)
            else:
                out[i] = (np.float32(word & data_mask) - pedestal[p, start + i]) * factor[p, start + i]


@njit(fastmath=_EXACT, inline="always")
def _one_code(
    words: Words, code: Word, code_bits: Word, pedestal: Values, factor: Values, data_mask: Word, out: Values
) -> None:
    """Calibrate the pixels of one code, shifted to its place in the word, and leave the others."""
    for i in range(words.size):
        value = (np.float32(np.int32(np.uint16(words[i] & data_mask))) - pedestal[i]) * factor[i]
        out[i] = value if np.uint16(words[i] & code_bits) == code else out[i]


@njit(fastmath=_EXACT, inline="always")
def _blank_code(words: Words, code: Word, code_bits: Word, out: Values) -> None:
    """Make the pixels of one code NaN."""
    for i in range(words.size):
        out[i] = np.float32(np.nan) if np.uint16(words[i] & code_bits) == code else out[i]


@njit(fastmath=_EXACT, inline="always")
def _blank_outside(
    words: Words, code: Word, code_bits: Word, low: Word, high: Word, data_mask: Word, out: Values
) -> None:
    """Make the pixels of one code NaN whose ADC value lies outside [low, high]."""
    for i in range(words.size):
        value = np.uint16(words[i] & data_mask)
        outside = (np.uint16(words[i] & code_bits) == code) & ((value < low) | (value > high))
        out[i] = np.float32(np.nan) if outside else out[i]


@njit(fastmath=_EXACT)
def calibrate_stack(
    raw: Words,
    raw_step: int,
    k: int,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    code_shift: Int,
    code_mask: Int,
    data_mask: Int,
    limits: Integers,
    out: Values,
    out_step: int,
) -> None:
    """Calibrate ``k`` frames of a segment.

    Parameters
    ----------
    raw
        Words of all frames, flat; frame j starts at ``j * raw_step``.
    plane
        Plane of the constants for each gain code, -1 for a code without constants (int64).
    pedestal, factor
        (plane, pixel) float32, ADU and unit/ADU; a factor of NaN makes the pixel NaN.
    code_shift, code_mask, data_mask
        ``(word >> code_shift) & code_mask`` is the gain code, ``word & data_mask`` the ADC value. Where the ADC value
        does not start at bit 0, the tables are for the unshifted value: pedestal * 2**shift, factor / 2**shift.
    limits
        (code, 2) int32: lowest and highest ADC value that is trusted, or (0, 2) when none is checked.
    out
        float32, flat; frame j starts at ``j * out_step``.
    """
    n = pedestal.shape[1]
    in_data, code_bits = np.uint16(data_mask), np.uint16(code_mask << code_shift)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            union = _code_zero(words, pedestal[0, start:stop], factor[0, start:stop], in_data, values)
            if union & code_bits:
                _other_codes(words, start, plane, pedestal, factor, code_shift, code_bits, in_data, values)
            for c in range(limits.shape[0]):
                code = np.uint16(c << code_shift)
                low, high = np.uint16(limits[c, 0]), np.uint16(limits[c, 1])
                # the OR of the words is at least the greatest of them
                if not code & ~union and (low > 0 or high < (union & in_data)):
                    _blank_outside(words, code, code_bits, low, high, in_data, values)


@njit(fastmath=_EXACT, inline="always")
def _other_codes(
    words: Words,
    start: int,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    code_shift: Int,
    code_bits: Word,
    data_mask: Word,
    out: Values,
) -> None:
    """Do a block again in which some pixel has another code than 0."""
    bits, n = _pieces(words, code_bits)
    if n <= FEW:
        first = 0
        while bits:
            if bits & 1:
                _one_by_one(words, first, start, plane, pedestal, factor, code_shift, code_bits, data_mask, out)
            bits >>= 1
            first += PIECE
        return
    common, union = _survey(words, code_bits)
    stop = start + words.size
    for c in range(1, plane.size):
        code = np.uint16(c << code_shift)
        p = plane[c]
        if code & ~union or common & ~code:
            continue  # bits that no pixel has, or lacking bits that all have
        if p < 0:
            _blank_code(words, code, code_bits, out)
        else:
            _one_code(words, code, code_bits, pedestal[p, start:stop], factor[p, start:stop], data_mask, out)


@njit(fastmath=_EXACT)
def calibrate_plain(
    raw: Words, raw_step: int, k: int, pedestal: Values, factor: Values, out: Values, out_step: int
) -> None:
    """Calibrate ``k`` frames of numbers of any dtype without gain codes; arguments as in :func:`calibrate_stack`."""
    for start in range(0, pedestal.size, BLOCK):
        stop = min(start + BLOCK, pedestal.size)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            zero, scale = pedestal[start:stop], factor[start:stop]
            for i in range(words.size):
                values[i] = np.float32((np.float64(words[i]) - zero[i]) * scale[i])


@njit(fastmath=_EXACT)
def scale_stack(
    raw: Words,
    raw_step: int,
    k: int,
    plane: Integers,
    factor: Values,
    code_shift: Int,
    code_mask: Int,
    out: Values,
    out_step: int,
) -> None:
    """Multiply ``k`` frames, pedestal and common mode subtracted, by the factor of each pixel's own gain stage.

    Arguments as in :func:`calibrate_stack`; ``out`` holds the values and is changed in place.
    """
    n = factor.shape[1]
    code_bits = np.int32(code_mask << code_shift)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            _, union = _survey(words, np.uint16(code_bits))
            if not union & code_bits:
                first = factor[0, start:stop]
                for i in range(words.size):
                    values[i] *= first[i]
                continue
            for i in range(words.size):
                p = plane[(np.int32(words[i]) & code_bits) >> code_shift]
                if p >= 0:
                    values[i] *= factor[p, start + i]
                else:
                    values[i] = np.float32(np.nan)


@njit(fastmath=_EXACT)
def scale_plain(k: int, factor: Values, out: Values, out_step: int) -> None:
    """Multiply ``k`` frames of a detector without gain codes by the factor of each pixel, in place."""
    for j in range(k):
        for i in range(factor.size):
            out[j * out_step + i] *= factor[i]


@njit(fastmath=_EXACT)
def participation_stack(
    raw: Words,
    raw_step: int,
    k: int,
    takes_part: Integers,
    good: Integers,
    code_shift: Int,
    code_mask: Int,
    use: Integers,
) -> None:
    """Say which pixels take part in the estimate of a common mode: those that are good and in a chosen gain code.

    Parameters
    ----------
    takes_part
        (code, pixel) uint8: 1 where a pixel of this code takes part; its second axis may have length 1.
    good
        (pixel) uint8.
    use
        (k, pixel) uint8, filled.
    """
    per_pixel = takes_part.shape[1] > 1
    for j in range(k):
        for i in range(good.size):
            code = (np.int32(raw[j * raw_step + i]) >> code_shift) & code_mask
            use[j, i] = good[i] & takes_part[code, i if per_pixel else 0]


@njit(fastmath=_EXACT, inline="always")
def _with_counting(value: np.float32, dark: np.float32, photon: np.float32) -> np.float32:
    """Dark variance, and that of counting where a value is more than noise (3 sigma); NaN for NaN.

    Noise without photons must not count: the positive half of it would look like photons, in every empty pixel.
    """
    seen = (value > np.float32(0)) & (value * value > np.float32(9) * dark)
    total = dark + (value * photon if seen else np.float32(0))
    return total if value == value else value


@njit(fastmath=_EXACT, inline="always")
def _dark_and_counting(
    words: Words, values: Values, dark: Values, photon: np.float32, code_bits: Int, out: Values
) -> Int:
    """Variance as if every pixel had code 0, NaN where the value is; return whether some pixel has another code."""
    others = np.int32(0)
    for i in range(words.size):
        others |= np.int32(words[i]) & code_bits
        out[i] = _with_counting(values[i], dark[i], photon)
    return others


@njit(fastmath=_EXACT)
def variance_stack(
    raw: Words,
    raw_step: int,
    k: int,
    plane: Integers,
    variance: Values,
    code_shift: Int,
    code_mask: Int,
    photon: float,
    values: Values,
    values_step: int,
    out: Values,
    out_step: int,
) -> None:
    """Variance of calibrated values: noise of the pixel's own gain stage and counting statistics.

    ``variance`` (plane, pixel) is the dark variance in the square of the data's unit; ``photon`` is one photon in the
    data's unit, or 0 to leave counting statistics out: N photons have the variance N, and a value below three times
    its noise counts as no photon. NaN where the value is NaN.
    """
    n = variance.shape[1]
    of_one = np.float32(photon)
    code_bits = np.int32(code_mask << code_shift)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            seen = values[j * values_step + start : j * values_step + stop]
            spread = out[j * out_step + start : j * out_step + stop]
            if _dark_and_counting(words, seen, variance[0, start:stop], of_one, code_bits, spread):
                for i in range(words.size):
                    p = plane[(np.int32(words[i]) & code_bits) >> code_shift]
                    if p > 0:
                        spread[i] = _with_counting(seen[i], variance[p, start + i], of_one)


@guvectorize(
    ["void(uint16[:], int64[:], float32[:,:], float32[:,:], int64, int64, int64, float32[:])"],
    "(n),(c),(p,n),(p,n),(),(),()->(n)",
)
def calibrate_frame(
    raw: Words,
    plane: Integers,
    pedestal: Values,
    factor: Values,
    code_shift: Int,
    code_mask: Int,
    data_mask: Int,
    out: Values,
) -> None:
    """Calibrate one flat frame of any NumPy array of them; arguments as in :func:`calibrate_stack`."""
    calibrate_stack(
        raw, raw.size, 1, plane, pedestal, factor, code_shift, code_mask, data_mask,
        np.empty((0, 2), np.int32), out, out.size,
    )  # fmt: skip
