"""Exact medians of many units of pixels, sixteen at a time.

A median needs no order, only counts: how many values of a unit lie at or below a trial value. Sixteen units stand side
by side, one to a lane, so that a trial is one comparison per sixteen pixels, and every lane searches for itself: a
secant step towards the wanted count from the last two trials, and, once it is near or after five of them, a look at the
very values on both sides of the trial, which settles ties as well. Five to eight trials are enough in practice. What
the secant does not find is found by halving the keys of the bracket (integers that order like the floats they stand
for), which ends after 32 times at the latest. The answer is exact, and does not depend on the guess that the units
before hand on.

Units of thousands of pixels are searched one after the other, spread over the lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, I1, I32, Emit, constant, ir, vector_code

__all__ = ["column_medians", "row_medians", "unit_medians"]

LANES = 16
LARGE = 4096
"""Units of more pixels than this are searched one at a time: sixteen of them would leave the cache."""

_STRIPS = 4  # times LANES columns that are copied at once: whole lines of the cache, and few pages
_TURNED = 8  # pixels of eight lines that are turned in registers
_SECANTS = 5  # trials before the neighbours of a trial are looked at, if it is not near before
_HALVING = 24  # trials before the plain halving of keys
_LAST = 0x7F7FFFFF  # key of the largest float32; that of the smallest is its negative
_INTS, _FLOATS = ir.VectorType(I32, LANES), ir.VectorType(F32, LANES)
_FINITE = np.float32(np.finfo(np.float32).max)


def _key_of(emit: Emit, values: Any) -> Any:
    """Integers that order like floats: the magnitude with its sign."""
    build = emit.build
    bits = build.bitcast(values, _INTS)
    sign = build.ashr(bits, constant(_INTS, 31))
    magnitude = build.and_(bits, constant(_INTS, 0x7FFFFFFF))
    return build.sub(build.xor(magnitude, sign), sign)


def _value_of(emit: Emit, keys: Any) -> Any:
    """Floats whose keys these are."""
    build = emit.build
    sign = build.ashr(keys, constant(_INTS, 31))
    magnitude = build.sub(build.xor(keys, sign), sign)
    return build.bitcast(build.or_(magnitude, build.and_(sign, constant(_INTS, -0x80000000))), _FLOATS)


def _count(emit: Emit, block: Any, n: Any, at: Any, together: Any) -> Any:
    """How many values of each lane are at or below ``at``; of all lanes where they are one unit."""
    build = emit.build
    found = emit.variable(constant(_INTS, 0))
    with emit.loop(n) as row:
        below = build.fcmp_ordered("<=", emit.load(emit.at(block, _row(emit, row)), LANES), at)
        build.store(build.sub(build.load(found), build.sext(below, _INTS)), found)
    counts = build.load(found)
    return build.select(together, emit.splat(emit.across("add", counts), LANES), counts)


def _beside(emit: Emit, block: Any, n: Any, at: Any, together: Any) -> tuple[Any, Any]:
    """Find the largest value at or below ``at`` and the smallest above it, of each lane or of all."""
    build = emit.build
    lowest, highest = constant(_FLOATS, float("-inf")), constant(_FLOATS, float("inf"))
    under, over = emit.variable(lowest), emit.variable(highest)
    with emit.loop(n) as row:
        values = emit.load(emit.at(block, _row(emit, row)), LANES)
        small, large = build.fcmp_ordered("<=", values, at), build.fcmp_ordered(">", values, at)
        here, there = build.select(small, values, lowest), build.select(large, values, highest)
        most, least = build.load(under), build.load(over)
        build.store(build.select(build.fcmp_ordered(">", here, most), here, most), under)
        build.store(build.select(build.fcmp_ordered("<", there, least), there, least), over)
    lower, higher = build.load(under), build.load(over)
    of_all = (emit.splat(emit.across(name, v), LANES) for name, v in (("fmax", lower), ("fmin", higher)))
    one, other = of_all
    return build.select(together, one, lower), build.select(together, other, higher)


def _row(emit: Emit, row: Any) -> Any:
    return emit.build.mul(row, row.type(LANES))


class _Bracket:
    """Keys of each lane between which the wanted value lies: too few values up to ``below``, enough up to ``above``."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.below = emit.variable(constant(_INTS, -_LAST - 1))
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


