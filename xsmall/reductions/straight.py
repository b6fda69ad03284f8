"""Straight lines of curved ones inside the pass: what follows sees frames whose columns or rows are shifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.asked import chained, remember
from xsmall.engine.record import Input, Output, Record, Reducer, Totals, no_record
from xsmall.errors import DataError
from xsmall.frames import straighten as by_hand
from xsmall.reductions.box import in_order
from xsmall.vocabulary import COLUMN, PIXEL_DIMS, ROW, UNITS, VARIANCE_SUFFIX

__all__ = ["Straighten", "straighten"]

STRAIGHT = "straight"
Lines = Literal["row", "column"]


@overload
def straighten(
    frames: xr.DataArray | xr.Dataset, coefficients: Sequence[float], *, along: Lines = ...
) -> xr.DataArray | xr.Dataset: ...
@overload
def straighten(
    frames: Sequence[float] | None = ..., coefficients: Sequence[float] | None = ..., *, along: Lines = ...
) -> Record: ...
def straighten(
    frames: xr.DataArray | xr.Dataset | Sequence[float] | None = None,
    coefficients: Sequence[float] | None = None,
    *,
    along: Lines = "row",
) -> xr.DataArray | xr.Dataset | Record:
    """Shift each column (or row) of pixels by a polynomial, so that curved lines become straight.

    Parameters
    ----------
    frames
        Frames with the dims ``row`` and ``column`` and any others; or a Dataset of them and their variance. Left out,
        or the coefficients themselves, a record comes back: ``xs.straighten(c) | xs.projection("row")``.
    coefficients
        Of the polynomial that says where the line lies, in pixels, as a function of the label of the column (or row);
        highest power first, as ``np.polyfit`` returns them.
    along
        The dim along which pixels move: ``"row"`` where the line is a function of the column, ``"column"`` where it is
        one of the row.

    Returns
    -------
    Frames whose line lies straight, m pixels above the minimum of the polynomial, where m is the largest shift rounded
    up: pixel r of column j goes to r - (p(j) - min p) + m. A pixel that falls between two is shared by them in
    proportion, so that the sum over each column stays (flux is conserved, to rounding); the dim ``along`` is longer by
    m, its labels go on behind the last one, and nothing wraps around. Pixels on which none falls are NaN; those at the
    border of what the detector has seen may hold a part of one. NaN spreads to the pixels that share it. Geometry
    and positions are dropped: these are no longer pixels of the detector. Lazy where ``frames`` are. Of a Dataset, a
    Dataset: a pixel that is shared brings its variance times the square of its part. Of no frames, a record: what
    follows it sees such frames, in the pass of all other records; alone it returns them as ``straight`` (event,
    segment, row, column).

    Raises
    ------
    DataError
        Frames without rows and columns, or with labels that are not consecutive.
    ParameterError
        No coefficients, or shifts larger than the image.

    Notes
    -----
    Cost: two passes over the frames. Two neighbouring pixels of the result share noise where the shift is not whole.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> image = xr.DataArray(
    ...     [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dims=("row", "column")
    ... )  # a line that falls by a pixel
    >>> xs.straighten(image, [1.0, 1.0]).transpose("row", "column").values.tolist()
    [[nan, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, nan]]
    >>> sim = xs.simulate(4, shape=(1, 16, 32), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> lines = xs.straighten(coefficients=[0.05, 0.0]) | xs.projection("row")
    >>> cal.sd.reduce({"lines": lines, "all": xs.projection("row")})["lines_projection"].sizes["lines_row"]
    18
    """
    if isinstance(frames, xr.DataArray | xr.Dataset):
        return by_hand.straighten(frames, [] if coefficients is None else coefficients, along=along)
    if frames is not None and coefficients is not None:
        raise DataError("frames without labels", found=type(frames).__name__, expected="a DataArray or a Dataset")
    coefficients = frames if coefficients is None else coefficients
    by_hand.check_along(along)
    made = Straighten(by_hand.checked_coefficients(coefficients), along)
    return remember(made, "straighten", {"coefficients": list(made.coefficients), "along": along})


@dataclass(frozen=True)
class Straighten(Record):
    """Coefficients, the dim along which pixels move, and what follows; made by :func:`straighten`."""

    name: ClassVar[str] = "straighten"

    coefficients: tuple[float, ...]
    along: str
    following: Record | None = None

    def __or__(self, following: Record) -> Record:
        """Let a record see straight frames."""
        if not isinstance(following, Record):
            return no_record(following)  # type: ignore[unreachable]  # users are not typed
        then = following if self.following is None else self.following | following
        return chained(self, following, replace(self, following=then))

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """What is to lie beside the frames of what follows."""
        return {} if self.following is None else self.following.beside

    def seeing(self, frames: xr.DataArray) -> Record:
        """Show the labels of the events to what follows."""
        return replace(self, following=None if self.following is None else self.following.seeing(frames))

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Record:
        """Make the record that knows what lies beside the frames."""
        return replace(self, following=None if self.following is None else self.following.bound(inputs, left_out))

    def straight(self, frames: Frames) -> Frames:
        """What is known of the straight frames: they have no place in space."""
        _, extra = self.shifts(frames)
        labels = frames.row if self.along == ROW else frames.column
        longer = range(labels[0], labels[0] + len(labels) + extra)
        part = (
            Part(frames.segment, longer, frames.column)
            if self.along == ROW
            else Part(frames.segment, frames.row, longer)
        )
        return replace(frames, part=part, geometry=None, whole_shape=(None, None, None))

    def shifts(self, frames: Frames) -> tuple[npt.NDArray[np.float64], int]:
        """By how much each line moves, in the order of the array, and by how many pixels frames grow."""
        across, along = (frames.column, frames.row) if self.along == ROW else (frames.row, frames.column)
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            if not np.array_equal(in_order(labels, dim, self.name), np.arange(len(labels))):
                raise DataError(
                    f"labels of {dim} are not in order", found=f"{list(labels[:4])} ...", fix=f"frames.sortby({dim!r})"
                )
        return by_hand.shifts_of(self.coefficients, np.array(across), len(along))

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what follows returns of straight frames; or these themselves."""
        seen = self.straight(frames)
        if self.following is not None:
            return self.following.outputs(seen)
        units = {} if frames.units is None else {UNITS: frames.units}
        out = {STRAIGHT: Output(PIXEL_DIMS, seen.shape, frames.dtype, units)}
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{STRAIGHT}{VARIANCE_SUFFIX}"] = Output(PIXEL_DIMS, seen.shape, frames.dtype, squared)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of what follows; or the labels of straight frames."""
        seen = self.straight(frames)
        if self.following is not None:
            return self.following.coords(seen)
        return {dim: xr.Variable((dim,), np.array(getattr(seen, dim))) for dim in PIXEL_DIMS}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        seen = self.straight(frames)
        inner = _Keep(seen.shape) if self.following is None else self.following.reducer(seen)
        return StraightReducer(inner, *self.shifts(frames), self.along)


class StraightReducer(Reducer):
    """Shifts the lines of each segment and hands them on."""

    def __init__(self, inner: Reducer, shift: npt.NDArray[np.float64], extra: int, along: str) -> None:
        self._inner = inner
        self.takes_whole_frames = inner.takes_whole_frames  # type: ignore[misc]  # as what follows does
        self._shift, self._extra, self._along = shift, extra, along

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._inner.energy, self._inner.beside = self.energy, self.beside
        self._inner.begin(k)

    def add(self, s: int, frames: npt.NDArray[Any], variance: Any = None) -> None:
        """Shift segment ``s``."""
        self._inner.add(s, self._straight(frames, 1), None if variance is None else self._straight(variance, 2))

    def whole(self, frames: npt.NDArray[Any], variance: Any, here: Any) -> None:
        """Shift all segments."""
        self._inner.whole(self._straight(frames, 1), None if variance is None else self._straight(variance, 2), here)

    def _straight(self, values: npt.NDArray[Any], power: int) -> npt.NDArray[Any]:
        turned = values if self._along == ROW else values.swapaxes(-1, -2)
        made = by_hand.shifted(turned, self._shift, self._extra, power)
        return made if self._along == ROW else np.ascontiguousarray(made.swapaxes(-1, -2))

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        return self._inner.end()

    def totals(self) -> Totals | None:
        """What was gathered of all groups."""
        return self._inner.totals()


class _Keep(Reducer):
    """Hands the frames out as they come."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def add(self, s: int, frames: npt.NDArray[Any], variance: Any = None) -> None:
        """Keep segment ``s``."""
        for name, values in ((STRAIGHT, frames), (f"{STRAIGHT}{VARIANCE_SUFFIX}", variance)):
            if values is not None:
                self._kept.setdefault(name, np.empty((self._k, *self._shape), values.dtype))[:, s] = values

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand them out."""
        return self._kept
