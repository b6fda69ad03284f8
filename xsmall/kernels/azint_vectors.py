"""Vector code of :mod:`xsmall.kernels.azint`: a few pixels of four frames, added to their sums.

Each pixel of a frame goes to a sum that a table names, so that a loop over pixels is scalar work. With four frames side
by side the four values of a pixel are one vector, and four pixels are a square of 4 by 4 values that is turned on its
side in registers: half the instructions, a quarter of the stores.

Nothing is added, and False comes back, where something is not finite, unless the caller is ``sure``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, F64, I1, I32, I64, Emit, constant, ir, vector_code

__all__ = [
    "LANES",
    "WIDE",
    "add_pair",
    "add_part",
    "add_shared",
    "add_square",
    "add_strip",
    "add_wide_strip",
    "take_finite",
]

LANES: Final = 4
"""Frames that go together."""
WIDE: Final = 8
"""Pixels of a wide strip."""

_EXACT = frozenset({"nsz"})  # sums in the order in which they are written
_LOW, _HIGH = (0, 4, 1, 5), (2, 6, 3, 7)  # two vectors interleaved
_EVEN, _ODD = (0, 4, 2, 6), (1, 5, 3, 7)
_FIRST, _SECOND = (0, 1, 4, 5), (2, 3, 6, 7)  # halves of two vectors joined


def _doubles(emit: Emit, frame: Any, i: Any) -> Any:
    """Four pixels of a frame as float64."""
    values = emit.load(emit.at(frame, i), LANES)
    return values if values.type.element == F64 else emit.build.fpext(values, ir.VectorType(F64, LANES))


def _is_finite(emit: Emit, vector: Any) -> Any:
    """Truth of each lane: what is not finite differs from itself by NaN."""
    return emit.build.fcmp_ordered("==", emit.build.fsub(vector, vector), constant(vector.type, 0.0))


def _across_frames(emit: Emit, frames: list[Any]) -> Any:
    """Sum of four pixels of each of four frames, as one vector: (0 + 1) + (2 + 3)."""
    build = emit.build
    pairs = [
        build.fadd(emit.shuffle(one, other, _EVEN), emit.shuffle(one, other, _ODD))
        for one, other in (frames[:2], frames[2:])
    ]
    one, other = pairs
    return build.fadd(emit.shuffle(one, other, _FIRST), emit.shuffle(one, other, _SECOND))


def _added(emit: Emit, sums: Any, places: list[Any], values: list[Any], total: Any, sure: Any) -> Any:
    """Add vectors to sums where ``total``, which holds all of them, is finite; say whether."""
    finite = emit.build.or_(
        emit.across("and", _is_finite(emit, total)), emit.build.trunc(sure, I1) if sure.type != I1 else sure
    )
    with emit.build.if_then(finite, likely=True):
        for place, value in zip(places, values, strict=True):
            target = emit.at(sums, place)
            emit.store(emit.build.fadd(emit.load(target, LANES), value), target)
    return finite


@njit(fastmath=_EXACT)
def _plain_strip(sums: Any, place: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any) -> Any:
    totals = np.empty(LANES)
    for lane, frame in enumerate((a, b, c, d)):
        v, w = np.float64(frame[i]) + np.float64(frame[i + 1]), np.float64(frame[i + 2]) + np.float64(frame[i + 3])
        totals[lane] = v + w
    finite = sure or (np.abs(totals) < np.inf).all()
    if finite:
        for lane in range(LANES):
            sums[place + lane] += totals[lane]
    return finite


@vector_code(types.boolean, _plain_strip)
def add_strip(emit: Emit, sums: Any, place: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any) -> Any:
    """Add the four pixels from ``i`` on of each frame to ``sums`` (float64) at ``place`` and the three after it."""
    total = _across_frames(emit, [_doubles(emit, frame, i) for frame in (a, b, c, d)])
    return _added(emit, sums, [place], [total], total, sure)


@njit(fastmath=_EXACT)
def _plain_wide_strip(sums: Any, place: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any) -> Any:
    totals, halves = np.empty(LANES), np.empty(LANES)
    for lane, frame in enumerate((a, b, c, d)):
        for n in range(LANES):
            halves[n] = np.float64(frame[i + n]) + np.float64(frame[i + n + LANES])
        v, w = halves[0] + halves[1], halves[2] + halves[3]
        totals[lane] = v + w
    finite = sure or (np.abs(totals) < np.inf).all()
    if finite:
        for lane in range(LANES):
            sums[place + lane] += totals[lane]
    return finite


@vector_code(types.boolean, _plain_wide_strip)
def add_wide_strip(emit: Emit, sums: Any, place: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any) -> Any:
    """Add the eight pixels from ``i`` on of each frame to ``sums`` (float64) at ``place`` and the three after it."""
    further = emit.build.add(i, I64(LANES))
    halves = [emit.build.fadd(_doubles(emit, f, i), _doubles(emit, f, further)) for f in (a, b, c, d)]
    total = _across_frames(emit, halves)
    return _added(emit, sums, [place], [total], total, sure)


@njit(fastmath=_EXACT)
def _plain_square(sums: Any, p: Any, q: Any, r: Any, s: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any) -> Any:
    n_finite: Any = 0
    for n in range(LANES):
        of_pixel = np.float64(a[i + n]) + np.float64(b[i + n]) + np.float64(c[i + n]) + np.float64(d[i + n])
        n_finite += abs(of_pixel) < np.inf
    finite = sure or n_finite == LANES
    if finite:
        for n, place in enumerate((p, q, r, s)):
            sums[place] += a[i + n]
            sums[place + 1] += b[i + n]
            sums[place + 2] += c[i + n]
            sums[place + 3] += d[i + n]
    return finite


@vector_code(types.boolean, _plain_square)
def add_square(
    emit: Emit, sums: Any, p: Any, q: Any, r: Any, s: Any, a: Any, b: Any, c: Any, d: Any, i: Any, sure: Any
) -> Any:
    """Add four pixels of four frames to sums of their own.

    ``a[i + n], b[i + n], c[i + n], d[i + n]``, of one floating dtype, are added to ``sums`` (float64) at the n-th of
    the places p, q, r, s (int64) and the three after it, in this order.
    """
    pixels, total = _turned_square(emit, [a, b, c, d], i)
    return _added(emit, sums, [p, q, r, s], pixels, total, sure)


def _turned_square(emit: Emit, frames: list[Any], i: Any) -> tuple[list[Any], Any]:
    """Load four pixels of four frames: as float64 a vector for each pixel, and the sum of these."""
    build = emit.build
    one, other, third, last = (emit.load(emit.at(frame, i), LANES) for frame in frames)
    pixels = []
    for pair, half in ((_LOW, _FIRST), (_LOW, _SECOND), (_HIGH, _FIRST), (_HIGH, _SECOND)):
        pixel = emit.shuffle(emit.shuffle(one, other, pair), emit.shuffle(third, last, pair), half)
        pixels.append(pixel if pixel.type.element == F64 else build.fpext(pixel, ir.VectorType(F64, LANES)))
    total = build.fadd(build.fadd(pixels[0], pixels[1]), build.fadd(pixels[2], pixels[3]))
    return pixels, total


@njit(fastmath=_EXACT)
def _plain_pair(
    sums: Any, p: Any, q: Any, parts: Any, at: Any, squared: Any, a: Any, b: Any, c: Any, d: Any, i: Any,
    sure: Any,
) -> Any:  # fmt: skip
    totals = np.zeros((2, LANES))
    for n in range(LANES):
        for side in range(2):
            part = np.float64(parts[at + side * LANES + n])
            part = part * part if squared else part
            totals[side, 0] += np.float64(a[i + n]) * part
            totals[side, 1] += np.float64(b[i + n]) * part
            totals[side, 2] += np.float64(c[i + n]) * part
            totals[side, 3] += np.float64(d[i + n]) * part
    finite = sure or (np.abs(totals) < np.inf).all()
    if finite:
        for lane in range(LANES):
            sums[p + lane] += totals[0, lane]
        for lane in range(LANES):
            sums[q + lane] += totals[1, lane]
    return finite


@vector_code(types.boolean, _plain_pair)
def add_pair(
    emit: Emit, sums: Any, p: Any, q: Any, parts: Any, at: Any, squared: Any, a: Any, b: Any, c: Any, d: Any, i: Any,
    sure: Any,
) -> Any:  # fmt: skip
    """Add four pixels, from ``i`` on, of four frames to two bins, by their parts in each.

    Nothing is added, and False comes back, where a pixel is not finite, unless the caller is ``sure``.

    Parameters
    ----------
    sums
        float64, added to at ``p`` and ``q`` (int64) and the three places after each: four events.
    parts, at
        float32: from ``at`` on the parts of the four pixels in the first bin, and then those in the second.
    squared
        Whether parts are squared.
    """
    build = emit.build
    pixels, _ = _turned_square(emit, [a, b, c, d], i)

    def of_bin(first: int) -> Any:
        total = None
        for m, pixel in enumerate(pixels):
            part = build.fpext(build.load(emit.at(emit.at(parts, at), first + m)), F64)
            part = emit.splat(build.select(squared, build.fmul(part, part), part), LANES)
            product = build.fmul(pixel, part)
            total = product if total is None else build.fadd(total, product)
        return total

    one, other = of_bin(0), of_bin(LANES)
    return _added(emit, sums, [p, q], [one, other], build.fadd(one, other), sure)


@njit(fastmath=_EXACT)
def _plain_shared(*arguments: Any) -> Any:
    return len(arguments) == 0


@vector_code(types.boolean, _plain_shared)
def add_shared(
    emit: Emit, sums: Any, start: Any, bins: Any, share: Any, most: Any, squared: Any, nowhere: Any, a: Any, b: Any,
    c: Any, d: Any, i: Any,
) -> Any:  # fmt: skip
    """Add the shares of each of four pixels, from ``i`` on, of four frames, one pixel after the other.

    Two are added always, read or not: how many there are cannot be foretold. Nothing is added, and False comes back,
    where a pixel is not finite: then, and where there is no vector code, the caller does it pixel by pixel.

    Parameters
    ----------
    sums
        float64: of each bin four events, even pixels, then odd ones.
    start, bins, share
        Shares of all pixels, int64, int32 and float32 (:func:`xsmall.kernels.azint_split.share_out`).
    most
        Number of the last share.
    squared
        Whether shares are squared.
    nowhere
        The surplus bin, where a pixel has fewer than two.
    """
    build = emit.build
    pixels, total = _turned_square(emit, [a, b, c, d], i)
    border = [build.load(emit.at(emit.at(start, i), m)) for m in range(LANES + 1)]
    good = emit.across("and", _is_finite(emit, total))

    def add(m: int, place: Any, part: Any) -> None:
        weight = build.fpext(part, F64)
        weight = build.select(squared, build.fmul(weight, weight), weight)
        target = emit.at(sums, build.add(build.mul(place, I64(2 * LANES)), I64(m % 2 * LANES)))
        emit.store(build.fadd(emit.load(target, LANES), build.fmul(pixels[m], emit.splat(weight, LANES))), target)

    def share_at(at: Any) -> tuple[Any, Any]:
        return build.sext(build.load(emit.at(bins, at)), I64), build.load(emit.at(share, at))

    with build.if_then(good, likely=True):
        for m, (k, stop) in enumerate(pairwise(border)):
            for which in range(2):
                number = build.add(k, I64(which))
                there = build.icmp_signed("<", number, stop)
                place, part = share_at(build.select(build.icmp_signed("<", number, most), number, most))
                add(m, build.select(there, place, nowhere), build.select(there, part, F32(0.0)))
            further = build.add(k, I64(2))
            with emit.loop(build.sub(stop, further)) as more:
                add(m, *share_at(build.add(further, more)))
    return good


@njit(fastmath=_EXACT)
def _plain_take(out: Any, at: Any, frame: Any, i: Any) -> Any:
    bits = np.uint64(0)
    for n in range(LANES):
        value = frame[i + n]
        if abs(value) < np.inf:
            out[at + n] = value
        else:
            out[at + n] = 0
            bits |= np.uint64(1) << np.uint64(n)
    return bits


@vector_code(types.uint64, _plain_take)
def take_finite(emit: Emit, out: Any, at: Any, frame: Any, i: Any) -> Any:
    """Copy four pixels, from ``i`` on, to ``out`` at ``at``: 0 for what is not finite, and a bit for each of these."""
    build = emit.build
    values = emit.load(emit.at(frame, i), LANES)
    finite = _is_finite(emit, values)
    emit.store(build.select(finite, values, constant(values.type, 0.0)), emit.at(out, at))
    return build.zext(emit.bits(build.not_(finite)), I64)


@njit(fastmath=_EXACT)
def _plain_part(sums: Any, place: Any, part: Any, v: Any, w: Any, x: Any, y: Any) -> None:
    sums[place] += v * part
    sums[place + 1] += w * part
    sums[place + 2] += x * part
    sums[place + 3] += y * part


@vector_code(types.void, _plain_part)
def add_part(emit: Emit, sums: Any, place: Any, part: Any, v: Any, w: Any, x: Any, y: Any) -> Any:
    """Add a part of the float64 values of a pixel in four frames to ``sums`` at ``place`` and the three after it."""
    build = emit.build
    values = ir.Constant(ir.VectorType(F64, LANES), ir.Undefined)
    for lane, value in enumerate((v, w, x, y)):
        values = build.insert_element(values, value, I32(lane))
    target = emit.at(sums, place)
    emit.store(build.fadd(emit.load(target, LANES), build.fmul(values, emit.splat(part, LANES))), target)
    return emit.nothing()
