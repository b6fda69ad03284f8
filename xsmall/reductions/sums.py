"""Sums over the events of a pass: mean, spread, extremes and counts of each pixel, by class of shots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from xsmall.calls import warn_user
from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Input, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.events.shots import shots_are_dropped
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.arguments import one_of, real_number
from xsmall.reductions.edges import labels_of_bins, written_edges
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.sums_reducer import Stream, SumsReducer, WantedSums
from xsmall.vocabulary import (
    COLUMN,
    COUNT,
    DIMENSIONLESS,
    EVENT,
    HISTOGRAM,
    MAX,
    MEAN,
    MIN,
    N_ABOVE,
    N_DROPPED_SHOTS,
    N_EVENTS,
    N_WITHOUT_CLASS,
    PIXEL_DIMS,
    ROW,
    SEGMENT,
    STD_SUFFIX,
    STDERR_SUFFIX,
    SUM,
    UNITS,
    VALUE,
    VARIANCE_SUFFIX,
    XRAY_ON,
)

__all__ = ["Sums", "sums"]

ALSO: Final = (SUM, MIN, MAX)
MOST_CLASSES: Final = 64
_CLASS, _LIT, _THEN = "class", "lit", "then "
_STD, _STDERR = STD_SUFFIX.removeprefix("_"), STDERR_SUFFIX.removeprefix("_")
_BELOW, _ABOVE = f"{HISTOGRAM}_below", f"{HISTOGRAM}_above"
_LARGE: Final = 1 << 30
"""Bytes of histograms from which on their size is told."""
_KEPT = ".*keeps .* of each event.*"


@ask
def sums(
    by: xr.DataArray | str | None = None,
    *,
    also: Sequence[str] = (),
    count_above: float | None = None,
    histogram: Any = None,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
    dropped_shots: bool = False,
) -> Record:
    """Add up the frames of all events: mean, spread, extremes and counts of each pixel, for each class of shots.

    Parameters
    ----------
    by
        Class of each event, such as ``run["events"]["laser_on"]``: true/false, integers or text (event), joined by
        label; or the name of a coordinate of the frames. It is computed at once. Each class gets sums of its own.
    also
        More numbers: ``"sum"``, ``"min"``, ``"max"``.
    count_above
        Count in how many events each pixel is at or above this value, in the unit of the data: ``n_above``.
    histogram
        Edges of bins, in the unit of the data: count the values of each pixel over the events. A fit of pedestal and
        gain begins with it.
    mask
        Boolean (segment, row, column), or of each event, as in :func:`~xsmall.roi`.
    threshold, noise
        As in :func:`~xsmall.roi`; a value below the threshold counts as 0.
    dropped_shots
        Whether events without X-rays (coordinate ``xray_on`` of the frames false) are added too. They are when ``by``
        is ``xray_on``.

    Returns
    -------
    A record. Its variables have the pixels (segment, row, column) and no events, with the class in front where there
    is ``by``: ``mean``, ``std`` (n - 1) and ``stderr`` (of the mean, from that spread), float64, in the unit of the
    data; ``count``, the valid values of each pixel (int32); ``n_events`` of each class (int64), and, where there are
    such, ``n_dropped_shots`` and ``n_without_class``, the events that were left out. With variances also
    ``mean_variance``, propagated. ``sum`` (float64), ``min`` and ``max`` (dtype of the frames), ``n_above`` (int32);
    ``histogram`` (..., value), ``histogram_below`` and ``histogram_above`` (int32). After another record each of its
    variables of fixed shape is added up: ``xs.photon(9.5, image=True) | xs.sums()`` gives ``photons_mean`` ...

    Raises
    ------
    ParameterError
        Classes that are none, or too many; an unknown number; edges that do not rise.

    Notes
    -----
    Values that are NaN or masked are left out, and ``count`` says of each pixel how many are in it. Sums are exact, 106
    bits, so that no order of events and no chunking changes a bit, and the spread of a large mean is not lost. The sum
    is the mean times the count. Sums of whole pixels join the pass of other records: frames are read and calibrated
    once. Cost: some 3 ns per pixel and event; 36 bytes per pixel and class, in each thread twice, 8 more for extremes,
    4 for each bin of a histogram.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(20, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> total = cal.sd.sums(by=sim.run["events"]["laser_on"], also=["max"], count_above=4.75)
    >>> total["mean"].dims, int(total["n_events"].sum())
    (('laser_on', 'segment', 'row', 'column'), 20)
    >>> both = cal.sd.reduce({"dark": xs.sums(threshold=4.0), "rows": xs.projection("row")})
    >>> both["dark_mean"].dims, both["rows_projection"].dims
    (('segment', 'row', 'column'), ('event', 'segment', 'row'))
    """
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    for name in wanted:
        one_of("also", name, ALSO)
    edges = None if histogram is None else written_edges(histogram, "histogram")
    level = None if count_above is None else real_number("count_above", count_above, "a number in the unit of the data")
    fixed, of_events = static_mask(mask)
    made = Sums(_classes_given(by), WantedSums(wanted, level, edges), fixed, bool(dropped_shots))
    return filtered(made, threshold, noise, of_events)


@dataclass(frozen=True)
class Classes:
    """Which class each event is of: before the frames are seen perhaps only the name of a coordinate."""

    dim: str
    labels: tuple[Any, ...] = ()
    index: xr.DataArray | None = field(default=None, compare=False, repr=False)
    """(event), -1 where the class is not known."""

    @classmethod
    def of(cls, given: xr.DataArray) -> Classes:
        """Find the classes of a variable of events."""
        values = np.asarray(given.values)
        dim = str(given.name) if given.name is not None else _CLASS
        if given.dims != (EVENT,) or values.dtype.kind not in "biufUS" or dim in (EVENT, *PIXEL_DIMS):
            raise _no_classes(f"{dim}: {values.dtype} over {given.dims}")
        known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        labels = np.unique(values[known])
        if not 0 < labels.size <= MOST_CLASSES:
            raise _no_classes(f"{dim}: {labels.size} different values")
        index = np.where(known, np.searchsorted(labels, np.where(known, values, labels[0])), -1)
        coords = {EVENT: given.coords[EVENT]} if EVENT in given.coords else {}
        return cls(dim, tuple(labels.tolist()), xr.DataArray(index, coords, (EVENT,)))


def _classes_given(by: Any) -> Classes | None:
    if by is None or isinstance(by, str):
        return None if by is None else Classes(by)
    if not isinstance(by, xr.DataArray):
        raise _no_classes(type(by).__name__)
    return Classes.of(by)


def _no_classes(found: str) -> ParameterError:
    return ParameterError(
        "by is no class of events",
        found=found,
        expected=f"an array over {EVENT!r} of at most {MOST_CLASSES} different values, with a name that no pixel has",
        fix='by=run["events"]["laser_on"]; of what is measured a cube is made: .sd.cube(...)',
    )


@dataclass(frozen=True)
class Sums(Record):
    """Classes, what is told of each pixel, a mask; made by :func:`sums`."""

    name: ClassVar[str] = "sums"

    classes: Classes | None
    wanted: WantedSums
    mask: StaticMask | None = None
    dropped_shots: bool = False
    first: Record | None = None
    lit: xr.DataArray | None = field(default=None, compare=False, repr=False)
    inputs: tuple[tuple[str, str], ...] = ()
    """Names of classes and X-rays in the pass."""

    def seeing(self, frames: xr.DataArray) -> Sums:
        """Take classes, and whether there were X-rays, from the coordinates of the frames."""
        classes, lit = self.classes, None
        if classes is not None and classes.index is None:
            if classes.dim not in frames.coords:
                of_events = [str(c) for c, x in frames.coords.items() if x.dims == (EVENT,) and c != EVENT]
                raise ParameterError(
                    "the frames do not know their classes",
                    found=f"by={classes.dim!r}",
                    expected=f"a coordinate of the frames: {', '.join(of_events) or 'they have none'}",
                    fix='by=run["events"]["laser_on"]',
                )
            classes = Classes.of(frames.coords[classes.dim].rename(classes.dim))
        if not self.dropped_shots and (classes is None or classes.dim != XRAY_ON):
            dropped = shots_are_dropped(frames)
            if dropped is not None:
                coords = {EVENT: frames.coords[EVENT]} if EVENT in frames.coords else {}
                lit = xr.DataArray(~dropped, coords, (EVENT,))
        first = None if self.first is None else self.first.seeing(frames)
        return replace(self, classes=classes, lit=lit, first=first)

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """Class of each event, whether it had X-rays, and what the record before needs."""
        own = {} if self.classes is None or self.classes.index is None else {_CLASS: self.classes.index}
        own |= {} if self.lit is None else {_LIT: self.lit}
        return own | ({} if self.first is None else {f"{_THEN}{k}": v for k, v in self.first.beside.items()})

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Sums:
        """Make the record that knows where these are in the pass."""
        own = tuple((k, v.name) for k, v in inputs.items() if k in (_CLASS, _LIT))
        others = {k.removeprefix(_THEN): v for k, v in inputs.items() if k not in (_CLASS, _LIT)}
        first = self.first.bound(others, left_out) if self.first is not None and others else self.first
        classes = None if self.classes is None else replace(self.classes, index=None)
        return replace(self, classes=classes, lit=None, inputs=own, first=first)

    def after(self, first: Record) -> Record:
        """Add up what another record finds in each event."""
        if self.mask is not None:
            raise ParameterError(
                "the mask is for the record before the sums", fix="xs.photon(9.5, mask=mask) | xs.sums()"
            )
        return replace(self, first=first if self.first is None else first | self.first)

    def streams(self, frames: Frames) -> tuple[Stream, ...]:
        """What is added up: the frames, or the variables of the record before."""
        if self.first is None:
            attrs = {} if frames.units is None else {UNITS: frames.units}
            return (Stream("", PIXEL_DIMS, frames.shape, frames.dtype, attrs, frames.variance),)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _KEPT)  # here it is not kept
            known = self.first.outputs(frames)
        variances = {n for n in known if n.endswith(VARIANCE_SUFFIX) and n.removesuffix(VARIANCE_SUFFIX) in known}
        out = []
        for name, o in known.items():
            if name in variances or o.is_ragged or o.summed or o.dtype.kind not in "biuf":
                continue
            dtype = o.dtype if o.dtype.kind == "f" else np.dtype(np.float64)
            attrs = {k: v for k, v in o.attrs.items() if k == UNITS}
            has_variance = f"{name}{VARIANCE_SUFFIX}" in variances
            out.append(Stream(f"{name}_", o.dims, o.array_shape, dtype, attrs, has_variance))
        if not out:
            raise ParameterError(
                "nothing of this has a sum", found=f"{self.first.name}: {', '.join(known)}",
                expected="numbers of one shape in each event",
            )  # fmt: skip
        return tuple(out)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the sums; none has events."""
        if self.mask is not None:
            self.mask.on(frames)
        dims, shape = ((), ()) if self.classes is None else ((self.classes.dim,), (len(self.classes.labels),))
        double, whole, none = np.dtype(np.float64), np.dtype(np.int32), {UNITS: DIMENSIONLESS}
        out: dict[str, Output] = {}
        for s in self.streams(frames):
            squared = {UNITS: f"({s.attrs[UNITS]})2"} if UNITS in s.attrs else {}
            told: dict[str, tuple[np.dtype[Any], Mapping[str, Any]]]
            told = dict.fromkeys((MEAN, _STD, _STDERR), (double, s.attrs)) | {COUNT: (whole, none)}
            told |= {f"{MEAN}{VARIANCE_SUFFIX}": (double, squared)} if s.variance else {}
            told |= {name: (double if name == SUM else s.dtype, s.attrs) for name in self.wanted.also}
            told |= {} if self.wanted.level is None else {N_ABOVE: (whole, none)}
            all_dims, all_shape = (*dims, *s.dims), (*shape, *s.shape)
            out |= {f"{s.prefix}{n}": Output(all_dims, all_shape, t, a, summed=True) for n, (t, a) in told.items()}
            if self.wanted.edges is not None:
                n = len(self.wanted.edges) - 1
                _warn_of_size(4 * n * int(np.prod(all_shape)))
                out[f"{s.prefix}{HISTOGRAM}"] = Output((*all_dims, VALUE), (*all_shape, n), whole, none, summed=True)
                out |= {f"{s.prefix}{k}": Output(all_dims, all_shape, whole, none, summed=True)
                        for k in (_BELOW, _ABOVE)}  # fmt: skip
        count = np.dtype(np.int64)
        out[N_EVENTS] = Output(dims, shape, count, none, summed=True)
        left = {_CLASS: N_WITHOUT_CLASS, _LIT: N_DROPPED_SHOTS}
        return out | {left[k]: Output((), (), count, none, summed=True) for k, _ in self.inputs}

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Classes, the labels of the pixels or of what the record before returns, and bins of values."""
        if self.first is None:
            labels = {SEGMENT: frames.segment, ROW: frames.row, COLUMN: frames.column}
            out = {dim: xr.Variable((dim,), np.array(values)) for dim, values in labels.items()}
        else:
            out = dict(self.first.coords(frames))
        if self.classes is not None:
            out[self.classes.dim] = xr.Variable((self.classes.dim,), np.array(self.classes.labels))
        if self.wanted.edges is not None:
            out |= labels_of_bins(VALUE, np.array(self.wanted.edges), frames.units if self.first is None else None)
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        n = 1 if self.classes is None else len(self.classes.labels)
        use = None if self.mask is None else self.mask.on(frames)
        inner = None if self.first is None else self.first.reducer(frames)
        places = dict(self.inputs)
        by_class = self.classes is not None
        return SumsReducer(
            self.streams(frames), self.wanted, n if by_class else None, use, inner,
            places.get(_CLASS), places.get(_LIT),
        )  # fmt: skip


def _warn_of_size(size: int) -> None:
    if size > _LARGE:
        warn_user(
            f"histograms of each pixel take {format_bytes(size)}, and more while they are made; take fewer bins, "
            "or a part of the detector: cal.isel(segment=[0])",
        )
