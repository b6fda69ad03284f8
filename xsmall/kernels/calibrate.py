"""Raw words to calibrated values, one stack of frames of one segment at a time.

A raw word holds the ADC value and, in detectors that switch their gain, a gain code. Which constants a pixel uses is
said by two small tables: ``plane[code]`` is the plane of the constants (-1: no constants belong to this code, the
value is not to be trusted), and the constants of that plane per pixel. Value = (ADC - pedestal) * factor, where the
pedestal includes the offset and the factor is 1/gain, or NaN where the pixel must not be used.

Nearly all pixels of a block carry the same code: 0, or that of a gain in which the detector is held. So the formula of
this usual code runs over a block of pixels of four frames without a test, with the constants of a pixel read once for
the four; the OR of the block's words, the usual code taken away, tells whether any pixel has another, and only then the
pixels that do are looked for and mended. What a pixel becomes does not depend on which code was thought usual.
"""

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.gain_code import (
    BLOCK,
    FRAMES,
    GROUP,
    Int,
    Integers,
    Values,
    Word,
    Words,
    others_of,
    usual_code,
)
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, I16, I32, Emit, constant, ir, lowest, vector_code

__all__ = ["calibrate_piece", "calibrate_plain", "calibrate_stack"]

MANY = BLOCK // 16
"""Up to so many pixels of a block that have another code are mended one by one; more of them code by code."""

_LANES = 16

# The arithmetic here is one subtraction and one product per pixel: nothing is gained by reordering it, and without
# it the numbers are the same on every machine.
_EXACT = frozenset({"nsz"})


def _usual_code_of(frames: int) -> Any:
    """Make the piece that calibrates the pixels of so many frames as if all had the usual code."""

    @njit(fastmath=_EXACT)
    def plain(
        words: Any, words_step: Any, out: Any, out_step: Any, pedestal: Any, factor: Any, usual: Any, data_mask: Any,
        n: Any,
    ) -> Any:  # fmt: skip
        union = np.uint16(0)
        for j in range(frames):
            for i in range(n):
                word = words[j * words_step + i]
                union |= np.uint16(word ^ usual)
                adc = np.float32(np.int32(word & data_mask))
                out[j * out_step + i] = (adc - pedestal[i]) * factor[i]
        return union

    @vector_code(types.uint16, plain)
    def usual_code(
        emit: Emit, words: Any, words_step: Any, out: Any, out_step: Any, pedestal: Any, factor: Any, usual: Any,
        data_mask: Any, n: Any,
    ) -> Any:  # fmt: skip
        """Calibrate ``n`` pixels (a multiple of 16) of frames that lie a step apart.

        Returns the OR of the words, in which the bits of the usual code are turned over.
        """
        build = emit.build
        integers, floats = ir.VectorType(I32, _LANES), ir.VectorType(F32, _LANES)
        in_data, turned = emit.splat(data_mask, _LANES), emit.splat(usual, _LANES)
        union = emit.variable(constant(ir.VectorType(I16, _LANES), 0))
        sources = [emit.at(words, build.mul(words_step, words_step.type(j))) for j in range(frames)]
        targets = [emit.at(out, build.mul(out_step, out_step.type(j))) for j in range(frames)]
        with emit.loop(n, _LANES) as i:
            zero, scale = emit.load(emit.at(pedestal, i), _LANES), emit.load(emit.at(factor, i), _LANES)
            for source, target in zip(sources, targets, strict=True):
                word = emit.load(emit.at(source, i), _LANES)
                build.store(build.or_(build.load(union), build.xor(word, turned)), union)
                adc = build.sitofp(build.zext(build.and_(word, in_data), integers), floats)
                emit.store(build.fmul(build.fsub(adc, zero), scale), emit.at(target, i))
        return emit.across("or", build.load(union))

    return usual_code


_four_frames, _one_frame = _usual_code_of(FRAMES), _usual_code_of(1)


@njit(fastmath=_EXACT, inline="always")
def _as_usual(
    raw: Words, at: int, raw_step: int, k: int, pedestal: Values, factor: Values, usual: Word, data_mask: Word,
    out: Values, out_at: int, out_step: int,
) -> Word:  # fmt: skip
    """Calibrate a block of ``k`` frames as if every pixel had the usual code.

    Returns the OR of the words, in which the bits of the usual code are turned over.
    """
    n, union = pedestal.size // _LANES * _LANES, np.uint16(0)
    j = 0
    while j < k:
        words, values = raw[at + j * raw_step :], out[out_at + j * out_step :]
        if k - j >= FRAMES:
            seen = _four_frames(words, raw_step, values, out_step, pedestal, factor, usual, data_mask, n)
            j += FRAMES
        else:
            seen = _one_frame(words, raw_step, values, out_step, pedestal, factor, usual, data_mask, n)
            j += 1
        union = np.uint16(union | seen)
    if n < pedestal.size:
        for j in range(k):
            for i in range(n, pedestal.size):
                word = raw[at + j * raw_step + i]
                union = np.uint16(union | (word ^ usual))
                out[out_at + j * out_step + i] = (np.float32(word & data_mask) - pedestal[i]) * factor[i]
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
    for start in range(0, n, BLOCK):
        calibrate_piece(
            raw, raw_step, k, plane, pedestal, factor, start, min(start + BLOCK, n), code_shift, code_mask, data_mask,
            limits, out, start, out_step,
        )  # fmt: skip


