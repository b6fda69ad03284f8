"""Frames in ADU, common mode off, to values: the factor of each pixel's own gain stage."""

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.gain_code import BLOCK, Int, Integers, Values, Word, Words, find_others, usual_code
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import I16, Emit, constant, ir, vector_code

__all__ = ["multiply_all", "scale_piece", "scale_plain", "scale_stack"]

_LANES = 16
_EXACT = frozenset({"nsz"})  # one product per pixel: the same numbers on every machine


@njit(fastmath=_EXACT)
def _multiply(adu: Values, at: int, factor: Values, of: int, out: Values, to: int, n: int) -> None:
    """Do what :func:`multiply_all` does."""
    flat = factor.reshape(-1)
    for i in range(n):
        out[to + i] = adu[at + i] * flat[of + i]


@vector_code(types.void, _multiply)
def multiply_all(emit: Emit, adu: Any, at: Any, factor: Any, of: Any, out: Any, to: Any, n: Any) -> Any:
    """Multiply ``n`` values (a multiple of 16) by factors, each from its place on."""
    first, scale, target = emit.at(adu, at), emit.at(factor, of), emit.at(out, to)
    with emit.loop(n, _LANES) as i:
        value = emit.build.fmul(emit.load(emit.at(first, i), _LANES), emit.load(emit.at(scale, i), _LANES))
        emit.store(value, emit.at(target, i))
    return emit.nothing()


@njit(fastmath=_EXACT)
def _or_of_words(words: Words, at: int, usual: Word, n: int) -> Any:
    """Do what :func:`_or_of_all` does."""
    union = np.uint16(0)
    for i in range(n):
        union |= np.uint16(words[at + i] ^ usual)
    return union


@vector_code(types.uint16, _or_of_words)
def _or_of_all(emit: Emit, words: Any, at: Any, usual: Any, n: Any) -> Any:
    """OR of ``n`` words (a multiple of 16) from ``at`` on, in which the bits of the usual code are turned over."""
    build = emit.build
    union, turned = emit.variable(constant(ir.VectorType(I16, _LANES), 0)), emit.splat(usual, _LANES)
    first = emit.at(words, at)
    with emit.loop(n, _LANES) as i:
        build.store(build.or_(build.load(union), build.xor(emit.load(emit.at(first, i), _LANES), turned)), union)
    return emit.across("or", build.load(union))


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

    Arguments as in :func:`xsmall.kernels.calibrate.calibrate_stack`; ``out`` holds the values and is changed in place.
    """
    n = factor.shape[1]
    for start in range(0, n, BLOCK):
        scale_piece(
            raw, raw_step, k, plane, factor, start, min(start + BLOCK, n), code_shift, code_mask, out, start, out_step,
            out, out_step,
        )  # fmt: skip


@njit(fastmath=_EXACT)
def scale_piece(
    raw: Words, raw_step: int, k: int, plane: Integers, factor: Values, start: int, stop: int, code_shift: Int,
    code_mask: Int, adu: Values, adu_at: int, adu_step: int, out: Values, out_step: int,
) -> None:  # fmt: skip
    """Scale the pixels from ``start`` to ``stop``, up to :data:`BLOCK`; ``adu`` and ``out`` may be the same."""
    size, code_bits = stop - start, np.uint16(code_mask << code_shift)
    usual = usual_code(raw[start:stop], plane, code_shift, code_bits)
    p = plane[usual >> code_shift]
    others = size % _LANES != 0
    for j in range(0 if others or not code_bits else k):
        others |= (_or_of_all(raw, j * raw_step + start, usual, size) & code_bits) != 0
    for j in range(k):
        at, to = j * adu_step + adu_at, j * out_step + start
        if others:
            words = raw[j * raw_step + start : j * raw_step + stop]
            given, values = adu[at : at + size], out[to : to + size]
            _scale_mixed(words, start, plane, factor, p, usual, code_shift, code_bits, given, values)
        else:
            multiply_all(adu, at, factor, p * factor.shape[1] + start, out, to, size)


@njit(fastmath=_EXACT)
def _scale_mixed(
    words: Words, start: int, plane: Integers, factor: Values, p: int, usual: Word, code_shift: Int, code_bits: Word,
    adu: Values, values: Values,
) -> None:  # fmt: skip
    """Multiply the pixels of a piece, some of which may have another code than the usual one."""
    found = np.empty(BLOCK, np.int64)
    kept = np.empty(BLOCK, np.float32)
    others = find_others(words, usual, code_bits, found) if code_bits else 0
    for f in range(others):
        kept[f] = adu[found[f]]
    for i in range(values.size):
        values[i] = adu[i] * factor[p, start + i]
    for f in range(others):
        i = found[f]
        q = plane[(words[i] & code_bits) >> code_shift]
        values[i] = kept[f] * factor[q, start + i] if q >= 0 else np.float32(np.nan)


@njit(fastmath=_EXACT)
def scale_plain(k: int, factor: Values, out: Values, out_step: int) -> None:
    """Multiply ``k`` frames of a detector without gain codes by the factor of each pixel, in place."""
    for j in range(k):
        for i in range(factor.size):
            out[j * out_step + i] *= factor[i]
