"""Rebinning: frames of fewer, larger pixels that hold the same signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.part import Labels
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import in_order
from xsmall.reductions.filters import filtered, static_mask
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    MEAN,
    N_VALID,
    PIXEL_DIMS,
    REBINNED,
    ROW,
    SEGMENT,
    SUM,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Rebin", "rebin"]

Floats = npt.NDArray[np.float64]
_NEARLY = 1e-9


@ask
def rebin(
    factor: float | tuple[float, float],
    *,
    statistic: str = SUM,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
) -> Record:
    """Gather pixels into larger ones; no signal is lost or made.

    Parameters
    ----------
    factor
        Rows and columns of pixels that make one, 1 or more each, not necessarily whole; one number for both. A pixel on
        a border is shared by area.
    statistic
        ``"sum"``: the signal of the valid pixels; the sum over all larger pixels is that over all valid pixels.
        ``"mean"``: per valid pixel.
    mask
        Boolean (segment, row, column), or of each event, as in :func:`~xsmall.roi`.
    threshold, noise
        Lowest value that counts, or (lowest, highest), as in :func:`~xsmall.roi`.

    Returns
    -------
    A record. ``rebinned`` (event, segment, row, column), dtype of the frames, unit of the data, NaN where no pixel is
    valid; ``n_valid`` (float32), the valid area of each larger pixel, in pixels. With variances also
    ``rebinned_variance``: of each by itself, neighbours that share pixels are correlated. Coordinates ``row`` and
    ``column``: middle of the larger pixels in the labels of the detector. The last ones may be smaller.

    Raises
    ------
    ParameterError
        A factor below 1, another statistic.
    DataError
        Frames with rows or columns left out.

    Notes
    -----
    Segments are rebinned one by one. Cost: some 2 ns per pixel.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> small = cal.sd.rebin((4, 2.5))
    >>> small["rebinned"].shape
    (4, 2, 8, 26)
    """
    pair = _factors(factor)
    if statistic not in (SUM, MEAN):
        raise ParameterError("statistic of rebin", found=repr(statistic), expected=f"{SUM!r} or {MEAN!r}")
    fixed, of_events = static_mask(mask)
    return filtered(Rebin(pair, statistic, fixed), threshold, noise, of_events)


def _factors(given: Any) -> tuple[float, float]:
    try:
        rows, columns = (float(f) for f in (given if isinstance(given, tuple | list) else (given, given)))
    except (TypeError, ValueError):
        rows = columns = math.nan
    if not (1 <= rows < math.inf and 1 <= columns < math.inf):
        raise ParameterError(
            "invalid factor", found=repr(given), expected="1 or more pixels, or (rows, columns)", fix="xs.rebin((4, 4))"
        )
    return rows, columns


@dataclass(frozen=True)
class Rebin(Record):
    """Factors, statistic and mask; made by :func:`rebin`."""

    name: ClassVar[str] = "rebin"

    factors: tuple[float, float]
    statistic: str = SUM
    mask: StaticMask | None = None

    def shape(self, frames: Frames) -> tuple[int, int, int]:
        """Segments, larger rows and columns."""
        rows, columns = (_larger(n, f) for n, f in zip(frames.shape[1:], self.factors, strict=True))
        return frames.shape[0], rows, columns

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe rebinned and n_valid."""
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            in_order(labels, dim, "rebin")
        if self.mask is not None:
            self.mask.on(frames)
        units = {} if frames.units is None else {UNITS: frames.units}
        shape = self.shape(frames)
        out = {
            REBINNED: Output(PIXEL_DIMS, shape, frames.dtype, units),
            N_VALID: Output(PIXEL_DIMS, shape, np.dtype(np.float32), {UNITS: DIMENSIONLESS}),
        }
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{REBINNED}{VARIANCE_SUFFIX}"] = Output(PIXEL_DIMS, shape, frames.dtype, squared)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Labels of the segments, middle of the larger rows and columns."""
        out = {SEGMENT: xr.Variable((SEGMENT,), np.array(frames.segment))}
        for dim, labels, factor in zip((ROW, COLUMN), (frames.row, frames.column), self.factors, strict=True):
            out[dim] = xr.Variable((dim,), _middles(labels, factor))
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return RebinReducer(self, frames)


def _larger(n: int, factor: float) -> int:
    return math.ceil(n / factor - _NEARLY)


def _middles(labels: Labels, factor: float) -> Floats:
    """Label of the middle of each larger pixel."""
    n = len(labels)
    edges = np.minimum(np.arange(_larger(n, factor) + 1) * factor, n)
    return np.asarray(min(labels) - 0.5 + (edges[:-1] + edges[1:]) / 2)


def _pixel_shares(n: int, factor: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Larger pixel in which each of ``n`` begins, and what it gives to that one and to the next."""
    low = np.arange(n)
    first = np.minimum(np.floor(low / factor + _NEARLY).astype(np.int64), _larger(n, factor) - 1)
    own = np.clip((first + 1) * factor - low, 0, 1)
    own[1 - own < _NEARLY] = 1
    return first, np.stack([own, 1 - own], axis=1)


class RebinReducer(Reducer):
    """Gathers the pixels of each segment."""

    def __init__(self, record: Rebin, frames: Frames) -> None:
        from xsmall.kernels.rebin import rebin as gather

        self._kernel = gather
        self._record, self._frames = record, frames
        self._mask = None if record.mask is None else record.mask.on(frames)
        orders = [in_order(labels, dim, "rebin") for dim, labels in ((ROW, frames.row), (COLUMN, frames.column))]
        rising = all(np.array_equal(o, np.arange(o.size)) for o in orders)
        self._order = None if rising else np.ix_(*orders)
        self._row, self._column = (_pixel_shares(n, f) for n, f in zip(frames.shape[1:], record.factors, strict=True))

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._total, self._area, self._variances = np.zeros((3, k, *self._record.shape(self._frames)))

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Gather segment ``s``."""
        (row, a), (column, b) = self._row, self._column
        none = np.empty((0, 0), frames.dtype)
        for j in range(len(frames)):
            frame = frames[j] if self._mask is None else np.where(self._mask[s], frames[j], np.nan)
            variances = none if variance is None else variance[j]
            if self._order is not None:
                frame, variances = frame[self._order], variances if variance is None else variances[self._order]
            self._kernel(frame, frame, row, a, column, b, self._total[j, s])
            self._kernel(frame, none, row, a, column, b, self._area[j, s])
            if variance is not None:
                self._kernel(frame, variances, row, a * a, column, b * b, self._variances[j, s])

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        dtype, mean = self._frames.dtype, self._record.statistic == MEAN
        area = np.where(self._area > _NEARLY, self._area, np.nan)
        per = area if mean else np.where(np.isnan(area), np.nan, 1.0)
        out = {REBINNED: (self._total / per).astype(dtype), N_VALID: self._area.astype(np.float32)}
        if self._frames.variance:
            out[f"{REBINNED}{VARIANCE_SUFFIX}"] = (self._variances / per**2).astype(dtype)
        return out
