"""What droplets and photons need of frames: masks as bits, noise, neighbours in order, and places between pixels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.detector.part import Part
from xsmall.errors import GeometryError
from xsmall.frames.per_pixel import StaticMask, StaticNoise
from xsmall.vocabulary import RADIUS, TWO_THETA, Q, X, Y, Z

__all__ = [
    "PLACES",
    "between_pixels",
    "check_places",
    "in_rising_order",
    "in_sigma",
    "per_noise",
    "rising",
    "sorted_part",
    "words_of_mask",
]

Floats = npt.NDArray[np.floating[Any]]
PLACES: Final = (X, Y, Z, RADIUS, TWO_THETA, Q)
"""Where a centroid or a photon can be said to lie."""


def check_places(what: str, also: tuple[str, ...], frames: Frames) -> None:
    """Raise unless geometry and beam allow the places that are asked for."""
    for name in set(also) & set(PLACES):
        if frames.geometry is None:
            raise GeometryError(
                f"{what} have no {name} without a geometry",
                found="frames without geometry",
                expected="frames that know where their pixels are",
                fix='.sd.assign_geometry(xs.Geometry.from_psana("geometry.data"))',
            )
        pixel_array(frames.geometry, frames.beam or Beam(), name)  # raises where the beam lacks something


def words_of_mask(mask: StaticMask | None, frames: Frames) -> npt.NDArray[np.uint64]:
    """Bits of the pixels that may be used, (segment, row, word), in rising order, made once per process."""
    from xsmall.kernels.droplet import mask_words

    if mask is None:
        words = CACHE.get(("all words", frames.shape[1:]), lambda: mask_words(np.ones(frames.shape[1:], dtype=bool)))
        return np.broadcast_to(words, (frames.shape[0], *words.shape))
    key = ("mask words", mask, frames.part)
    return CACHE.get(key, lambda: np.stack([mask_words(use) for use in in_rising_order(mask.on(frames), frames.part)]))


def per_noise(noise: StaticNoise | None, frames: Frames) -> npt.NDArray[np.floating[Any]] | None:
    """One over the noise of each pixel, NaN where it is 0 or unknown, in rising order, made once per process."""
    if noise is None:
        return None
    frozen = noise

    def make() -> npt.NDArray[np.floating[Any]]:
        values = in_rising_order(frozen.on(frames), frames.part)
        good = np.isfinite(values) & (values > 0)
        inverse: npt.NDArray[np.float64] = np.divide(1.0, values, out=np.full(values.shape, np.nan), where=good)
        return inverse.astype(frames.dtype)

    found: npt.NDArray[np.floating[Any]] = CACHE.get(("per noise", noise, frames.part, frames.dtype), make)
    return found


def in_sigma(frame: Floats, per_noise: Floats | None) -> Floats:
    """Values in units of their noise; the frame itself where nothing is said about noise."""
    if per_noise is None:
        return frame
    with np.errstate(over="ignore"):  # what is then infinite is not valid
        level: Floats = np.multiply(frame, per_noise)
    return level


def sorted_part(part: Part) -> Part:
    """The same segments with rows and columns in rising order."""
    return Part(part.segment, sorted(part.row), sorted(part.column))  # type: ignore[arg-type]


def rising(part: Part) -> tuple[Any, ...] | None:
    """Index that brings frames (k, row, column) into rising order of rows and columns; None where they are."""
    if part == sorted_part(part):
        return None
    return (slice(None), *np.ix_(np.argsort(part.row), np.argsort(part.column)))


def in_rising_order(values: npt.NDArray[Any], part: Part) -> npt.NDArray[Any]:
    """Values (segment, row, column) of the pixels of ``part`` with rows and columns in rising order."""
    order = rising(part)
    return values if order is None else np.ascontiguousarray(values[order])


def between_pixels(
    whole: npt.NDArray[np.floating[Any]],
    segment: npt.NDArray[np.integer[Any]],
    row: npt.NDArray[np.float64],
    column: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Interpolate a quantity of the pixels of a detector (segment, row, column) linearly at centroids."""
    r = np.clip(np.floor(row), 0, max(whole.shape[1] - 2, 0)).astype(np.intp)
    c = np.clip(np.floor(column), 0, max(whole.shape[2] - 2, 0)).astype(np.intp)
    dr, dc = row - r, column - c
    r1, c1 = np.minimum(r + 1, whole.shape[1] - 1), np.minimum(c + 1, whole.shape[2] - 1)
    near = whole[segment, r, c] * (1 - dc) + whole[segment, r, c1] * dc
    far = whole[segment, r1, c] * (1 - dc) + whole[segment, r1, c1] * dc
    between: npt.NDArray[np.float64] = near * (1 - dr) + far * dr
    return between
