"""Azimuthal integration with pixels that are shared among the bins they reach into.

A pixel is a polygon in the plane of the radial quantity and the azimuth: its four corners, or the box around them. Its
share of a bin is the part of its area that lies in it, which is what pyFAI computes. Shares are in compressed rows, one
row per pixel, in the order of the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.azint_vectors import LANES, add_part, add_shared
from xsmall.kernels.bins import find_bin
from xsmall.kernels.image import cut_polygon, polygon_area
from xsmall.kernels.jit import njit

__all__ = ["scatter_shares", "share_out"]

_MOST_CORNERS = 16
_EXACT = frozenset({"nsz"})
_STRIDE = 8  # sums of a bin: four events, even pixels and odd ones


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
    frames: Any, start: Any, bins: Any, share: Any, weight: Any, squared: Any, sums: Any, lost: Any, lost_weight: Any
) -> None:
    """Add the pixels of some events to the sums of the bins that they have shares in.

    Parameters
    ----------
    frames
        (event, pixel) values.
    start, bins, share
        What :func:`share_out` fills.
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
        _scatter_four(*lanes, start, bins, share, weight, squared, sums[some], lost[some], lost_weight[some])


@njit(fastmath=_EXACT)
def _scatter_four(
    a: Any, b: Any, c: Any, d: Any, start: Any, bins: Any, share: Any, weight: Any, squared: Any, sums: Any, lost: Any,
    lost_weight: Any,
) -> None:  # fmt: skip
    """Do so for up to four events; where there are fewer, the last stands for those that lack.

    Nearly all pixels have one share or two. Two are added always, the second one perhaps of nothing and to no bin: how
    many there are cannot be foretold. Four such pixels go together, as vectors. Even and odd pixels have sums of their
    own, and do not wait for each other.
    """
    events, nowhere = sums.shape[0], np.int64(sums.shape[1])
    found = np.zeros((sums.shape[1] + 1) * _STRIDE)
    most, none = np.int64(share.size - 1), np.float32(0)
    pixels = start.size - 1 if share.size else 0
    for at in range(0, pixels, LANES):
        whole = at + LANES <= pixels
        if whole and add_shared(found, start, bins, share, most, squared, nowhere, a, b, c, d, at):
            continue
        for i in range(at, min(at + LANES, pixels)):
            v, w, x, y = np.float64(a[i]), np.float64(b[i]), np.float64(c[i]), np.float64(d[i])
            k, stop = np.int64(start[i]), np.int64(start[i + 1])
            if not abs(v + w + x + y) < np.inf:  # a pixel that is not finite adds nothing
                values = v, w, x, y
                for e in range(events):
                    if not abs(values[e]) < np.inf:
                        for m in range(k, stop):
                            lost[e, bins[m]] += share[m]
                            lost_weight[e, bins[m]] += share[m] * (weight[i] if weight.size else 1.0)
                nothing = np.float64(0.0)
                v, w = v if abs(v) < np.inf else nothing, w if abs(w) < np.inf else nothing
                x, y = x if abs(x) < np.inf else nothing, y if abs(y) < np.inf else nothing
            side = (i & 1) * 4
            one, two = np.uint64(min(k, most)), np.uint64(min(k + 1, most))
            first, second = share[one], share[two]  # read, wanted or not
            p, q = np.int64(bins[one]), np.int64(bins[two])
            first, p = np.float64(first if k < stop else none), (p if k < stop else nowhere) * _STRIDE + side
            second, q = np.float64(second if k + 1 < stop else none), (q if k + 1 < stop else nowhere) * _STRIDE + side
            add_part(found, p, first * first if squared else first, v, w, x, y)
            add_part(found, q, second * second if squared else second, v, w, x, y)
            for m in range(k + 2, stop):
                part = np.float64(share[m])
                add_part(found, np.int64(bins[m]) * _STRIDE + side, part * part if squared else part, v, w, x, y)
    for e in range(events):
        for n in range(sums.shape[1]):
            sums[e, n] += found[n * _STRIDE + e] + found[n * _STRIDE + 4 + e]
