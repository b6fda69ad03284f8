"""Spatial autocorrelation of the pixels of boxes, regions and masks, masked and normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticLight, StaticMask
from xsmall.reductions.box import Box, in_order
from xsmall.reductions.region import Place, as_place, inside
from xsmall.vocabulary import (
    AUTOCORRELATION,
    COLUMN,
    DIMENSIONLESS,
    LAG,
    LAG_COLUMN,
    LAG_ROW,
    ROI,
    ROW,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Autocorrelation", "autocorrelation"]

MOST_PRODUCTS = 10**9
"""Pixels times lags that the variance of one event may take: two to three seconds."""
RADIAL: Final = "radial"
ALONG_ROW: Final = "along_row"
ALONG_COLUMN: Final = "along_column"
VIEWS: Final = (RADIAL, ALONG_ROW, ALONG_COLUMN)
_VARIANCE = f"{AUTOCORRELATION}{VARIANCE_SUFFIX}"


class Piece(NamedTuple):
    """The pixels of a place in one segment: where they lie in the arrays of the frames, in the order of labels."""

    segment: int
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    inside: npt.NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the box around the pixels."""
        return len(self.rows), len(self.columns)


@ask
def autocorrelation(
    places: Any = None,
    *,
    max_lag: int | tuple[int, int] | None = None,
    mask: Any = None,
    illumination: Any = None,
    also: Sequence[str] = (),
) -> Autocorrelation:
    """Correlate the pixels of a place with themselves, event by event.

    Parameters
    ----------
    places
        A :class:`~xsmall.Box`, a region of space or a boolean mask, as in :func:`~xsmall.roi`, or several by name. May
        be left out where the frames have one segment.
    max_lag
        Largest lag in pixels, one number or (along row, along column), below the size of the place; without it all lags
        of the largest place.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.
    illumination
        Mean light of each pixel (segment, row, column), in any unit, that frames are divided by first: the average of
        many frames, smoothed. Pixels where it is not positive are not used.
    also
        Views of it: ``"radial"``, the mean over lags of the same length in whole pixels, each by its number of pairs;
        ``"along_row"`` and ``"along_column"``, the lines through the middle.

    Returns
    -------
    A record. Its variable ``autocorrelation`` (event, lag_row, lag_column), float64, dimensionless, with a dim ``roi``
    after ``event`` where several places have names: 1 where pixels that far apart are not correlated; NaN where no pair
    of valid pixels, or no signal, lies that far apart. It is the same for opposite lags. With variances also
    ``autocorrelation_variance``, unless that would take more than 1e9 products per event (pixels times half of the
    lags): give ``max_lag``. And the views: ``radial`` (event, lag), ``along_row`` (event, lag_row), ``along_column``
    (event, lag_column). Coordinates: the lags in pixels, 0 in the middle.

    Raises
    ------
    ParameterError
        A box without segment where there are several, a place that misses the frames, a lag not below its size, an
        unknown view, an illumination that is nowhere positive.
    DataError
        Frames with rows or columns left out.

    Notes
    -----
    C(l) = [sum I(p) I(p+l)] [sum M(p) M(p+l)] / ([sum I(p) M(p+l)] [sum M(p) I(p+l)]) with M = 1 on valid pixels and
    0 elsewhere, I = 0 there: the mean product of pairs over the means of the same pairs, so that masks and borders do
    not bias it. Zero-padded. A place that reaches over several segments adds up their sums; pairs are never made across
    segments. Light that differs between pixels looks like correlation at all lags: ``illumination`` takes it out. Cost:
    two Fourier transforms back and one forth per event and place, of the size of the box around it plus the largest
    lag, two more where valid pixels change; with variances one pass over the box for every lag, some 2.5 ns per pixel.
    The variance is exact to first order in the errors of the pixels. Where these are as large as the signal (much less
    than a photon per pixel) it comes out too large, by up to a factor of two. At lag 0 the noise of a pixel is
    correlated with itself: that raises C(0), and is not subtracted.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> cal.sd.autocorrelation(xs.Box(segment=1, row=(0, 16)), max_lag=5)["autocorrelation"].shape
    (4, 11, 11)
    >>> halves = {"left": xs.Box(segment=0, column=(0, 32)), "right": xs.Box(segment=0, column=(32, 64))}
    >>> cal.sd.autocorrelation(halves, max_lag=5, also="radial")["radial"].dims
    ('event', 'roi', 'lag')
    """
    named = dict(places) if isinstance(places, Mapping) else {"": Box() if places is None else places}
    if not named:
        raise ParameterError("places of an autocorrelation", found="none", expected="a box, a region, or several")
    chosen = tuple((str(name), as_place(place, "a place of an autocorrelation")) for name, place in named.items())
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    for view in wanted:
        if view not in VIEWS:
            raise ParameterError("invalid also", found=repr(view), expected=" or ".join(map(repr, VIEWS)))
    if isinstance(illumination, np.ndarray | xr.DataArray) and illumination.dtype.kind in "fi":
        illumination = illumination.clip(min=0)  # as it may be beside the beam, once noise is averaged
    light = StaticLight.of(illumination)
    stacked = isinstance(places, Mapping)
    return Autocorrelation(chosen, _lag(max_lag), StaticMask.of(mask), light, wanted, stacked)


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
    """Places, lags, mask and light; made by :func:`autocorrelation`."""

    name: ClassVar[str] = "autocorrelation"

    places: tuple[tuple[str, Place], ...]
    max_lag: tuple[int, int] | None = None
    mask: StaticMask | None = None
    illumination: StaticLight | None = None
    also: tuple[str, ...] = ()
    stacked: bool = False
    """Whether there is a dim for the places."""

    def pieces(self, frames: Frames) -> list[list[Piece]]:
        """Find the pixels of each place, by segment."""
        return [_pieces_of_place(place, frames) for _, place in self.places]

    def lags(self, pieces: list[list[Piece]]) -> tuple[int, int]:
        """The largest lags.

        Raises
        ------
        ParameterError
            Lags that a place does not have.
        """
        sizes = [tuple(max(p.shape[axis] for p in of_place) for axis in (0, 1)) for of_place in pieces]
        if self.max_lag is None:
            return max(rows for rows, _ in sizes) - 1, max(columns for _, columns in sizes) - 1
        for rows, columns in sizes:
            if self.max_lag[0] >= rows or self.max_lag[1] >= columns:
                raise ParameterError(
                    "max_lag reaches beyond the box",
                    found=f"{self.max_lag} in {rows} rows and {columns} columns",
                    expected="lags below the number of rows and columns",
                    fix=f"max_lag=({min(self.max_lag[0], rows - 1)}, {min(self.max_lag[1], columns - 1)})",
                )
        return self.max_lag

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the autocorrelation and its views."""
        pieces = self.pieces(frames)
        down, right = self.lags(pieces)
        for given in (self.mask, self.illumination):
            if given is not None:
                given.on(frames)
        dims, lead = ((ROI,), (len(pieces),)) if self.stacked else ((), ())
        shapes: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
            AUTOCORRELATION: ((LAG_ROW, LAG_COLUMN), (2 * down + 1, 2 * right + 1)),
            RADIAL: ((LAG,), (max(down, right) + 1,)),
            ALONG_ROW: ((LAG_ROW,), (2 * down + 1,)),
            ALONG_COLUMN: ((LAG_COLUMN,), (2 * right + 1,)),
        }
        shapes[_VARIANCE] = shapes[AUTOCORRELATION]
        names = [AUTOCORRELATION, *([_VARIANCE] if self.has_variance(frames) else []), *self.also]
        none = {UNITS: DIMENSIONLESS}
        return {n: Output((*dims, *shapes[n][0]), (*lead, *shapes[n][1]), np.dtype(np.float64), none) for n in names}

    def has_variance(self, frames: Frames) -> bool:
        """Whether the variance is asked for and can be had at a sensible cost."""
        pieces = self.pieces(frames)
        down, right = self.lags(pieces)
        pixels = sum(p.inside.size for of_place in pieces for p in of_place)
        return frames.variance and pixels * (down + 1) * (2 * right + 1) <= MOST_PRODUCTS

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Lags in pixels, and names of the places."""
        lags = self.lags(self.pieces(frames))
        out = {
            name: xr.Variable((name,), np.arange(-lag, lag + 1), {UNITS: DIMENSIONLESS})
            for name, lag in zip((LAG_ROW, LAG_COLUMN), lags, strict=True)
        }
        if RADIAL in self.also:
            out[LAG] = xr.Variable((LAG,), np.arange(max(lags) + 1), {UNITS: DIMENSIONLESS})
        if self.stacked:
            out[ROI] = xr.Variable((ROI,), np.array([name for name, _ in self.places]))
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        pieces = self.pieces(frames)
        use = None if self.mask is None else self.mask.on(frames)
        light = None if self.illumination is None else self.illumination.on(frames)
        return AutocorrelationReducer(
            pieces, self.lags(pieces), use, light, self.also, variance=self.has_variance(frames), stacked=self.stacked
        )


