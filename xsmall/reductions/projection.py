"""Projections: the sum or mean of each row, or of each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.asked import ask
from xsmall.engine.entries import LostCounts
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.azint import QUANTITIES, Azint, azint_bins
from xsmall.reductions.azint_reducers import RingStatistic
from xsmall.reductions.box import Box, Window
from xsmall.reductions.chain import in_regions
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.region import Place, as_place, inside, usable, with_masks
from xsmall.reductions.roi import Roi
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    INTENSITY,
    MEAN,
    N_VALID,
    PROJECTION,
    ROW,
    SEGMENT,
    SUM,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Projection", "lineout", "projection"]


@ask
def projection(
    onto: str | xr.DataArray,
    place: Any = None,
    *,
    bins: Any = None,
    range: tuple[float, float] | None = None,  # noqa: A002 the word of numpy.histogram
    width: float | None = None,
    statistic: str = SUM,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
) -> Record:
    """Project frames onto their rows, their columns, or any other coordinate of the pixels.

    Parameters
    ----------
    onto
        ``"row"``: one value per row, over its columns; or ``"column"``. Or a quantity of the pixels in space, ``"x"``,
        ``"y"``, ``"q"`` ..., or a DataArray with a name: what :func:`~xsmall.azint` bins by.
    place
        Project only these pixels: a :class:`~xsmall.Box`, a region of space, or a boolean mask, as in
        :func:`~xsmall.roi`; without it every segment by itself.
    bins, range, width
        Of a quantity: the bins, as in :func:`~xsmall.azint`.
    statistic
        ``"sum"`` or ``"mean"`` of the valid pixels.
    mask
        Boolean (segment, row, column), or of each event, as in :func:`~xsmall.roi`.
    threshold, noise
        Lowest value that counts, or (lowest, highest), as in :func:`~xsmall.roi`.

    Returns
    -------
    A record. Its variables over (event, row) or (event, column) with a box, over (event, segment, row) or (event,
    segment, column) else, over (event, quantity) of a quantity: ``projection`` (float64, unit of the data), NaN where
    no pixel is valid, and ``n_valid`` (int32). With variances also ``projection_variance``. Coordinates: the labels of
    the detector, or centres and bounds of the bins.

    Raises
    ------
    ParameterError
        Another dim or statistic, bins of rows, a place that misses the frames, a mask that is not boolean.

    Notes
    -----
    A sum over fewer valid pixels is smaller: ``n_valid`` says how many there were, ``statistic="mean"`` divides by it.
    ``xs.roi(places) | xs.projection("row")`` projects each of several regions. Cost: one pass over the pixels.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> cal.sd.projection("column", xs.Box(segment=0, row=(4, 12)))["projection"].shape
    (4, 64)
    """
    if statistic not in (SUM, MEAN):
        raise ParameterError("statistic of a projection", found=repr(statistic), expected=f"{SUM!r} or {MEAN!r}")
    fixed, of_events = static_mask(mask)
    where = None if place is None else as_place(place, "the place of a projection")
    if not isinstance(onto, str) or onto not in (ROW, COLUMN):
        if not isinstance(onto, xr.DataArray) and onto not in QUANTITIES:
            raise ParameterError(
                "projection onto another dim",
                found=repr(onto)[:80],
                expected=f"{ROW!r}, {COLUMN!r}, one of {QUANTITIES}, or a DataArray with a name",
            )
        chosen = azint_bins(bins, onto, range, width, None, split="no", efficiency=(), mask=fixed)
        chosen = chosen if where is None else replace(chosen, places=(where,))
        return filtered(OntoQuantity(Azint(chosen, RingStatistic(statistic))), threshold, noise, of_events)
    if (bins, range, width) != (None, None, None):
        raise ParameterError(
            "bins of rows or columns", found=f"onto={onto!r} with bins, range or width", fix="xs.rebin"
        )
    return filtered(Projection(onto, where, statistic, with_masks(fixed)), threshold, noise, of_events)


@ask
def lineout(along: str, at: Any, *, segment: int | None = None, width: Any = 1, mask: Any = None) -> Record:
    """Read a line of pixels: the mean of a few rows, along the columns, or of a few columns.

    Parameters
    ----------
    along
        ``"column"``: one value for each column, of a row; or ``"row"``: of a column.
    at
        Label of the row or column, the first of ``width``.
    segment
        Its label; may be left out only where the frames have one.
    width
        How many neighbouring lines are averaged.
    mask
        As in :func:`projection`.

    Returns
    -------
    The record of :func:`projection` of that box with ``statistic="mean"``.

    Raises
    ------
    ParameterError
        A line that is not there.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> line = cal.sd.lineout("column", 7, segment=1)["projection"]
    >>> line.dims, bool((line == cal.isel(segment=1, row=7)).all())
    (('event', 'column'), True)
    """
    if along not in (ROW, COLUMN):
        raise ParameterError("a line along another dim", found=repr(along), expected=f"{ROW!r} or {COLUMN!r}")
    if not isinstance(width, int | np.integer) or width is True or width < 1:
        raise ParameterError("invalid width of a line", found=repr(width), expected="1 or more lines")
    limits: Any = (at, at + int(width)) if isinstance(at, int | np.integer) else (at, at)
    box = Box(segment, row=limits) if along == COLUMN else Box(segment, column=limits)
    return projection(along, box, statistic=MEAN, mask=mask)


@dataclass(frozen=True)
class Projection(Record):
    """Dim, place, statistic and masks; made by :func:`projection`."""

    name: ClassVar[str] = "projection"

    onto: str
    place: Place | None = None
    statistic: str = SUM
    masks: tuple[StaticMask, ...] = ()

    def after(self, first: Record) -> Record:
        """Project the regions of ``xs.roi``."""
        return in_regions(first, self) if isinstance(first, Roi) else super().after(first)

    def within(self, place: Place, masks: tuple[StaticMask, ...]) -> Projection:
        """The projection of a place, with further masks."""
        places = [p for p in (self.place,) if p is not None]
        if places:
            raise ParameterError("a projection of a place of a region", found=repr(self.place), fix="leave one out")
        return replace(self, place=place, masks=self.masks + masks)

    def chosen(self, frames: Frames) -> Part:
        """The pixels to project: those of the box, those around the place, or all."""
        if self.place is None:
            return frames.part
        if isinstance(self.place, Box):
            return self.place.of(frames.part)
        held = inside(self.place, frames)
        at = [np.flatnonzero(held.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        segment, row, column = at[0], *(np.arange(a[0], a[-1] + 1) for a in at[1:])
        labels = zip(frames.part.labels, (segment, row, column), strict=True)
        return Part.of([np.array(known)[places] for known, places in labels])

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe projection and n_valid."""
        chosen = self.chosen(frames)
        for mask in self.masks:
            mask.on(frames)
        dims: tuple[str, ...] = (self.onto,)
        shape: tuple[int, ...] = (len(chosen.row if self.onto == ROW else chosen.column),)
        if not isinstance(self.place, Box):
            dims, shape = (SEGMENT, *dims), (len(chosen.segment), *shape)
        units = {} if frames.units is None else {UNITS: frames.units}
        double = np.dtype(np.float64)
        out = {
            PROJECTION: Output(dims, shape, double, units),
            N_VALID: Output(dims, shape, np.dtype(np.int32), {UNITS: DIMENSIONLESS}),
        }
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{PROJECTION}{VARIANCE_SUFFIX}"] = Output(dims, shape, double, squared)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Labels of the segments and of the rows or columns."""
        chosen = self.chosen(frames)
        out = {self.onto: xr.Variable((self.onto,), np.array(chosen.row if self.onto == ROW else chosen.column))}
        if not isinstance(self.place, Box):
            out[SEGMENT] = xr.Variable((SEGMENT,), np.array(chosen.segment))
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return ProjectionReducer(self, frames)


