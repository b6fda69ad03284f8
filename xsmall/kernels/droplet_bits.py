"""A bit for each pixel of a frame, 64 pixels to a word: which pixels lie between two values.

A word is a few vector comparisons. Nearly all words are zero; what follows walks set bits only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import Emit, lowest, vector_code

__all__ = ["BLOCK", "ONE", "WORD", "ZERO", "level_at", "levels_of", "list_members", "mark_rows"]

WORD = 64
ONE = np.uint64(1)
ZERO = np.uint64(0)
LAST = np.uint64(63)
BLOCK = 64
"""Rows that are marked, and looked at again while they are in the cache."""
_AT_ONCE = 4


@njit(forceinline=True)
def level_at(frame: Any, per_noise: Any, r: Any, c: Any) -> Any:
    """What is compared with thresholds: the value of a pixel, or that in units of its noise."""
    if per_noise is None:
        return frame[r, c]
    return frame[r, c] * per_noise[r, c]


@njit
def _few_between(row: Any, start: Any, n: Any, low: Any, high: Any) -> Any:
    """Do what :func:`_between` does for ``n`` pixels, one by one."""
    word = ZERO
    for i in range(n):
        word |= np.uint64((row[start + i] >= low) & (row[start + i] <= high)) << np.uint64(i)
    return word


@njit
def _plain_between(row: Any, start: Any, low: Any, high: Any) -> Any:
    return _few_between(row, start, WORD, low, high)


@vector_code(types.uint64, _plain_between)
def _between(emit: Emit, row: Any, start: Any, low: Any, high: Any) -> Any:
    """Bits of the 64 pixels from ``start`` on that are at least ``low`` and at most ``high``; NaN is not."""
    pixels = emit.load(emit.at(row, start), WORD)
    above = emit.build.fcmp_ordered(">=", pixels, emit.splat(low, WORD))
    below = emit.build.fcmp_ordered("<=", pixels, emit.splat(high, WORD))
    return emit.bits(emit.build.and_(above, below))


@njit(forceinline=True)
def _bits_set(word: Any) -> Any:
    """Bits of a word that are set, added up in pairs, in fours, in bytes; one instruction to the compiler."""
    word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(forceinline=True)
def _word_of(pixels: Any, first: Any, width: Any, w: Any, low: Any, high: Any) -> Any:
    """Bits of word ``w`` of the row that begins at pixel ``first``: what is at least ``low`` and at most ``high``."""
    start = w * WORD
    if start + WORD <= width:
        return _between(pixels, first + start, low, high)
    if width >= WORD:  # the last 64 pixels, without those that the word before has
        return _between(pixels, first + width - WORD, low, high) >> np.uint64(start + WORD - width)
    return _few_between(pixels, first + start, width - start, low, high)


@njit(forceinline=True)
def _first(per_noise: Any, r: Any, width: Any) -> Any:
    """Where a row begins among the values that are compared with thresholds."""
    if per_noise is None:
        return r * width
    return r % (BLOCK + 2) * width


@njit
def levels_of(frame: Any, per_noise: Any) -> Any:
    """Return what is compared with thresholds, and the room in which some rows of it are made where there is noise.

    Without noise it is the frame, which may be read-only: so the room is an array of its own.
    """
    rows = 0 if per_noise is None else BLOCK + 2
    room = np.empty(rows * frame.shape[1], frame.dtype)
    return (frame.reshape(-1) if per_noise is None else room), room


@njit
def mark_rows(
    frame: Any, per_noise: Any, made: Any, low: Any, high: Any, use: Any, rows: Any, seeds: Any, busy: Any
) -> None:
    """Mark the pixels of rows that are used and from ``low`` to ``high``.

    Parameters
    ----------
    frame, per_noise
        (row, column) values, and what they are multiplied by first, or None.
    made
        From :func:`levels_of`; a block of rows, and one more, is filled in where there is noise.
    low, high
        Lowest and highest value.
    use
        Bits (row, word) of the pixels that are used.
    rows
        The first row and the one after the last.
    seeds
        (row + 2, word + 2), filled but for the border.
    busy
        (row + 2,) boolean, filled but for the border: whether a row has any.
    """
    width = frame.shape[1]
    levels, room = made
    for r in range(rows[0], rows[1]):
        first, together = _first(per_noise, r, width), ZERO
        if per_noise is not None:
            for c in range(width):
                room[first + c] = level_at(frame, per_noise, r, c)
        for w in range(use.shape[1]):
            word = _word_of(levels, first, width, w, low, high) & use[r, w]
            seeds[r + 1, w + 1] = word
            together |= word
        busy[r + 1] = together != ZERO


@njit(forceinline=True)
def _list_columns(word: Any, start: Any, columns: Any, n: Any) -> Any:
    """Append the places of the bits of a word, ``start`` and more, to a list; return its new length.

    Four places are written whether there are as many or not, which is quicker than to find out: the list needs room
    for four more than it will have.
    """
    end = n + _bits_set(word)
    while True:
        for i in range(_AT_ONCE):
            columns[n + i] = start + lowest(word)
            word &= word - ONE
        n += _AT_ONCE
        if n >= end:
            return end


@njit(forceinline=True)
def _beside_seeds(seeds: Any, r: Any, w: Any) -> Any:
    """Bits of the pixels of a word that have a seed to the left or right."""
    here = seeds[r, w]
    return (here << ONE) | (here >> ONE) | (seeds[r, w - 1] >> LAST) | (seeds[r, w + 1] << LAST)


@njit
def list_members(
    levels: Any, per_noise: Any, limits: Any, use: Any, rows: Any, bits: Any, flood: Any, diagonal: Any, listed: Any
) -> Any:
    """List the columns of rows that are seeds, or lie in the ring around seeds and are between two values.

    Parameters
    ----------
    levels, per_noise, use, rows
        As in :func:`mark_rows`.
    limits
        Lowest and highest value of the ring, and the width of the frame.
    bits
        (seeds, busy, rings, near): the former as in :func:`mark_rows`, the latter room for (word,) uint64 and int64.
    flood
        True if there is no ring, or None.
    diagonal
        True if pixels that share a corner are neighbours, or None.
    listed
        (columns, row, end), filled: the columns of all members, row after row, with room for four more; the number of
        each row that has members, and where its columns end.

    Returns
    -------
    Number of rows that have members.
    """
    low, high, width = limits
    seeds, busy, rings, near = bits
    columns, row_of, end_of = listed
    n, k = np.int64(0), np.int64(0)
    for r in range(rows[0], rows[1]):
        if not (busy[r] | busy[r + 1] | busy[r + 2]):
            continue
        m = np.int64(0)
        for w in range(use.shape[1]):  # no branch: whether a word has something cannot be foretold
            here, ring = seeds[r + 1, w + 1], ZERO
            if flood is None:
                ring = _beside_seeds(seeds, r + 1, w + 1) | seeds[r, w + 1] | seeds[r + 2, w + 1]
                if diagonal is not None:
                    ring |= _beside_seeds(seeds, r, w + 1) | _beside_seeds(seeds, r + 2, w + 1)
                ring &= ~here & use[r, w]
            rings[m], near[m] = ring, w
            m += np.int64((ring | here) != ZERO)
        first, before = _first(per_noise, r, width), n
        for i in range(m):
            w = near[i]
            word = seeds[r + 1, w + 1]
            if flood is None:
                word |= rings[i] & _word_of(levels, first, width, w, low, high)
            n = _list_columns(word, w * WORD, columns, n)
        if n > before:
            row_of[k], end_of[k] = r, n
            k += 1
    return k
