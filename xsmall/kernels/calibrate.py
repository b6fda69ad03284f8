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

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from xsmall.kernels.jit import guvectorize, njit
from xsmall.kernels.vectors import F32, I1, I16, I32, I64, Emit, constant, ir, vector_code

__all__ = [
    "BLOCK",
    "calibrate_frame",
    "calibrate_plain",
    "calibrate_stack",
    "find_others",
    "participation_stack",
    "scale_plain",
    "scale_stack",
    "usual_code",
    "variance_plain",
    "variance_stack",
]

Words: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Int: TypeAlias = int | np.int32
Word: TypeAlias = int | np.uint16

BLOCK = 512
"""Pixels that go through together: words and results of four frames and the constants stay in the nearest cache."""

GROUP = 64
"""Pixels whose codes are compared at once: their answers fill a word."""

MANY = BLOCK // 16
"""Up to so many pixels of a block that have another code are mended one by one; more of them code by code."""

FRAMES = 4
_LANES = 16

# The arithmetic here is one subtraction and one product per pixel: nothing is gained by reordering it, and without
# it the numbers are the same on every machine.
_EXACT = frozenset({"nsz"})


def _usual_code_of(frames: int) -> Any:
    """Make the piece that calibrates the pixels of so many frames as if all had the usual code."""

    @vector_code(types.uint16)
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


@vector_code(types.uint64)
def _others(emit: Emit, words: Any, first: Any, usual: Any, code_bits: Any) -> Any:
    """Return which of the 64 pixels from ``first`` on have another code than the usual one, as bits."""
    code = emit.build.and_(emit.load(emit.at(words, first), GROUP), emit.splat(code_bits, GROUP))
    other = emit.build.icmp_unsigned("!=", code, emit.splat(usual, GROUP))
    return emit.build.bitcast(other, I64)


@vector_code(types.int64)
def _lowest(emit: Emit, bits: Any) -> Any:
    """Return the number of the lowest bit that is set."""
    return emit.build.cttz(bits, I1(1))