def _pieces_of_place(place: Place, frames: Frames) -> list[Piece]:
    """The pixels of a place by segment, in boxes without gaps."""
    out = []
    for s, held in enumerate(inside(place, frames)):
        if not held.any():
            continue
        at = []
        for axis, labels, dim in ((1, frames.row, ROW), (0, frames.column, COLUMN)):
            known = np.array(labels)
            some = known[held.any(axis=axis)]
            within = np.flatnonzero((known >= some.min()) & (known <= some.max()))
            at.append(within[in_order(tuple(known[within].tolist()), dim, AUTOCORRELATION)])
        out.append(Piece(s, at[0], at[1], held[np.ix_(*at)]))
    return out


class AutocorrelationReducer(Reducer):
    """Correlates each place of each event."""

    def __init__(
        self,
        pieces: list[list[Piece]],
        lags: tuple[int, int],
        use: npt.NDArray[np.bool_] | None,
        light: npt.NDArray[np.floating[Any]] | None,
        also: tuple[str, ...],
        *,
        variance: bool,
        stacked: bool,
    ) -> None:
        from xsmall.kernels.autocorrelation import Correlator

        self._pieces, self._lags, self._also = pieces, lags, also
        self._variance, self._stacked = variance, stacked
        self._correlators = [[Correlator(p.shape, lags) for p in of_place] for of_place in pieces]
        self._use = [[self._usable(p, use, light) for p in of_place] for of_place in pieces]
        self._light = [[None if light is None else self._cut(p, light[p.segment]) for p in of] for of in pieces]
        rows, columns = (np.arange(-lag, lag + 1) for lag in lags)
        self._length = np.rint(np.hypot(rows[:, None], columns)).astype(np.intp)

    def _usable(
        self, p: Piece, use: npt.NDArray[np.bool_] | None, light: npt.NDArray[np.floating[Any]] | None
    ) -> npt.NDArray[np.bool_]:
        out = p.inside if use is None else p.inside & self._cut(p, use[p.segment])
        return out if light is None else out & (self._cut(p, light[p.segment]) > 0)

    @staticmethod
    def _cut(p: Piece, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(values[..., p.rows[:, None], p.columns])

    def begin(self, k: int) -> None:
        """Start a group."""
        self._sums: list[list[Any]] = [[None] * k for _ in self._pieces]
        self._held: list[list[list[Any]]] = [[[] for _ in range(k)] for _ in self._pieces]

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Add the pairs of segment ``s``."""
        for g, of_place in enumerate(self._pieces):
            for i, piece in enumerate(of_place):
                if piece.segment != s:
                    continue
                values, use, light = self._cut(piece, frames), self._use[g][i], self._light[g][i]
                scale = None if light is None else np.divide(1.0, light, out=np.zeros(use.shape), where=use)
                values = values if scale is None else values * scale
                variances = None if variance is None or not self._variance else self._cut(piece, variance)
                if variances is not None and scale is not None:
                    variances = variances * scale**2
                for j, frame in enumerate(values):
                    sums = self._correlators[g][i].sums(frame, use)
                    self._sums[g][j] = sums if self._sums[g][j] is None else self._sums[g][j].plus(sums)
                    if variances is not None:
                        self._held[g][j].append((self._correlators[g][i], frame, use, variances[j]))

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Normalise."""
        names = [AUTOCORRELATION, *([_VARIANCE] if self._variance else []), *self._also]
        found = [[self._of_event(g, j) for g in range(len(self._pieces))] for j in range(len(self._sums[0]))]
        out = {name: np.array([[of[name] for of in event] for event in found]) for name in names}
        return {name: v if self._stacked else v[:, 0] for name, v in out.items()}

    def _of_event(self, g: int, j: int) -> dict[str, npt.NDArray[np.float64]]:
        sums = self._sums[g][j]
        whole = sums.normalised()
        down, right = self._lags
        out = {AUTOCORRELATION: whole, ALONG_ROW: whole[:, right], ALONG_COLUMN: whole[down]}
        if self._variance:
            of_lags = [correlator.variance_of(f, use, v, sums) for correlator, f, use, v in self._held[g][j]]
            out[_VARIANCE] = np.sum(of_lags, axis=0)
        if RADIAL in self._also:
            good = np.isfinite(whole)
            n = max(self._lags) + 1
            weight = np.where(good, sums.pairs, 0.0)
            total = np.bincount(self._length.ravel(), (weight * np.where(good, whole, 0.0)).ravel(), n)[:n]
            pairs = np.bincount(self._length.ravel(), weight.ravel(), n)[:n]
            out[RADIAL] = np.divide(total, pairs, out=np.full(n, np.nan), where=pairs > 0)
        return out
