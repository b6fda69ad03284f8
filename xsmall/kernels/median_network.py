"""The middle values of up to 64 keys in each of sixteen lanes, by a network that sorts.

A comparator is a minimum and a maximum of two vectors, whatever is in them. Two halves of 32 keys, as many as there
are registers, are sorted by Batcher's odd-even merges (K. E. Batcher, AFIPS Spring Joint Computer Conference 32, 307,
1968). Of two sorted halves the lower one of all is the smaller ones of first and last, second and last but one, and so
on; its largest key and the smallest of the rest are the middle.

Keys that take no part would move the middle. Every second one of a lane is put below all others instead of above.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.median_search import (
    EXCLUDED,
    LANES,
    LAST,
    constant_keys,
    count_up_to,
    larger,
    middle_values,
    row_of,
    smaller,
    value_of,
)
from xsmall.kernels.vectors import I64, Emit, vector_code

__all__ = ["NETWORK", "sort_lanes"]

NETWORK = 64
"""Keys of a lane."""

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
        keys = block[lane : NETWORK * LANES : LANES]
        kept = keys[keys != EXCLUDED]
        counts[lane] = kept.size
        lower[lane], higher[lane] = middle_values(kept)


@vector_code(types.void, _sort_lanes)
def sort_lanes(emit: Emit, block: Any, counts: Any, lower: Any, higher: Any) -> Any:
    """Find the two middle values of each lane of a block of :data:`NETWORK` rows.

    Parameters
    ----------
    block
        int32 (64, lane): keys; changed.
    counts
        (lane) int32, filled: keys that take part.
    lower, higher
        (lane) float32, filled: as of :func:`xsmall.kernels.median_search.search_lanes`.
    """
    build = emit.build
    valid = count_up_to(emit, block, I64(NETWORK), constant_keys(LAST))
    emit.store(valid, counts)
    full = build.icmp_signed("==", valid, constant_keys(NETWORK))
    with build.if_then(build.not_(emit.across("and", full)), likely=False):
        _balance(emit, block)
    one = _sorted(emit, block, 0)
    for i, keys in enumerate(one):  # all registers are needed for the other half
        emit.store(keys, block, i * LANES)
    other = _sorted(emit, block, _HALF)
    below, above = constant_keys(-EXCLUDED - 1), constant_keys(EXCLUDED)
    for i, keys in enumerate(reversed(other)):
        opposite = emit.load(block, LANES, i * LANES)
        below = larger(emit, below, smaller(emit, opposite, keys))
        above = smaller(emit, above, larger(emit, opposite, keys))
    emit.store(value_of(emit, below), lower)
    emit.store(value_of(emit, above), higher)
    return emit.nothing()


def _sorted(emit: Emit, block: Any, first: int) -> list[Any]:
    """Load half of the rows, and sort them lane by lane."""
    keys = [emit.load(block, LANES, (first + i) * LANES) for i in range(_HALF)]
    for i, j in comparators(_HALF):
        keys[i], keys[j] = smaller(emit, keys[i], keys[j]), larger(emit, keys[i], keys[j])
    return keys


def _balance(emit: Emit, block: Any) -> None:
    """Put every second one of the excluded keys of a lane below all others."""
    build = emit.build
    turn = emit.variable(constant_keys(0))
    with emit.loop(I64(NETWORK)) as row:
        at = emit.at(block, row_of(emit, row))
        keys, mine = emit.load(at, LANES), build.load(turn)
        out = build.icmp_signed("==", keys, constant_keys(EXCLUDED))
        emit.store(build.select(out, build.xor(keys, mine), keys), at)
        build.store(build.xor(mine, build.sext(out, mine.type)), turn)
