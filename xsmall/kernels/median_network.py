"""The middle values of up to 64 pixels in each of sixteen lanes, by a network that sorts.

A comparator is a minimum and a maximum of two vectors, whatever is in them. Two halves of 32 values, as many as there
are registers, are sorted by Batcher's odd-even merges (K. E. Batcher, AFIPS Spring Joint Computer Conference 32, 307,
1968). Of two sorted halves the lower one of all is the smaller ones of first and last, second and last but one, and so
on; its largest and the smallest of the rest are the middle.

Pixels that take no part would move the middle. Every second one of a lane is put below all others instead of above.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.median_search import (
    EXCLUDED,
    LANES,
    LARGEST,
    count_up_to,
    floats,
    middle_values,
    row_of,
    without_sign,
)
from xsmall.kernels.vectors import I64, Emit, constant, vector_code

__all__ = ["NETWORK", "sort_lanes"]

NETWORK = 64
"""Values of a lane."""

_HALF = NETWORK // 2


def comparators(n: int) -> Iterator[tuple[int, int]]:
    """Yield which two of ``n`` keys, a power of two, change places where they are the wrong way round, in order."""
    merged = 1
    while merged < n:
        step = merged
        while step:
            for first in range(step % merged, n - step, 2 * step):
                for i in range(first, min(first + step, n - step)):
                    if i // (2 * merged) == (i + step) // (2 * merged):
                        yield i, i + step
            step //= 2
        merged *= 2


@njit
def _sort_lanes(block: Any, counts: Any, lower: Any, higher: Any) -> None:
    """Do what :func:`sort_lanes` does, lane by lane."""
    for lane in range(LANES):
        values = block[lane : NETWORK * LANES : LANES]
        kept = values[values != EXCLUDED]
        counts[lane] = kept.size
        lower[lane], higher[lane] = middle_values(kept)


@vector_code(types.void, _sort_lanes)
def sort_lanes(emit: Emit, block: Any, counts: Any, lower: Any, higher: Any) -> Any:
    """Find the two middle values of each lane of a block of :data:`NETWORK` rows.

    Parameters
    ----------
    block
        float32 (64, lane): values; changed.
    counts
        (lane) int32, filled: values that take part.
    lower, higher
        (lane) float32, filled: as of :func:`xsmall.kernels.median_search.search_lanes`.
    """
    build = emit.build
    valid = count_up_to(emit, block, I64(NETWORK), floats(LARGEST))
    emit.store(valid, counts)
    full = build.icmp_signed("==", valid, constant(valid.type, NETWORK))
    with build.if_then(build.not_(emit.across("and", full)), likely=False):
        _balance(emit, block)
    one = _sorted(emit, block, 0)
    for i, values in enumerate(one):  # all registers are needed for the other half
        emit.store(values, block, i * LANES)
    other = _sorted(emit, block, _HALF)
    below, above = floats(-np.inf), floats(np.inf)
    for i, values in enumerate(reversed(other)):
        opposite = emit.load(block, LANES, i * LANES)
        below = emit.larger(below, emit.smaller(opposite, values))
        above = emit.smaller(above, emit.larger(opposite, values))
    emit.store(without_sign(emit, below), lower)
    emit.store(without_sign(emit, above), higher)
    return emit.nothing()


def _sorted(emit: Emit, block: Any, first: int) -> list[Any]:
    """Load half of the rows, and sort them lane by lane."""
    values = [emit.load(block, LANES, (first + i) * LANES) for i in range(_HALF)]
    for i, j in comparators(_HALF):
        values[i], values[j] = emit.smaller(values[i], values[j]), emit.larger(values[i], values[j])
    return values


def _balance(emit: Emit, block: Any) -> None:
    """Put every second one of the excluded pixels of a lane below all values."""
    build = emit.build
    other = emit.variable(floats(np.inf))
    with emit.loop(I64(NETWORK)) as row:
        at = emit.at(block, row_of(emit, row))
        values, next_one = emit.load(at, LANES), build.load(other)
        out = build.fcmp_ordered("==", values, floats(np.inf))
        emit.store(build.select(out, next_one, values), at)
        build.store(build.select(out, build.fneg(next_one), next_one), other)