@njit(inline="always")
def usual_code(words: Words, plane: Integers, code_shift: Int, code_bits: Word) -> Word:
    """Guess the code that most pixels of a block have, at its place in the word: that of two of them, or 0."""
    code = np.uint16(words[0] & code_bits)
    same = code == np.uint16(words[words.size // 2] & code_bits)
    return code if same and plane[code >> code_shift] >= 0 else np.uint16(0)


@njit(inline="always")
def find_others(words: Words, usual: Word, code_bits: Word, found: Integers) -> int:
    """Write down which pixels of a block have another code than the usual one; return how many."""
    n = 0
    whole = words.size // GROUP * GROUP
    for start in range(0, whole, GROUP):
        bits = _others(words, start, usual, code_bits)
        while bits:
            found[n] = start + _lowest(bits)
            bits &= bits - np.uint64(1)
            n += 1
    for i in range(whole, words.size):
        if np.uint16(words[i] & code_bits) != usual:
            found[n] = i
            n += 1
    return n


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
    in_data, code_bits = np.uint16(data_mask), np.uint16(code_mask << code_shift)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        usual = usual_code(raw[start:stop], plane, code_shift, code_bits)
        p = plane[usual >> code_shift]
        zero, scale = pedestal[p, start:stop], factor[p, start:stop]
        union = _as_usual(raw, start, raw_step, k, zero, scale, usual, in_data, out, start, out_step)
        if union & code_bits:
            many = False
            for j in range(k):
                words = raw[j * raw_step + start : j * raw_step + stop]
                values = out[j * out_step + start : j * out_step + stop]
                many |= _mend(words, start, plane, pedestal, factor, usual, code_shift, code_bits, in_data, values)
            if many:
                for j in range(k):
                    words = raw[j * raw_step + start : j * raw_step + stop]
                    values = out[j * out_step + start : j * out_step + stop]
                    _mend_many(words, start, plane, pedestal, factor, usual, code_shift, code_bits, in_data, values)
        for c in range(limits.shape[0]):
            code = np.uint16(c << code_shift)
            low, high = np.uint16(limits[c, 0]), np.uint16(limits[c, 1])
            # the OR of the words is at least the greatest of them
            if not (code ^ usual) & ~union and (low > 0 or high < (union & in_data)):
                for j in range(k):
                    words = raw[j * raw_step + start : j * raw_step + stop]
                    values = out[j * out_step + start : j * out_step + stop]
                    _blank_outside(words, code, code_bits, low, high, in_data, values)


@njit(fastmath=_EXACT, inline="always")
def _mend(
    words: Words, start: int, plane: Integers, pedestal: Values, factor: Values, usual: Word, code_shift: Int,
    code_bits: Word, data_mask: Word, out: Values,
) -> bool:  # fmt: skip
    """Calibrate the pixels of a block that have another code than usual; gives up where they are many, and says so."""
    n, whole = 0, words.size // GROUP * GROUP
    for first in range(0, whole, GROUP):
        others = _others(words, first, usual, code_bits)
        if not ~others:
            return True  # all of them
        while others:
            i = first + _lowest(others)
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
    code_bits = np.uint16(code_mask << code_shift)
    found, kept = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            values = out[j * out_step + start : j * out_step + stop]
            usual = usual_code(words, plane, code_shift, code_bits)
            scale = factor[plane[usual >> code_shift], start:stop]
            others = find_others(words, usual, code_bits, found) if code_bits else 0
            for f in range(others):
                kept[f] = values[found[f]]
            for i in range(values.size):
                values[i] *= scale[i]
            for f in range(others):
                i = found[f]
                p = plane[(words[i] & code_bits) >> code_shift]
                values[i] = kept[f] * factor[p, start + i] if p >= 0 else np.float32(np.nan)


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
    code_bits = np.uint16(code_mask << code_shift)
    found = np.empty(BLOCK, np.int64)
    for j in range(k):
        for start in range(0, good.size, BLOCK):
            stop = min(start + BLOCK, good.size)
            words, taking, sound = raw[j * raw_step + start : j * raw_step + stop], use[j, start:stop], good[start:stop]
            if per_pixel:
                of_first = takes_part[0, start:stop]
                for i in range(taking.size):
                    taking[i] = sound[i] & of_first[i]
            else:
                for i in range(taking.size):
                    taking[i] = sound[i] & takes_part[0, 0]
            others = find_others(words, np.uint16(0), code_bits, found) if code_bits else 0
            for f in range(others):
                i = found[f]
                code = (words[i] & code_bits) >> code_shift
                taking[i] = sound[i] & takes_part[code, start + i if per_pixel else 0]


@njit(fastmath=_EXACT, inline="always")
def _with_counting(value: np.float32, dark: np.float32, photon: np.float32) -> np.float32:
    """Dark variance, and that of counting where a value is more than noise (3 sigma); NaN for NaN.

    Noise without photons must not count: the positive half of it would look like photons, in every empty pixel.
    """
    seen = (value > np.float32(0)) & (value * value > np.float32(9) * dark)
    total = dark + (value * photon if seen else np.float32(0))
    return total if value == value else value


def _spread_of(frames: int) -> Any:
    """Make the piece that finds the variance of the pixels of so many frames as if all had the usual code."""

    @vector_code(types.uint16)
    def spread(
        emit: Emit, words: Any, words_step: Any, values: Any, values_step: Any, out: Any, out_step: Any, dark: Any,
        photon: Any, usual: Any, n: Any,
    ) -> Any:  # fmt: skip
        """Do what :func:`_with_counting` does for ``n`` pixels (a multiple of 16) of frames that lie a step apart.

        Returns the OR of the words, in which the bits of the usual code are turned over.
        """
        build = emit.build
        floats = ir.VectorType(F32, _LANES)
        none, nine = constant(floats, 0.0), constant(floats, 9.0)
        turned, of_one = emit.splat(usual, _LANES), emit.splat(photon, _LANES)
        union = emit.variable(constant(ir.VectorType(I16, _LANES), 0))
        with emit.loop(n, _LANES) as i:
            noise = emit.load(emit.at(dark, i), _LANES)
            limit = build.fmul(noise, nine)
            for j in range(frames):
                word, value = (
                    emit.load(emit.at(emit.at(array, build.mul(step, step.type(j))), i), _LANES)
                    for array, step in ((words, words_step), (values, values_step))
                )
                build.store(build.or_(build.load(union), build.xor(word, turned)), union)
                seen = build.fcmp_ordered(">", build.fmul(value, value), limit)
                seen = build.and_(seen, build.fcmp_ordered(">", value, none))
                counted = build.select(seen, build.fmul(value, of_one), none)
                total = build.select(build.fcmp_ordered("ord", value, value), build.fadd(noise, counted), value)
                emit.store(total, emit.at(emit.at(out, build.mul(out_step, out_step.type(j))), i))
        return emit.across("or", build.load(union))

    return spread


PAIR = 2
"""Frames whose variance is found at once: with values and results of four, frames of 2**n bytes would meet in the same
few places of the cache."""
_spread_of_two, _spread_of_one = _spread_of(PAIR), _spread_of(1)


@njit(fastmath=_EXACT, inline="always")
def _spread_as_usual(
    raw: Words, raw_step: int, k: int, values: Values, values_step: int, out: Values, out_step: int, start: int,
    dark: Values, photon: np.float32, usual: Word,
) -> Word:  # fmt: skip
    """Variance of a block of ``k`` frames as if every pixel had the usual code; returns the OR as the piece does."""
    n, union = dark.size // _LANES * _LANES, np.uint16(0)
    j = 0
    while j < k:
        words, seen = raw[j * raw_step + start :], values[j * values_step + start :]
        spread = out[j * out_step + start :]
        if k - j >= PAIR:
            found = _spread_of_two(words, raw_step, seen, values_step, spread, out_step, dark, photon, usual, n)
            j += PAIR
        else:
            found = _spread_of_one(words, raw_step, seen, values_step, spread, out_step, dark, photon, usual, n)
            j += 1
        union = np.uint16(union | found)
    for j in range(k):
        for i in range(n, dark.size):
            union = np.uint16(union | (raw[j * raw_step + start + i] ^ usual))
            out[j * out_step + start + i] = _with_counting(values[j * values_step + start + i], dark[i], photon)
    return union


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
    of_one, code_bits = np.float32(photon), np.uint16(code_mask << code_shift)
    found = np.empty(BLOCK, np.int64)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        usual = usual_code(raw[start:stop], plane, code_shift, code_bits)
        dark = variance[plane[usual >> code_shift], start:stop]
        union = _spread_as_usual(raw, raw_step, k, values, values_step, out, out_step, start, dark, of_one, usual)
        for j in range(k if union & code_bits else 0):
            words = raw[j * raw_step + start : j * raw_step + stop]
            seen = values[j * values_step + start : j * values_step + stop]
            spread = out[j * out_step + start : j * out_step + stop]
            for f in range(find_others(words, usual, code_bits, found)):
                i = found[f]
                p = plane[(words[i] & code_bits) >> code_shift]
                spread[i] = _with_counting(seen[i], variance[max(p, 0), start + i], of_one)


@njit(fastmath=_EXACT)
def variance_plain(
    k: int, dark: Values, photon: float, values: Values, values_step: int, out: Values, out_step: int
) -> None:
    """Variance of ``k`` frames of a detector without gain codes; arguments as in :func:`variance_stack`."""
    of_one = np.float32(photon)
    for j in range(k):
        for i in range(dark.size):
            out[j * out_step + i] = _with_counting(values[j * values_step + i], dark[i], of_one)


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
    """Calibrate one flat frame of any NumPy array of them, pixel by pixel; arguments as in :func:`calibrate_stack`."""
    for i in range(raw.size):
        p = plane[(raw[i] >> code_shift) & code_mask]
        if p < 0:
            out[i] = np.float32(np.nan)
        else:
            out[i] = (np.float32(raw[i] & data_mask) - pedestal[p, i]) * factor[p, i]
