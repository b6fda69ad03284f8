"""Correlation in time: sums over pairs of events, pixel by pixel, with cost by what is not zero.

Entries are the values that are not zero, sorted by pixel and then by time; a photon list is just that. For each pixel
pairs of entries go into bins of their lag. Where a pixel has many entries, sums along time and one pointer for each
edge of the bins, which only move forward, take the place of pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["pair_sums", "two_time_sums"]

_MANY = 4
"""Entries of a pixel per bin from which on pointers are cheaper than pairs."""


@njit
def _by_pairs(times: Any, weights: Any, edges: Any, out: Any) -> None:
    n = edges.size - 1
    for i in range(times.size):
        b = 0
        for j in range(i + 1, times.size):
            lag = times[j] - times[i]
            if lag >= edges[n]:
                break
            if lag < edges[0]:
                continue
            while lag >= edges[b + 1]:
                b += 1
            out[b] += weights[i] * weights[j]


@njit
def _by_pointers(times: Any, weights: Any, edges: Any, total: Any, at: Any, out: Any) -> None:
    n, m = edges.size - 1, times.size
    total[0] = 0.0
    for i in range(m):
        total[i + 1] = total[i] + weights[i]
    at[:] = 0
    for i in range(m):
        for b in range(n + 1):
            j = max(at[b], i + 1)
            while j < m and times[j] - times[i] < edges[b]:
                j += 1
            at[b] = j
        for b in range(n):
            out[b] += weights[i] * (total[at[b + 1]] - total[at[b]])


@njit
def pair_sums(begin: Any, event: Any, weights: Any, times: Any, edges: Any, blocks: Any, out: Any) -> None:
    """Add up products of the values of pixels at two events, by the lag between them.

    Parameters
    ----------
    begin
        (pixel + 1,) int64: where the entries of each pixel begin.
    event
        (entry,) int32: the event of each, rising within a pixel.
    weights
        (entry,) float64: its value.
    times
        (event,) int64, rising.
    edges
        (bin + 1,) int64, rising, the first above 0: bins of the lag, closed left and open right.
    blocks
        (region, pixel) int16: which block of a region a pixel belongs to, -1 for none.
    out
        (region, block, bin) float64, to which is added.
    """
    n = edges.size - 1
    local, at = np.zeros(n), np.zeros(n + 1, np.int64)
    when, total = np.zeros(times.size, np.int64), np.zeros(times.size + 1)
    for p in range(begin.size - 1):
        first, stop = begin[p], begin[p + 1]
        m = stop - first
        if m < 2:
            continue
        used = False
        for g in range(blocks.shape[0]):
            used |= blocks[g, p] >= 0
        if not used:
            continue
        local[:] = 0.0
        for i in range(m):
            when[i] = times[event[first + i]]
        if m > _MANY * n:
            _by_pointers(when[:m], weights[first:stop], edges, total, at, local)
        else:
            _by_pairs(when[:m], weights[first:stop], edges, local)
        for g in range(blocks.shape[0]):
            if blocks[g, p] >= 0:
                for b in range(n):
                    out[g, blocks[g, p], b] += local[b]


@njit
def two_time_sums(begin: Any, event: Any, weights: Any, inside: Any, out: Any) -> None:
    """Add up products of the values of pixels at each two events: ``out`` (region, event, event), above the diagonal.

    ``inside`` (region, pixel) is boolean; for the others see :func:`pair_sums`.
    """
    for p in range(begin.size - 1):
        for g in range(inside.shape[0]):
            if inside[g, p]:
                for i in range(begin[p], begin[p + 1]):
                    for j in range(i + 1, begin[p + 1]):
                        out[g, event[i], event[j]] += weights[i] * weights[j]
