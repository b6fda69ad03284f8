"""Reasons against the pixels of an event: static ones, and those that the raw word itself tells.

Most blocks of pixels hold neither another gain code than the usual one nor a value out of range: their flags are the
static ones, copied. The OR, the smallest and the greatest of a block's words say which blocks these are.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from xsmall.kernels.gain_code import BLOCK, FRAMES, Integers, Words, find_others, usual_code
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import I16, I64, Emit, constant, ir, vector_code

__all__ = ["flags_stack"]

Flags: TypeAlias = npt.NDArray[np.uint32]

_LANES = 16


def _copy_of(frames: int) -> Any:
    """Make the piece that writes the static flags to so many frames, and surveys their words meanwhile."""

    @njit
    def plain(
        words: Any, words_step: Any, out: Any, out_step: Any, always: Any, usual: Any, data_mask: Any, n: Any
    ) -> Any:
        union, least, most = np.uint16(0), np.uint16(0xFFFF), np.uint16(0)
        for j in range(frames):
            for i in range(n):
                word = words[j * words_step + i]
                union |= np.uint16(word ^ usual)
                value = np.uint16(word & data_mask)
                least, most = min(least, value), max(most, value)
                out[j * out_step + i] = always[i]
        return np.uint64(union) | (np.uint64(least) << np.uint64(16)) | (np.uint64(most) << np.uint64(32))

    @vector_code(types.uint64, plain)
    def copy_and_survey(
        emit: Emit,
        words: Any,
        words_step: Any,
        out: Any,
        out_step: Any,
        always: Any,
        usual: Any,
        data_mask: Any,
        n: Any,
    ) -> Any:
        """Flag ``n`` pixels (a multiple of 16) of frames that lie a step apart; return OR, least and most as bits.

        Of the OR the bits of the usual code are turned over.
        """
        build, vector = emit.build, ir.VectorType(I16, _LANES)
        in_data, turned = emit.splat(data_mask, _LANES), emit.splat(usual, _LANES)
        union, most = (emit.variable(constant(vector, 0)) for _ in range(2))
        least = emit.variable(constant(vector, 0xFFFF))
        with emit.loop(n, _LANES) as i:
            flags = emit.load(emit.at(always, i), _LANES)
            for j in range(frames):
                source = emit.at(words, build.mul(words_step, words_step.type(j)))
                target = emit.at(out, build.mul(out_step, out_step.type(j)))
                word = emit.load(emit.at(source, i), _LANES)
                build.store(build.or_(build.load(union), build.xor(word, turned)), union)
                value = build.and_(word, in_data)
                for order, extreme in (("<", least), (">", most)):
                    known = build.load(extreme)
                    build.store(build.select(build.icmp_unsigned(order, value, known), value, known), extreme)
                emit.store(flags, emit.at(target, i))
        parts = (("or", union, 0), ("umin", least, 16), ("umax", most, 32))
        found = [
            build.shl(build.zext(emit.across(name, build.load(part)), I64), I64(shift)) for name, part, shift in parts
        ]
        return build.or_(build.or_(found[0], found[1]), found[2])

    return copy_and_survey


_four_frames, _one_frame = _copy_of(FRAMES), _copy_of(1)


@njit
def _copy_static(
    raw: Words,
    at: int,
    raw_step: int,
    k: int,
    always: Flags,
    usual: Any,
    data_mask: Any,
    out: Flags,
    out_at: int,
    out_step: int,
) -> tuple[Any, Any, Any]:
    """Give ``k`` frames of a block the static flags; return the OR of the words, the least and the greatest value."""
    n = always.size // _LANES * _LANES
    union, least, most = np.uint16(0), np.uint16(0xFFFF), np.uint16(0)
    j = 0
    while j < k:
        words, flags = raw[at + j * raw_step :], out[out_at + j * out_step :]
        if k - j >= FRAMES:
            seen = _four_frames(words, raw_step, flags, out_step, always, usual, data_mask, n)
            j += FRAMES
        else:
            seen = _one_frame(words, raw_step, flags, out_step, always, usual, data_mask, n)
            j += 1
        union = np.uint16(union | np.uint16(seen & np.uint64(0xFFFF)))
        least = min(least, np.uint16((seen >> np.uint64(16)) & np.uint64(0xFFFF)))
        most = max(most, np.uint16(seen >> np.uint64(32)))
    for j in range(k):
        for i in range(n, always.size):
            word = raw[at + j * raw_step + i]
            value = np.uint16(word & data_mask)
            union, least, most = np.uint16(union | (word ^ usual)), min(least, value), max(most, value)
            out[out_at + j * out_step + i] = always[i]
    return union, least, most


@njit(inline="always")
def _flag(words: Words, always: Flags, data_mask: np.int32, limits: Integers, flags: Flags, out: Flags) -> None:
    """Flag as if every pixel had the code that ``limits`` belong to."""
    low, high, below, above = limits[0], limits[1], limits[2], limits[3]
    saturated, near, none = flags[0], flags[1], np.uint32(0)
    for i in range(words.size):
        value = np.int32(words[i]) & data_mask
        found = always[i]
        found |= saturated if (value < low) | (value > high) else none
        found |= near if (value < below) | (value > above) else none
        out[i] = found


@njit
def flags_stack(
    raw: Words, raw_step: int, k: int, static: Flags, plane: Integers, always: Flags, code_shift: int,
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
        Plane of ``always`` for each gain code, -1 for a code that belongs to no stage.
    always
        (plane, pixel) uint32: ``static``, and the reasons that hold while the pixel is in that stage.
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
    value_mask, in_data = np.int32(data_mask), np.uint16(data_mask)
    code_bits = np.uint16(code_mask << code_shift)
    others = np.empty(BLOCK, np.int64)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        usual = usual_code(raw[start:stop], plane, code_shift, code_bits)
        code = usual >> code_shift
        as_usual = always[plane[code], start:stop]
        union, least, most = _copy_static(raw, start, raw_step, k, as_usual, usual, in_data, out, start, out_step)
        lowest, highest = max(limits[code, 0], limits[code, 2]), min(limits[code, 1], limits[code, 3])
        inside = least >= lowest and most <= highest
        if inside and not union & code_bits:
            continue
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            found = out[j * out_step + start : j * out_step + stop]
            if not inside:
                _flag(words, as_usual, value_mask, limits[code], flags, found)
            for f in range(find_others(words, usual, code_bits, others) if union & code_bits else 0):
                i = others[f]
                own = (words[i] & code_bits) >> code_shift
                p = plane[own]
                if p < 0:
                    found[i] = static[start + i] | flags[2]
                else:
                    pixel = slice(i, i + 1)
                    _flag(words[pixel], always[p, start:stop][pixel], value_mask, limits[own], flags, found[pixel])
