"""The edge that a time tool shows: its place, height and width, from a camera or a line, by a matched filter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.reductions.arguments import one_of, real_number, whole_number
from xsmall.reductions.box import Box, in_order
from xsmall.reductions.region import windows
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    N_VALID,
    NEXT_AMPLITUDE,
    PICOSECOND,
    ROW,
    SAMPLE,
    TT_AMPLITUDE,
    TT_FWHM,
    TT_POSITION,
    UNITS,
)

__all__ = ["Edge", "edge", "edge_weights"]

_PIXEL: Final = "edge_pixel"
_NEXT: Final = f"tt_{NEXT_AMPLITUDE}"
_WIDTH: Final = 30


def edge_weights(width: float = 8.0, length: int = 120) -> npt.NDArray[np.float64]:
    """Make a filter that looks for an edge of a width: a smooth step without its mean.

    Parameters
    ----------
    width
        Rms width of the edge, in pixels.
    length
        Pixels of the filter.

    Returns
    -------
    (length,), float64: its answer to a step from 0 to 1 of this width is 1, and to anything constant 0.

    Raises
    ------
    ParameterError
        A width that is not positive, or a filter that is not much longer than the edge.

    Notes
    -----
    A step of this shape in white noise is found best by it; measured edges, averaged and without their mean, are better
    where the edge has another shape.

    Examples
    --------
    >>> import xsmall as xs
    >>> weights = xs.edge_weights(5.0, 80)
    >>> weights.size, abs(float(weights.sum())) < 1e-12
    (80, True)
    """
    fix = "xs.edge_weights(8.0, 120)"
    rms, n = real_number("width", width, "pixels, above 0", fix, above=0.0), whole_number("length", length, fix)
    if n < 4 * rms:
        raise ParameterError(
            "invalid filter of an edge", found=f"width={width!r}, length={length!r}",
            expected="at least 4 times as many pixels as its width", fix=fix,
        )  # fmt: skip
    at = np.arange(n) - n // 2
    step = np.array([0.5 * (1 + math.erf((x + 0.5) / (math.sqrt(2) * rms))) for x in at])
    weights = step - step.mean()
    out: npt.NDArray[np.float64] = weights / (weights * step).sum()
    return out


@ask
def edge(
    place: Box | None = None,
    *,
    weights: Any = None,
    reference: xr.DataArray | None = None,
    side: Box | None = None,
    direction: Literal["rising", "falling"] = "falling",
    along: Literal["column", "row"] = "column",
    calibration: Sequence[float] | None = None,
    minimum: float | None = None,
) -> Record:
    """Find the edge in the picture or line of a time tool: place, height and width, by a matched filter.

    Parameters
    ----------
    place
        Box of pixels that hold the line; all of them without it. Waveforms (event, sample) are lines too.
    weights
        Filter: the mean of measured edges, or its width in pixels, or nothing, for :func:`edge_weights` as it is. Its
        mean is taken off.
    reference
        The line without X-rays (column), or (row) along rows, such as the mean line of dropped shots: lines are divided
        by it. Without it they are divided by their own median.
    side
        Box beside the line that sees the laser but no edge, as long as ``place``: its mean is subtracted before.
    direction
        Which way the edge goes with rising labels.
    along
        Direction of the line.
    calibration
        Coefficients c0, c1, c2 ... of the delay c0 + c1 p + c2 p^2 ... in ps for an edge at pixel p.
    minimum
        Height below which there is no edge: place and width are NaN then.

    Returns
    -------
    A record. Its variables (event), float64: ``edge_pixel``, the label of the pixel, interpolated; ``tt_amplitude``,
    the height of the edge relative to the line without it; ``tt_fwhm``, the full width of the filter's answer at half
    its height, in pixels, or with ``calibration`` in ps; ``tt_next_amplitude``, the height of the next answer outside
    of the filter's length; with ``calibration`` ``tt_position`` in ps. ``n_valid`` (int32), pixels of the line that
    have a value.

    Raises
    ------
    ParameterError
        A filter longer than the line, a reference that does not have its pixels, boxes over several segments.
    DataError
        Frames with rows or columns left out.

    Notes
    -----
    The line is the mean over the valid pixels across it; where there is none the filter does not answer. The answer at
    p is sum(w_j (line(p + j) / reference(p + j) - 1)), its top a parabola through the three highest points; at the end
    of the line there is no top, and the place is NaN. As the time tool of LCLS works (N. Hartmann et al., Nature
    Photonics 8 (2014) 706). Cost: reads the box, and some 0.5 ns per pixel of the line and of the filter.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> at = np.arange(400)
    >>> lines = xr.DataArray(
    ...     [np.where(at < 150, 100.0, 80.0), np.where(at < 260, 50.0, 30.0)], dims=("event", "sample")
    ... )
    >>> found = lines.sd.edge(weights=4.0, calibration=(-1.0, 0.005))
    >>> found["edge_pixel"].round().values.tolist(), found["tt_position"].attrs["units"]
    ([150.0, 260.0], 'ps')
    """
    one_of("direction", direction, ("rising", "falling"))
    one_of("along", along, (COLUMN, ROW))
    for what, box in (("place", place), ("side", side)):
        if box is not None and not isinstance(box, Box):
            raise ParameterError(f"{what} is no box", found=type(box).__name__, fix="xs.Box(row=(100, 140))")
    line = None
    if reference is not None:
        given: object = reference
        if not isinstance(given, xr.DataArray) or reference.ndim != 1 or reference.dims[0] not in (along, SAMPLE):
            raise ParameterError(
                "reference is no line", found=str(getattr(reference, "dims", type(reference).__name__)),
                expected=f"({along},), with the labels of the pixels",
            )  # fmt: skip
        dim = str(reference.dims[0])
        labels = reference[dim].values if dim in reference.coords else np.arange(reference.size)
        line = tuple(zip(map(int, labels), map(float, reference.values), strict=True))
    polynomial = None if calibration is None else _polynomial(calibration)
    lowest = None if minimum is None else real_number("minimum", minimum, "a number", "minimum=0.02")
    sign = 1.0 if direction == "rising" else -1.0
    return Edge(place, side, _filter(weights), line, sign, along == ROW, polynomial, lowest)


def _polynomial(calibration: Any) -> tuple[float, ...]:
    numbers = _finite_numbers(calibration)
    if numbers is None or numbers.size < 2:
        raise ParameterError(
            "invalid calibration", found=repr(calibration), expected="c0, c1 ... in ps", fix="calibration=(-1, 0.003)"
        )
    return tuple(numbers.tolist())


def _finite_numbers(given: Any) -> npt.NDArray[np.float64] | None:
    """Several finite numbers; None of anything else."""
    try:
        values = np.array(given, np.float64)
    except (TypeError, ValueError):
        return None
    return values if values.ndim == 1 and np.isfinite(values).all() else None


def _filter(weights: Any) -> tuple[float, ...]:
    if weights is None or np.ndim(weights) == 0:
        fix = "weights=4.0"
        width = 8.0 if weights is None else real_number("weights", weights, "a width in pixels", fix, above=0)
        return tuple(edge_weights(width, max(_WIDTH, 2 * math.ceil(7.5 * width))).tolist())
    values = _finite_numbers(weights)
    if values is None or values.size < 3 or np.ptp(values) == 0:
        raise ParameterError(
            "invalid weights", found=repr(weights)[:80],
            expected="a filter of three or more finite numbers, or a width", fix="weights=4.0",
        )  # fmt: skip
    values = values - values.mean()
    return tuple(values.tolist())


@dataclass(frozen=True)
class Edge(Record):
    """Boxes, filter, reference and calibration; made by :func:`edge`."""

    name: ClassVar[str] = "edge"

    place: Box | None
    side: Box | None
    weights: tuple[float, ...]
    reference: tuple[tuple[int, float], ...] | None
    sign: float
    along_rows: bool
    calibration: tuple[float, ...] | None
    minimum: float | None

    def labels(self, frames: Frames) -> tuple[int, ...]:
        """Labels of the pixels of the line, in order."""
        window = self.box(self.place, frames)
        own = frames.row if self.along_rows else frames.column
        chosen = np.array(own)[window.row if self.along_rows else window.column]
        return tuple(sorted(int(v) for v in chosen))

    def box(self, place: Box | None, frames: Frames) -> Any:
        """Where a box lies in the frames."""
        if place is None and frames.shape[0] != 1:
            raise ParameterError(
                "an edge is looked for in one segment", found=f"{frames.shape[0]} segments",
                fix="xs.edge(xs.Box(segment=0, row=(100, 140)))",
            )  # fmt: skip
        return windows(place, frames)[0]

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe place, height and width."""
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            in_order(labels, dim, "edge")
        known = self.labels(frames)
        if len(self.weights) > len(known) - 2:
            raise ParameterError(
                "a filter that is longer than the line", found=f"{len(self.weights)} and {len(known)} pixels",
                expected="a filter with room to move", fix="weights=4.0, a narrower edge",
            )  # fmt: skip
        if self.side is not None:
            other = self.box(self.side, frames)
            span = other.row if self.along_rows else other.column
            if span.stop - span.start != len(known):
                raise ParameterError(
                    "side is not as long as the line",
                    found=f"{span.stop - span.start} pixels",
                    expected=f"{len(known)}",
                )
        if self.reference is not None and not set(known) <= {label for label, _ in self.reference}:
            raise ParameterError(
                "a reference without some pixels of the line", found=f"{len(self.reference)} pixels",
                expected=f"{known[0]} to {known[-1]}", fix="the mean line of dropped shots, in the same box",
            )  # fmt: skip
        double, none = np.dtype(np.float64), {UNITS: DIMENSIONLESS}
        width = none if self.calibration is None else {UNITS: PICOSECOND}
        out = {name: Output((), (), double, none) for name in (_PIXEL, TT_AMPLITUDE, _NEXT)}
        out[TT_FWHM] = Output((), (), double, width)
        if self.calibration is not None:
            out[TT_POSITION] = Output((), (), double, width)
        return out | {N_VALID: Output((), (), np.dtype(np.int32), none)}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return EdgeReducer(self, frames)


