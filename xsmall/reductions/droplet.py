"""Droplets: charge that photons leave in a few connected pixels, found with two thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import ArrayCache
from xsmall.engine.per_pixel import StaticMask, StaticNoise
from xsmall.engine.record import Frames, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.reductions.box import neighbours_are_neighbours
from xsmall.reductions.threshold import Sigma, Threshold, check_noise, check_unit, number, thresholds_of
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    DROPLET,
    N_DROPLETS,
    N_PIXELS,
    ROW,
    SEGMENT,
    SUM,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Droplet", "droplet"]

CACHE = ArrayCache(budget=1 << 26)
"""Masks as bits and noise, of this process."""


def droplet(
    threshold: float | Sigma,
    threshold_low: float | Sigma | None = None,
    *,
    noise: Any = None,
    max_droplets: int = 1000,
    mask: Any = None,
) -> Droplet:
    """Find droplets: connected pixels above two thresholds.

    Parameters
    ----------
    threshold
        In the unit of the data, or ``xs.sigma(5)``: 5 times the noise of each pixel; pixels at or above it are seeds.
    threshold_low
        Of the same kind; the four neighbours of a seed join it when they are at or above this. Without it only seeds
        count.
    noise
        For thresholds in sigma: standard deviation of each pixel without light (segment, row, column), in the unit of
        the data, such as ``(constants["noise"] / constants["gain"]).isel(gain_stage=0)`` for data in keV; a DataArray
        is cut by its labels. Pixels whose noise is 0 or NaN are not used.
    max_droplets
        Length of the dim ``droplet``: how many droplets of an event are listed, in the order of their first pixel.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.

    Returns
    -------
    A record. ``n_droplets`` (event), int32, counts all of them, also beyond ``max_droplets``: where it is larger the
    list is not complete. Over (event, droplet): ``sum`` (dtype of the frames, unit of the data), ``n_pixels`` (int32),
    ``row`` and ``column`` (float64, centroid weighted by the pixels' values, in the labels of the detector),
    ``segment`` (int32, its label). Beyond the count floats are NaN and integers -1. With variances also
    ``sum_variance`` and, to first order, ``row_variance`` and ``column_variance``.

    Raises
    ------
    ParameterError
        Thresholds that are not positive, of two kinds or out of order, in sigma without noise; noise in another unit
        than the data; a maximum below 1.
    DataError
        Frames with rows or columns left out, in which neighbours are none.

    Notes
    -----
    Members that touch along an edge are one droplet; the ring around the seeds is one pixel wide. Droplets do not cross
    segments. The noise is not taken from the variance of the data, in which that of counting photons would make every
    photon a small multiple of its own error. Variances hold for the pixels of a droplet as they were found: that
    thresholds favour high values is not in them, nor, for the centroid, where within a pixel a photon fell. Pixels that
    are NaN or masked are neither seeds nor members. Cost: little more than reading the frame as long as few pixels are
    above the threshold. A million events of 1000 droplets are 36 GB before compression: choose ``max_droplets`` by what
    occurs.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> found = cal.sd.droplet(threshold=4.0, threshold_low=1.0, max_droplets=100)
    >>> found["sum"].dims
    ('event', 'droplet')
    """
    high, low = thresholds_of(threshold, threshold_low)
    frozen, units = check_noise(noise, high)
    return Droplet(high, low, _count(max_droplets), StaticMask.of(mask), frozen, units)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError("max_droplets", found=repr(value), expected="an integer of 1 or more")
    return int(value)


@dataclass(frozen=True)
class Droplet(Record):
    """Thresholds, length of the list and mask; made by :func:`droplet`."""

    name: ClassVar[str] = "droplet"

    threshold: Threshold
    threshold_low: Threshold
    max_droplets: int
    mask: StaticMask | None = None
    noise: StaticNoise | None = None
    noise_units: str | None = None

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the count and the list of droplets."""
        neighbours_are_neighbours(frames, "droplet")
        if self.mask is not None:
            self.mask.on(frames)
        if self.noise is not None:
            check_unit(self.noise_units, frames)
            self.noise.on(frames)
        dims, shape = (DROPLET,), (self.max_droplets,)
        units = {} if frames.units is None else {UNITS: frames.units}
        place, count = {UNITS: DIMENSIONLESS}, {UNITS: DIMENSIONLESS}
        out = {
            N_DROPLETS: Output((), (), np.dtype(np.int32), count),
            SUM: Output(dims, shape, frames.dtype, units),
            N_PIXELS: Output(dims, shape, np.dtype(np.int32), count),
            ROW: Output(dims, shape, np.dtype(np.float64), place),
            COLUMN: Output(dims, shape, np.dtype(np.float64), place),
            SEGMENT: Output(dims, shape, np.dtype(np.int32), place),
        }
        if frames.variance:
            spread = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{SUM}{VARIANCE_SUFFIX}"] = Output(dims, shape, frames.dtype, spread)
            for v in (ROW, COLUMN):
                out[f"{v}{VARIANCE_SUFFIX}"] = Output(dims, shape, np.dtype(np.float64), place)
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return DropletReducer(self, frames)


def _mask_words(mask: StaticMask | None, frames: Frames) -> npt.NDArray[np.uint64]:
    """Bits of the pixels that may be used, (segment, row, word), made once per process."""
    from xsmall.kernels.droplet import mask_words

    if mask is None:
        words = CACHE.get(frames.shape[1:], lambda: mask_words(np.ones(frames.shape[1:], dtype=bool)))
        return np.broadcast_to(words, (frames.shape[0], *words.shape))
    key = (mask, frames.segment, frames.row, frames.column)
    return CACHE.get(key, lambda: np.stack([mask_words(use) for use in mask.on(frames)]))


def _per_noise(noise: StaticNoise | None, frames: Frames) -> npt.NDArray[np.floating[Any]] | None:
    """One over the noise of each pixel, NaN where it is 0 or unknown, made once per process."""
    if noise is None:
        return None
    frozen = noise

    def make() -> npt.NDArray[np.floating[Any]]:
        values = frozen.on(frames)
        good = np.isfinite(values) & (values > 0)
        inverse: npt.NDArray[np.float64] = np.divide(1.0, values, out=np.full(values.shape, np.nan), where=good)
        return inverse.astype(frames.dtype)

    found: npt.NDArray[np.floating[Any]] = CACHE.get(
        (noise, frames.segment, frames.row, frames.column, frames.dtype), make
    )
    return found


class DropletReducer(Reducer):
    """Appends the droplets of each segment to the lists of the events."""

    def __init__(self, record: Droplet, frames: Frames) -> None:
        from xsmall.kernels.droplet import Workspace, find

        self._find = find
        self._frames = frames
        self._most = record.max_droplets
        self._use = _mask_words(record.mask, frames)
        real = frames.dtype.type
        levels = number(record.threshold), number(record.threshold_low)
        self._thresholds = (real(levels[0]), real(levels[1]), np.finfo(frames.dtype).max)
        self._in_sigma = _per_noise(record.noise, frames)
        self._level = np.empty(frames.shape[1:] if self._in_sigma is not None else 0, dtype=frames.dtype)
        self._work = Workspace(*frames.shape[1:], variance=frames.variance).arrays
        steps = [float(labels[1] - labels[0]) if len(labels) > 1 else 1.0 for labels in (frames.row, frames.column)]
        self._origin = (float(frames.row[0]), float(frames.column[0]), *steps)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events with empty lists."""
        shape, real = (k, self._most), self._frames.dtype
        self._n = np.zeros(k, dtype=np.int64)
        spread = shape if self._frames.variance else (1, 0)
        self._out = (
            np.full(shape, np.nan, dtype=real),
            np.full(shape, -1, dtype=np.int32),
            np.full(shape, np.nan),
            np.full(shape, np.nan),
            np.full(shape, -1, dtype=np.int32),
            np.full(spread, np.nan, dtype=real),
            np.full(spread, np.nan),
            np.full(spread, np.nan),
        )

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Append the droplets of segment ``s``."""
        place = (self._frames.segment[s], *self._origin)
        for j in range(frames.shape[0]):
            frame, spread = frames[j], frames[j] if variance is None else variance[j]
            level = frame
            if self._in_sigma is not None:
                level = np.multiply(frame, self._in_sigma[s], out=self._level)
            self._find(frame, level, spread, self._use[s], self._thresholds, self._work, place, j, self._n, self._out)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists."""
        total, size, row, column, segment, *spread = self._out
        out = {
            N_DROPLETS: self._n.astype(np.int32),
            SUM: total,
            N_PIXELS: size,
            ROW: row,
            COLUMN: column,
            SEGMENT: segment,
        }
        if self._frames.variance:
            out |= {f"{name}{VARIANCE_SUFFIX}": v for name, v in zip((SUM, ROW, COLUMN), spread, strict=True)}
        return out