@vector_code(types.void)
def search_lanes(
    emit: Emit, block: Any, n: Any, counts: Any, guess: Any, spacing: Any, together: Any, lower: Any, higher: Any
) -> Any:
    """Find the two middle values of each lane.

    Parameters
    ----------
    block
        float32 (n, lane); NaN takes no part.
    counts
        (lane) int32, filled: values that are not NaN.
    guess, spacing
        (lane) float32: first trial, and how far values lie apart near it; changed to those for the units to come.
    together
        Whether all lanes are one unit (bool), whose results then stand in every lane.
    lower, higher
        (lane) float32, filled: the middle value, or the lower one of the two of an even number, and the next, which
        equals it where it occurs more than once. Without meaning in a lane without values.
    """
    build, one = emit.build, constant(_INTS, 1)
    valid = _count(emit, block, n, constant(_FLOATS, float("inf")), together)
    goal = build.ashr(build.add(valid, one), one)
    bracket, secant = _Bracket(emit), _Secant(emit, emit.load(spacing, LANES))
    at, n_above = emit.variable(emit.load(guess, LANES)), emit.variable(constant(_INTS, 0))
    trial, looked = emit.variable(I32(0)), emit.variable(I1(0))
    again, further, found = (build.append_basic_block(name) for name in ("trial", "further", "found"))
    build.branch(again)

    build.position_at_end(again)
    here, step = build.load(at), build.load(trial)
    count, key = _count(emit, block, n, here, together), _key_of(emit, here)
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
        under, over = (_key_of(emit, v) for v in _beside(emit, block, n, here, together))
        bracket.narrow(enough, build.sub(over, one), under)
        build.store(build.select(enough, build.sub(under, one), over), wish)
    chosen = bracket.choose(build.load(wish), early)
    build.store(build.select(done, here, _value_of(emit, chosen)), at)
    build.branch(again)

    build.position_at_end(found)
    top = _value_of(emit, build.load(bracket.above))
    middle, after = _beside(emit, block, n, top, together)
    single = build.icmp_signed("==", build.load(n_above), goal)
    results = (valid, counts), (middle, lower), (build.select(single, after, middle), higher)
    for vector, target in (*results, (top, guess), (build.load(secant.kept), spacing)):
        emit.store(vector, target)
    return emit.nothing()


