"""Peaks on a background: connected pixels above a threshold that follows the background of their ring.

The rule is that of peakfinder8 (A. Barty et al., Journal of Applied Crystallography 47 (2014) 1118, Cheetah). Mean and
spread of each ring of pixels around the beam are found in five rounds, each without what lies beyond the limits of the
round before. A pixel above mean + snr x spread of its ring, and above a fixed threshold, begins a peak; all such pixels
that touch it by edge or corner belong to it. The pixels around it, up to twice the background radius away, give local
mean and spread; the sum above that mean, over that spread, is the signal-to-noise ratio of the peak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["COLUMNS", "ROUNDS", "find", "rings"]

ROUNDS = 5
COLUMNS = 8
"""Of what is told of a peak: sum, highest value, pixels, row, column, background, noise, signal-to-noise ratio."""


@njit
def rings(
    frames: npt.NDArray[Any],
    ring: npt.NDArray[np.int32],
    snr: float,
    threshold: float,
    mean: npt.NDArray[np.float64],
    spread: npt.NDArray[np.float64],
    top: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
) -> None:
    """Find background and threshold of the rings of a frame.

    Parameters
    ----------
    frames
        (segment, row, column); what is not finite is skipped.
    ring
        Number of each pixel's ring, below 0 for pixels that are not used.
    snr, threshold
        As many spreads above the mean, and this value at least, lies the threshold of a ring.
    mean, spread, top
        Filled: mean, spread and threshold of each ring; 0, 0 and infinity of one without a pixel.
    sums
        Work space (ring, 3).
    """
    n = mean.shape[0]
    top[:] = np.inf
    low = np.full(n, -np.inf)
    for _ in range(ROUNDS):
        sums[:] = 0.0
        for s in range(frames.shape[0]):
            for r in range(frames.shape[1]):
                for c in range(frames.shape[2]):
                    i = ring[s, r, c]
                    v = np.float64(frames[s, r, c])
                    if i >= 0 and v < top[i] and v > low[i]:
                        sums[i, 0] += 1.0
                        sums[i, 1] += v
                        sums[i, 2] += v * v
        for i in range(n):
            count = sums[i, 0]
            if count == 0.0:
                mean[i], spread[i], top[i], low[i] = 0.0, 0.0, np.inf, -np.inf
                continue
            mean[i] = sums[i, 1] / count
            spread[i] = np.sqrt(max(sums[i, 2] / count - mean[i] * mean[i], 0.0))
            top[i] = max(mean[i] + snr * spread[i], threshold)
            low[i] = mean[i] - snr * spread[i]


@njit
def _around(
    frame: Any, ring: Any, top: Any, seen: Any, row: int, column: int, tile: Any, reach: int
) -> tuple[float, float, float, float]:
    """Count, mean, spread and highest value of the background around a place, inside of its tile.

    The window goes from -reach to reach - 1, as in the programs that all lists of peaks come from.
    """
    n, total, square, highest = 0.0, 0.0, 0.0, -np.inf
    for r in range(max(row - reach, tile[0]), min(row + reach, tile[1])):
        for c in range(max(column - reach, tile[2]), min(column + reach, tile[3])):
            if (r - row) ** 2 + (c - column) ** 2 > reach * reach:
                continue
            i = ring[r, c]
            v = np.float64(frame[r, c])
            if i >= 0 and v < top[i] and abs(v) < np.inf and not seen[r, c]:
                n += 1.0
                total += v
                square += v * v
                highest = max(highest, v)
    if n == 0.0:
        return 0.0, 0.0, 0.0, highest
    mean = total / n
    return n, mean, np.sqrt(max(square / n - mean * mean, 0.0)), highest


@njit
def _gather(frame: Any, ring: Any, top: Any, seen: Any, first: int, tile: Any, pixels: Any, start: int) -> int:
    """Write the numbers of the pixels that belong to a peak behind the others; return where they end."""
    columns = frame.shape[1]
    pixels[start] = first
    seen[first // columns, first % columns] = True
    stop, at = start + 1, start
    while at < stop:
        r, c = pixels[at] // columns, pixels[at] % columns
        at += 1
        for y in range(max(r - 1, tile[0]), min(r + 2, tile[1])):
            for x in range(max(c - 1, tile[2]), min(c + 2, tile[3])):
                i = ring[y, x]
                if i >= 0 and not seen[y, x]:
                    v = np.float64(frame[y, x])
                    if v > top[i] and v < np.inf:
                        seen[y, x] = True
                        pixels[stop] = y * columns + x
                        stop += 1
    return stop


@njit
def _measure(frame: Any, ring: Any, stats: Any, seen: Any, pixels: Any, tile: Any, limits: Any, out: Any) -> bool:
    """Fill a row of ``out`` with what is known of a peak; False where it is none."""
    mean, spread, top = stats
    snr, reach = limits
    columns = frame.shape[1]
    total, row, column = 0.0, 0.0, 0.0
    for p in pixels:
        r, c = p // columns, p % columns
        v = np.float64(frame[r, c]) - mean[ring[r, c]]
        total += v
        row += v * r
        column += v * c
    if not abs(total) > 1e-10:
        return False
    place = int(np.rint(row / abs(total))), int(np.rint(column / abs(total)))
    n, offset, noise, beyond = _around(frame, ring, top, seen, place[0], place[1], tile, reach)
    if n == 0.0:  # nothing is around it: the ring knows
        first = ring[pixels[0] // columns, pixels[0] % columns]
        offset, noise = mean[first], spread[first]
    total, raw, row, column, highest = 0.0, 0.0, 0.0, 0.0, -np.inf
    for p in pixels:
        r, c = p // columns, p % columns
        v = np.float64(frame[r, c])
        total += v - offset
        raw += v
        row += v * r
        column += v * c
        highest = max(highest, v - offset)
    if not abs(raw) > 1e-10 or not noise > 1e-10 or total / noise < snr or highest < beyond - offset:
        return False
    row, column = row / abs(raw), column / abs(raw)
    if row < tile[0] or row > tile[1] - 1 or column < tile[2] or column > tile[3] - 1:
        return False
    out[0], out[1], out[2], out[3], out[4] = total, highest, pixels.shape[0], row, column
    out[5], out[6], out[7] = offset, noise, total / noise
    return True


@njit
def find(
    frame: npt.NDArray[Any],
    ring: npt.NDArray[np.int32],
    stats: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]],
    sizes: tuple[int, int],
    limits: tuple[float, int],
    tile: tuple[int, int],
    seen: npt.NDArray[np.bool_],
    pixels: npt.NDArray[np.int32],
    out: npt.NDArray[np.float64],
) -> int:
    """Find the peaks of a segment.

    Parameters
    ----------
    frame
        (row, column).
    ring
        Ring of each pixel, as in :func:`rings`.
    stats
        Mean, spread and threshold of the rings.
    sizes
        Fewest and most pixels of a peak.
    limits
        Lowest signal-to-noise ratio, and how far the local background reaches.
    tile
        Rows and columns of the tiles that peaks do not cross; a peak has a pixel that is not at the border of its tile.
    seen, pixels
        Work space: False (row, column), and will be so again; (row * column).
    out
        (n, COLUMNS), filled as far as it has room.

    Returns
    -------
    How many there are, which may be more than ``out`` has room for.
    """
    rows, columns = frame.shape
    found, used = 0, 0
    row = np.empty(COLUMNS)
    for low in range(0, rows, tile[0]):
        for left in range(0, columns, tile[1]):
            here = (low, min(low + tile[0], rows), left, min(left + tile[1], columns))
            for r in range(here[0] + 1, here[1] - 1):
                for c in range(here[2] + 1, here[3] - 1):
                    i = ring[r, c]
                    if i < 0 or not np.float64(frame[r, c]) > stats[2][i] or seen[r, c]:
                        continue
                    if not np.float64(frame[r, c]) < np.inf:
                        continue
                    stop = _gather(frame, ring, stats[2], seen, r * columns + c, here, pixels, used)
                    mine = pixels[used:stop]
                    used = stop
                    if mine.shape[0] < sizes[0] or mine.shape[0] > sizes[1]:
                        continue
                    if _measure(frame, ring, stats, seen, mine, here, limits, row):
                        if found < out.shape[0]:
                            out[found] = row
                        found += 1
    for p in pixels[:used]:
        seen[p // columns, p % columns] = False
    return found
