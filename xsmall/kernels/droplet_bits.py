"""A bit for each pixel of a frame, 64 pixels to a word: which pixels are seeds of droplets, and which join them.

Nearly all words are zero and cost a few vector comparisons; what follows walks set bits only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = [
    "LAST",
    "ONE",
    "WORD",
    "ZERO",
    "corners",
    "keep_fit",
    "mark_seeds",
    "members_of",
    "pack",
    "place_of",
]

WORD = 64
ONE = np.uint64(1)
ZERO = np.uint64(0)
LAST = np.uint64(63)
_SHIFT = np.uint64(58)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # every window of six bits is another number: finds the place of a lone bit
_PLACE = np.zeros(64, np.int64)
for _i in range(64):
    _PLACE[((0x03F79D71B4CB0A89 << _i) & 0xFFFFFFFFFFFFFFFF) >> 58] = _i


@njit
def place_of(bit: Any) -> Any:
    return _PLACE[(bit * _DE_BRUIJN) >> _SHIFT]


@njit
def mark_seeds(frame: Any, high: Any, seeds: Any) -> None:
    """Bits of the pixels that are at least ``high``; no branch inside, so that 64 pixels are a few vector steps."""
    rows, columns = frame.shape
    full = columns // WORD
    for r in range(rows):
        for w in range(full):
            pixels = frame[r, w * WORD : w * WORD + WORD]
            word = ZERO
            for i in range(WORD):
                word |= np.uint64(pixels[i] >= high) << np.uint64(i)
            seeds[r + 1, w + 1] = word
    if full * WORD == columns:
        return
    for r in range(rows):
        word = ZERO
        for i in range(columns - full * WORD):
            word |= np.uint64(frame[r, full * WORD + i] >= high) << np.uint64(i)
        seeds[r + 1, full + 1] = word


@njit
def keep_fit(frame: Any, top: Any, use: Any, seeds: Any, busy: Any) -> None:
    """Clear the seeds that are not used or not finite; mark the rows that keep some as busy."""
    for r in range(use.shape[0]):
        any_bit = ZERO
        for w in range(use.shape[1]):
            any_bit |= seeds[r + 1, w + 1]
        busy[r + 1] = False
        if any_bit == ZERO:
            continue
        for w in range(use.shape[1]):
            todo = seeds[r + 1, w + 1] & use[r, w]
            kept = todo
            while todo != ZERO:
                bit = todo & (~todo + ONE)
                todo ^= bit
                if not frame[r, w * WORD + place_of(bit)] <= top:
                    kept ^= bit
            seeds[r + 1, w + 1] = kept
            busy[r + 1] |= kept != ZERO


@njit
def members_of(frame: Any, r: Any, w: Any, found: Any, ring: Any, low: Any, top: Any) -> Any:
    """Bits of the word's seeds (``found``) and of the pixels in the ring that are at least ``low``."""
    while ring != ZERO:
        bit = ring & (~ring + ONE)
        ring ^= bit
        value = frame[r, w * WORD + place_of(bit)]
        if (value >= low) & (value <= top):
            found |= bit
    return found


@njit
def corners(seeds: Any, r: Any, w: Any) -> Any:
    """Bits of the pixels of a word that have a seed to the left or right in another row."""
    here = seeds[r, w + 1]
    return (here << ONE) | (here >> ONE) | (seeds[r, w] >> LAST) | (seeds[r, w + 2] << LAST)


@njit
def pack(use: Any) -> Any:
    words = np.zeros((use.shape[0], (use.shape[1] + 63) // 64), np.uint64)
    for r in range(use.shape[0]):
        for c in range(use.shape[1]):
            words[r, c // 64] |= np.uint64(use[r, c]) << np.uint64(c % 64)
    return words
