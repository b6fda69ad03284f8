"""Twin of :mod:`xsmall.kernels.droplet`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Found(NamedTuple):
    """One droplet."""

    total: float
    size: int
    row: float
    column: float


def droplet(frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], high: float, low: float) -> list[Found]:
    """Droplets of a frame (row, column) in the order of their first pixel, found by walking from pixel to pixel."""
    valid = np.isfinite(frame) & use
    real = frame.dtype.type
    seed = valid & (frame >= real(high))
    ring = np.zeros_like(seed)
    ring[1:] |= seed[:-1]
    ring[:-1] |= seed[1:]
    ring[:, 1:] |= seed[:, :-1]
    ring[:, :-1] |= seed[:, 1:]
    todo = seed | (ring & valid & (frame >= real(low)))
    firsts = zip(*np.nonzero(todo), strict=True)
    return [_measure(frame, _walk(todo, (int(r), int(c)))) for r, c in firsts if todo[r, c]]


def _walk(todo: npt.NDArray[np.bool_], first: tuple[int, int]) -> list[tuple[int, int]]:
    """Pixels connected to ``first``, which are taken out of ``todo``."""
    pixels, waiting = [], [first]
    todo[first] = False
    while waiting:
        r, c = waiting.pop()
        pixels.append((r, c))
        for near in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if 0 <= near[0] < todo.shape[0] and 0 <= near[1] < todo.shape[1] and todo[near]:
                todo[near] = False
                waiting.append(near)
    return pixels


def _measure(frame: npt.NDArray[Any], pixels: list[tuple[int, int]]) -> Found:
    rows, columns = np.array(pixels).T
    values = frame[rows, columns].astype(np.float64)
    total = values.sum()
    return Found(
        float(total), len(pixels), float((values * rows).sum() / total), float((values * columns).sum() / total)
    )
