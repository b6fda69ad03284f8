"""Correlation in time: sums over pairs of events, pixel by pixel, with cost by what is not zero.

Entries are the values that are not zero, sorted by pixel and then by time; a photon list is just that. For each pixel
pairs of entries go into bins of their lag. Where a pixel has many entries, sums along time and one pointer for each
edge of the bins, which only move forward, take the place of pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["event_sums", "pair_sums", "sort_by_pixel", "two_time_sums"]

_MANY = 4
"""Entries of a pixel per bin from which on pointers are cheaper than pairs."""
_STEPS = 4096
"""Steps of one width that say where to look for the bin of a lag."""


@njit
def _steps_of(edges: Any, first: Any) -> Any:
    """Fill in the bin that each step of the lag, all of one width, begins in; return the steps per lag."""
    n = edges.size - 1
    width = (edges[n] - edges[0]) / first.size
    b = 0
    for step in range(first.size):
        while b < n - 1 and edges[b + 1] <= edges[0] + step * width:
            b += 1
        first[step] = b
    return 1.0 / width


@njit
def _by_pairs(times: Any, weights: Any, edges: Any, first: Any, per_lag: Any, out: Any) -> None:
    n, one = edges.size - 1, np.uint64(1)
    for i in range(times.size):
        for j in range(i + 1, times.size):
            lag = times[np.uint64(j)] - times[i]
            if lag >= edges[n]:
                break
            if lag < edges[0]:
                continue
            b = np.uint64(first[min(np.int64((lag - edges[0]) * per_lag), first.size - 1)])
            while lag >= edges[b + one]:
                b += one
            while lag < edges[b]:
                b -= one
            out[b] += weights[i] * weights[np.uint64(j)]


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
def pair_sums(begin: Any, event: Any, weights: Any, times: Any, kept: Any, edges: Any, blocks: Any, out: Any) -> None:
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
    kept
        (event,) boolean: what counts.
    edges
        (bin + 1,) int64, rising, the first above 0: bins of the lag, closed left and open right.
    blocks
        (region, pixel) int16: which block of a region a pixel belongs to, -1 for none.
    out
        (region, block, bin) float64, to which is added.
    """
    n = edges.size - 1
    local, at = np.zeros(n), np.zeros(n + 1, np.int64)
    room = times.size + 1  # and one that is written to in vain
    when, of_event, total = np.zeros(room, np.int64), np.zeros(room), np.zeros(room)
    steps = np.zeros(_STEPS, np.int32)
    per_lag = _steps_of(edges, steps)
    for p in range(begin.size - 1):
        first, stop = begin[p], begin[p + 1]
        if stop - first < 2:
            continue
        used = False
        for g in range(blocks.shape[0]):
            used |= blocks[g, p] >= 0
        if not used:
            continue
        local[:] = 0.0
        m = 0
        for i in range(first, stop):
            when[m], of_event[m] = times[event[i]], weights[i]
            m += kept[event[i]]
        if m > _MANY * n:
            _by_pointers(when[:m], of_event[:m], edges, total, at, local)
        else:
            _by_pairs(when[:m], of_event[:m], edges, steps, per_lag, local)
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


@njit
def sort_by_pixel(pixel: Any, value: Any, stops: Any, order: Any, begin: Any, event: Any, weights: Any) -> Any:
    """Sort entries by pixel and then by time, those of an event in one pixel added up.

    Parameters
    ----------
    pixel, value
        (entry,) the entries of one event after the other; without values (None) each is 1.
    stops
        (event + 1,) int64: where those of each event begin.
    order
        (event,) which event is the first in time, the second, ...
    begin
        (pixel + 1,) int64 of zeros, filled: where the entries of each pixel begin.
    event, weights
        (entry,) int32 and float64, filled: number of the event in time, and the value.

    Returns
    -------
    Number of entries.
    """
    for p in pixel:
        begin[p + 1] += 1
    for p in range(begin.size - 1):
        begin[p + 1] += begin[p]
    end = begin[:-1].copy()
    for rank in range(order.size):
        for i in range(stops[order[rank]], stops[order[rank] + 1]):
            p = pixel[i]
            k = end[p]
            weight = 1.0 if value is None else np.float64(value[i])
            if k > begin[p] and event[k - 1] == rank:
                weights[k - 1] += weight
            else:
                event[k], weights[k] = rank, weight
                end[p] = k + 1
    n = np.int64(0)
    for p in range(begin.size - 1):  # without what was added up
        first, begin[p] = begin[p], n
        for k in range(first, end[p]):
            event[n], weights[n] = event[k], weights[k]
            n += 1
    begin[begin.size - 1] = n
    return n


@njit
def event_sums(begin: Any, event: Any, weights: Any, kept: Any, blocks: Any, per_event: Any, per_block: Any) -> None:
    """Add up the values of each event in a region, ``per_event`` (event,), and of each block, ``per_block`` (block,).

    ``blocks`` (pixel,) says which block of the region a pixel belongs to, -1 for none; for the others see
    :func:`pair_sums`.
    """
    for p in range(begin.size - 1):
        if blocks[p] >= 0:
            for i in range(begin[p], begin[p + 1]):
                if kept[event[i]]:
                    per_event[event[i]] += weights[i]
                    per_block[blocks[p]] += weights[i]
