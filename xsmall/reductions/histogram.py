"""Histograms of each event: of the values of pixels, in regions or all, and of lists such as those of droplets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.entries import LostCounts
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.events.borders import met, regular
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.edges import as_bins, as_range, labels_of_bins, written_edges
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.region import Place, as_place, usable, windows, with_masks
from xsmall.reductions.roi import Roi
from xsmall.vocabulary import DIMENSIONLESS, HISTOGRAM, IS_CUT, N_ABOVE, N_BELOW, N_VALID, ROI, UNITS, VALUE

__all__ = ["Histogram", "histogram"]

_COUNTS = (N_BELOW, N_ABOVE, N_VALID)
_FIX = "xs.histogram(np.linspace(-5, 30, 141)), or xs.histogram(140, range=(-5, 30))"


@ask
def histogram(
    of: Any = None,
    bins: Any = None,
    *,
    range: tuple[float, float] | None = None,  # noqa: A002 the word of numpy.histogram
    place: Any = None,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
) -> Record:
    """Count values by size, in each event: those of pixels, or of the list that another record finds.

    Parameters
    ----------
    of
        The bins, for the values of pixels; or the name of a variable of the record that comes before:
        ``xs.droplet(4.0) | xs.histogram("sum", edges)``.
    bins
        Edges in the unit of the values, or their number, which needs ``range``. Bins are closed left and open right.
        Without ``of`` they are for the values of pixels.
    range
        (low, high) of the bins where they are a number.
    place
        Only these pixels: a :class:`~xsmall.Box`, a region of space, or a boolean mask, as in :func:`~xsmall.roi`.
        ``xs.roi(places) | xs.histogram(edges)`` makes one of each of several regions.
    mask
        Boolean (segment, row, column), or of each event, as in :func:`~xsmall.roi`.
    threshold, noise
        As in :func:`~xsmall.roi`; a value below the threshold counts as 0.

    Returns
    -------
    A record. Its variables over events: ``histogram`` (event, value), int32, or (event, roi, value) of regions;
    ``n_below`` and ``n_above``, what lies outside of the bins, and ``n_valid``, all that was looked at (event) or
    (event, roi). Of a list the dim has the name of its variable. Coordinates: bin centres and ``<dim>_bounds``.

    Raises
    ------
    ParameterError
        Bins that do not rise, a number without range, a name without a record before it, or that it does not return.

    Notes
    -----
    NaN and masked pixels are not counted. The variance of a count is about the count itself. Cost: some 2 ns per pixel.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> spectrum = cal.sd.histogram(np.arange(-5.0, 30.0, 0.25))
    >>> bool((spectrum.histogram.sum("value") + spectrum.n_below + spectrum.n_above == spectrum.n_valid).all())
    True
    >>> sums = xs.apply(cal, xs.droplet(4.0, 1.0) | xs.histogram("sum", 60, range=(0, 30)))
    >>> sums["histogram"].dims
    ('event', 'sum')
    """
    variable = of if isinstance(of, str) else None
    if of is None and bins is not None:
        of, bins = bins, None
    if of is None or (variable is None) != (bins is None):
        raise ParameterError(
            "a histogram needs its bins",
            found=f"histogram({of!r}, {bins!r})"[:80],
            expected="bins of pixel values, or the name of a variable and its bins",
            fix=_FIX,
        )
    edges = _bin_edges(of if variable is None else bins, range)
    fixed, of_events = static_mask(mask)
    where = () if place is None else ((ROI, as_place(place, "the place of a histogram")),)
    if variable is not None and (where or fixed or of_events or threshold is not None):
        raise ParameterError(
            "places, masks and thresholds are for the record before the histogram of its list",
            found=f"histogram({variable!r}, ...)",
            fix='xs.droplet(4.0, mask=mask) | xs.histogram("sum", edges)',
        )
    made = Histogram(edges, where, with_masks(fixed), variable=variable)
    return filtered(made, threshold, noise, of_events)


def _bin_edges(bins: Any, limits: tuple[float, float] | None) -> tuple[float, ...]:
    found = as_bins(bins, "bins")
    if isinstance(found, int) != (limits is not None):
        raise ParameterError("a number of bins and their range go together", found=f"{bins!r}, {limits}"[:80], fix=_FIX)
    if not isinstance(found, int):
        return written_edges(found, "bins")
    low, high = as_range(limits)
    return tuple(regular(low, high, found).tolist())


@dataclass(frozen=True)
class Histogram(Record):
    """Edges, places, masks, or the list of another record; made by :func:`histogram`."""

    name: ClassVar[str] = "histogram"

    edges: tuple[float, ...]
    places: tuple[tuple[str, Place], ...] = ()
    masks: tuple[StaticMask, ...] = ()
    stacked: bool = False
    """Whether there is a dim for the places."""
    variable: str | None = None
    first: Record | None = None

    def after(self, first: Record) -> Record:
        """Count in each region of ``xs.roi``, or the list that another record finds."""
        if self.variable is not None:
            return replace(self, first=first if self.first is None else first | self.first)
        if not isinstance(first, Roi):
            raise ParameterError(
                f"{self.name} cannot follow {first.name} without the name of a variable",
                found=f"{first.name} | {self.name}, bins alone",
                expected="a variable, its bins and perhaps their range",
                fix='xs.droplet(4.0, 1.0) | xs.histogram("sum", 30, range=(0, 30))',
            )
        if self.places:
            return super().after(first)
        masks = self.masks + with_masks(first.mask)
        return replace(self, places=first.places, masks=masks, stacked=len(first.places) > 1)

    def within(self, place: Place, masks: tuple[StaticMask, ...]) -> Histogram:
        """The histogram of one place, with further masks."""
        return replace(self, places=((ROI, place),), masks=self.masks + masks)

    @property
    def dim(self) -> str:
        """Dim of the bins."""
        return self.variable or VALUE

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the histogram and what lies beyond it."""
        self._listed(frames)
        for mask in self.masks:
            mask.on(frames)
        for _, place in self.places:
            windows(place, frames)
        dims, shape = ((ROI,), (len(self.places),)) if self.stacked else ((), ())
        count, none = np.dtype(np.int32), {UNITS: DIMENSIONLESS}
        out = {HISTOGRAM: Output((*dims, self.dim), (*shape, len(self.edges) - 1), count, none)}
        return out | {name: Output(dims, shape, count, none) for name in _COUNTS}

    def _listed(self, frames: Frames) -> Output | None:
        """The variable of the record before, if it is that which is counted."""
        if self.variable is None:
            return None
        if self.first is None:
            raise ParameterError(
                "a histogram of what?",
                found=f"histogram({self.variable!r}, ...) alone",
                expected="a record before it that returns the variable",
                fix=f"xs.droplet(4.0) | xs.histogram({self.variable!r}, edges)",
            )
        known = self.first.outputs(frames)
        if self.variable not in known or known[self.variable].dtype.kind not in "biuf":
            raise ParameterError(
                f"{self.first.name} does not return {self.variable!r}", found=self.variable, expected=", ".join(known)
            )
        if IS_CUT in known and known[self.variable].dtype.kind != "f":
            raise ParameterError(
                "a list of integers that is padded to one length has no histogram",
                found=f"{self.variable!r} with max_droplets",
                fix="leave max_droplets out",
            )
        return known[self.variable]

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Centres and edges of the bins, names of the regions."""
        listed = self._listed(frames)
        units = frames.units if listed is None else listed.attrs.get(UNITS)
        out = labels_of_bins(self.dim, np.array(self.edges), units)
        names = np.array([name for name, _ in self.places])
        return {ROI: xr.Variable((ROI,), names), **out} if self.stacked else out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        if self.first is not None and self.variable is not None:
            return ListReducer(self.first.reducer(frames), self.variable, np.array(self.edges))
        return HistogramReducer(self, frames)


class HistogramReducer(Reducer):
    """Counts the pixels of each place."""

    takes_entries = True

    def __init__(self, record: Histogram, frames: Frames) -> None:
        from xsmall.kernels.bins import first_bins
        from xsmall.kernels.entries import histogram_of_entries
        from xsmall.kernels.histogram import histogram as count

        self._kernel = count
        self._stacked = record.stacked
        self._edges = met(np.array(record.edges), frames.dtype)
        self._first = first_bins(self._edges)
        places: list[Place | None] = [place for _, place in record.places] or [None]
        use = [usable(frames, place, record.masks) for place in places]
        self._windows = [(p, w, w.use(use[p])) for p, place in enumerate(places) for w in windows(place, frames)]
        self._n = len(places)
        self._of_entries = histogram_of_entries
        self._use, self._shape = use, frames.shape

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._counts = np.zeros((k, self._n, self._edges.size - 1), np.int64)
        self._beyond = np.zeros((k, self._n, len(_COUNTS)), np.int64)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Count what lies in segment ``s``."""
        del variance  # of a pixel: that of a count is another
        for p, window, use in self._windows:
            if window.segment == s:
                where = window.row.start, window.column.start, use, self._edges, self._first
                for j, frame in enumerate(frames):
                    self._kernel(frame, *where, self._counts[j, p], self._beyond[j, p])

    def _count(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.array([held[pixels].sum() for held in self._inside], np.int64)

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        self._inside = [np.ones(self._shape, bool).ravel() if use is None else use.ravel() for use in self._use]
        self._most = np.array([held.sum() for held in self._inside])
        self._lacking: LostCounts[npt.NDArray[np.int64]] = LostCounts(self._count, pixels)

    def entries(self, j: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]) -> None:
        """Count the pixels of event ``j`` that are not zero, and those that are."""
        zeros = self._most - self._lacking(lost)
        at = int(np.searchsorted(self._edges, 0.0, side="right")) - 1  # -1 below all bins
        for p, held in enumerate(self._inside):
            counts, beyond = self._counts[j, p], self._beyond[j, p]
            self._of_entries(pixel, value, held, self._edges, self._first, counts, beyond)
            n = zeros[p] - beyond[2]
            beyond[2] = zeros[p]
            if at < 0:
                beyond[0] += n
            elif at >= counts.size:
                beyond[1] += n
            else:
                counts[at] += n

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        found = {HISTOGRAM: self._counts} | {n: self._beyond[..., i] for i, n in enumerate(_COUNTS)}
        return {n: (v if self._stacked else v[:, 0]).astype(np.int32) for n, v in found.items()}


