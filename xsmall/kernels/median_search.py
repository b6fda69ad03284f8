"""The search for the middle values of sixteen units side by side, and how pixels come into its lanes.

Pixels that take no part are :data:`EXCLUDED`, above all values. Every lane searches for itself by counting how many of
its values are at or below a trial: a secant step towards the wanted count from the last two trials, and, once it is
near or after five of them, a look at the very values on both sides of the trial, which settles ties as well. Five to
eight trials are enough in practice. What the secant does not find is found by halving the bracket, which ends after 32
times at the latest: its ends are keys, integers that order like the floats they are made of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.jit import PLAIN, njit
from xsmall.kernels.vectors import F32, I1, I32, Emit, constant, ir, vector_code

__all__ = ["EXCLUDED", "LANES", "LARGEST", "TURNED", "UNROLLED", "search_lanes", "take_lanes", "turn_lanes"]

LANES = 16

TURNED = 8
"""Pixels of eight lines that are turned in registers."""

UNROLLED = 4
"""Rows that are counted side by side: sums of floats come some cycles late. Blocks have a multiple of it."""

_SECANTS = 5  # trials before the neighbours of a trial are looked at, if it is not near before
_HALVING = 24  # trials before the plain halving of keys
_LAST = 0x7F7FFFFF  # key of the largest float32; that of the smallest is -_LAST - 1

LARGEST = float(np.finfo(np.float32).max)
"""What a value that takes part may be at the most."""

EXCLUDED = np.float32(np.inf)
"""What stands for a pixel that takes no part."""

_INTS, _FLOATS = (None, None) if PLAIN else (ir.VectorType(I32, LANES), ir.VectorType(F32, LANES))


def floats(value: float) -> Any:
    """Values of all lanes that are one number."""
    return constant(_FLOATS, value)


def _turned_bits(emit: Emit, bits: Any) -> Any:
    """Turn the bits of floats into keys, and keys into those bits: below zero all but the sign change."""
    build = emit.build
    sign = build.ashr(bits, constant(_INTS, 31))
    return build.xor(bits, build.and_(sign, constant(_INTS, 0x7FFFFFFF)))


def _key_of(emit: Emit, values: Any) -> Any:
    return _turned_bits(emit, emit.build.bitcast(values, _INTS))


def _first_key_of(emit: Emit, values: Any) -> Any:
    """Smallest keys of floats that are at or above: 0 is at or below -0, too."""
    keys = _key_of(emit, values)
    return emit.build.select(emit.build.icmp_signed("==", keys, constant(_INTS, 0)), constant(_INTS, -1), keys)


def _float_of(emit: Emit, keys: Any) -> Any:
    return emit.build.bitcast(_turned_bits(emit, keys), _FLOATS)


def without_sign(emit: Emit, values: Any) -> Any:
    """Values whose zeros have no sign."""
    return emit.build.fadd(values, floats(0.0))


def count_up_to(emit: Emit, block: Any, n: Any, at: Any) -> Any:
    """How many values of each lane are at or below ``at``, as whole numbers."""
    build, one = emit.build, floats(1.0)
    totals = [emit.variable(floats(0.0)) for _ in range(UNROLLED)]  # exact up to 2**24
    with emit.loop(n, UNROLLED) as row:
        first = emit.at(block, row_of(emit, row))
        for i, total in enumerate(totals):
            known = build.load(total)
            here = build.fcmp_ordered("<=", emit.load(first, LANES, i * LANES), at)
            build.store(build.select(here, build.fadd(known, one), known), total)
    pairs = [build.fadd(build.load(totals[i]), build.load(totals[i + 2])) for i in range(2)]
    return build.fptosi(build.fadd(*pairs), _INTS)


def _count(emit: Emit, block: Any, n: Any, at: Any, together: Any) -> Any:
    """How many values are at or below ``at``, of each lane or of all."""
    counts = count_up_to(emit, block, n, at)
    return emit.build.select(together, emit.splat(emit.across("add", counts), LANES), counts)


def _beside(emit: Emit, block: Any, n: Any, at: Any, together: Any) -> tuple[Any, Any]:
    """Find the largest value at or below ``at`` and the smallest above it, of each lane or of all; infinite if none."""
    build = emit.build
    downs, ups = ([emit.variable(floats(v)) for _ in range(UNROLLED)] for v in (-np.inf, np.inf))
    with emit.loop(n, UNROLLED) as row:
        first = emit.at(block, row_of(emit, row))
        for i in range(UNROLLED):
            value = emit.load(first, LANES, i * LANES)
            here = build.fcmp_ordered("<=", value, at)
            down, up = build.load(downs[i]), build.load(ups[i])
            build.store(build.select(here, emit.larger(down, value), down), downs[i])
            build.store(build.select(here, up, emit.smaller(up, value)), ups[i])
    below, above = (_of_all(emit, choose, found) for choose, found in ((emit.larger, downs), (emit.smaller, ups)))
    return (
        build.select(together, emit.splat(emit.across("fmax", below), LANES), below),
        build.select(together, emit.splat(emit.across("fmin", above), LANES), above),
    )


def _of_all(emit: Emit, choose: Any, variables: list[Any]) -> Any:
    """The smallest or the largest of several variables, lane by lane."""
    one, two, three, four = (emit.build.load(v) for v in variables)
    return choose(choose(one, two), choose(three, four))


def row_of(emit: Emit, row: Any) -> Any:
    """Where a row of a block begins."""
    return emit.build.mul(row, row.type(LANES))


class _Bracket:
    """Keys of each lane between which the wanted value lies: too few values up to ``below``, enough up to ``above``."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.below = emit.variable(constant(_INTS, -_LAST - 2))
        self.above = emit.variable(constant(_INTS, _LAST))

    def narrow(self, enough: Any, below: Any, above: Any) -> None:
        """Move ``above`` in the lanes that have enough, ``below`` in the others."""
        build = self._emit.build
        build.store(build.select(enough, above, build.load(self.above)), self.above)
        build.store(build.select(enough, build.load(self.below), below), self.below)

    def closed(self) -> Any:
        """Lanes with no key left between."""
        build = self._emit.build
        return build.icmp_signed("==", build.add(build.load(self.below), constant(_INTS, 1)), build.load(self.above))

    def choose(self, wish: Any, early: Any) -> Any:
        """Return the wished-for key where it lies between and it is early, else the one halfway."""
        build = self._emit.build
        low, high = build.load(self.below), build.load(self.above)
        inside = build.and_(build.icmp_signed(">", wish, low), build.icmp_signed("<", wish, high))
        half = build.ashr(build.xor(low, high), constant(_INTS, 1))
        middle = build.add(build.and_(low, high), half)  # of two keys, whose sum may be too large
        return build.select(build.and_(inside, early), wish, middle)