@vector_code(types.void)
def take_lanes(
    emit: Emit, values: Any, use: Any, pitch: Any, rows: Any, vectors: Any, low: Any, high: Any,
    block: Any, block_pitch: Any, block_step: Any,
) -> Any:  # fmt: skip
    """Copy the values of a rectangle that take part, NaN in place of the others.

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
            at, to = _row(emit, vector), build.add(target, build.mul(vector, block_step))
            pixels = emit.load(emit.at(emit.at(values, source), at), LANES)
            used = emit.load(emit.at(emit.at(use, source), at), LANES)
            taken = build.icmp_unsigned("!=", used, constant(used.type, 0))
            taken = build.and_(taken, build.fcmp_ordered(">=", pixels, smallest))
            taken = build.and_(taken, build.fcmp_ordered("<=", pixels, largest))
            kept = build.select(taken, pixels, constant(_FLOATS, float("nan")))
            emit.store(kept, emit.at(block, to))
    return emit.nothing()


@vector_code(types.void)
def turn_lanes(emit: Emit, lines: Any, step: Any, block: Any, n: Any) -> Any:
    """Turn :data:`LANES` lines of ``n`` values, ``step`` apart, into a block (n, lane); n is a multiple of 8."""
    build = emit.build
    eight = range(_TURNED)
    with emit.loop(n, _TURNED) as first:
        for lane in range(0, LANES, _TURNED):
            rows = [emit.load(emit.at(emit.at(lines, build.mul(step, step.type(lane + i))), first), 8) for i in eight]
            for half in (1, 2, 4):  # squares of 2, then 4, then 8 values change sides
                keep = [i if i & half == 0 else i - half + _TURNED for i in eight]
                swap = [i + half if i & half == 0 else i + _TURNED for i in eight]
                rows = [emit.shuffle(rows[i & ~half], rows[i | half], swap if i & half else keep) for i in eight]
            at = emit.at(block, build.add(_row(emit, first), first.type(lane)))
            for i in eight:
                emit.store(rows[i], at, i * LANES)
    return emit.nothing()


@njit
def _take_rest(
    image: Any, use: Any, row: Any, column: Any, rows: Any, width: Any, low: Any, high: Any, block: Any, pitch: Any
) -> None:
    """Do what :func:`take_lanes` does for fewer columns than lanes; the rest of a row of ``block`` is left."""
    for r in range(rows):
        for c in range(width):
            v = image[row + r, column + c]
            taken = (use[row + r, column + c] != 0) & (v >= low) & (v <= high)
            block[r * pitch + c] = v if taken else np.float32(np.nan)


@njit
def _take_unit(
    image: Any, use: Any, row: Any, column: Any, rows: Any, width: Any, low: Any, high: Any, line: Any
) -> None:
    """Copy the pixels of a unit into ``line``, row by row."""
    pitch, vectors = np.int64(image.shape[1]), np.int64(width // LANES)
    start, whole = row * pitch + column, vectors * LANES
    take_lanes(
        image.reshape(-1)[start:],
        use.reshape(-1)[start:],
        pitch,
        rows,
        vectors,
        low,
        high,
        line,
        np.int64(width),
        LANES,
    )
    if whole < width:
        _take_rest(image, use, row, column + whole, rows, width - whole, low, high, line[whole:], width)


@njit
def _settle(u: Any, n: Any, lower: Any, higher: Any, medians: Any, lowers: Any, counts: Any) -> None:
    """Write the results of unit ``u``."""
    middle = (np.float64(lower) + np.float64(higher)) * 0.5 if n % 2 == 0 else np.float64(lower)
    medians[u], lowers[u], counts[u] = (middle if n > 0 else np.nan), lower, n


@njit
def _of_columns(image: Any, use: Any, rows: Any, low: Any, high: Any, medians: Any, lowers: Any, counts: Any) -> None:
    """Medians of units that are one column wide."""
    columns, pitch = image.shape[1], np.int64(image.shape[1])
    values, used = image.reshape(-1), use.reshape(-1)
    size = rows * LANES
    block, found = np.empty(size * _STRIPS, np.float32), np.zeros(LANES, np.int32)
    guess, spacing = np.zeros(LANES, np.float32), np.full(LANES, np.float32(1))
    lower, higher = guess.copy(), guess.copy()
    for r in range(0, image.shape[0], rows):
        for c in range(0, columns, LANES * _STRIPS):
            width = min(LANES * _STRIPS, columns - c)
            whole = width // LANES
            take_lanes(
                values[r * pitch + c :], used[r * pitch + c :], pitch, rows, whole, low, high, block, LANES, size
            )
            if width % LANES:
                rest = block[whole * size : (whole + 1) * size]
                rest[:] = np.float32(np.nan)
                _take_rest(image, use, r, c + whole * LANES, rows, width % LANES, low, high, rest, LANES)
            for first in range(0, width, LANES):
                search_lanes(block[first * rows :], rows, found, guess, spacing, False, lower, higher)
                u = r // rows * columns + c + first
                for lane in range(min(LANES, width - first)):
                    _settle(u + lane, found[lane], lower[lane], higher[lane], medians, lowers, counts)


@njit
def _of_stretches(
    image: Any, use: Any, rows: Any, pitch: Any, first: Any, width: Any, low: Any, high: Any,
    medians: Any, lowers: Any, counts: Any,
) -> None:  # fmt: skip
    """Medians of units of up to :data:`LARGE` pixels, sixteen at a time: each is laid out as a line, then turned."""
    per_row, pixels = image.shape[1] // pitch, rows * width
    step = np.int64((pixels + _TURNED - 1) // _TURNED * _TURNED)
    lines, block = np.full(step * LANES, np.float32(np.nan)), np.empty(step * LANES, np.float32)
    guess, spacing = np.zeros(LANES, np.float32), np.full(LANES, np.float32(1))
    lower, higher, found = guess.copy(), guess.copy(), np.empty(LANES, np.int32)
    values, used = image.reshape(-1), use.reshape(-1)
    in_a_row = rows == 1 and width == pitch and step == pixels  # units follow each other as the lines do
    for start in range(0, medians.size, LANES):
        lanes = min(LANES, medians.size - start)
        if in_a_row and lanes == LANES:
            at = start * step
            take_lanes(values[at:], used[at:], 0, 1, step, low, high, lines, 0, LANES)
        else:
            lines[:] = np.float32(np.nan)
            for lane in range(lanes):
                r, c = (start + lane) // per_row * rows, (start + lane) % per_row * pitch + first
                _take_unit(image, use, r, c, rows, width, low, high, lines[lane * step : (lane + 1) * step])
        turn_lanes(lines, step, block, step)
        search_lanes(block, step, found, guess, spacing, False, lower, higher)
        for lane in range(lanes):
            _settle(start + lane, found[lane], lower[lane], higher[lane], medians, lowers, counts)


@njit
def _of_large_units(
    image: Any, use: Any, rows: Any, pitch: Any, first: Any, width: Any, low: Any, high: Any,
    medians: Any, lowers: Any, counts: Any,
) -> None:  # fmt: skip
    """Medians of units of any size, one after the other, each spread over the lanes."""
    per_row, pixels = image.shape[1] // pitch, rows * width
    step = (pixels + LANES - 1) // LANES
    block = np.full(step * LANES, np.float32(np.nan))
    guess, spacing = np.zeros(LANES, np.float32), np.full(LANES, np.float32(1))
    lower, higher, found = guess.copy(), guess.copy(), np.empty(LANES, np.int32)
    for u in range(medians.size):
        r, c = u // per_row * rows, u % per_row * pitch + first
        _take_unit(image, use, r, c, rows, width, low, high, block)
        search_lanes(block, step, found, guess, spacing, True, lower, higher)
        _settle(u, found[0], lower[0], higher[0], medians, lowers, counts)


@njit
def unit_medians(
    image: Any, use: Any, rows: Any, pitch: Any, first: Any, stop: Any, low: Any, high: Any,
    medians: Any, lowers: Any, counts: Any,
) -> None:  # fmt: skip
    """Find the medians of all units of an image.

    Parameters
    ----------
    image, use
        float32 and uint8 (row, column), contiguous; 0 in ``use`` takes no part.
    rows, pitch, first, stop
        A unit is ``rows`` x ``pitch`` pixels, of which the columns from ``first`` to ``stop`` take part. Rows of units
        divide those of the image.
    low, high
        Smallest and largest value that takes part, finite float32: NaN and infinities never do.
    medians, lowers, counts
        (unit), row by row, filled: float64, NaN without pixels; the lower of the two middle values, float32; int32.
    """
    width = stop - first
    if pitch == 1:
        _of_columns(image, use, rows, low, high, medians, lowers, counts)
    elif rows * width <= LARGE:
        _of_stretches(image, use, rows, pitch, first, width, low, high, medians, lowers, counts)
    else:
        _of_large_units(image, use, rows, pitch, first, width, low, high, medians, lowers, counts)


def row_medians(
    image: npt.NDArray[np.float32], use: npt.NDArray[np.uint8] | None = None, width: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the exact median of each row, or of each stretch of ``width`` pixels of it, and how many pixels it has.

    Parameters
    ----------
    image
        float32 (row, column), contiguous.
    use
        uint8 (row, column), 0 takes no part; NaN and infinities never do.
    width
        Pixels of a stretch, a divisor of the number of columns; None takes whole rows.

    Returns
    -------
    Medians, float64 (row, stretch), NaN where no pixel takes part, and counts, int32.

    Examples
    --------
    >>> import numpy as np
    >>> medians, counts = row_medians(np.array([[1, 9, 2, np.nan]], np.float32))
    >>> medians.item(), counts.item()
    (2.0, 3)
    """
    return _medians(image, use, 1, width or image.shape[1])


