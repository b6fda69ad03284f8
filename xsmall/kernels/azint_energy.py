"""Azimuthal integration where the photon energy differs between events: q of a pixel scales with it.

The table holds q of each pixel at one energy; the kernel scales it by that of the event and looks up the bin. How many
pixels a bin holds at some energy is found in the table's sorted positions, by halving; only what an event lacks is
counted pixel by pixel. Whether neighbours have one bin cannot be foretold, so nothing is asked: four events go on side
by side, and no sum waits for the one before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.azint import sum_of_all
from xsmall.kernels.bins import find_bin
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F32, F64, I32, I64, Emit, fetch, ir, lowest, vector_code

__all__ = ["CHAINS", "EVENTS", "borders_at", "scatter_scaled"]

EVENTS = 4
"""Frames that go together, while the places of their pixels are in the first cache."""
CHAINS = 4
"""Sums of a bin: neighbouring pixels, which mostly share it, do not wait for each other."""
LANES = 8
"""Pixels whose bins are found together."""
_BLOCK = 256
_ONE = np.uint64(1)
_EXACT = frozenset({"nsz"})  # a place is the rounded product, and compared as such


@njit(fastmath=_EXACT)
def scatter_scaled(
    frames: Any,
    position: Any,
    scales: Any,
    sector: Any,
    weight: Any,
    edges: Any,
    first: Any,
    sums: Any,
    lost: Any,
    lost_weight: Any,
) -> None:
    """Add the pixels of some events to the sums of the bins that ``position * scale`` falls into.

    Parameters
    ----------
    frames
        Values (pixel,) of each event, contiguous: a tuple of four, of which so many count as ``scales`` has; or one
        array (event, pixel).
    position
        (pixel,) float64 place of each pixel at scale 1, NaN where it is not used.
    scales
        (event,) what each event multiplies it by; NaN leaves all pixels out.
    sector
        (pixel,) azimuthal bin, -1 outside; empty where there is one.
    weight
        (pixel,) what a pixel counts for in ``lost_weight``, or empty: 1.
    edges, first
        (bin + 1,) borders that rise, closed left and open right; and :func:`xsmall.kernels.bins.first_bins` of them.
    sums
        (event, sector * bin + 1, 4) float64, added to; the last bin takes what is not used.
    lost, lost_weight
        (event, sector * bin + 1) int64 and float64, added to: pixels that are not finite, and their weight.
    """
    per_width = _one_over_width(edges)
    near, bins = np.empty(_BLOCK, np.float32), np.empty((EVENTS, _BLOCK), np.int32)
    known = np.append(edges, np.inf)  # above the last border there is no other
    nowhere = sums.shape[1] - 1
    for start in range(0, position.size, _BLOCK):
        stop = min(start + _BLOCK, position.size)
        here = position[start:stop]
        near[: here.size] = here
        fetch(position, stop, stop + _BLOCK)
        for j in range(scales.size):
            fetch(frames[j], stop, stop + _BLOCK)
            if per_width > 0.0:
                _bins_at_scale(here, near, scales[j], known, per_width, bins[j])
            else:
                _bins_of_any_width(here, scales[j], edges, first, bins[j])
            if sector.size:
                _into_sectors(sector[start:stop], edges.size - 1, nowhere, bins[j])
        if scales.size == EVENTS:
            a, b, c, d = frames[0][start:stop], frames[1][start:stop], frames[2][start:stop], frames[3][start:stop]
            if abs(sum_of_all(a, b, c, d)) < np.inf:
                _scatter_together(a, b, c, d, bins, sums)
                continue
        for j in range(scales.size):
            values, lacks = frames[j][start:stop], weight[start:stop]
            if abs(_sum_of_values(values)) < np.inf:
                _scatter_alone(values, bins[j], sums[j])
            else:
                _scatter_checked(values, bins[j], lacks, sums[j], lost[j], lost_weight[j])


@njit
def _sum_of_values(values: Any) -> Any:
    """Sum in any order, to see whether something is not finite."""
    total = values[0]
    for i in range(1, values.size):
        total += values[i]
    return total


@njit
def _into_sectors(sector: Any, n: Any, nowhere: Any, bins: Any) -> None:
    """Make bins of a radius and a sector of the radial bins of pixels."""
    for i in range(sector.size):
        bins[i] = sector[i] * n + bins[i] if sector[i] >= 0 and bins[i] < n else nowhere


@njit(fastmath=_EXACT)
def _bins_of_any_width(position: Any, scale: Any, edges: Any, first: Any, bins: Any) -> None:
    """Fill in the bins of pixels, the one after the last outside of all."""
    n = edges.size - 1
    for i in range(position.size):
        at = position[i] * scale
        bins[i] = find_bin(at, edges, first) if at >= edges[0] and at < edges[n] else n


@njit(fastmath=_EXACT)
def _bins_at_scale(position: Any, near: Any, scale: Any, known: Any, per_width: Any, bins: Any) -> None:
    """Fill in the bins of pixels, where bins are even: found in float32, and in float64 where that is not sure.

    ``near`` are the positions in float32, ``known`` the borders and infinity. Outside of all bins it is that after the
    last.
    """
    n = known.size - 2
    low, high = known[0], known[n]
    # Five roundings of at most 2**-24 of the largest number that is met, and three times as much to be safe.
    margin = np.float32(1e-6 * (max(abs(low), abs(high)) * per_width + n))
    turn, shift = np.float32(scale * per_width), np.float32(-low * per_width)
    whole = position.size // LANES * LANES
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(LANES)):
        close = guess_bins(bins, near, i, turn, shift, np.float32(n), margin)
        while close:
            k = i + np.uint64(lowest(close))
            bins[k] = _bin_at(position[k] * scale, known, per_width)
            close &= close - _ONE
    for rest in range(whole, position.size):
        bins[rest] = _bin_at(position[rest] * scale, known, per_width)


@njit(fastmath=_EXACT)
def _bin_at(at: Any, known: Any, per_width: Any) -> Any:
    """Find the bin of one place by the borders themselves; the one after the last where it has none."""
    n = known.size - 2
    if not (at >= known[0] and at < known[n]):
        return np.int32(n)
    guess = min(np.int32((at - known[0]) * per_width), np.int32(n - 1))
    return guess + np.int32(at >= known[guess + 1]) - np.int32(at < known[guess])


@njit(fastmath=_EXACT)
def _plain_guess(bins: Any, near: Any, i: Any, turn: Any, shift: Any, n: Any, margin: Any) -> Any:
    close = np.uint64(0)
    for k in range(LANES):
        along = near[i + np.uint64(k)] * turn + shift
        inside = along if along >= 0 and along < n else n
        bins[i + np.uint64(k)] = np.int32(inside)
        beyond = inside - np.float32(np.int32(inside))
        if (beyond < margin or beyond > 1 - margin) and along > -margin and along < n + margin:
            close |= _ONE << np.uint64(k)
    return close


@vector_code(types.uint64, _plain_guess)
def guess_bins(emit: Emit, bins: Any, near: Any, i: Any, turn: Any, shift: Any, n: Any, margin: Any) -> Any:
    """Fill in the bins of eight pixels, from ``i`` on, by even widths; a bit for each that may be off.

    ``near * turn + shift`` (float32) are widths from the first border; ``n``, after the last, is what others get.
    """
    build = emit.build
    end, most, zero = emit.splat(n, LANES), emit.splat(margin, LANES), emit.splat(F32(0.0), LANES)
    scaled = build.fmul(emit.load(emit.at(near, i), LANES), emit.splat(turn, LANES))
    along = build.fadd(scaled, emit.splat(shift, LANES))
    there = build.and_(build.fcmp_ordered(">=", along, zero), build.fcmp_ordered("<", along, end))
    inside = build.select(there, along, end)
    found = build.fptosi(inside, ir.VectorType(I32, LANES))
    emit.store(found, emit.at(bins, i))
    beyond = build.fsub(inside, build.sitofp(found, along.type))
    rest = build.fsub(emit.splat(F32(1.0), LANES), most)
    close = build.or_(build.fcmp_ordered("<", beyond, most), build.fcmp_ordered(">", beyond, rest))
    above = build.fcmp_ordered(">", along, build.fsub(zero, most))
    below = build.fcmp_ordered("<", along, build.fadd(end, most))
    return build.zext(emit.bits(build.and_(close, build.and_(above, below))), I64)


@njit(fastmath=_EXACT)
def _plain_each(sums: Any, bins: Any, values: Any, i: Any) -> None:
    for n in range(CHAINS):
        sums[np.int64(bins[i + n]) * CHAINS + n] += values[i + n]


@vector_code(types.void, _plain_each)
def add_each(emit: Emit, sums: Any, bins: Any, values: Any, i: Any) -> Any:
    """Add four pixels, from ``i`` on, to sums of their bins, each to one of its own."""
    build = emit.build
    pixels = emit.load(emit.at(values, i), CHAINS)
    if pixels.type.element != F64:
        pixels = build.fpext(pixels, ir.VectorType(F64, CHAINS))
    for n in range(CHAINS):
        place = build.mul(build.zext(build.load(emit.at(emit.at(bins, i), n)), I64), I64(CHAINS))
        target = emit.at(emit.at(sums, place), n)
        build.store(build.fadd(build.load(target), build.extract_element(pixels, I32(n))), target)
    return emit.nothing()


@njit(fastmath=_EXACT)
def _scatter_together(a: Any, b: Any, c: Any, d: Any, bins: Any, sums: Any) -> None:
    w, x, y, z = sums[0].reshape(-1), sums[1].reshape(-1), sums[2].reshape(-1), sums[3].reshape(-1)
    whole = a.size // CHAINS * CHAINS
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(CHAINS)):
        add_each(w, bins[0], a, i)
        add_each(x, bins[1], b, i)
        add_each(y, bins[2], c, i)
        add_each(z, bins[3], d, i)
    for j, values in enumerate((a, b, c, d)):
        _scatter_last_pixels(values, whole, bins[j], sums[j])


@njit(fastmath=_EXACT)
def _scatter_alone(values: Any, bins: Any, sums: Any) -> None:
    flat, whole = sums.reshape(-1), values.size // CHAINS * CHAINS
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(CHAINS)):
        add_each(flat, bins, values, i)
    _scatter_last_pixels(values, whole, bins, sums)


@njit(fastmath=_EXACT)
def _scatter_last_pixels(values: Any, start: Any, bins: Any, sums: Any) -> None:
    for i in range(start, values.size):
        sums[bins[i], i % CHAINS] += values[i]


@njit(fastmath=_EXACT)
def _scatter_checked(values: Any, bins: Any, weight: Any, sums: Any, lost: Any, lost_weight: Any) -> None:
    for i in range(values.size):
        if abs(values[i]) < np.inf:
            sums[bins[i], i % CHAINS] += values[i]
        else:
            lost[bins[i]] += 1
            lost_weight[bins[i]] += np.float64(weight[i]) if weight.size else 1.0


@njit(fastmath=_EXACT)
def borders_at(position: Any, scale: Any, edges: Any, out: Any) -> None:
    """Find where the borders of the bins lie among sorted positions that are scaled.

    Parameters
    ----------
    position
        (pixel,) float64 that rise, without NaN.
    scale
        More than 0; NaN gives 0 everywhere.
    edges
        (bin + 1,) borders.
    out
        (bin + 1,) int64, filled: the number of pixels below each border.
    """
    for b in range(edges.size):
        low, high = 0, position.size if scale > 0 else 0
        while low < high:
            middle = (low + high) // 2
            if position[middle] * scale < edges[b]:
                low = middle + 1
            else:
                high = middle
        out[b] = low


@njit
def _one_over_width(edges: Any) -> Any:
    """One over the width of bins that are even, else 0."""
    n = edges.size - 1
    width = (edges[n] - edges[0]) / n
    most = 0.0
    for b in range(n + 1):
        most = max(most, abs(edges[b] - (edges[0] + b * width)))
    return 1.0 / width if most < 1e-7 * width else 0.0