class _Secant:
    """Where the wanted count would be reached by the pace of the last two trials, lane by lane."""

    def __init__(self, emit: Emit, pace: Any) -> None:
        self._emit = emit
        self._pace, self.kept = emit.variable(pace), emit.variable(pace)
        self._last, self._n_last = emit.variable(constant(_FLOATS, 0.0)), emit.variable(constant(_FLOATS, 0.0))

    def next(self, here: Any, count: Any, goal: Any, first: Any) -> Any:
        """Take note of a trial, and return the next one."""
        build = self._emit.build
        n, wanted = build.sitofp(count, _FLOATS), build.sitofp(goal, _FLOATS)
        passed = build.fsub(n, build.load(self._n_last))
        slope = build.fdiv(build.fsub(here, build.load(self._last)), passed)
        still = build.fcmp_ordered("==", passed, constant(_FLOATS, 0.0))
        fresh = build.select(still, build.fmul(build.load(self._pace), constant(_FLOATS, 4.0)), slope)
        tiny = constant(_FLOATS, 1.401298464324817e-45)  # the smallest float32: a pace of 0 would stand still
        fresh = build.select(build.fcmp_ordered(">", fresh, tiny), fresh, tiny)
        fresh = build.select(first, build.load(self._pace), fresh)
        for value, variable in ((here, self._last), (n, self._n_last), (fresh, self._pace)):
            build.store(value, variable)
        # A pace from many values is worth keeping for the units to come, one from a few is chance.
        share = build.fmul(passed, constant(_FLOATS, 16.0))
        many = build.fcmp_ordered(">", build.fmul(share, share), build.fmul(wanted, wanted))
        known = build.and_(build.and_(many, build.not_(first)), build.fcmp_ordered("<", fresh, constant(_FLOATS, 1e30)))
        build.store(build.select(known, fresh, build.load(self.kept)), self.kept)
        return build.fadd(here, build.fmul(fresh, build.fsub(wanted, n)))


