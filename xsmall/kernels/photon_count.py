"""How many pixels hold k photons, and how many are not valid, by region."""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["MOST", "MOST_IN_ALL", "TOO_BRIGHT", "clear_bright", "count_invalid", "count_pixels"]

MOST = 1 << 22
"""Photons of a droplet or a pixel from which on they are no light that can be counted."""
MOST_IN_ALL = 1 << 26
"""The same of a whole frame: lists of places of more do not fit."""
TOO_BRIGHT = -1
"""Length of the lists of a frame that has more than either."""
_BLOCK = 256


@njit(forceinline=True)
def _level(frame: Any, per_noise: Any, i: Any) -> Any:
    if per_noise is None:
        return frame[i]
    return frame[i] * per_noise[i]


@njit
def count_invalid(frame: Any, per_noise: Any, top: Any, regions: Any, invalid: Any) -> None:
    """Add the pixels that are not finite to ``invalid``.

    Parameters
    ----------
    frame
        (pixel,) contiguous.
    per_noise
        (pixel,) what it is multiplied by first, or None.
    top
        Largest finite value.
    regions
        (region, pixel) boolean.
    invalid
        (region,) int64, added to.
    """
    for start in range(0, frame.size, _BLOCK):
        stop = min(start + _BLOCK, frame.size)
        together = frame.dtype.type(0)
        for i in range(stop - start):  # unsigned, for a number that may be below zero is asked about each time
            together += _level(frame, per_noise, np.uint64(start + i))
        if abs(together) <= top:  # neither NaN nor infinity
            continue
        for i in range(start, stop):
            if not abs(_level(frame, per_noise, i)) <= top:
                for g in range(regions.shape[0]):
                    invalid[g] += regions[g, i]


@njit
def clear_bright(frame: Any, found: Any, droplets: Any, members: Any, cuts: Any, energy: Any) -> Any:
    """Set the pixels of droplets of more than ``MOST`` photons to NaN.

    The whole frame becomes NaN where the other droplets together have more than ``MOST_IN_ALL`` photons.

    Parameters
    ----------
    frame
        (row, column) what was summed.
    found, droplets, members, cuts
        As in :func:`xsmall.kernels.photon.photons_of_droplets`.
    energy
        Value of one photon.

    Returns
    -------
    Whether any pixel was.
    """
    count, sums = droplets
    pixel, label, droplet, n = members
    light, any_bright = 0.0, False
    for d in range(found):
        if cuts[0] <= sums[d, 0] <= cuts[1] and cuts[2] <= count[d] <= cuts[3]:
            if sums[d, 0] <= MOST * energy:
                light += sums[d, 0]
            else:
                any_bright = True
    if light > MOST_IN_ALL * energy:
        frame[:] = np.nan
        return True
    if any_bright:
        for m in range(n[0]):
            d = droplet[label[m]]
            bright = d >= 0 and sums[d, 0] > MOST * energy
            if bright and cuts[0] <= sums[d, 0] <= cuts[1] and cuts[2] <= count[d] <= cuts[3]:
                frame[pixel[m] // frame.shape[1], pixel[m] % frame.shape[1]] = np.nan
    return any_bright


@njit
def count_pixels(row: Any, column: Any, regions: Any, counts: Any, keep: Any, n_k: Any, above: Any) -> None:
    """Count the pixels that hold k photons in each region.

    Parameters
    ----------
    row, column
        Positions (photon,) in the segment.
    regions
        (region, row, column) boolean.
    counts
        (row, column) int32 of zeros.
    keep
        Whether ``counts`` is to hold the photons of each pixel in the end; else it is zero again.
    n_k
        (region, k) int64: pixels with 1, 2, ... photons are added from k = 1 on; k = 0 is left alone.
    above
        (region,) int64: pixels with more photons than ``n_k`` has room for.
    """
    most, columns = n_k.shape[1] - 1, counts.shape[1]
    flat, within = counts.reshape(-1), regions.reshape(regions.shape[0], -1)
    at = np.empty(row.size, np.int32)
    for i in range(row.size):
        at[i] = np.int32(row[i] + 0.5) * columns + np.int32(column[i] + 0.5)  # places are at -0.49 or above
        flat[at[i]] += 1
    for p in at:
        k = flat[p]
        if k < 0:
            continue
        flat[p] = -k  # seen
        for g in range(within.shape[0]):
            if within[g, p]:
                if k > most:
                    above[g] += 1
                else:
                    n_k[g, k] += 1
    for p in at:
        flat[p] = abs(flat[p]) if keep else 0
