"""Twin of :mod:`xsmall.kernels.photon`, without the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BEFORE = ((-1, 0), (0, -1))
AFTER = ((0, 1), (1, 0))


def greedy(pixels: dict[tuple[int, int], float], n: int) -> list[tuple[float, float]]:
    """Places of ``n`` photons on a droplet, whose pixels have values in photons; a lone one lies at the centroid."""
    order = sorted(pixels)
    if n == 1:
        total = sum(pixels.values())
        place = tuple(sum(p[i] * v for p, v in pixels.items()) / total for i in (0, 1))
        nearest = tuple(int(np.floor(v + 0.5)) for v in place)
        return [place if nearest in pixels else max(order, key=lambda p: pixels[p])]  # type: ignore[list-item]
    if len(pixels) == 1:
        return [order[0]] * n
    places: list[tuple[float, float]] = [p for p in order for _ in range(int(np.floor(pixels[p])))]
    rest = {p: v - np.floor(v) for p, v in pixels.items()}
    while len(places) < n:
        r, c = max(order, key=lambda p: rest[p])
        beside = [(r + dr, c + dc) for dr, dc in BEFORE + AFTER if (r + dr, c + dc) in pixels]
        part = 1.0 - rest[r, c]
        rest[r, c] = 0.0
        if not beside:
            places.append((r, c))
            continue
        other = max(beside, key=lambda p: rest[p])
        rest[other] -= part
        part = min(part, 0.49)
        places.append((r + part * (other[0] - r), c + part * (other[1] - c)))
    return places


def photons_of_pixels(
    frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], energy: float, least: float
) -> npt.NDArray[np.int64]:
    """Photons of each pixel: whole ones, and one more where a rest and that of a neighbour make one."""
    value = np.where(use & np.isfinite(frame) & (frame > 0), frame, 0).astype(np.float64) / energy
    whole = np.floor(value).astype(np.int64)
    rest = np.pad(value - whole, 1)
    out = whole.copy()
    for r, c in np.ndindex(frame.shape):
        mine = rest[r + 1, c + 1]
        before = [rest[r + 1 + dr, c + 1 + dc] for dr, dc in BEFORE]
        after = [rest[r + 1 + dr, c + 1 + dc] for dr, dc in AFTER]
        largest = all(v < mine for v in before) and all(v <= mine for v in after)
        inside = bool(use[r, c]) and bool(np.isfinite(frame[r, c])) and bool(frame[r, c] > 0)
        out[r, c] += inside and largest and mine + max(before + after) >= least
    return out


def count_pixels(photons: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
    """How many valid pixels hold 0, 1, ... ``most`` photons, and at last how many hold more."""
    held = np.minimum(photons[valid], most + 1)
    return np.bincount(held, minlength=most + 2)