@njit(fastmath=_EXACT, inline="always")
def calibrate_piece(
    raw: Words, raw_step: int, k: int, plane: Integers, pedestal: Values, factor: Values, start: int, stop: int,
    code_shift: Int, code_mask: Int, data_mask: Int, limits: Integers, out: Values, out_at: int, out_step: int,
) -> Any:  # fmt: skip
    """Calibrate the pixels from ``start`` to ``stop``, up to :data:`BLOCK`; those of frame 0 go to ``out_at``.

    Returns the gain code of all of them, -1 where they have several.
    """
    in_data, code_bits = np.uint16(data_mask), np.uint16(code_mask << code_shift)
    usual = usual_code(raw[start:stop], plane, code_shift, code_bits)
    p = plane[usual >> code_shift]
    zero, scale = pedestal[p, start:stop], factor[p, start:stop]
    union = _as_usual(raw, start, raw_step, k, zero, scale, usual, in_data, out, out_at, out_step)
    size = stop - start
    if union & code_bits:
        many = False
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            values = out[j * out_step + out_at : j * out_step + out_at + size]
            many |= _mend(words, start, plane, pedestal, factor, usual, code_shift, code_bits, in_data, values)
        if many:
            for j in range(k):
                words = raw[j * raw_step + start : j * raw_step + stop]
                values = out[j * out_step + out_at : j * out_step + out_at + size]
                _mend_many(words, start, plane, pedestal, factor, usual, code_shift, code_bits, in_data, values)
    for c in range(limits.shape[0]):
        code = np.uint16(c << code_shift)
        low, high = np.uint16(limits[c, 0]), np.uint16(limits[c, 1])
        # the OR of the words is at least the greatest of them
        if not (code ^ usual) & ~union and (low > 0 or high < (union & in_data)):
            for j in range(k):
                words = raw[j * raw_step + start : j * raw_step + stop]
                values = out[j * out_step + out_at : j * out_step + out_at + size]
                _blank_outside(words, code, code_bits, low, high, in_data, values)
    return -1 if union & code_bits else int(usual) >> code_shift


@njit(fastmath=_EXACT, inline="always")
def _mend(
    words: Words, start: int, plane: Integers, pedestal: Values, factor: Values, usual: Word, code_shift: Int,
    code_bits: Word, data_mask: Word, out: Values,
) -> bool:  # fmt: skip
    """Calibrate the pixels of a block that have another code than usual; gives up where they are many, and says so."""
    n, whole = 0, words.size // GROUP * GROUP
    for first in range(0, whole, GROUP):
        others = others_of(words, first, usual, code_bits)
        if not ~others:
            return True  # all of them
        while others:
            i = first + lowest(others)
            others &= others - np.uint64(1)
            _mend_one(words, i, start, plane, pedestal, factor, code_shift, code_bits, data_mask, out)
            n += 1
        if n > MANY:
            return True
    for i in range(whole, words.size):
        if np.uint16(words[i] & code_bits) != usual:
            _mend_one(words, i, start, plane, pedestal, factor, code_shift, code_bits, data_mask, out)
    return False


@njit(fastmath=_EXACT, inline="always")
def _mend_one(
    words: Words, i: int, start: int, plane: Integers, pedestal: Values, factor: Values, code_shift: Int,
    code_bits: Word, data_mask: Word, out: Values,
) -> None:  # fmt: skip
    """Calibrate pixel ``i`` of a block."""
    p = plane[(words[i] & code_bits) >> code_shift]
    if p < 0:
        out[i] = np.float32(np.nan)
    else:
        out[i] = (np.float32(words[i] & data_mask) - pedestal[p, start + i]) * factor[p, start + i]


@njit(fastmath=_EXACT)
def _mend_many(
    words: Words, start: int, plane: Integers, pedestal: Values, factor: Values, usual: Word, code_shift: Int,
    code_bits: Word, data_mask: Word, out: Values,
) -> None:  # fmt: skip
    """Calibrate the pixels of a block that have another code than the usual one, code by code."""
    common, union = _survey(words, code_bits)
    stop = start + words.size
    for c in range(plane.size):
        code = np.uint16(c << code_shift)
        p = plane[c]
        if code == usual or code & ~union or common & ~code:
            continue  # done, or bits that no pixel has, or lacking bits that all have
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