def column_medians(
    image: npt.NDArray[np.float32], use: npt.NDArray[np.uint8] | None = None, height: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the exact median of each column, or of each stretch of ``height`` pixels of it, and how many it has.

    Parameters
    ----------
    image, use
        As in :func:`row_medians`.
    height
        Pixels of a stretch, a divisor of the number of rows; None takes whole columns.

    Returns
    -------
    Medians, float64 (stretch, column), NaN where no pixel takes part, and counts, int32.

    Examples
    --------
    >>> import numpy as np
    >>> column_medians(np.array([[1, 4], [2, 5]], np.float32))[0]
    array([[1.5, 4.5]])
    """
    return _medians(image, use, height or image.shape[0], 1)


def _medians(
    image: npt.NDArray[np.float32], use: npt.NDArray[np.uint8] | None, rows: int, columns: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    shape = image.shape[0] // rows, image.shape[1] // columns
    medians, counts = np.empty(shape), np.empty(shape, np.int32)
    taking = np.ones(image.shape, np.uint8) if use is None else use
    unit_medians(
        np.ascontiguousarray(image, np.float32), taking, rows, columns, 0, columns, -_FINITE, _FINITE,
        medians.reshape(-1), np.empty(medians.size, np.float32), counts.reshape(-1),
    )  # fmt: skip
    return medians, counts
