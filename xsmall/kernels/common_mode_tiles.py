"""Raw words to values with common modes of medians in between, one tile of pixels after the other.

Each step of a common mode goes through all pixels. Pixels that no unit of a step ties to others can go through all
steps on their own: a tile of four frames stays in the cache from its raw words to its values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.calibrate import calibrate_piece
from xsmall.kernels.common_mode import (
    COLUMNS,
    ESTIMATOR,
    IGNORE_USE,
    INTEGER_MEDIAN,
    INTERLEAVE,
    MEDIAN,
    ROWS,
    median_estimates,
    subtract_estimates,
)
from xsmall.kernels.gain_code import BLOCK, FRAMES, participation_piece
from xsmall.kernels.jit import njit
from xsmall.kernels.scale import multiply_all, scale_piece

__all__ = ["calibrate_tiles", "tile_of"]

_PIXELS = 1 << 17
"""Of a tile: four frames in ADU are 2 MB."""


def tile_of(steps: npt.NDArray[np.int64], shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of the tiles in which steps can be done; None where each has to see the whole segment.

    Parameters
    ----------
    steps
        As in :class:`xsmall.kernels.common_mode.StepTables`.
    shape
        Rows and columns of the segment.
    """
    medians = np.isin(steps[:, ESTIMATOR], (MEDIAN, INTEGER_MEDIAN))
    if not medians.all() or (steps[:, INTERLEAVE] > 1).any() or steps[:, IGNORE_USE].any():
        return None
    rows, columns = math.lcm(*steps[:, ROWS].tolist()), math.lcm(*steps[:, COLUMNS].tolist())
    columns *= _most(shape[1] // columns, min(BLOCK, _PIXELS // rows) // columns)
    return rows * _most(shape[0] // rows, _PIXELS // columns // rows), columns


def _most(n: int, limit: int) -> int:
    """Return the largest divisor of ``n`` up to a limit, at least 1."""
    return next((d for d in range(min(n, limit), 0, -1) if n % d == 0), 1)


@njit
def calibrate_tiles(
    raw: Any, raw_step: Any, k: Any, plane: Any, pedestal: Any, ones: Any, factor: Any, code_shift: Any, code_mask: Any,
    data_mask: Any, trusted: Any, takes_part: Any, good: Any, steps: Any, limits: Any, shape: Any, tile: Any,
    out: Any, out_step: Any,
) -> None:  # fmt: skip
    """Calibrate ``k`` frames of a segment, the common mode of each taken off.

    Parameters
    ----------
    raw, raw_step, k, plane, pedestal, factor, code_shift, code_mask, data_mask, out, out_step
        As in :func:`xsmall.kernels.calibrate.calibrate_stack`.
    ones
        Ones in the shape of ``factor``.
    trusted
        Its ``limits``.
    takes_part, good
        As in :func:`xsmall.kernels.gain_code.participation_stack`.
    steps, limits
        As in :class:`xsmall.kernels.common_mode.StepTables`, at least one step.
    shape, tile
        Rows and columns of the segment, and of a tile, which divide them; see :func:`tile_of`.
    """
    height, width = tile
    size, pieces = height * width, -(-width // BLOCK)
    adu, use = np.empty(FRAMES * size, np.float32), np.empty(FRAMES * size, np.uint8)
    codes = np.empty(height * pieces, np.int64)
    for first in range(0, k, FRAMES):
        n = min(FRAMES, k - first)
        words, values = raw[first * raw_step :], out[first * out_step :]
        for t in range(shape[0] // height * (shape[1] // width)):
            corner = t * width // shape[1] * height * shape[1] + t * width % shape[1]
            for p in range(height * pieces):
                at, to, stop = _piece(p, pieces, corner, shape[1], width)
                codes[p] = calibrate_piece(
                    words, raw_step, n, plane, pedestal, ones, at, stop, code_shift, code_mask, data_mask, trusted,
                    adu, to, size,
                )  # fmt: skip
            n_uses = 1 if _are_plain(codes, takes_part) else n  # one for all frames where they have the same
            for j in range(n_uses):
                part = words[j * raw_step :]
                _participation(
                    part, takes_part, good, code_shift, code_mask, codes, corner, shape[1], width, use[j * size :]
                )
            for j in range(n):
                u = min(j, n_uses - 1)
                _do_steps(adu[j * size : (j + 1) * size], use[u * size : (u + 1) * size], tile, steps, limits)
            for p in range(height * pieces):
                at, to, stop = _piece(p, pieces, corner, shape[1], width)
                if codes[p] < 0 or (stop - at) % 16:
                    scale_piece(
                        words, raw_step, n, plane, factor, at, stop, code_shift, code_mask, adu, to, size, values,
                        out_step,
                    )  # fmt: skip
                else:
                    of = plane[codes[p]] * factor.shape[1] + at
                    for j in range(n):
                        multiply_all(adu, j * size + to, factor, of, values, j * out_step + at, stop - at)


@njit(inline="always")
def _piece(p: Any, pieces: Any, corner: Any, columns: Any, width: Any) -> Any:
    """Where piece ``p`` of a tile begins in the segment and in the tile, and where it ends in the segment."""
    row, left = p // pieces, p % pieces * BLOCK
    at = corner + row * columns + left
    return at, row * width + left, at + min(BLOCK, width - left)


@njit
def _are_plain(codes: Any, takes_part: Any) -> Any:
    """Whether all pixels of the pieces that have these gain codes take part where they are good."""
    plain = takes_part.shape[1] == 1
    for code in codes:
        plain &= code >= 0 and takes_part[code, 0] == 1
    return plain


@njit
def _participation(
    words: Any, takes_part: Any, good: Any, code_shift: Any, code_mask: Any, codes: Any, corner: Any, columns: Any,
    width: Any, use: Any,
) -> None:  # fmt: skip
    """Say which pixels of the tile of a frame take part."""
    pieces = -(-width // BLOCK)
    for p in range(codes.size):
        at, to, stop = _piece(p, pieces, corner, columns, width)
        taking = use[to : to + stop - at]
        if _are_plain(codes[p : p + 1], takes_part):
            sound = good[at:stop]
            for i in range(taking.size):  # quicker than NumPy's way to write it
                taking[i] = sound[i]
        else:
            participation_piece(words[at:stop], takes_part, good, at, code_shift, code_mask, taking)


@njit
def _do_steps(adu: Any, use: Any, tile: Any, steps: Any, limits: Any) -> None:
    """Do all steps on the tile of one frame."""
    image, taking = adu.reshape(tile), use.reshape(tile)
    for s in range(len(steps)):
        step, limit = steps[s], limits[s]
        n_units = tile[0] // step[ROWS] * (tile[1] // step[COLUMNS])
        estimates, counts = np.empty(n_units, np.float32), np.empty(n_units, np.int32)
        median_estimates(image, taking, step, limit, estimates, counts)
        subtract_estimates(image, taking, step, limit, estimates, counts)
