"""Photons: from the pixels of droplets, or from whole and shared charge of single pixels; and how many pixels hold k.

A droplet of n photons gets n positions. Each pixel first takes as many as fit whole. What is left goes by the largest
rest: its photon takes the missing part from the largest of the four neighbours in the droplet, and lies as far towards
it as it takes. The largest rest is found with a heap; rests only become smaller, so that an entry that is out of date
is put back when it comes up. A droplet of 10^5 photons then costs 10^5 steps, not 10^10.

A fit may move these positions: see :mod:`xsmall.kernels.photon_fit`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xsmall.kernels.jit import njit
from xsmall.kernels.photon_count import MOST, MOST_IN_ALL, TOO_BRIGHT
from xsmall.kernels.photon_fit import fit

__all__ = ["NEAR", "Scratch", "photons_of_droplets", "photons_of_pixels"]

NEAR = 0.49
"""Largest distance of a photon from the centre of its pixel: rounding a position gives the pixel."""
_ARMS = 4
"""Entries below each in the heap: more than two make it flat, and lie side by side in memory."""
_LARGE = 1024
"""Pixels of a droplet from which on rests are sorted by levels first."""
_LEVELS, _MOST_HELD = 1 << 16, 64
_BLOCK = 64
"""Pixels that are looked at together for one that may hold a photon."""


class Scratch:
    """Buffers for placing the photons of a frame."""

    def __init__(self, rows: int, columns: int) -> None:
        n = rows * columns
        self.arrays = (
            np.zeros(n + 1, np.int64),  # where the pixels of each droplet begin
            np.zeros(n, np.int32),  # pixels by droplet
            np.zeros(n),  # what is left of each pixel, in photons
            np.full(n, -1, np.int64),  # which droplet a pixel belongs to
            np.zeros(n, np.int32),  # heap of pixels
            np.zeros(n),  # the rest that each entry of the heap had
            np.zeros(1, np.int64),  # droplets so far: their numbers never come back
        )


@njit
def _sort_members(found: Any, count: Any, members: Any, begin: Any, order: Any) -> None:
    """Bring the pixels of each droplet behind each other, in the order of the frame."""
    pixel, label, droplet, n = members
    begin[0] = 0
    for d in range(found):
        begin[d + 1] = begin[d] + count[d]
    for m in range(n[0]):
        d = droplet[label[m]]
        if d >= 0:
            order[begin[d]] = pixel[m]
            begin[d] += 1
    for d in range(found, 0, -1):
        begin[d] = begin[d - 1]
    begin[0] = 0


@njit
def _before(rest: Any, pixel: Any, other_rest: Any, other: Any) -> Any:
    return rest > other_rest or (rest == other_rest and pixel < other)


@njit
def _sink(heap: Any, keys: Any, n: Any, i: Any) -> None:
    """Let an entry sink to where it belongs."""
    pixel, key = heap[i], keys[i]
    while True:
        first = _ARMS * i + 1
        if first >= n:
            break
        child = first
        for other in range(first + 1, min(first + _ARMS, n)):
            if _before(keys[other], heap[other], keys[child], heap[child]):
                child = other
        if not _before(keys[child], heap[child], key, pixel):
            break
        heap[i], keys[i] = heap[child], keys[child]
        i = child
    heap[i], keys[i] = pixel, key


@njit
def _largest_neighbour(r: Any, c: Any, rows: Any, columns: Any, mine: Any, rest: Any, owner: Any) -> Any:
    """The neighbour of the same droplet with the largest rest, the first of equals; -1 without one."""
    best, at = -np.inf, -1
    for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
        y, x = r + dr, c + dc
        if 0 <= y < rows and 0 <= x < columns:
            p = y * columns + x
            if owner[p] == mine and rest[p] > best:
                best, at = rest[p], p
    return at


@njit
def _placed(p: Any, shape: Any, mine: Any, rest: Any, owner: Any, row: Any, column: Any, k: Any) -> None:
    """Place a photon on a pixel, which takes what it lacks from its largest neighbour."""
    rows, columns = shape
    r, c = p // columns, p % columns
    row[k], column[k] = r, c
    other = _largest_neighbour(r, c, rows, columns, mine, rest, owner)
    if other >= 0:
        part = 1.0 - rest[p]
        rest[other] -= part
        part = min(part, NEAR)
        row[k] += part * (other // columns - r)
        column[k] += part * (other % columns - c)
    rest[p] = 0.0


@njit
def _by_levels(
    pixels: Any, shape: Any, n: Any, mine: Any, rest: Any, owner: Any, following: Any, row: Any, column: Any, start: Any
) -> Any:
    """Place photons as :func:`_greedy` does, as long as some rest is above zero; for droplets of many pixels.

    Rests lie in levels of nearly the same value, of which the highest is looked through. Where too many are equal
    nothing is done. Returns where the lists end.
    """
    head: Any = np.full(_LEVELS, -1, np.int32)
    held: Any = np.zeros(_LEVELS, np.int32)
    for pixel in pixels:
        if rest[pixel] > 0.0:
            here = min(np.int64(rest[pixel] * _LEVELS), _LEVELS - 1)
            held[here] += 1
            if held[here] > _MOST_HELD:
                return start
            following[pixel] = head[here]
            head[here] = pixel
    k: Any = start
    level: Any = _LEVELS - 1
    while k < start + n and level >= 0:
        best: Any = -1
        before_best: Any = -1
        before: Any = -1
        p: Any = np.int64(head[level])
        while p >= 0:
            after = np.int64(following[p])
            now = min(np.int64(max(rest[p], 0.0) * _LEVELS), _LEVELS - 1)
            if now != level or rest[p] <= 0.0:  # something was taken from it since
                if before < 0:
                    head[level] = after
                else:
                    following[before] = after
                if rest[p] > 0.0:
                    following[p] = head[now]
                    head[now] = p
            else:
                if best < 0 or _before(rest[p], p, rest[best], best):
                    best, before_best = p, before
                before = p
            p = after
        if best < 0:
            level -= 1
            continue
        if before_best < 0:
            head[level] = following[best]
        else:
            following[before_best] = following[best]
        _placed(best, shape, mine, rest, owner, row, column, k)
        k += 1
    return k


@njit
def _greedy(
    frame: Any, pixels: Any, energy: Any, n: Any, mine: Any, scratch: Any, row: Any, column: Any, start: Any
) -> Any:
    """Place ``n`` photons on the pixels of a droplet; returns where the lists end."""
    columns = frame.shape[1]
    rest, owner, heap, keys = scratch
    k = start
    for i in range(pixels.size):
        p = pixels[i]
        r, c = p // columns, p % columns
        value = np.float64(frame[r, c]) / energy
        whole = math.floor(value)
        rest[p], owner[p] = value - whole, mine
        for _ in range(min(np.int64(whole), start + n - k)):
            row[k], column[k] = r, c
            k += 1
    size = pixels.size
    if size > _LARGE:
        k = _by_levels(pixels, frame.shape, start + n - k, mine, rest, owner, heap, row, column, k)
    if k < start + n:
        for i in range(size):
            heap[i], keys[i] = pixels[i], rest[pixels[i]]
        for i in range((size - 2) // _ARMS, -1, -1):
            _sink(heap, keys, size, i)
    while k < start + n:
        p = heap[0]
        if keys[0] != rest[p]:  # something was taken from it since
            keys[0] = rest[p]
            _sink(heap, keys, size, 0)
            continue
        _placed(p, frame.shape, mine, rest, owner, row, column, k)
        keys[0] = 0.0
        _sink(heap, keys, size, 0)
        k += 1
    return k


@njit
def _lone(frame: Any, pixels: Any, by_row: Any, by_column: Any, total: Any, row: Any, column: Any, k: Any) -> None:
    """Place one photon at the centroid of its droplet, or on the highest pixel where that lies beside the droplet."""
    columns = frame.shape[1]
    y, x = by_row / total, by_column / total
    at = np.int64(math.floor(y + 0.5)) * columns + np.int64(math.floor(x + 0.5))
    best, highest, inside = -np.inf, pixels[0], False
    for p in pixels:
        inside |= p == at
        value = np.float64(frame[p // columns, p % columns])
        if value > best:
            best, highest = value, p
    if not inside:
        y, x = np.float64(highest // columns), np.float64(highest % columns)
    row[k], column[k] = y, x


@njit
def photons_of_droplets(
    frame: Any, found: Any, droplets: Any, members: Any, cuts: Any, photon: Any, scratch: Any, start: Any, out: Any
) -> Any:
    """Append the photons of the droplets that :func:`xsmall.kernels.droplet.find` left in the workspace.

    Parameters
    ----------
    frame
        (row, column) what was summed.
    found
        Number of droplets.
    droplets
        Pixels and sums of each, see :attr:`xsmall.kernels.droplet.Workspace.found`.
    members
        The arrays of :class:`xsmall.kernels.droplet.Members`.
    cuts
        (lowest sum, highest sum, fewest pixels, most pixels) of the droplets that are kept, ends included.
    photon
        (energy, cloud, most): value of one photon; width (rms, pixels) of its cloud of charge for a fit, 0 for none;
        and the most photons of a droplet that is fitted.
    scratch
        The arrays of a :class:`Scratch`.
    start
        Length of the lists so far.
    out
        (row, column): float64 positions in the frame. They need room for the photons of the droplets; where they have
        not, nothing is placed.

    Returns
    -------
    New length of the lists, also where they have no room for it, or ``TOO_BRIGHT``; droplets that are kept; those of
    them with less than half a photon.
    """
    count, sums = droplets
    row, column = out
    energy, cloud, most = photon
    begin, order, rest, owner, heap, keys, used = scratch
    end, kept, faint, light = start, 0, 0, 0.0
    for d in range(found):
        if cuts[0] <= sums[d, 0] <= cuts[1] and cuts[2] <= count[d] <= cuts[3]:
            if not sums[d, 0] <= MOST * energy:
                return TOO_BRIGHT, 0, 0
            kept += 1
            light += sums[d, 0]
            n = np.int64(math.floor(sums[d, 0] / energy + 0.5))
            faint += n == 0
            end += n
    if not light <= MOST_IN_ALL * energy:
        return TOO_BRIGHT, 0, 0
    if end > row.size:
        return end, kept, faint
    _sort_members(found, count, members, begin, order)
    tables = (rest, owner, heap, keys)
    k = start
    for d in range(found):
        n = np.int64(math.floor(sums[d, 0] / energy + 0.5))
        if n == 0 or not (cuts[0] <= sums[d, 0] <= cuts[1] and cuts[2] <= count[d] <= cuts[3]):
            continue
        pixels = order[begin[d] : begin[d + 1]]
        if n == 1:
            _lone(frame, pixels, sums[d, 1], sums[d, 2], sums[d, 0], row, column, k)
            k += 1
        elif pixels.size == 1:
            for _ in range(n):
                row[k], column[k] = pixels[0] // frame.shape[1], pixels[0] % frame.shape[1]
                k += 1
        else:
            mine = used[0] + d
            stop = _greedy(frame, pixels, energy, n, mine, tables, row, column, k)
            if cloud > 0.0 and n <= most:
                fit(frame, pixels, energy, cloud, mine, tables, row, column, (k, stop))
            k = stop
    used[0] += found
    return k, kept, faint


@njit
def _fraction(frame: Any, use: Any, top: Any, energy: Any, r: Any, c: Any) -> Any:
    """What is left of a pixel beside its whole photons; 0 where it is not used, not finite or below zero."""
    if not use[r, c]:
        return 0.0
    value = np.float64(frame[r, c])
    if not 0.0 <= value <= top:
        return 0.0
    value /= energy
    return value - math.floor(value)


@njit
def _has_shared(frame: Any, use: Any, top: Any, energy: Any, least: Any, r: Any, c: Any, rest: Any) -> Any:
    """Whether no neighbour has more than ``rest``, or as much and comes first, and the largest makes a photon of it."""
    rows, columns = frame.shape
    best, largest = 0.0, True
    for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
        y, x = r + dr, c + dc
        if 0 <= y < rows and 0 <= x < columns:
            other = _fraction(frame, use, top, energy, y, x)
            before = dr < 0 or (dr == 0 and dc < 0)
            largest &= other < rest if before else other <= rest
            best = max(best, other)
    return largest and rest + best >= least


@njit
def photons_of_pixels(frame: Any, use: Any, top: Any, energy: Any, least: Any, start: Any, out: Any) -> Any:
    """Append whole photons of each pixel, and one more where its rest and that of a neighbour make one.

    A pixel whose rest is not below those of its four neighbours (of equals the first) has one more photon if its rest
    and the largest of theirs are together at least ``least``.

    Parameters
    ----------
    frame
        (row, column).
    use
        (row, column) boolean, True where a pixel may be used.
    top
        Largest finite value.
    energy
        Value of one photon.
    least
        In photons.
    start
        Length of the lists so far.
    out
        (row, column): float64 positions. Where they have no room the photons are counted and not listed.

    Returns
    -------
    New length of the lists, or ``TOO_BRIGHT``.
    """
    columns = frame.shape[1]
    row, column = out
    flat, usable = frame.reshape(-1), use.reshape(-1)
    k, light = start, 0.0
    few = frame.dtype.type(0.49 * min(least, 1.0) * energy)  # with a neighbour that has no more it makes no photon
    for first in range(0, flat.size, _BLOCK):
        stop = min(first + _BLOCK, flat.size)
        hits = 0
        for i in range(stop - first):  # without a branch: noise is as often above zero as below
            hits += flat[np.uint64(first + i)] >= few
        if hits == 0:
            continue
        for p in range(first, stop):
            value = np.float64(flat[p])
            if not (few <= flat[p] <= top and value > 0.0 and usable[p]):
                continue
            if not value <= MOST * energy:
                return TOO_BRIGHT
            light += value
            whole = np.int64(math.floor(value / energy))
            rest = value / energy - whole
            r, c = p // columns, p % columns
            whole += 2.0 * rest >= least and _has_shared(frame, use, top, energy, least, r, c, rest)
            if k + whole <= row.size:
                for i in range(whole):
                    row[k + i], column[k + i] = r, c
            k += whole
    return k if light <= MOST_IN_ALL * energy else TOO_BRIGHT
