"""Gain codes of raw words: which pixels of a block have another one than most, found 64 at a time.

Kernels do a block of pixels as if all had the usual code, and then mend the few that have another.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import Emit, lowest, vector_code

__all__ = [
    "BLOCK",
    "FRAMES",
    "GROUP",
    "find_others",
    "others_of",
    "participation_piece",
    "participation_stack",
    "scale_codes",
    "usual_code",
]

Words: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Int: TypeAlias = int | np.int32
Word: TypeAlias = int | np.uint16

BLOCK = 512
"""Pixels that go through together: words and results of four frames and the constants stay in the nearest cache."""

FRAMES = 4
"""Frames that go through together, so that the constants of a pixel are loaded once for all of them."""

GROUP = 64
"""Pixels whose codes are compared at once: their answers fill a word."""


@njit
def _others_of(words: Words, first: int, usual: Word, code_bits: Word) -> Any:
    """Do what :func:`others_of` does, pixel by pixel."""
    bits = np.uint64(0)
    for i in range(GROUP):
        if np.uint16(words[first + i] & code_bits) != usual:
            bits |= np.uint64(1) << np.uint64(i)
    return bits


@vector_code(types.uint64, _others_of)
def others_of(emit: Emit, words: Any, first: Any, usual: Any, code_bits: Any) -> Any:
    """Return which of the 64 pixels from ``first`` on have another code than the usual one, as bits."""
    code = emit.build.and_(emit.load(emit.at(words, first), GROUP), emit.splat(code_bits, GROUP))
    other = emit.build.icmp_unsigned("!=", code, emit.splat(usual, GROUP))
    return emit.bits(other)


@njit(inline="always")
def usual_code(words: Words, plane: Integers, code_shift: Int, code_bits: Word) -> Word:
    """Guess the code that most pixels of a block have, at its place in the word: that of two of them, or 0."""
    code = np.uint16(words[0] & code_bits)
    same = code == np.uint16(words[words.size // 2] & code_bits)
    return code if same and plane[code >> code_shift] >= 0 else np.uint16(0)


@njit(inline="always")
def find_others(words: Words, usual: Word, code_bits: Word, found: Integers) -> int:
    """Write down which pixels of a block have another code than the usual one; return how many."""
    n = 0
    whole = words.size // GROUP * GROUP
    for start in range(0, whole, GROUP):
        bits = others_of(words, start, usual, code_bits)
        while bits:
            found[n] = start + lowest(bits)
            bits &= bits - np.uint64(1)
            n += 1
    for i in range(whole, words.size):
        if np.uint16(words[i] & code_bits) != usual:
            found[n] = i
            n += 1
    return n


@njit
def participation_stack(
    raw: Words,
    raw_step: int,
    k: int,
    takes_part: Integers,
    good: Integers,
    code_shift: Int,
    code_mask: Int,
    use: Integers,
) -> None:
    """Say which pixels take part in the estimate of a common mode: those that are good and in a chosen gain code.

    Parameters
    ----------
    takes_part
        (code, pixel) uint8: 1 where a pixel of this code takes part; its second axis may have length 1.
    good
        (pixel) uint8.
    use
        (k, pixel) uint8, filled.
    """
    for start in range(0, good.size, BLOCK):
        stop = min(start + BLOCK, good.size)
        for j in range(k):
            words = raw[j * raw_step + start : j * raw_step + stop]
            participation_piece(words, takes_part, good, start, code_shift, code_mask, use[j, start:stop])


@njit
def participation_piece(
    words: Words, takes_part: Integers, good: Integers, start: int, code_shift: Int, code_mask: Int, use: Integers
) -> None:
    """Say it of the pixels of one frame from ``start`` on, up to :data:`BLOCK`."""
    per_pixel, code_bits = takes_part.shape[1] > 1, np.uint16(code_mask << code_shift)
    found = np.empty(BLOCK, np.int64)
    sound = good[start : start + words.size]
    if per_pixel:
        of_first = takes_part[0, start : start + words.size]
        for i in range(use.size):
            use[i] = sound[i] & of_first[i]
    else:
        for i in range(use.size):
            use[i] = sound[i] & takes_part[0, 0]
    others = find_others(words, np.uint16(0), code_bits, found) if code_bits else 0
    for f in range(others):
        i = found[f]
        code = (words[i] & code_bits) >> code_shift
        use[i] = sound[i] & takes_part[code, start + i if per_pixel else 0]


@njit
def scale_codes(
    raw: Words, raw_step: int, k: int, factor: Values, code_shift: Int, code_mask: Int, out: Values, n: int
) -> None:
    """Multiply ``k`` frames of ``n`` pixels, one behind the other in ``out``, by a factor of each pixel's gain code.

    ``factor`` is (code) float32; ``out`` is changed in place.
    """
    for j in range(k):
        for i in range(n):
            out[j * n + i] *= factor[(np.int32(raw[j * raw_step + i]) >> code_shift) & code_mask]
