"""Vector code of :mod:`xsmall.kernels.add_frames`: a few frames of which nothing is missing, added in one pass.

Frames, and the moments that they go into, are read once, and moments are written once: what lies between stays in
registers. LLVM does not make vectors of a loop over so many arrays, and a processor does not look ahead in all of them,
so the lines that come next are asked for.

Each piece begins at the first pixel, and stops where a value is not finite or a pixel has seen another number of values
than the first one; it returns how many pixels it did, a multiple of 16. The bits are those that
:mod:`xsmall.kernels.add_frames` finds pass by pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, F64, I32, I64, Emit, constant, ir, vector_code

__all__ = ["MOST_WHOLE", "STRIP", "add_whole", "begin_whole", "merge_whole"]

MOST_WHOLE: Final = 32
"""Frames that go together: of many more, each a line at a time, memory gives less."""

_LANES: Final = 8
_HALVES: Final = 2
STRIP: Final = _LANES * _HALVES
"""Pixels that are in registers together: a line of float32."""

_AHEAD: Final = 128
"""Pixels from those that are read to those that are asked for."""


class _Scales(NamedTuple):
    """What is the same for all pixels."""

    before: Any
    """Values that each has seen,"""
    after: Any
    """and those that it will have seen."""
    share: Any
    """A vector of 1 / values that the sum of deviations is of,"""
    weight: Any
    """of values before,"""
    part: Any
    """and of the part of all that the new ones are."""


Half = Any
"""A vector of half a strip."""

Close = Callable[[Emit, _Scales, Half, Half, Half, Half, Half], tuple[Half, Half]]
"""Makes mean and M2 of the shift, the sum of deviations over the number of values, what the squares are more than that
of the sum, and mean and M2 so far."""


def _strip(emit: Emit, array: Any, p: Any) -> list[Half]:
    """Read a strip of an array at a pixel, and ask for a later one."""
    at = emit.at(array, p)
    emit.fetch_lines(emit.at(at, _AHEAD), STRIP)
    return [emit.load(at, _LANES, half * _LANES) for half in range(_HALVES)]


def _frame_strip(emit: Emit, values: Any, places: Any, i: Any, p: Any) -> list[Half]:
    """Read a strip of frame number ``i`` as float64."""
    build, doubles = emit.build, ir.VectorType(F64, _LANES)
    found = _strip(emit, emit.at(values, build.load(emit.at(places, i))), p)
    element = found[0].type.element
    if element == F64:
        return found
    as_double = build.fpext if element == F32 else build.sitofp if emit.kinds[0].dtype.signed else build.uitofp
    return [as_double(half, doubles) for half in found]


def _sum_deviations(
    emit: Emit, k: Any, frame: Callable[[Any], list[Half]], shift: list[Half]
) -> tuple[list[Half], list[Half]]:
    """Sum deviations of ``k`` frames from the shift, and their squares: by fours, and two and one that are left."""
    build = emit.build
    none = constant(shift[0].type, 0.0)
    total, square = ([emit.variable(none) for _ in shift] for _ in range(2))

    def add(first: Any, n: int) -> None:
        frames = [frame(build.add(first, I64(i))) for i in range(n)]
        for half, of_shift in enumerate(shift):
            deviations = [build.fsub(of_frame[half], of_shift) for of_frame in frames]
            for sums, new in ((total, deviations), (square, [build.fmul(x, x) for x in deviations])):
                build.store(build.fadd(build.load(sums[half]), _in_pairs(emit, new)), sums[half])

    fours, twos = build.and_(k, I64(-4)), build.and_(k, I64(-2))
    with emit.loop(fours, 4) as first:
        add(first, 4)
    with build.if_then(build.icmp_signed("<", fours, twos)):
        add(fours, 2)
    with build.if_then(build.icmp_signed("<", twos, k)):
        add(twos, 1)
    return [build.load(half) for half in total], [build.load(half) for half in square]


def _in_pairs(emit: Emit, vectors: list[Half]) -> Half:
    """Sum as (0 + 1) + (2 + 3)."""
    while len(vectors) > 1:
        vectors = [emit.build.fadd(vectors[i], vectors[i + 1]) for i in range(0, len(vectors), 2)]
    return vectors[0]


def _is_whole(emit: Emit, square: list[Half], count: Any, before: Any) -> Any:
    """Whether all sums are finite and, where a count is given, all pixels have seen the same number of values."""
    build = emit.build
    infinite = constant(square[0].type, float("inf"))
    truth = emit.across("and", build.and_(*(build.fcmp_ordered("<", half, infinite) for half in square)))
    if count is None:
        return truth
    same = build.icmp_unsigned("==", emit.load(count, STRIP), emit.splat(before, STRIP))
    return build.and_(truth, emit.across("and", same))


def _not_below_zero(emit: Emit, half: Half) -> Half:
    none = constant(half.type, 0.0)
    return emit.build.select(emit.build.fcmp_ordered(">", half, none), half, none)


def _close_so_far(
    emit: Emit, scales: _Scales, shift: Half, step: Half, left: Half, mean: Half, m2: Half
) -> tuple[Half, Half]:
    del scales, shift  # the shift is the mean so far
    return emit.build.fadd(mean, step), _not_below_zero(emit, emit.build.fadd(m2, left))


def _close_new(
    emit: Emit, scales: _Scales, shift: Half, step: Half, left: Half, mean: Half, m2: Half
) -> tuple[Half, Half]:
    del scales, mean, m2
    return emit.build.fadd(shift, step), _not_below_zero(emit, left)


def _close_merged(
    emit: Emit, scales: _Scales, shift: Half, step: Half, left: Half, mean: Half, m2: Half
) -> tuple[Half, Half]:
    build = emit.build
    d = build.fsub(build.fadd(shift, step), mean)
    between = build.fmul(build.fmul(build.fmul(d, d), scales.weight), scales.part)
    return (
        build.fadd(mean, build.fmul(d, scales.part)),
        build.fadd(build.fadd(m2, _not_below_zero(emit, left)), between),
    )


def _scales(emit: Emit, k: Any, count: Any, close: Close) -> _Scales:
    build = emit.build
    before, new = build.load(count), build.trunc(k, I32)
    after = new if close is _close_new else build.add(before, new)
    one, of_new, of_before, of_after = (
        ir.Constant(F64, 1.0), *(build.uitofp(n, F64) for n in (new, before, after))
    )  # fmt: skip
    share = build.fdiv(one, of_after if close is _close_so_far else of_new)
    part = build.fdiv(of_new, build.fadd(of_before, of_new))
    return _Scales(before, after, *(emit.splat(x, _LANES) for x in (share, of_before, part)))


@njit
def _none_of_them(*_: Any) -> Any:
    """Leave all pixels to what adds them pass by pass."""
    return np.int64(0)


def _whole_piece(close: Close) -> Callable[..., Any]:
    """Make a piece that adds ``k`` frames, whose first pixels lie at ``places``, to the moments of ``size`` pixels."""

    @vector_code(types.int64, _none_of_them)
    def add(emit: Emit, values: Any, places: Any, k: Any, size: Any, count: Any, mean: Any, m2: Any) -> Any:
        build = emit.build
        scales = _scales(emit, k, count, close)
        done = emit.variable(I64(0))
        with (
            emit.loop(build.and_(size, I64(-STRIP)), STRIP) as p,
            build.if_then(build.icmp_signed("==", build.load(done), p)),
        ):
            at = [emit.at(array, p) for array in (count, mean, m2)]
            emit.fetch_lines(emit.at(at[0], _AHEAD), STRIP)
            old_mean, old_m2 = (_strip(emit, array, p) for array in (mean, m2))

            def frame(i: Any) -> list[Half]:
                return _frame_strip(emit, values, places, i, p)

            shift = old_mean if close is _close_so_far else frame(I64(0))
            total, square = _sum_deviations(emit, k, frame, shift)
            whole = _is_whole(emit, square, None if close is _close_new else at[0], scales.before)
            with build.if_then(whole, likely=True):
                for half in range(_HALVES):
                    step = build.fmul(total[half], scales.share)
                    left = build.fsub(square[half], build.fmul(total[half], step))
                    made = close(emit, scales, shift[half], step, left, old_mean[half], old_m2[half])
                    for vector, pointer in zip(made, at[1:], strict=True):
                        emit.store(vector, pointer, half * _LANES)
                emit.store(emit.splat(scales.after, STRIP), at[0])
                build.store(build.add(p, I64(STRIP)), done)
        return build.load(done)

    return add


add_whole, begin_whole, merge_whole = _whole_piece(_close_so_far), _whole_piece(_close_new), _whole_piece(_close_merged)
"""Add, begin and merge as the three ways of :func:`xsmall.kernels.add_frames.add_frames` do."""
