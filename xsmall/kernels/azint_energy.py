"""Azimuthal integration where the photon energy differs between events: q of a pixel scales with it.

The table holds q of each pixel at one energy; the kernel scales it by that of the event and looks up the bin. How many
pixels a bin holds at some energy is found in the table's sorted positions, by halving; only what an event lacks is
counted pixel by pixel. Where four neighbours have one bin, as most do, they are added up first, as a vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.bins import find_bin
from xsmall.kernels.jit import njit
from xsmall.kernels.vectors import F64, I32, I64, Emit, ir, vector_code

__all__ = ["CHAINS", "borders_at", "scatter_scaled"]

CHAINS = 4
"""Sums of a bin: neighbouring pixels, which mostly share it, do not wait for each other."""
_BLOCK = 512
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
        (event, pixel) values.
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
    n, nowhere = edges.size - 1, sums.shape[1] - 1
    per_width, margin = _evenness(edges)
    place, bins = np.empty(_BLOCK), np.empty(_BLOCK, np.int32)
    kept = np.empty(_BLOCK, frames.dtype)  # frames need not lie behind each other
    known = np.append(edges, np.inf)  # above the last border there is no other
    for start in range(0, position.size, _BLOCK):
        here = position[start : start + _BLOCK]
        for j in range(frames.shape[0]):
            if per_width > 0.0:
                if _guess_bins(here, scales[j], edges, per_width, margin, place, bins):
                    for i in range(here.size):
                        b = np.uint64(bins[i])
                        bins[i] += np.int32(place[i] >= known[b + _ONE]) - np.int32(place[i] < known[b])
            else:
                for i in range(here.size):
                    at = here[i] * scales[j]
                    bins[i] = find_bin(at, edges, first) if at >= edges[0] and at < edges[n] else n
            if sector.size:
                for i in range(here.size):
                    turn = sector[start + i]
                    bins[i] = turn * n + bins[i] if turn >= 0 and bins[i] < n else nowhere
            values = kept[: here.size]
            values[:] = frames[j, start : start + _BLOCK]
            if abs(_sum_of_values(values)) < np.inf:
                _scatter(values, bins, sums[j])
            else:
                _scatter_checked(values, bins, weight[start : start + _BLOCK], sums[j], lost[j], lost_weight[j])


@njit
def _sum_of_values(values: Any) -> Any:
    """Sum in any order, to see whether something is not finite."""
    total = values[0]
    for i in range(1, values.size):
        total += values[i]
    return total


@njit(fastmath=_EXACT)
def _guess_bins(position: Any, scale: Any, edges: Any, per_width: Any, margin: Any, place: Any, bins: Any) -> Any:
    """Fill in where pixels are, and their bins or the next ones; say whether some lie closer to a border than a margin.

    Outside of all bins a place is NaN, and the bin is that after the last.
    """
    n = edges.size - 1
    low, high, outside = edges[0], edges[n], np.int32(n)
    close = np.int32(0)
    for i in range(position.size):
        at = position[i] * scale
        inside = (at >= low) & (at < high)
        along = (at - low) * per_width if inside else 0.5
        guess = np.int32(along)
        beyond = along - np.float64(guess)
        close |= np.int32((beyond < margin) | (beyond > 1.0 - margin))
        bins[i] = min(guess, outside - np.int32(1)) if inside else outside
        place[i] = at if inside else np.nan
    return close != 0


@njit(fastmath=_EXACT)
def _plain_alike(sums: Any, bins: Any, values: Any, i: Any) -> Any:
    alike = bins[i] == bins[i + 1] == bins[i + 2] == bins[i + 3]
    if alike:
        v, w = np.float64(values[i]) + np.float64(values[i + 2]), np.float64(values[i + 1]) + np.float64(values[i + 3])
        sums[np.int64(bins[i]) * CHAINS + (i // CHAINS & 3)] += v + w
    return alike


@vector_code(types.boolean, _plain_alike)
def add_alike(emit: Emit, sums: Any, bins: Any, values: Any, i: Any) -> Any:
    """Add four pixels, from ``i`` on, to one sum of their bin if they have the same; say whether."""
    build = emit.build
    found = emit.load(emit.at(bins, i), CHAINS)
    first = emit.shuffle(found, found, [0] * CHAINS)
    alike = emit.across("and", build.icmp_signed("==", found, first))
    with build.if_then(alike):
        pixels = emit.load(emit.at(values, i), CHAINS)
        if pixels.type.element != F64:
            pixels = build.fpext(pixels, ir.VectorType(F64, CHAINS))
        pair = build.fadd(pixels, emit.shuffle(pixels, pixels, [2, 3, 2, 3]))
        total = build.fadd(build.extract_element(pair, I32(0)), build.extract_element(pair, I32(1)))
        place = build.mul(build.sext(build.extract_element(found, I32(0)), I64), I64(CHAINS))
        chain = build.and_(build.lshr(i, I64(2)), I64(CHAINS - 1))
        target = emit.at(sums, build.add(place, chain))
        build.store(build.fadd(build.load(target), total), target)
    return alike


@njit(fastmath=_EXACT)
def _scatter(values: Any, bins: Any, sums: Any) -> None:
    flat, whole = sums.reshape(-1), values.size // CHAINS * CHAINS
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(CHAINS)):
        if add_alike(flat, bins, values, i):
            continue
        v, b = values[i:], bins[i:]
        flat[np.uint64(b[0]) * np.uint64(4)] += v[0]
        flat[np.uint64(b[1]) * np.uint64(4) + np.uint64(1)] += v[1]
        flat[np.uint64(b[2]) * np.uint64(4) + np.uint64(2)] += v[2]
        flat[np.uint64(b[3]) * np.uint64(4) + np.uint64(3)] += v[3]
    for i in range(whole, values.size):
        flat[np.uint64(bins[i]) * np.uint64(4) + np.uint64(i - whole)] += values[i]


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
def _evenness(edges: Any) -> Any:
    """One over the width of bins that are even to a quarter of it, else 0; and how near to a border a guess may err."""
    n = edges.size - 1
    width = (edges[n] - edges[0]) / n
    most = 0.0
    for b in range(n + 1):
        most = max(most, abs(edges[b] - (edges[0] + b * width)))
    if not most <= 0.25 * width:
        return 0.0, 1.0
    return 1.0 / width, 1e-6 if most < 1e-7 * width else 1.0
