"""Photons of the frames of a segment in one call: their places, the pixels that hold k of them, and what is not valid.

A frame of few photons takes some hundred microseconds. Going back to Python for each, several times, would cost as much
as a thread gains: only one at a time may.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsmall.kernels.droplet import find, frame_of
from xsmall.kernels.jit import njit
from xsmall.kernels.photon import photons_of_droplets, photons_of_pixels
from xsmall.kernels.photon_count import TOO_BRIGHT, count_invalid, count_pixels

__all__ = ["list_photons_of_droplets", "list_photons_of_pixels"]


@njit(forceinline=True)
def _is_full(end: Any, out: Any) -> Any:
    """Whether a frame has to be seen to before its photons are in the lists."""
    return (end == TOO_BRIGHT) | (end > out[0].size)


@njit
def _count_frame(frame: Any, per_noise: Any, top: Any, j: Any, stop: Any, end: Any, out: Any, tallies: Any) -> None:
    """Count the valid pixels of a frame and those that hold k photons, and say where its photons are."""
    start, length, _, valid, above, n_k, regions, pixels, counts, keep = tallies
    flat = frame.reshape(-1)
    invalid = np.zeros(pixels.size, np.int64)
    within = regions.reshape(pixels.size, flat.size)
    if per_noise is None:
        count_invalid(flat, None, top, within, invalid)
    else:
        count_invalid(flat, per_noise.reshape(-1), top, within, invalid)
    valid[j] += pixels - invalid
    start[j], length[j] = stop, end - stop
    count_pixels(out[0][stop:end], out[1][stop:end], regions, counts, keep, n_k[j], above[j])


@njit
def list_photons_of_droplets(
    stack: Any, shape: Any, energies: Any, per_noise: Any, words: Any, limits: Any, photon: Any, work: Any, first: Any,
    stop: Any, out: Any, tallies: Any,
) -> Any:  # fmt: skip
    """Append the photons of the droplets of some frames.

    Parameters
    ----------
    stack
        k frames as :func:`xsmall.kernels.stack.flat_frames` gives them.
    shape
        (row, column): number of rows and columns of a frame.
    energies
        (k,) float64: value of one photon in each. Where it is none no pixel of the frame is valid.
    per_noise, words
        As in :func:`xsmall.kernels.droplet.find`, where the latter is called ``use``.
    limits
        (thresholds, how, cuts) of :func:`xsmall.kernels.droplet.find` and
        :func:`xsmall.kernels.photon.photons_of_droplets`.
    photon
        (cloud, most), as in the latter.
    work
        The arrays of a ``Workspace``, of ``Members`` and of a ``Scratch``.
    first, stop
        The frame to begin with, and the length of the lists so far.
    out
        (row, column): float64 positions.
    tallies
        (start, length (k,), droplets (k, 2), valid, above (k, region), n_k (k, region, number), regions (region, row,
        column), pixels (region,), counts (row, column), keep): where the photons of each frame are, droplets that are
        kept and those without a photon, and for the others see :mod:`xsmall.kernels.photon_count`. Of each frame they
        are added to once, when its photons are in the lists.

    Returns
    -------
    The frame that was not taken, or the number of frames; the length that the lists need for it, or ``TOO_BRIGHT``; and
    their length.
    """
    thresholds, how, cuts = limits
    space, members, scratch = work
    for j in range(first, energies.size):
        if not 0.0 < energies[j] < np.inf:
            tallies[0][j], tallies[1][j] = stop, 0
            continue
        frame = frame_of(stack, j, shape)
        found = find(frame, per_noise, None, words, thresholds, how, space, members)
        end, kept, faint = photons_of_droplets(
            frame, found, (space[10], space[11]), members, cuts, (energies[j], photon[0], photon[1]), scratch, stop, out
        )
        if _is_full(end, out):
            return j, end, stop
        tallies[2][j, 0] += kept
        tallies[2][j, 1] += faint
        _count_frame(frame, per_noise, thresholds[2], j, stop, end, out, tallies)
        stop = end
    return energies.size, stop, stop


@njit
def list_photons_of_pixels(
    stack: Any, shape: Any, energies: Any, use: Any, top: Any, least: Any, first: Any, stop: Any, out: Any, tallies: Any
) -> Any:
    """Append the whole and the shared photons of the pixels of some frames.

    ``use``, ``top`` and ``least`` are those of :func:`xsmall.kernels.photon.photons_of_pixels`; for all else see
    :func:`list_photons_of_droplets`.
    """
    for j in range(first, energies.size):
        if not 0.0 < energies[j] < np.inf:
            tallies[0][j], tallies[1][j] = stop, 0
            continue
        frame = frame_of(stack, j, shape)
        end = photons_of_pixels(frame, use, top, energies[j], least, stop, out)
        if _is_full(end, out):
            return j, end, stop
        _count_frame(frame, None, top, j, stop, end, out, tallies)
        stop = end
    return energies.size, stop, stop
