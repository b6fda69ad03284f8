"""Azimuthal integration: pixels scattered into bins that a table gives, four frames at a time.

Neighbouring pixels fall into the same bin, so that each sum would wait for the one before. Where eight or four
neighbours have one bin they are added up first, as vectors; what is left, and that is the borders between bins, is
added pixel by pixel, even and odd ones to sums of their own. Which pixels go together is found once (:func:`arrange`).
Pixels that are never used are not read where they are many; the others have a last, surplus bin. How many pixels a bin
holds is known from the table; only what an event lacks is counted, pixel by pixel, where something is not finite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.kernels.azint_vectors import LANES, WIDE, add_square, add_strip, add_wide_strip, take_finite
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import LINE, fetch_line, lowest

__all__ = ["BLOCK", "LANES", "Strips", "arrange", "scatter", "sum_of_all"]

_STRIDE = 2 * LANES  # sums of a bin: even pixels, odd pixels
_EXACT = frozenset({"nsz"})  # sums in the order in which they are written
_FIRST, _STEP = np.uint64(0), np.uint64(LANES)
BLOCK = 128
"""Pixels that are gone through for each kind of strip in turn, while they are in the first cache."""
_AHEAD = 256
"""So many pixels before they are needed they are asked for."""
_MOSTLY = 0.8
"""So many of the strips of a block are mixed, and no others are worth looking for."""


class Strips(NamedTuple):
    """Which neighbouring pixels have one bin, of the pixels of a segment.

    Attributes
    ----------
    border
        (block + 1, 3): where the strips of each block begin among the wide, the narrow and the mixed ones.
    wide, wide_bin
        Strips of eight pixels that have one bin: where each begins in its block, in fours of pixels, and the bin.
    narrow, narrow_bin
        The same of strips of four pixels that are in none of those.
    mixed
        Where each other strip of four begins.
    plain
        (block,) boolean: whether nearly all strips of a block are mixed. Then all are taken for such, and not listed.
    """

    border: npt.NDArray[np.int32]
    wide: npt.NDArray[np.uint8]
    wide_bin: npt.NDArray[np.integer[Any]]
    narrow: npt.NDArray[np.uint8]
    narrow_bin: npt.NDArray[np.integer[Any]]
    mixed: npt.NDArray[np.uint8]
    plain: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(array.nbytes for array in self)


def arrange(index: npt.NDArray[np.integer[Any]], n: int) -> Strips:
    """Find the strips of a segment by the bins of its pixels: ``index`` (pixel,), where ``n`` stands for none."""
    strips = index[: index.size // LANES * LANES].reshape(-1, LANES)
    even = (strips == strips[:, :1]).all(axis=1)
    block = np.arange(len(strips)) // (BLOCK // LANES)
    blocks = -(-index.size // BLOCK)
    of_all = np.bincount(block, minlength=blocks)
    plain = np.bincount(block, ~even, minlength=blocks) > _MOSTLY * of_all
    pairs = len(strips) // 2 * 2
    first = np.zeros(len(strips), bool)
    first[:pairs:2] = even[:pairs:2] & even[1:pairs:2] & (strips[:pairs:2, 0] == strips[1:pairs:2, 0])
    alone = even & ~first
    alone[1:] &= ~first[:-1]
    listed = (~even | (strips[:, 0] != n)) & ~plain[block]
    found = [np.flatnonzero(kind & listed) for kind in (first, alone, ~even)]
    starts = np.arange(blocks + 1) * (BLOCK // LANES)
    border = np.stack([np.searchsorted(kind, starts) for kind in found], axis=1).astype(np.int32)
    wide, narrow, mixed = ((kind % (BLOCK // LANES)).astype(np.uint8) for kind in found)
    return Strips(border, wide, strips[found[0], 0], narrow, strips[found[1], 0], mixed, plain)


@njit(fastmath=_EXACT)
def scatter(
    a: Any, b: Any, c: Any, d: Any, strips: Any, index: Any, weight: Any, sums: Any, lost: Any, lost_weight: Any
) -> Any:
    """Add the pixels of four frames to the sums of their bins.

    Parameters
    ----------
    a, b, c, d
        (pixel,) one event each, contiguous; a short group repeats its last event and ignores what comes of it, so
        that the sums of an event do not depend on its company.
    strips
        From :func:`arrange`.
    index
        (pixel,) bin of each pixel, any unsigned or signed integer; the last bin takes what is not used.
    weight
        (pixel,) what a pixel counts for in ``lost_weight``, or empty: 1.
    sums
        (bin + 1, 2, 4) float64, contiguous, added to: even pixels, odd pixels.
    lost, lost_weight
        (bin + 1, 4) int64 and float64, added to: pixels that are not finite, and their weight. Those of the last bin
        are not all counted.
    """
    border, wide, wide_bin, narrow, narrow_bin, mixed, plain = strips
    spare = np.empty((LANES, WIDE), a.dtype)
    e, f, g, h = spare[0], spare[1], spare[2], spare[3]
    flat, whole = sums.reshape(-1), index.size // LANES * LANES
    for block in range(plain.size):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, whole)
        for i in range(start + _AHEAD, start + _AHEAD + BLOCK, LINE // a.itemsize):
            fetch_line(a, i)
            fetch_line(b, i)
            fetch_line(c, i)
            fetch_line(d, i)
        finite = abs(sum_of_all(a[start:stop], b[start:stop], c[start:stop], d[start:stop])) < np.inf
        if plain[block] and finite:
            for i in range(np.uint64(start), np.uint64(stop), _STEP):
                p, q, r, s = _places(index, i)
                add_square(flat, p, q, r, s, a, b, c, d, i, True)
        elif plain[block]:
            for i in range(np.uint64(start), np.uint64(stop), _STEP):
                p, q, r, s = _places(index, i)
                if not add_square(flat, p, q, r, s, a, b, c, d, i, False):
                    _without_lost(a, b, c, d, i, LANES, index, weight, lost, lost_weight, spare)
                    add_square(flat, p, q, r, s, e, f, g, h, _FIRST, True)
        elif finite:
            for m in range(border[block, 0], border[block + 1, 0]):
                p = np.int64(wide_bin[m]) * _STRIDE + LANES * (m & 1)
                add_wide_strip(flat, p, a, b, c, d, np.uint64(start) + _STEP * wide[m], True)
            for m in range(border[block, 1], border[block + 1, 1]):
                p = np.int64(narrow_bin[m]) * _STRIDE + LANES * (m & 1)
                add_strip(flat, p, a, b, c, d, np.uint64(start) + _STEP * narrow[m], True)
            for m in range(border[block, 2], border[block + 1, 2]):
                i = np.uint64(start) + _STEP * mixed[m]
                p, q, r, s = _places(index, i)
                add_square(flat, p, q, r, s, a, b, c, d, i, True)
        else:
            for m in range(border[block, 0], border[block + 1, 0]):
                i, p = np.uint64(start) + _STEP * wide[m], np.int64(wide_bin[m]) * _STRIDE + LANES * (m & 1)
                if not add_wide_strip(flat, p, a, b, c, d, i, False):
                    _without_lost(a, b, c, d, i, WIDE, index, weight, lost, lost_weight, spare)
                    add_wide_strip(flat, p, e, f, g, h, _FIRST, True)
            for m in range(border[block, 1], border[block + 1, 1]):
                i, p = np.uint64(start) + _STEP * narrow[m], np.int64(narrow_bin[m]) * _STRIDE + LANES * (m & 1)
                if not add_strip(flat, p, a, b, c, d, i, False):
                    _without_lost(a, b, c, d, i, LANES, index, weight, lost, lost_weight, spare)
                    add_strip(flat, p, e, f, g, h, _FIRST, True)
            for m in range(border[block, 2], border[block + 1, 2]):
                i = np.uint64(start) + _STEP * mixed[m]
                p, q, r, s = _places(index, i)
                if not add_square(flat, p, q, r, s, a, b, c, d, i, False):
                    _without_lost(a, b, c, d, i, LANES, index, weight, lost, lost_weight, spare)
                    add_square(flat, p, q, r, s, e, f, g, h, _FIRST, True)
    for i in range(whole, index.size):
        e[0], f[0], g[0], h[0] = a[i], b[i], c[i], d[i]
        for lane in range(LANES):
            if abs(spare[lane, 0]) < np.inf:
                sums[index[i], i & 1, lane] += spare[lane, 0]
            else:
                _count_lost(i, lane, index, weight, lost, lost_weight)


@njit
def sum_of_all(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Sum of some pixels, in any order, to see whether one is not finite; brings them into the cache, too."""
    together = a.dtype.type(0)
    for i in range(a.size):
        together += a[i] + b[i] + c[i] + d[i]
    return together


