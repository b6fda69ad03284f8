"""What is done to frames on their way to a record: thresholds, and masks that differ between events."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.record import GROUP, Input, Output, Record, Reducer, Totals
from xsmall.errors import DataError, ParameterError
from xsmall.frames.per_pixel import StaticMask, StaticNoise, boolean_mask
from xsmall.reductions.threshold import Sigma, check_noise, check_unit, sigma
from xsmall.vocabulary import EVENT, FRAME_DIMS, PIXEL_DIMS

__all__ = ["EventMask", "Filtered", "Thresholds", "filtered", "static_mask"]

FloatStack = npt.NDArray[np.floating[Any]]
_MASK = "mask"
_THEN = "then "
_FIX = "threshold=4.75 in the unit of the data, threshold=(4.75, 100.0), or threshold=xs.sigma(3)"


@dataclass(frozen=True)
class Thresholds:
    """Two thresholds; made of what a user gave by :meth:`of`."""

    low: float
    high: float
    noise: StaticNoise | None = None
    noise_units: str | None = None

    @classmethod
    def of(cls, threshold: Any, noise: Any) -> Thresholds | None:
        """Check ``threshold``: a number, ``xs.sigma(n)``, or (low, high) of these, None for no limit."""
        if threshold is None:
            if noise is not None:
                raise ParameterError("noise is for thresholds in sigma", found="no threshold", fix=_FIX)
            return None
        pair = tuple(threshold) if isinstance(threshold, tuple | list) else (threshold, None)
        if len(pair) != 2 or pair == (None, None):
            raise ParameterError("invalid threshold", found=repr(threshold), expected="one, or (low, high)", fix=_FIX)
        given = [limit for limit in pair if limit is not None]
        if len({isinstance(limit, Sigma) for limit in given}) > 1:
            raise ParameterError("thresholds of two kinds", found=repr(threshold), expected="both of one", fix=_FIX)
        low, high = _limit_number(pair[0], -math.inf), _limit_number(pair[1], math.inf)
        if not low < high:
            raise ParameterError("thresholds out of order", found=repr(threshold), expected="low < high", fix=_FIX)
        return cls(low, high, *check_noise(noise, sigma(1) if isinstance(given[0], Sigma) else 1.0))

    def check(self, frames: Frames) -> None:
        """Raise unless the noise is that of these frames."""
        if self.noise is not None:
            check_unit(self.noise_units, frames)
            self.noise.on(frames)

    def ready(self, frames: Frames) -> Callable[[int, FloatStack, FloatStack], None]:
        """What fills the last argument with the frames of a segment, thresholds applied."""
        from xsmall.kernels.threshold import threshold

        level = np.empty((frames.shape[0], 0, 0))
        if self.noise is not None:
            values = self.noise.on(frames)
            level = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        return lambda s, stack, out: threshold(stack, self.low, self.high, level[s], out)


def _limit_number(limit: Any, default: float) -> float:
    if limit is None:
        return default
    found = limit.n if isinstance(limit, Sigma) else limit
    if isinstance(found, bool | np.bool_) or not isinstance(found, int | float | np.number) or math.isnan(found):
        raise ParameterError(
            "invalid threshold",
            found=repr(limit),
            expected="a number in the unit of the data, or xs.sigma(...)",
            fix=_FIX,
        )
    return float(found)


@dataclass(frozen=True)
class EventMask:
    """A mask (event, segment, row, column): before the pass what a user gave, in it where to find that."""

    labels: Part | None
    input: Input | None = None
    given: xr.DataArray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, mask: xr.DataArray) -> EventMask:
        """Check a mask that has events."""
        if set(mask.dims) != set(FRAME_DIMS):
            raise ParameterError("mask of other dims", found=mask.dims, expected=f"{PIXEL_DIMS} or {FRAME_DIMS}")
        ordered = boolean_mask(mask.transpose(*FRAME_DIMS))
        labelled = any(dim in ordered.coords for dim in PIXEL_DIMS)
        return cls(Part.of(ordered) if labelled else None, given=ordered)

    def on(self, frames: Frames, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The pixels of the frames in values (event, segment, row, column) of the mask."""
        if self.labels is None or self.labels == frames.part:
            return values
        return frames.part.match(self.labels, _MASK).take(values)

    def check(self, frames: Frames) -> None:
        """Raise unless the mask has the pixels of the frames."""
        shape = self.input.shape if self.input else self.given.shape[1:] if self.given is not None else frames.shape
        if self.labels is not None:
            frames.part.match(self.labels, _MASK)
        elif shape != frames.shape:
            raise DataError("mask of another shape than the frames", found=shape, expected=frames.shape)


