"""Variance of calibrated values: noise of the gain stage that a pixel was in, and counting statistics."""

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.gain_code import BLOCK, Int, Integers, Values, Word, Words, find_others, usual_code
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, I16, Emit, constant, ir, vector_code

__all__ = ["variance_plain", "variance_stack", "with_counting"]

PAIR = 2
"""Frames that go through together: with values and results of four, frames of 2**n bytes would meet in the same few
places of the cache."""

_LANES = 16
_EXACT = frozenset({"nsz"})  # one product and one sum: nothing is gained by reordering


@njit(fastmath=_EXACT, inline="always")
def with_counting(value: np.float32, dark: np.float32, photon: np.float32) -> np.float32:
    """Dark variance, and that of counting where a value is more than noise (3 sigma); NaN for NaN.

    Noise without photons must not count: the positive half of it would look like photons, in every empty pixel.
    """
    seen = (value > np.float32(0)) & (value * value > np.float32(9) * dark)
    total = dark + (value * photon if seen else np.float32(0))
    return total if value == value else value


def _variance_of(frames: int) -> Any:
    """Make the piece that finds the variance of the pixels of so many frames as if all had the usual code."""

    @njit(fastmath=_EXACT)
    def plain(
        words: Any, words_step: Any, values: Any, values_step: Any, out: Any, out_step: Any, dark: Any, photon: Any,
        usual: Any, n: Any,
    ) -> Any:  # fmt: skip
        union = np.uint16(0)
        for j in range(frames):
            for i in range(n):
                union |= np.uint16(words[j * words_step + i] ^ usual)
                out[j * out_step + i] = with_counting(values[j * values_step + i], dark[i], photon)
        return union

    @vector_code(types.uint16, plain)
    def variances(
        emit: Emit, words: Any, words_step: Any, values: Any, values_step: Any, out: Any, out_step: Any, dark: Any,
        photon: Any, usual: Any, n: Any,
    ) -> Any:  # fmt: skip
        """Do what :func:`with_counting` does for ``n`` pixels (a multiple of 16) of frames that lie a step apart.

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

    return variances


_variance_of_two, _variance_of_one = _variance_of(PAIR), _variance_of(1)


@njit(fastmath=_EXACT, inline="always")
def _variance_as_usual(
    raw: Words, raw_step: int, k: int, values: Values, values_step: int, out: Values, out_step: int, start: int,
    dark: Values, photon: np.float32, usual: Word,
) -> Word:  # fmt: skip
    """Variance of a block of ``k`` frames as if every pixel had the usual code; returns the OR as the piece does."""
    n, union = dark.size // _LANES * _LANES, np.uint16(0)
    j = 0
    while j < k:
        words, seen = raw[j * raw_step + start :], values[j * values_step + start :]
        variances = out[j * out_step + start :]
        if k - j >= PAIR:
            found = _variance_of_two(words, raw_step, seen, values_step, variances, out_step, dark, photon, usual, n)
            j += PAIR
        else:
            found = _variance_of_one(words, raw_step, seen, values_step, variances, out_step, dark, photon, usual, n)
            j += 1
        union = np.uint16(union | found)
    for j in range(k):
        for i in range(n, dark.size):
            union = np.uint16(union | (raw[j * raw_step + start + i] ^ usual))
            out[j * out_step + start + i] = with_counting(values[j * values_step + start + i], dark[i], photon)
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
        union = _variance_as_usual(raw, raw_step, k, values, values_step, out, out_step, start, dark, of_one, usual)
        for j in range(k if union & code_bits else 0):
            words = raw[j * raw_step + start : j * raw_step + stop]
            seen = values[j * values_step + start : j * values_step + stop]
            variances = out[j * out_step + start : j * out_step + stop]
            for f in range(find_others(words, usual, code_bits, found)):
                i = found[f]
                p = plane[(words[i] & code_bits) >> code_shift]
                variances[i] = with_counting(seen[i], variance[max(p, 0), start + i], of_one)


@njit(fastmath=_EXACT)
def variance_plain(
    k: int, dark: Values, photon: float, values: Values, values_step: int, out: Values, out_step: int
) -> None:
    """Variance of ``k`` frames of a detector without gain codes; arguments as in :func:`variance_stack`."""
    of_one = np.float32(photon)
    for j in range(k):
        for i in range(dark.size):
            out[j * out_step + i] = with_counting(values[j * values_step + i], dark[i], of_one)
