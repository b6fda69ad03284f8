"""Sums of a frame along its rows or columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F64, I64, Emit, constant, ir, vector_code

__all__ = ["along_columns", "along_rows"]

_LANES = 16


@njit
def _plain_row_part(values: Any, at: Any, use: Any, from_: Any, n: Any, total: Any) -> Any:
    count, row_total = np.int64(0), 0.0
    for i in range(n):
        v = values[at + i]
        if use[from_ + i] and abs(v) < np.inf:
            row_total += v
            count += 1
    total[0] = row_total
    return count


@vector_code(types.int64, _plain_row_part)
def _sum_row_part(emit: Emit, values: Any, at: Any, use: Any, from_: Any, n: Any, total: Any) -> Any:
    """Sum ``n`` values (a multiple of 16) from ``at`` on into ``total[0]`` (float64); return how many are in the sum.

    Those are in it that are finite and used: boolean from ``from_`` on.
    """
    build, half = emit.build, _LANES // 2
    wide = ir.VectorType(F64, half)
    sums, count = [emit.variable(constant(wide, 0.0)) for _ in range(2)], emit.variable(I64(0))
    source, mask = emit.at(values, at), emit.at(use, from_)
    with emit.loop(n, _LANES) as i:
        value, used = emit.load(emit.at(source, i), _LANES), emit.load(emit.at(mask, i), _LANES)
        none = constant(value.type, 0.0)
        good = build.and_(
            build.fcmp_ordered("==", build.fsub(value, value), none),
            build.icmp_unsigned("!=", used, constant(used.type, 0)),
        )
        value = build.select(good, value, none)
        for k, variable in enumerate(sums):
            part = emit.shuffle(value, value, list(range(k * half, (k + 1) * half)))
            part = part if part.type.element == F64 else build.fpext(part, wide)
            build.store(build.fadd(build.load(variable), part), variable)
        build.store(build.add(build.load(count), build.zext(build.ctpop(emit.bits(good)), I64)), count)
    one, other = (build.load(variable) for variable in sums)
    build.store(emit.across("fadd", build.fadd(one, other), F64(0.0)), total)
    return build.load(count)


@njit
def along_columns(frame: Any, top: Any, left: Any, use: Any, total: Any, n: Any) -> Any:
    """Sum every row of a box over its columns.

    Parameters
    ----------
    frame
        (row, column) the pixels of a segment, contiguous.
    top, left
        Where the box begins.
    use
        (row, column) boolean of the size of the box, True where a pixel may be used.
    total, n
        (row,) float64 and int64, filled.
    """
    flat, used, width = frame.reshape(-1), use.reshape(-1), use.shape[1]
    whole = width // _LANES * _LANES
    for r in range(use.shape[0]):
        first = np.int64((top + r) * frame.shape[1] + left)
        count = _sum_row_part(flat, first, used, np.int64(r * width), np.int64(whole), total[r:])
        for c in range(whole, width):
            v = frame[top + r, left + c]
            if use[r, c] and abs(v) < np.inf:
                total[r] += v
                count += 1
        n[r] = count


@njit
def along_rows(frame: Any, top: Any, left: Any, use: Any, total: Any, n: Any) -> Any:
    """Sum every column of a box over its rows; as :func:`along_columns`, with (column,) results."""
    total[:] = 0
    n[:] = 0
    for r in range(use.shape[0]):
        values, good = frame[top + r, left : left + use.shape[1]], use[r]
        for c in range(good.size):
            ok = (abs(values[c]) < np.inf) & good[c]
            total[c] += np.float64(values[c]) if ok else 0.0
            n[c] += np.int64(ok)