def static_mask(mask: Any) -> tuple[StaticMask | None, EventMask | None]:
    """Tell a mask of all events from one that differs between them."""
    if isinstance(mask, xr.DataArray) and EVENT in mask.dims:
        return None, EventMask.of(mask)
    return StaticMask.of(mask), None


def filtered(record: Record, threshold: Any = None, noise: Any = None, mask: EventMask | None = None) -> Record:
    """Let a record see frames after thresholds and a mask of each event; the record itself where there are none."""
    cut = Thresholds.of(threshold, noise)
    return record if cut is None and mask is None else Filtered(record, cut, mask)


@dataclass(frozen=True)
class Filtered(Record):
    """A record behind thresholds and a mask; made by :func:`filtered`."""

    record: Record
    cut: Thresholds | None = None
    mask: EventMask | None = None

    @property
    def name(self) -> str:  # type: ignore[override]  # that of the record, whichever it is
        """Name of the record."""
        return self.record.name

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """The mask of each event, and what the record itself needs."""
        own = {} if self.mask is None or self.mask.given is None else {_MASK: self.mask.given}
        return own | {f"{_THEN}{k}": v for k, v in self.record.beside.items()}

    def seeing(self, frames: xr.DataArray) -> Filtered:
        """Show the labels of the frames to the record."""
        return replace(self, record=self.record.seeing(frames))

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Filtered:
        """Make the record that knows where its mask is."""
        others = {k.removeprefix(_THEN): v for k, v in inputs.items() if k != _MASK}
        mask = self.mask and replace(self.mask, input=inputs.get(_MASK), given=None)
        return replace(self, mask=mask, record=self.record.bound(others, left_out) if others else self.record)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what the record returns."""
        for step in (self.cut, self.mask):
            if step is not None:
                step.check(frames)
        return self.record.outputs(frames)

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of the record."""
        return self.record.coords(frames)

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return FilteredReducer(self, frames)

    def __or__(self, following: Record) -> Record:
        """Chain: what follows the record sees the frames as it does."""
        chained = self.record | following
        return chained if chained is NotImplemented else replace(self, record=chained)

    def after(self, first: Record) -> Record:
        """Follow another record behind these thresholds and this mask."""
        return replace(self, record=self.record.after(first))


class FilteredReducer(Reducer):
    """Fills a buffer with the frames as the record is to see them."""

    def __init__(self, record: Filtered, frames: Frames) -> None:
        self._inner = record.record.reducer(frames)
        self.takes_whole_frames = self._inner.takes_whole_frames  # type: ignore[misc]  # as the record does
        self._frames = frames
        self._cut = None if record.cut is None else record.cut.ready(frames)
        self._mask = record.mask
        self._buffer = np.empty((GROUP, *frames.shape[1:]), frames.dtype)
        self._variances = np.empty_like(self._buffer) if frames.variance else None
        self._use: npt.NDArray[np.bool_] | None = None

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events; an event without a mask has no valid pixel."""
        self._inner.energy, self._inner.beside = self.energy, self.beside
        if self._mask is not None and self._mask.input is not None:
            values, there = self.beside[self._mask.input.name]
            use = self._mask.on(self._frames, values.astype(bool))
            self._use = use & there[:, None, None, None]
        self._inner.begin(k)

    def add(self, s: int, frames: FloatStack, variance: FloatStack | None = None) -> None:
        """Filter segment ``s`` and hand it on."""
        self._inner.add(s, *self._filtered(s, frames, variance))

    def whole(self, frames: FloatStack, variance: FloatStack | None, here: Any) -> None:
        """Filter whole frames, a segment after the other, and hand them on."""
        out = np.empty_like(frames)
        variances = None if variance is None else np.empty_like(variance)
        for s in range(frames.shape[1]):
            out[:, s], of_segment = self._filtered(s, frames[:, s], None if variance is None else variance[:, s])
            if variances is not None:
                variances[:, s] = of_segment
        self._inner.whole(out, variances, here)

    def _filtered(
        self, s: int, frames: FloatStack, variance: FloatStack | None
    ) -> tuple[FloatStack, FloatStack | None]:
        out = self._buffer[: len(frames)]
        if self._cut is None:
            np.copyto(out, frames)
        else:
            self._cut(s, frames, out)
        if self._use is not None:
            out[~self._use[:, s]] = np.nan
        if variance is not None and self._variances is not None and self._cut is not None:
            variances = self._variances[: len(frames)]
            np.copyto(variances, variance)
            variances[(out == 0) & (frames != 0)] = 0  # what was set to nothing is known
            variance = variances
        return out, variance

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        return self._inner.end()

    def totals(self) -> Totals | None:
        """What the record has gathered."""
        return self._inner.totals()
