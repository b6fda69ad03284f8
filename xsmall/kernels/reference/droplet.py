"""Twin of :mod:`xsmall.kernels.droplet`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


class FoundOne(NamedTuple):
    """One droplet; ``outline`` is first row, last row, first column, last column."""

    total: float
    size: int
    row: float
    column: float
    highest: float
    outline: tuple[int, int, int, int]
    touches: bool


def droplet(
    frame: npt.NDArray[Any],
    use: npt.NDArray[np.bool_],
    high: float,
    low: float,
    *,
    flood: bool = False,
    diagonal: bool = False,
) -> list[FoundOne]:
    """Droplets of a frame (row, column) in the order of their first pixel, found by walking from pixel to pixel."""
    beside = EDGES + CORNERS if diagonal else EDGES
    valid = np.isfinite(frame) & use
    real = frame.dtype.type
    seed = valid & (frame >= real(high))
    above = valid & (frame >= real(low))
    todo = above.copy() if flood else seed | (_shifted(seed, beside) & above)
    firsts = zip(*np.nonzero(todo), strict=True)
    found = [_walk(todo, (int(r), int(c)), beside) for r, c in firsts if todo[r, c]]
    bad = np.pad(~valid, 1, constant_values=True)
    touching = _shifted(bad, EDGES)[1:-1, 1:-1]
    return [_measured_droplet(frame, touching, pixels) for pixels in found if any(seed[p] for p in pixels)]


def _shifted(mask: npt.NDArray[np.bool_], beside: tuple[tuple[int, int], ...]) -> npt.NDArray[np.bool_]:
    """Pixels that have a neighbour in ``mask``."""
    padded = np.pad(mask, 1)
    rows, columns = mask.shape
    out = np.zeros_like(mask)
    for dr, dc in beside:
        out |= padded[1 + dr : 1 + dr + rows, 1 + dc : 1 + dc + columns]
    return out


def _walk(
    todo: npt.NDArray[np.bool_], first: tuple[int, int], beside: tuple[tuple[int, int], ...]
) -> list[tuple[int, int]]:
    """Pixels connected to ``first``, which are taken out of ``todo``."""
    pixels, waiting = [], [first]
    todo[first] = False
    while waiting:
        r, c = waiting.pop()
        pixels.append((r, c))
        for near in ((r + dr, c + dc) for dr, dc in beside):
            if 0 <= near[0] < todo.shape[0] and 0 <= near[1] < todo.shape[1] and todo[near]:
                todo[near] = False
                waiting.append(near)
    return pixels


def _measured_droplet(
    frame: npt.NDArray[Any], touching: npt.NDArray[np.bool_], pixels: list[tuple[int, int]]
) -> FoundOne:
    rows, columns = np.array(pixels).T
    values = frame[rows, columns].astype(np.float64)
    total = values.sum()
    return FoundOne(
        float(total),
        len(pixels),
        float((values * rows).sum() / total),
        float((values * columns).sum() / total),
        float(values.max()),
        (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())),
        bool(touching[rows, columns].any()),
    )