@dataclass(frozen=True)
class OntoQuantity(Record):
    """A projection onto a quantity of the pixels: an azimuthal integral by another name."""

    name: ClassVar[str] = "projection"

    inner: Azint

    def after(self, first: Record) -> Record:
        """Project the regions of ``xs.roi``."""
        return in_regions(first, self) if isinstance(first, Roi) else super().after(first)

    def within(self, place: Place, masks: tuple[StaticMask, ...]) -> OntoQuantity:
        """The projection of a place, with further masks."""
        return replace(self, inner=self.inner.within(place, masks))

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe projection and n_valid."""
        return _as_projection(self.inner.outputs(frames))

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Centres and edges of the bins."""
        return self.inner.coords(frames)

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return OntoQuantityReducer(self.inner.reducer(frames))


def _as_projection(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace(INTENSITY, PROJECTION): value for name, value in found.items()}


class OntoQuantityReducer(Reducer):
    """Names what another reducer has found."""

    def __init__(self, inner: Reducer) -> None:
        self._inner = inner
        self.takes_entries = inner.takes_entries
        self.never, self.entries = inner.never, inner.entries  # type: ignore[method-assign]

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._inner.energy, self._inner.beside = self.energy, self.beside
        self._inner.begin(k)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        self._inner.add(s, frames, variance)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        return _as_projection(self._inner.end())