class ListReducer(Reducer):
    """Counts what another reducer has found."""

    def __init__(self, inner: Reducer, variable: str, edges: npt.NDArray[np.float64]) -> None:
        self._inner = inner
        self._variable = variable
        self._edges = edges
        self.most_together = inner.most_together
        self.takes_whole_frames = inner.takes_whole_frames  # type: ignore[misc]  # as the record before does

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._inner.energy, self._inner.beside = self.energy, self.beside
        self._inner.begin(k)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        self._inner.add(s, frames, variance)

    def whole(self, frames: npt.NDArray[np.floating[Any]], variance: Any, here: Any) -> None:
        """Take whole frames."""
        self._inner.whole(frames, variance, here)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Count the values of each event."""
        n = self._edges.size - 1
        counts, beyond = [], []
        for listed in self._inner.end()[self._variable]:
            values = np.ravel(listed)
            good = values[np.isfinite(values)]
            at = np.searchsorted(met(self._edges, good.dtype), good, side="right")  # 0 below, n + 1 above
            found = np.bincount(at, minlength=n + 2)
            counts.append(found[1:-1])
            beyond.append([found[0], found[-1], good.size])
        sums = np.array(beyond).reshape(-1, len(_COUNTS))
        out = {HISTOGRAM: np.array(counts).reshape(-1, n)} | {name: sums[:, i] for i, name in enumerate(_COUNTS)}
        return {name: v.astype(np.int32) for name, v in out.items()}
