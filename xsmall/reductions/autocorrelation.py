"""Spatial autocorrelation of the pixels of a box, masked and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import Box, in_order
from xsmall.vocabulary import (
    AUTOCORRELATION,
    COLUMN,
    DIMENSIONLESS,
    LAG_COLUMN,
    LAG_ROW,
    ROW,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Autocorrelation", "autocorrelation"]

MOST_PRODUCTS = 10**9
"""Pixels times lags that the variance of one event may take: two to three seconds."""

Pixels = tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Positions of the segment, the rows and the columns of a box in the arrays of the frames."""
_VARIANCE = f"{AUTOCORRELATION}{VARIANCE_SUFFIX}"


def autocorrelation(
    box: Box | None = None, *, max_lag: int | tuple[int, int] | None = None, mask: Any = None
) -> Autocorrelation:
    """Correlate the pixels of a box with themselves, event by event.

    Parameters
    ----------
    box
        A :class:`~xsmall.Box`; may be left out where the frames have one segment.
    max_lag
        Largest lag in pixels, one number or (along row, along column), below the size of the box; without it all lags.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.

    Returns
    -------
    A record. Its variable ``autocorrelation`` (event, lag_row, lag_column), float64, dimensionless: 1 where pixels that
    far apart are not correlated; NaN where no pair of valid pixels, or no signal, lies that far apart. It is the same
    for opposite lags. With variances also ``autocorrelation_variance``, unless that would take more than 1e9 products
    per event (pixels of the box times half of the lags): give ``max_lag``. Coordinates: the lags in pixels, 0 in the
    middle.

    Raises
    ------
    ParameterError
        A box without segment where there are several, one that misses the frames, a lag not below its size.
    DataError
        Frames with rows or columns left out.

    Notes
    -----
    C(l) = [sum I(p) I(p+l)] [sum M(p) M(p+l)] / ([sum I(p) M(p+l)] [sum M(p) I(p+l)]) with M = 1 on valid pixels and
    0 elsewhere, I = 0 there: the mean product of pairs over the means of the same pairs, so that masks and borders do
    not bias it. Zero-padded. Cost: two Fourier transforms back and one forth per event, of the size of the box plus the
    largest lag; with variances one pass over the box for every lag, some 2.5 ns per pixel. The variance is exact to
    first order in the errors of the pixels. Where these are as large as the signal (much less than a photon per pixel)
    it comes out too large, by up to a factor of two. At lag 0 the noise of a pixel is correlated with itself: that
    raises C(0), and is not subtracted.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> cal.sd.autocorrelation(xs.Box(segment=1, row=(0, 16)), max_lag=5)["autocorrelation"].shape
    (4, 11, 11)
    """
    if box is not None and not isinstance(box, Box):
        raise ParameterError("box of an autocorrelation", found=repr(box)[:80], expected="a Box or None")
    return Autocorrelation(box or Box(), _lag(max_lag), StaticMask.of(mask))


def _lag(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= 0 for v in pair):
        raise ParameterError(
            "max_lag", found=repr(value), expected="pixels, 0 or more: one number or (along row, along column)"
        )
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class Autocorrelation(Record):
    """Box, lags and mask; made by :func:`autocorrelation`."""

    name: ClassVar[str] = "autocorrelation"

    box: Box
    max_lag: tuple[int, int] | None = None
    mask: StaticMask | None = None

    def pixels(self, frames: Frames) -> tuple[Pixels, tuple[int, int]]:
        """Find the pixels of the box, in the order of their labels, and the largest lags.

        Raises
        ------
        ParameterError
            Lags that the box does not have.
        """
        chosen = self.box.of(frames.part)
        at = chosen.match(frames.part, "box")
        order = in_order(chosen.row, ROW, "autocorrelation"), in_order(chosen.column, COLUMN, "autocorrelation")
        pixels = at.segment[0], np.array(at.row)[order[0]], np.array(at.column)[order[1]]
        rows, columns = len(at.row), len(at.column)
        if self.max_lag is None:
            return pixels, (rows - 1, columns - 1)
        if self.max_lag[0] >= rows or self.max_lag[1] >= columns:
            raise ParameterError(
                "max_lag reaches beyond the box",
                found=f"{self.max_lag} in {rows} rows and {columns} columns",
                expected="lags below the number of rows and columns",
                fix=f"max_lag=({min(self.max_lag[0], rows - 1)}, {min(self.max_lag[1], columns - 1)})",
            )
        return pixels, self.max_lag

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the autocorrelation."""
        _, lags = self.pixels(frames)
        if self.mask is not None:
            self.mask.on(frames)
        shape = 2 * lags[0] + 1, 2 * lags[1] + 1
        output = Output((LAG_ROW, LAG_COLUMN), shape, np.dtype(np.float64), {UNITS: DIMENSIONLESS})
        names = (AUTOCORRELATION, _VARIANCE) if self.has_variance(frames) else (AUTOCORRELATION,)
        return dict.fromkeys(names, output)

    def has_variance(self, frames: Frames) -> bool:
        """Whether the variance is asked for and can be had at a sensible cost."""
        (_, rows, columns), lags = self.pixels(frames)
        products = len(rows) * len(columns) * (lags[0] + 1) * (2 * lags[1] + 1)
        return frames.variance and products <= MOST_PRODUCTS

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Lags in pixels."""
        _, lags = self.pixels(frames)
        return {
            name: xr.Variable((name,), np.arange(-lag, lag + 1), {UNITS: DIMENSIONLESS})
            for name, lag in zip((LAG_ROW, LAG_COLUMN), lags, strict=True)
        }

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return AutocorrelationReducer(self, frames)


class AutocorrelationReducer(Reducer):
    """Correlates the box of each event."""

    def __init__(self, record: Autocorrelation, frames: Frames) -> None:
        from xsmall.kernels.autocorrelation import Correlator

        (self._segment, rows, columns), lags = record.pixels(frames)
        self._at = np.ix_(rows, columns)
        mask = None if record.mask is None else record.mask.on(frames)
        shape = len(rows), len(columns)
        self._use = np.ones(shape, bool) if mask is None else mask[self._segment][self._at]
        self._correlate = Correlator(shape, lags)
        self._variance = record.has_variance(frames)
        self._results: list[npt.NDArray[np.float64]] = []
        self._spreads: list[npt.NDArray[np.float64]] = []

    def begin(self, k: int) -> None:
        """Start a group."""
        del k
        self._results, self._spreads = [], []

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Correlate the box when its segment comes."""
        if s != self._segment:
            return
        box: Any = (slice(None), *self._at)
        if variance is None or not self._variance:
            self._results = [self._correlate(f, self._use) for f in frames[box]]
            return
        both = [self._correlate.with_variance(f, self._use, v) for f, v in zip(frames[box], variance[box], strict=True)]
        self._results, self._spreads = [c for c, _ in both], [v for _, v in both]

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the results."""
        out = {AUTOCORRELATION: np.stack(self._results)}
        return out | {_VARIANCE: np.stack(self._spreads)} if self._variance else out
