"""Azimuthal integration with pixels that are shared among the bins they reach into.

A pixel is a polygon in the plane of the radial quantity and the azimuth: its four corners, or the box around them. Its
share of a bin is the part of its area that lies in it, which is what pyFAI computes. Shares are in compressed rows, one
row per pixel, in the order of the pixels.

Where bins are wider than pixels most pixels lie in one bin as a whole, and most others, with their neighbours, in the
same two. What neighbours have in common is found once (:func:`arrange_shares`), so that little has to be looked up
pixel by pixel: strips of eight and of four pixels in one bin are added up first, as vectors, and strips of four in two
bins are two sums of products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.kernels.azint import BLOCK, sum_of_all
from xsmall.kernels.azint_vectors import (
    LANES,
    WIDE,
    add_pair,
    add_part,
    add_shared,
    add_strip,
    add_wide_strip,
    take_finite,
)
from xsmall.kernels.bins import find_bin
from xsmall.kernels.image import cut_polygon, polygon_area
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import lowest

__all__ = ["SharedStrips", "arrange_shares", "scatter_shares", "share_out"]

_MOST_CORNERS = 16
_EXACT = frozenset({"nsz"})
_STRIDE = 8  # sums of a bin: four events, even pixels and odd ones
_WHOLE_WIDE, _WHOLE, _PAIR, _MORE, _NONE = range(5)  # kinds of strips, as in the columns of SharedStrips.border


class SharedStrips(NamedTuple):
    """What neighbouring pixels of a segment have in common.

    Attributes
    ----------
    border
        (block + 1, 4): where the strips of each block begin among those below, in their order.
    wide, wide_bin
        Strips of eight pixels that lie in one bin as a whole: where each begins in its block, in fours of pixels, and
        the bin.
    narrow, narrow_bin
        The same of strips of four pixels that are in none of those.
    pair, pair_bins, parts
        Strips of four pixels that lie in two bins at most; the two, the surplus bin where there is one only; and, in
        eights, the shares of the four pixels in the first bin and then those in the second.
    more
        Strips of four pixels that lie in more bins.
    """

    border: npt.NDArray[np.int32]
    wide: npt.NDArray[np.uint8]
    wide_bin: npt.NDArray[np.int32]
    narrow: npt.NDArray[np.uint8]
    narrow_bin: npt.NDArray[np.int32]
    pair: npt.NDArray[np.uint8]
    pair_bins: npt.NDArray[np.int32]
    parts: npt.NDArray[np.float32]
    more: npt.NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(array.nbytes for array in self)


def arrange_shares(
    start: npt.NDArray[np.int64], bins: npt.NDArray[np.int32], share: npt.NDArray[np.float32], n: int
) -> SharedStrips:
    """Find the strips of a segment by the shares of its pixels, see :func:`share_out`; ``n`` is the number of bins."""
    strips = (start.size - 1) // LANES
    kind, both = np.empty(strips, np.uint8), np.full((strips, 2), n, np.int32)
    parts = np.zeros((strips, 2 * LANES), np.float32)
    _kinds_of_strips(start, bins, share, kind, both, parts)
    in_block = BLOCK // LANES
    at = (np.arange(strips) % in_block).astype(np.uint8)
    starts = np.arange(-(-strips // in_block) + 1) * in_block
    of_kind = [np.flatnonzero(kind == k) for k in (_WHOLE_WIDE, _WHOLE, _PAIR, _MORE)]
    border = np.stack([np.searchsorted(found, starts) for found in of_kind], axis=1).astype(np.int32)
    wide, narrow, pair, more = of_kind
    return SharedStrips(
        border, at[wide], both[wide, 0], at[narrow], both[narrow, 0], at[pair], both[pair].reshape(-1),
        parts[pair].reshape(-1), at[more],
    )  # fmt: skip


@njit
def _kinds_of_strips(start: Any, bins: Any, share: Any, kind: Any, both: Any, parts: Any) -> None:
    """Say of which kind each strip is, which two bins it lies in, and with which parts; the second of a wide is none.

    ``both`` comes filled with the surplus bin, ``parts`` with 0.
    """
    for strip in range(kind.size):
        first = strip * LANES
        known = _bins_of_strip(start, bins, first, both[strip])
        kind[strip] = _NONE if known == 0 else _PAIR if known <= 2 else _MORE
        if kind[strip] != _PAIR:
            continue
        for n in range(LANES):
            for k in range(start[first + n], start[first + n + 1]):
                parts[strip, n if bins[k] == both[strip, 0] else LANES + n] += share[k]
        if known == 1 and (parts[strip, :LANES] == 1).all():
            kind[strip] = _WHOLE
    for strip in range(0, kind.size - 1, 2):
        other = strip + 1
        if kind[strip] == _WHOLE and kind[other] == _WHOLE and both[strip, 0] == both[other, 0]:
            kind[strip], kind[other] = _WHOLE_WIDE, _NONE


@njit
def _bins_of_strip(start: Any, bins: Any, first: Any, both: Any) -> Any:
    """Write the first two bins that the four pixels from ``first`` on have shares in; return how many there are."""
    known = 0
    for k in range(start[first], start[first + LANES]):
        if (known > 0 and bins[k] == both[0]) or (known > 1 and bins[k] == both[1]):
            continue
        if known == 2:
            return 3
        both[known] = bins[k]
        known += 1
    return known


@njit
def _clipped(along: Any, across: Any, n: Any, low: Any, high: Any, spare: Any) -> Any:
    """Keep the part of a polygon between two values of ``along``, in place; return its corners."""
    m = cut_polygon(along, across, n, low, 1.0, spare[0], spare[1]) if n else 0
    m = cut_polygon(spare[0], spare[1], m, high, -1.0, spare[2], spare[3]) if m else 0
    along[:m], across[:m] = spare[2, :m], spare[3, :m]
    return m


@njit
def _sector(azimuth: Any, around: Any) -> Any:
    """Azimuthal bin of an angle, -1 where it is in none."""
    if around.size == 0:
        return 0
    turned = around[0] + (azimuth - around[0]) % 360.0
    for t in range(around.size - 1):
        if turned >= around[t] and turned < around[t + 1]:
            return t
    return -1


@njit
def share_out(
    radial: Any, azimuth: Any, center: Any, edges: Any, first: Any, around: Any, start: Any, bins: Any, share: Any
) -> Any:
    """Find the shares that the pixels have in the bins.

    Parameters
    ----------
    radial, azimuth
        (pixel, 4) float64 corners, going round, azimuth in degrees; NaN where a pixel is not used.
    center
        (pixel, 2) float64 the middle, for a pixel that holds the centre of the beam: it is not split.
    edges, first
        (bin + 1,) borders of the radial bins, and :func:`xsmall.kernels.bins.first_bins` of them.
    around
        (sector + 1,) borders of the azimuthal bins in degrees, or empty where there is one without borders.
    start
        (pixel + 1,) int64: filled with where each row begins.
    bins, share
        Filled with the bins and the shares where they are long enough; empty arrays just count.

    Returns
    -------
    The number of shares.
    """
    n, sectors = edges.size - 1, max(around.size - 1, 1)
    spare = np.empty((4, _MOST_CORNERS))
    p, q, a, b = np.empty(_MOST_CORNERS), np.empty(_MOST_CORNERS), np.empty(_MOST_CORNERS), np.empty(_MOST_CORNERS)
    count = 0
    for i in range(radial.shape[0]):
        start[i] = count
        low, high = radial[i].min(), radial[i].max()
        if not (high > edges[0] and low < edges[n]) and not (low == high and low >= edges[0] and low < edges[n]):
            continue
        for k in range(4):
            p[k], q[k] = radial[i, k], azimuth[i, k]
            if k and q[k] - q[0] > 180.0:
                q[k] -= 360.0
            elif k and q[k] - q[0] < -180.0:
                q[k] += 360.0
        whole = polygon_area(p, q, 4)
        if q[:4].max() - q[:4].min() > 180.0 or not whole > 0:
            t = _sector(center[i, 1], around)
            if t >= 0 and center[i, 0] >= edges[0] and center[i, 0] < edges[n]:
                if bins.size:
                    bins[count], share[count] = t * n + find_bin(center[i, 0], edges, first), 1.0
                count += 1
            continue
        begin = find_bin(max(low, edges[0]), edges, first)
        for r in range(begin, n):
            if edges[r] > high:
                break
            for t in range(sectors):
                part = 0.0
                for turn in range(-1, 2):
                    if around.size == 0 and turn != 0:
                        continue
                    a[:4], b[:4] = p[:4], q[:4] + 360.0 * turn
                    m = _clipped(a, b, 4, edges[r], edges[r + 1], spare)
                    if around.size:
                        m = _clipped(b, a, m, around[t], around[t + 1], spare)
                    part += polygon_area(a, b, m)
                if part > 1e-9 * whole:
                    if bins.size:
                        bins[count], share[count] = t * n + r, part / whole
                    count += 1
    start[radial.shape[0]] = count
    return count


def scatter_shares(
    frames: Any, start: Any, bins: Any, share: Any, strips: SharedStrips, weight: Any, squared: Any, sums: Any,
    lost: Any, lost_weight: Any,
) -> None:  # fmt: skip
    """Add the pixels of some events to the sums of the bins that they have shares in.

    Parameters
    ----------
    frames
        (event, pixel) values.
    start, bins, share
        What :func:`share_out` fills.
    strips
        What :func:`arrange_shares` makes of it.
    weight
        (pixel,) what a whole pixel counts for in ``lost_weight``, or empty: 1.
    squared
        Whether shares are squared: for variances.
    sums
        (event, bin) float64, added to.
    lost, lost_weight
        (event, bin) float64, added to: shares of pixels that are not finite, and their weight.
    """
    for first in range(0, len(frames), LANES):  # shares are read once for four events
        some, last = slice(first, first + LANES), len(frames) - 1
        lanes = [np.ascontiguousarray(frames[min(first + j, last)]) for j in range(LANES)]
        table = start, bins, share
        _scatter_four(*lanes, table, strips, weight, squared, sums[some], lost[some], lost_weight[some])


@njit(fastmath=_EXACT)
def _scatter_four(
    a: Any, b: Any, c: Any, d: Any, table: Any, strips: Any, weight: Any, squared: Any, sums: Any, lost: Any,
    lost_weight: Any,
) -> None:  # fmt: skip
    """Do so for up to four events; where there are fewer, the last stands for those that lack.

    Even and odd strips, or pixels, have sums of their own, and do not wait for each other. A pixel that is not finite
    is 0 in the sums: what else is added, and in which order, does not depend on it.
    """
    border, wide, wide_bin, narrow, narrow_bin, pair, pair_bins, parts, more = strips
    frames, found = (a, b, c, d), np.zeros((sums.shape[1] + 1) * _STRIDE)
    spare = np.empty((LANES, WIDE), a.dtype)
    e, f, g, h = spare[0], spare[1], spare[2], spare[3]
    whole, most, nowhere = a.size // LANES * LANES, np.int64(table[2].size - 1), np.int64(sums.shape[1])
    for block in range(border.shape[0] - 1):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, whole)
        sure = abs(sum_of_all(a[start:stop], b[start:stop], c[start:stop], d[start:stop])) < np.inf
        for m in range(border[block, 0], border[block + 1, 0]):
            i, p = start + LANES * np.int64(wide[m]), np.int64(wide_bin[m]) * _STRIDE + LANES * (m & 1)
            if not add_wide_strip(found, p, a, b, c, d, i, sure):
                _zero_lost(frames, i, WIDE, table, weight, lost, lost_weight, spare)
                add_wide_strip(found, p, e, f, g, h, 0, True)
        for m in range(border[block, 1], border[block + 1, 1]):
            i, p = start + LANES * np.int64(narrow[m]), np.int64(narrow_bin[m]) * _STRIDE + LANES * (m & 1)
            if not add_strip(found, p, a, b, c, d, i, sure):
                _zero_lost(frames, i, LANES, table, weight, lost, lost_weight, spare)
                add_strip(found, p, e, f, g, h, 0, True)
        for m in range(border[block, 2], border[block + 1, 2]):
            i, side, at = start + LANES * np.int64(pair[m]), LANES * (m & 1), m * 2 * LANES
            p, q = np.int64(pair_bins[2 * m]) * _STRIDE + side, np.int64(pair_bins[2 * m + 1]) * _STRIDE + side
            if not add_pair(found, p, q, parts, at, squared, a, b, c, d, i, sure):
                _zero_lost(frames, i, LANES, table, weight, lost, lost_weight, spare)
                add_pair(found, p, q, parts, at, squared, e, f, g, h, 0, True)
        for m in range(border[block, 3], border[block + 1, 3]):
            i = start + LANES * np.int64(more[m])
            if not add_shared(found, table[0], table[1], table[2], most, squared, nowhere, a, b, c, d, i):
                _pixel_by_pixel(frames, i, i + LANES, table, weight, squared, found, lost, lost_weight)
    _pixel_by_pixel(frames, whole, a.size, table, weight, squared, found, lost, lost_weight)
    for event in range(sums.shape[0]):
        for n in range(sums.shape[1]):
            sums[event, n] += found[n * _STRIDE + event] + found[n * _STRIDE + LANES + event]


@njit
def _zero_lost(
    frames: Any, first: Any, n: Any, table: Any, weight: Any, lost: Any, lost_weight: Any, spare: Any
) -> None:
    """Copy ``n`` pixels, a multiple of 4, of four frames, 0 in the place of those that are not finite; count these."""
    flat = spare.reshape(-1)
    for i in range(0, n, LANES):
        for lane in range(LANES):
            bits = take_finite(flat, lane * WIDE + i, frames[lane], first + i)
            while bits and lane < lost.shape[0]:
                _count_lost_shares(first + i + lowest(bits), lane, table, weight, lost, lost_weight)
                bits &= bits - np.uint64(1)


@njit
def _count_lost_shares(i: Any, event: Any, table: Any, weight: Any, lost: Any, lost_weight: Any) -> None:
    start, bins, share = table
    for k in range(start[i], start[i + 1]):
        lost[event, bins[k]] += share[k]
        lost_weight[event, bins[k]] += np.float64(share[k]) * (weight[i] if weight.size else 1.0)


@njit(fastmath=_EXACT)
def _pixel_by_pixel(
    frames: Any, first: Any, stop: Any, table: Any, weight: Any, squared: Any, found: Any, lost: Any, lost_weight: Any
) -> None:
    """Add some pixels share by share, in the order of :func:`xsmall.kernels.azint_vectors.add_shared`."""
    start, bins, share = table
    values = np.empty(LANES)
    for i in range(first, stop):
        for lane in range(LANES):
            values[lane] = frames[lane][i]
            if not abs(values[lane]) < np.inf:
                values[lane] = 0.0
                if lane < lost.shape[0]:
                    _count_lost_shares(i, lane, table, weight, lost, lost_weight)
        for k in range(start[i], start[i + 1]):
            part = np.float64(share[k])
            place = np.int64(bins[k]) * _STRIDE + LANES * (i & 1)
            add_part(found, place, part * part if squared else part, values[0], values[1], values[2], values[3])
