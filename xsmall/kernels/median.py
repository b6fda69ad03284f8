"""Exact medians of many units of pixels, sixteen at a time.

Sixteen units stand side by side, one to a lane: columns lie in lanes already, stretches of rows are turned, units of
thousands of pixels are searched one after the other, spread over the lanes. Up to 64 pixels of a unit are sorted by a
network (:mod:`xsmall.kernels.median_network`). Longer ones need no order, only counts: how many values of a unit lie at
or below a trial value (:mod:`xsmall.kernels.median_search`). The answer is exact, and does not depend on the guess that
the units before hand on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit
from xsmall.kernels.median_network import NETWORK, sort_lanes
from xsmall.kernels.median_search import (
    EXCLUDED,
    LANES,
    LARGEST,
    TURNED,
    UNROLLED,
    search_lanes,
    take_lanes,
    turn_lanes,
)

__all__ = ["column_medians", "row_medians", "unit_medians"]

LARGE = 4096
"""Units of more pixels than this are searched one at a time: sixteen of them would leave the cache."""

_STRIPS = 2  # times LANES columns that are copied at once: whole lines of the cache, and few pages
_FINITE = np.float32(LARGEST)


@njit
def _take_rest(
    image: Any, use: Any, row: Any, column: Any, rows: Any, width: Any, low: Any, high: Any, block: Any, pitch: Any
) -> None:
    """Do what :func:`take_lanes` does for fewer columns than lanes; the rest of a row of ``block`` is left."""
    for r in range(rows):
        for c in range(width):
            v = image[row + r, column + c]
            taken = (use[row + r, column + c] != 0) & (v >= low) & (v <= high)
            block[r * pitch + c] = v if taken else EXCLUDED


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


@njit(inline="always")
def _rounded_up(rows: Any) -> Any:
    """Rows of a block that has room for so many."""
    return (rows + UNROLLED - 1) // UNROLLED * UNROLLED


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
    n = _rounded_up(rows)
    size = n * LANES
    block, found = np.full(size * _STRIPS, EXCLUDED, np.float32), np.zeros(LANES, np.int32)
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
                rest[:] = EXCLUDED
                _take_rest(image, use, r, c + whole * LANES, rows, width % LANES, low, high, rest, LANES)
            for first in range(0, width, LANES):
                search_lanes(block[first * n :], n, found, guess, spacing, False, lower, higher)
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
    step = np.int64((pixels + TURNED - 1) // TURNED * TURNED)
    lines = np.full(step * LANES, EXCLUDED, np.float32)
    block = np.full((NETWORK if step <= NETWORK else step) * LANES, EXCLUDED, np.float32)
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
            lines[:] = EXCLUDED
            for lane in range(lanes):
                r, c = (start + lane) // per_row * rows, (start + lane) % per_row * pitch + first
                _take_unit(image, use, r, c, rows, width, low, high, lines[lane * step : (lane + 1) * step])
        turn_lanes(lines, step, block, step)
        if step <= NETWORK:
            block[step * LANES :] = EXCLUDED
            sort_lanes(block, found, lower, higher)
        else:
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
    step = _rounded_up((pixels + LANES - 1) // LANES)
    block = np.full(step * LANES, EXCLUDED, np.float32)
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