@njit
def _search_lanes(
    block: Any, n: Any, counts: Any,
    guess: Any, spacing: Any,  # noqa: ARG001
    together: Any, lower: Any, higher: Any,
) -> None:  # fmt: skip
    """Do what :func:`search_lanes` does by sorting each lane; the guess is not needed, and stays."""
    values = np.empty(n * LANES, np.float32)
    for lane in range(LANES):
        size = 0
        for row in range(n):
            for other in range(LANES) if together else range(lane, lane + 1):
                if block[row * LANES + other] != EXCLUDED:
                    values[size] = block[row * LANES + other]
                    size += 1
        counts[lane] = size
        lower[lane], higher[lane] = middle_values(values[:size])


@njit
def middle_values(values: Any) -> Any:
    """Two middle values; of an odd number both are the same."""
    if values.size == 0:
        return np.float32(np.nan), np.float32(np.nan)
    values.sort()
    lower, higher = values[(values.size - 1) // 2], values[values.size // 2]
    return lower + np.float32(0), higher + np.float32(0)  # zero has no sign


@njit
def _take_lanes(
    values: Any, use: Any, pitch: Any, rows: Any, vectors: Any, low: Any, high: Any,
    block: Any, block_pitch: Any, block_step: Any,
) -> None:  # fmt: skip
    """Do what :func:`take_lanes` does, pixel by pixel."""
    for row in range(rows):
        for vector in range(vectors):
            for lane in range(LANES):
                p = row * pitch + vector * LANES + lane
                taken = (use[p] != 0) & (values[p] >= low) & (values[p] <= high)
                block[row * block_pitch + vector * block_step + lane] = values[p] if taken else EXCLUDED


@njit
def _turn_lanes(lines: Any, step: Any, block: Any, n: Any) -> None:
    """Do what :func:`turn_lanes` does, value by value."""
    for lane in range(LANES):
        for i in range(n):
            block[i * LANES + lane] = lines[lane * step + i]


@vector_code(types.void, _search_lanes)
def search_lanes(
    emit: Emit, block: Any, n: Any, counts: Any, guess: Any, spacing: Any, together: Any, lower: Any, higher: Any
) -> Any:
    """Find the two middle values of each lane.

    Parameters
    ----------
    block
        float32 (n, lane): values; n is a multiple of :data:`UNROLLED`.
    counts
        (lane) int32, filled: values that take part.
    guess, spacing
        (lane) float32: first trial, and how far values lie apart near it; changed to those for the units to come.
    together
        Whether all lanes are one unit (bool), whose results then stand in every lane.
    lower, higher
        (lane) float32, filled: the middle value, or the lower one of the two of an even number, and the higher one,
        without meaning where the number is odd. Both are without meaning in a lane without values.
    """
    build, one = emit.build, constant(_INTS, 1)
    valid = _count(emit, block, n, floats(LARGEST), together)
    goal = build.ashr(build.add(valid, one), one)
    bracket, secant = _Bracket(emit), _Secant(emit, emit.load(spacing, LANES))
    at, n_above = emit.variable(_key_of(emit, emit.load(guess, LANES))), emit.variable(constant(_INTS, 0))
    trial, looked = emit.variable(I32(0)), emit.variable(I1(0))
    again, further, found = (build.append_basic_block(name) for name in ("trial", "further", "found"))
    build.branch(again)

    build.position_at_end(again)
    key, step = build.load(at), build.load(trial)
    here = _float_of(emit, key)
    count = _count(emit, block, n, here, together)
    enough = build.icmp_signed(">=", count, goal)
    bracket.narrow(enough, key, key)
    build.store(build.select(enough, count, build.load(n_above)), n_above)
    done = build.or_(build.icmp_signed("==", count, goal), bracket.closed())
    build.store(build.add(step, I32(1)), trial)
    build.cbranch(emit.across("and", done), found, further)

    build.position_at_end(further)
    first, early = (emit.splat(build.icmp_signed("<", step, I32(limit)), LANES) for limit in (1, _HALVING))
    wish = emit.variable(_key_of(emit, secant.next(here, count, goal, first)))
    near = build.icmp_unsigned("<=", build.add(build.sub(goal, count), one), constant(_INTS, 2))  # -1, 0, 1
    settle = build.or_(emit.across("and", build.or_(near, done)), build.icmp_signed(">=", step, I32(_SECANTS)))
    look = build.and_(settle, build.not_(build.load(looked)))  # never twice in a row
    build.store(look, looked)
    with build.if_then(look):
        under, over = (_first_key_of(emit, value) for value in _beside(emit, block, n, here, together))
        bracket.narrow(enough, build.sub(over, one), under)
        build.store(build.select(enough, build.sub(under, one), over), wish)
    chosen = bracket.choose(build.load(wish), early)
    build.store(build.select(done, key, chosen), at)
    build.branch(again)

    build.position_at_end(found)
    top = _float_of(emit, build.load(bracket.above))
    middle, after = _beside(emit, block, n, top, together)
    single = build.icmp_signed("==", build.load(n_above), goal)
    second = build.select(single, after, middle)
    results = (without_sign(emit, middle), lower), (without_sign(emit, second), higher), (top, guess)
    for vector, target in ((valid, counts), *results, (build.load(secant.kept), spacing)):
        emit.store(vector, target)
    return emit.nothing()


@vector_code(types.void, _take_lanes)
def take_lanes(
    emit: Emit, values: Any, use: Any, pitch: Any, rows: Any, vectors: Any, low: Any, high: Any,
    block: Any, block_pitch: Any, block_step: Any,
) -> Any:  # fmt: skip
    """Copy the values of a rectangle that take part; the others become :data:`EXCLUDED`.

    Parameters
    ----------
    values, use
        float32 and uint8: ``rows`` times ``vectors`` times :data:`LANES` pixels, a row ``pitch`` after the other.
    low, high
        Smallest and largest value that takes part, finite float32.
    block
        float32, filled: a row ``block_pitch`` after the other, a vector in it ``block_step`` after the other.
    """
    build = emit.build
    smallest, largest = emit.splat(low, LANES), emit.splat(high, LANES)
    with emit.loop(rows) as row:
        source, target = build.mul(row, pitch), build.mul(row, block_pitch)
        with emit.loop(vectors) as vector:
            at, to = row_of(emit, vector), build.add(target, build.mul(vector, block_step))
            pixels = emit.load(emit.at(emit.at(values, source), at), LANES)
            used = emit.load(emit.at(emit.at(use, source), at), LANES)
            taken = build.icmp_unsigned("!=", used, constant(used.type, 0))
            taken = build.and_(taken, build.fcmp_ordered(">=", pixels, smallest))
            taken = build.and_(taken, build.fcmp_ordered("<=", pixels, largest))
            emit.store(build.select(taken, pixels, floats(np.inf)), emit.at(block, to))
    return emit.nothing()


@vector_code(types.void, _turn_lanes)
def turn_lanes(emit: Emit, lines: Any, step: Any, block: Any, n: Any) -> Any:
    """Turn :data:`LANES` lines of ``n`` values, ``step`` apart, into a block (n, lane); n is a multiple of 8."""
    build = emit.build
    eight = range(TURNED)
    with emit.loop(n, TURNED) as first:
        for lane in range(0, LANES, TURNED):
            rows = [emit.load(emit.at(emit.at(lines, build.mul(step, step.type(lane + i))), first), 8) for i in eight]
            for half in (1, 2, 4):  # squares of 2, then 4, then 8 values change sides
                keep = [i if i & half == 0 else i - half + TURNED for i in eight]
                swap = [i + half if i & half == 0 else i + TURNED for i in eight]
                rows = [emit.shuffle(rows[i & ~half], rows[i | half], swap if i & half else keep) for i in eight]
            at = emit.at(block, build.add(row_of(emit, first), first.type(lane)))
            for i in eight:
                emit.store(rows[i], at, i * LANES)
    return emit.nothing()