@njit(forceinline=True)
def _places(index: Any, i: Any) -> Any:
    """Where the sums of four pixels are."""
    return (
        np.int64(index[i]) * _STRIDE,
        np.int64(index[i + np.uint64(1)]) * _STRIDE + LANES,
        np.int64(index[i + np.uint64(2)]) * _STRIDE,
        np.int64(index[i + np.uint64(3)]) * _STRIDE + LANES,
    )


@njit
def _without_lost(
    a: Any, b: Any, c: Any, d: Any, start: Any, n: Any, index: Any, weight: Any, lost: Any, lost_weight: Any, spare: Any
) -> None:
    """Copy ``n`` pixels, a multiple of 4, of four frames, 0 in the place of those that are not finite; count these."""
    flat = spare.reshape(-1)
    for i in range(0, n, LANES):
        at = start + np.uint64(i)
        bits = take_finite(flat, i, a, at) | take_finite(flat, i + WIDE, b, at) << np.uint64(LANES)
        bits |= take_finite(flat, i + 2 * WIDE, c, at) << np.uint64(2 * LANES)
        bits |= take_finite(flat, i + 3 * WIDE, d, at) << np.uint64(3 * LANES)
        while bits:
            which = lowest(bits)
            bits &= bits - np.uint64(1)
            _count_lost(at + np.uint64(which % LANES), which // LANES, index, weight, lost, lost_weight)


@njit
def _count_lost(i: Any, lane: Any, index: Any, weight: Any, lost: Any, lost_weight: Any) -> None:
    lost[index[i], lane] += 1
    lost_weight[index[i], lane] += np.float64(weight[i]) if weight.size else 1.0