class _ProjectedWindows(NamedTuple):
    """The window of each segment that is projected, and which pixels of it count."""

    windows: list[Window]
    use: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, record: Projection, frames: Frames) -> _ProjectedWindows:
        """Find the windows of a record."""
        chosen = record.chosen(frames)
        windows = [Window.of(Part((s,), chosen.row, chosen.column), frames.part) for s in chosen.segment]
        use = usable(frames, record.place, record.masks)
        return cls(windows, [window.use(use) for window in windows])

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(window.inside.nbytes for window in self.windows) + sum(use.nbytes for use in self.use)


class ProjectionReducer(Reducer):
    """Sums the rows or columns of each window."""

    takes_entries = True

    def __init__(self, record: Projection, frames: Frames) -> None:
        from xsmall.kernels.entries import add_to_bins
        from xsmall.kernels.projection import along_columns, along_rows

        self._kernel = along_columns if record.onto == ROW else along_rows
        self._record = record
        self._frames = frames
        held = CACHE.get(("projected windows", record, frames.places), lambda: _ProjectedWindows.of(record, frames))
        self._windows, self._use = held.windows, held.use
        along = 1 if record.onto == ROW else 0
        self._kept = np.flatnonzero(self._windows[0].inside.any(axis=along))  # all, unless labels are out of order
        self._add_to_bins = add_to_bins

    def _of_pixels(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The place of each pixel among the sums (window, row or column), the last for none; and how many each has."""
        n = self._windows[0].shape[0 if self._record.onto == ROW else 1]
        bins = np.full(self._frames.shape, len(self._windows) * n, np.int32)
        for p, (window, use) in enumerate(zip(self._windows, self._use, strict=True)):
            along = np.arange(n)[:, None] if self._record.onto == ROW else np.arange(n)
            here = bins[window.segment, window.row, window.column]
            np.copyto(here, p * n + np.broadcast_to(along, here.shape), where=use, casting="unsafe")
        flat = bins.ravel()
        return flat, np.bincount(flat, minlength=len(self._windows) * n + 1)[:-1]

    def _count(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(self._bins[pixels], minlength=self._most.size + 1)[:-1]

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        self._bins, self._most = self._of_pixels()
        self._lacking: LostCounts[npt.NDArray[np.int64]] = LostCounts(self._count, pixels)

    def entries(self, j: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]) -> None:
        """Add up the pixels of event ``j`` that are not zero."""
        self._add_to_bins(pixel, value, self._bins, self._total[j].reshape(-1))
        self._n[j] = (self._most - self._lacking(lost)).reshape(self._n[j].shape)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        n = self._windows[0].shape[0 if self._record.onto == ROW else 1]
        self._total, self._variances = np.zeros((2, k, len(self._windows), n))
        self._n, self._n_known = np.zeros((2, k, len(self._windows), n), dtype=np.int64)

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Project segment ``s``."""
        for p, window in enumerate(self._windows):
            if window.segment != s:
                continue
            top, left = window.row.start, window.column.start
            for j in range(frames.shape[0]):
                values = np.ascontiguousarray(frames[j])
                self._kernel(values, top, left, self._use[p], self._total[j, p], self._n[j, p])
                if variance is not None:
                    variances = np.where(np.isfinite(frames[j]), variance[j], np.nan)
                    self._kernel(variances, top, left, self._use[p], self._variances[j, p], self._n_known[j, p])

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        kept = (..., self._kept)
        n, mean = self._n[kept], self._record.statistic == MEAN
        total = self._total[kept]
        with np.errstate(divide="ignore", invalid="ignore"):
            out = {
                PROJECTION: np.where(n > 0, total / n if mean else total, np.nan),
                N_VALID: n.astype(np.int32),
            }
            if self._frames.variance:
                variances = self._variances[kept] / n**2 if mean else self._variances[kept]
                known = (n > 0) & (
                    self._n_known[kept] == n
                )  # a valid pixel without a variance makes that of the sum unknown
                out[f"{PROJECTION}{VARIANCE_SUFFIX}"] = np.where(known, variances, np.nan)
        if isinstance(self._record.place, Box):
            return {name: value[:, 0] for name, value in out.items()}
        return out
