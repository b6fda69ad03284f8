"""Droplets: charge that photons leave in a few connected pixels, found with two thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import ArrayCache
from xsmall.errors import ParameterError
from xsmall.lazy.mask import StaticMask
from xsmall.lazy.record import Frames, Output, Record, Reducer
from xsmall.reductions.box import neighbours_are_neighbours
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
"""Masks as bits, of this process."""


def droplet(
    threshold: float, threshold_low: float | None = None, *, max_droplets: int = 1000, mask: Any = None
) -> Droplet:
    """Find droplets: connected pixels above two thresholds.

    Parameters
    ----------
    threshold
        In the unit of the data; pixels at or above it are seeds.
    threshold_low
        In the unit of the data; the four neighbours of a seed join it when they are at or above this. Without it only
        seeds count.
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
    ``sum_variance``.

    Raises
    ------
    ParameterError
        Thresholds that are not positive or out of order, a maximum below 1.
    DataError
        Frames with rows or columns left out, in which neighbours are none.

    Notes
    -----
    Members that touch along an edge are one droplet; the ring around the seeds is one pixel wide. Droplets do not
    cross segments. Pixels that are NaN or masked are neither seeds nor members. Cost: little more than reading the
    frame as long as few pixels are above the threshold. A million events of 1000 droplets are 36 GB before
    compression: choose ``max_droplets`` by what occurs.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> found = cal.sd.droplet(threshold=4.0, threshold_low=1.0, max_droplets=100)
    >>> found["sum"].dims
    ('event', 'droplet')
    """
    high = _threshold(threshold, "threshold")
    low = high if threshold_low is None else _threshold(threshold_low, "threshold_low")
    if low > high:
        raise ParameterError(
            "thresholds out of order",
            found=f"threshold={high:g}, threshold_low={low:g}",
            expected="threshold_low at or below threshold",
            fix=f"droplet(threshold={low:g}, threshold_low={high:g})",
        )
    return Droplet(high, low, _count(max_droplets), StaticMask.of(mask))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError("max_droplets", found=repr(value), expected="an integer of 1 or more")
    return int(value)


def _threshold(value: object, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(
            f"{name} cannot be meant",
            found=repr(value),
            expected="a positive number in the unit of the data",
            fix=f"{name}=4.75 for half a photon of 9.5 keV in calibrated data",
        )
    return number


@dataclass(frozen=True)
class Droplet(Record):
    """Thresholds, length of the list and mask; made by :func:`droplet`."""

    name: ClassVar[str] = "droplet"

    threshold: float
    threshold_low: float
    max_droplets: int
    mask: StaticMask | None = None

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the count and the list of droplets."""
        neighbours_are_neighbours(frames, "droplet")
        if self.mask is not None:
            self.mask.on(frames)
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


class DropletReducer(Reducer):
    """Appends the droplets of each segment to the lists of the events."""

    def __init__(self, record: Droplet, frames: Frames) -> None:
        from xsmall.kernels.droplet import Workspace, find

        self._find = find
        self._frames = frames
        self._most = record.max_droplets
        self._use = _mask_words(record.mask, frames)
        real = frames.dtype.type
        self._thresholds = (real(record.threshold), real(record.threshold_low), np.finfo(frames.dtype).max)
        self._work = Workspace(*frames.shape[1:]).arrays
        steps = [float(labels[1] - labels[0]) if len(labels) > 1 else 1.0 for labels in (frames.row, frames.column)]
        self._origin = (float(frames.row[0]), float(frames.column[0]), *steps)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events with empty lists."""
        shape, real = (k, self._most), self._frames.dtype
        self._n = np.zeros(k, dtype=np.int64)
        self._out = (
            np.full(shape, np.nan, dtype=real),
            np.full(shape, np.nan, dtype=real),
            np.full(shape, -1, dtype=np.int32),
            np.full(shape, np.nan),
            np.full(shape, np.nan),
            np.full(shape, -1, dtype=np.int32),
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
            spread = frames[j] if variance is None else variance[j]
            self._find(frames[j], spread, self._use[s], self._thresholds, self._work, place, j, self._n, self._out)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists."""
        total, spread, size, row, column, segment = self._out
        out = {
            N_DROPLETS: self._n.astype(np.int32),
            SUM: total,
            N_PIXELS: size,
            ROW: row,
            COLUMN: column,
            SEGMENT: segment,
        }
        if self._frames.variance:
            out[f"{SUM}{VARIANCE_SUFFIX}"] = spread
        return out