class EdgeReducer(Reducer):
    """Finds the edge of each event of a group."""

    def __init__(self, record: Edge, frames: Frames) -> None:
        self._record = record
        self._labels = record.labels(frames)
        self._box = record.box(record.place, frames)
        self._side = None if record.side is None else record.box(record.side, frames)
        own = np.array(frames.row if record.along_rows else frames.column)
        self._falls = bool(own.size > 1 and own[0] > own[-1])  # labels that fall: the line is turned around
        self._weights = np.array(record.weights)
        known = None if record.reference is None else dict(record.reference)
        self._reference = None if known is None else np.array([known[label] for label in self._labels])
        self._answer = np.empty(len(self._labels))

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._lines = np.full((2, k, len(self._labels)), np.nan)
        self._lines[1] = 0.0

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take the lines out of segment ``s``."""
        del variance
        for i, box in enumerate((self._box, self._side)):
            if box is not None and box.segment == s:
                self._lines[i] = self._line(frames[:, box.row, box.column])

    def _line(self, part: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Mean of the valid pixels across the line, (k, pixel)."""
        across = 2 if self._record.along_rows else 1
        good = np.isfinite(part)
        n = good.sum(axis=across)
        total = np.where(good, part, 0).sum(axis=across, dtype=np.float64)
        line = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
        out: npt.NDArray[np.float64] = line[:, ::-1] if self._falls else line
        return out

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Find the edges."""
        from xsmall.kernels.edge import answer, top

        record = self._record
        lines = self._lines[0] - self._lines[1]
        found = np.full((len(lines), 4), np.nan)
        for j, line in enumerate(lines):
            known = np.isfinite(line)
            base = self._reference
            if base is None:
                base = np.full(line.shape, np.median(line[known]) if known.any() else np.nan)
            usable = base > 0
            relative = np.divide(line, base, out=np.full(line.shape, np.nan), where=usable) - 1
            answer(record.sign * relative, self._weights, self._answer)
            top(self._answer, len(self._weights), found[j])
        place, height, width, beyond = found.T.copy()
        half = len(self._weights) // 2
        # The filter's middle is between two pixels where its length is even.
        place = place + self._labels[0] + ((len(self._weights) - 1) / 2 - half)
        if record.minimum is not None:
            place[~(height >= record.minimum)] = np.nan
            width[~(height >= record.minimum)] = np.nan
        out = {_PIXEL: place, TT_AMPLITUDE: height, TT_FWHM: width, _NEXT: beyond}
        if record.calibration is not None:
            polynomial = np.polynomial.Polynomial(record.calibration)
            out[TT_POSITION] = polynomial(place)
            out[TT_FWHM] = width * np.abs(polynomial.deriv()(place))
        return out | {N_VALID: np.isfinite(lines).sum(axis=1).astype(np.int32)}
