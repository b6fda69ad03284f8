"""A box of pixels of one segment, in the labels of the whole detector."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xsmall.calls import tells_its_names
from xsmall.detector.frames import Frames
from xsmall.detector.part import Labels, Part
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import COLUMN, ROW, SEGMENT

__all__ = ["Box", "Window", "in_order"]


@tells_its_names
@dataclass(frozen=True)
class Box:
    """Rows and columns of one segment, half-open, by their labels: positions in the whole detector.

    Parameters
    ----------
    segment
        Label of the segment; may be left out only where the frames have one segment.
    row, column
        (start, stop) of labels, stop excluded; None takes all.

    Raises
    ------
    ParameterError
        A box that holds no pixel, or limits that are not integers.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.Box(segment=2, row=(200, 500), column=(300, 580))
    Box(segment=2, row=(200, 500), column=(300, 580))
    """

    segment: int | None = None
    row: tuple[int, int] | None = None
    column: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.segment is not None:
            object.__setattr__(self, SEGMENT, _integer(self.segment, SEGMENT))
        for dim in (ROW, COLUMN):
            limits = getattr(self, dim)
            if limits is None:
                continue
            try:
                start, stop = limits
            except (TypeError, ValueError):
                raise ParameterError(
                    f"{dim} of a box", found=repr(limits), expected="(start, stop)", fix=_likely_limits(limits, dim)
                ) from None
            start, stop = _integer(start, dim), _integer(stop, dim)
            if start >= stop or start < 0:
                raise ParameterError(
                    f"{dim} of a box holds no pixel",
                    found=(start, stop),
                    expected="0 <= start < stop; stop is excluded",
                    fix=f"{dim}=({min(start, stop)}, {max(start, stop) + (start == stop)})",
                )
            object.__setattr__(self, dim, (start, stop))

    def of(self, part: Part) -> Part:
        """The pixels of ``part`` that lie in the box, in its order.

        Raises
        ------
        ParameterError
            A segment that has to be said or is not there; a box that reaches beyond the frames or misses all pixels.
        """
        row, column = _labels_within(self.row, part.row, ROW), _labels_within(self.column, part.column, COLUMN)
        return Part((self._segment(part),), row, column)

    def on(self, frames: Frames) -> Window:
        """Find the box in the arrays of ``frames``; raises as :meth:`of`."""
        return _window(self, frames.part)

    def _segment(self, part: Part) -> int:
        if self.segment is None:
            if len(part.segment) != 1:
                raise ParameterError(
                    "a box needs its segment where there are several",
                    found=f"{self} on segments {tuple(part.segment)}",
                    expected="the label of one segment",
                    fix=f"xs.Box(segment={part.segment[0]}, row={self.row}, column={self.column})",
                )
            return part.segment[0]
        if part.segment.count(self.segment) != 1:
            raise ParameterError(
                "the segment of a box is not there",
                found=self.segment,
                expected=f"one of {tuple(part.segment)}",
                fix=f"segment={part.segment[0]}",
            )
        return self.segment


@dataclass(frozen=True)
class Window:
    """The piece of an array (segment, row, column) that holds some pixels of one segment, for kernels.

    Where labels are out of order the piece holds other rows or columns too, which ``inside`` leaves out.
    """

    segment: int
    row: slice
    column: slice
    row_labels: npt.NDArray[np.float64]
    column_labels: npt.NDArray[np.float64]
    inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, chosen: Part, part: Part) -> Window:
        """Find the pixels ``chosen``, all of one segment, in an array of the pixels ``part``."""
        at = chosen.match(part, "array")
        (rows, in_rows), (columns, in_columns) = _span_of_places(at.row), _span_of_places(at.column)
        labels = np.array(part.row[rows], dtype=np.float64), np.array(part.column[columns], dtype=np.float64)
        return cls(at.segment[0], rows, columns, *labels, in_rows[:, None] & in_columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_labels.size, self.column_labels.size

    def use(self, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
        """Pixels of the window that are inside and that a mask (segment, row, column) leaves."""
        inside = self.inside if mask is None else self.inside & mask[self.segment, self.row, self.column]
        return np.array(inside, order="C")


def _span_of_places(places: Labels) -> tuple[slice, npt.NDArray[np.bool_]]:
    """Cut an axis down to the piece that holds some places; and say which of the piece they are."""
    at = np.asarray(places)
    first, last = int(at.min()), int(at.max())
    inside = np.zeros(last + 1 - first, dtype=bool)
    inside[at - first] = True
    return slice(first, last + 1), inside


@functools.lru_cache(maxsize=8)
def _window(box: Box, part: Part) -> Window:
    """Find the window once: outputs, coordinates and reducers of a record ask for it one after the other."""
    return Window.of(box.of(part), part)


def _likely_limits(limits: object, dim: str) -> str:
    """Limits that may be meant by one number, or by a slice."""
    cut = isinstance(limits, slice)
    start = _whole(getattr(limits, "start", None) if cut else limits)
    stop = _whole(getattr(limits, "stop", None)) if cut else None if start is None else start + 1
    return f"{dim}=(200, 500)" if start is None or stop is None else f"{dim}=({start}, {stop})"


def _whole(value: object) -> int | None:
    """A whole number, of Python or NumPy; None of anything else, and of a truth value."""
    try:
        return None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _integer(value: object, what: str) -> int:
    number = _whole(value)
    if number is None:
        known = isinstance(value, float) and math.isfinite(value)
        raise ParameterError(
            f"{what} of a box",
            found=repr(value),
            expected="an integer label",
            fix=f"{what}={math.floor(float(str(value)))}, or limits of whole numbers" if known else None,
        )
    return number


def _labels_within(limits: tuple[int, int] | None, labels: Labels, dim: str) -> Labels:
    """Labels that lie in ``limits``, in their order."""
    if limits is None:
        return labels
    known = np.array(labels)
    spacing = int(np.diff(np.sort(known)).max(initial=1))
    start, stop = limits
    if start < known.min() or stop > known.max() + spacing:
        first, end = int(known.min()), int(known.max()) + 1
        outside = start >= end or stop <= first
        raise ParameterError(
            f"the box reaches beyond the frames along {dim}",
            found=f"{dim}={limits}",
            expected=f"within ({first}, {end})",
            fix=f"{dim}=({first}, {end})" if outside else f"{dim}=({max(start, first)}, {min(stop, end)})",
        )
    inside = known[(known >= start) & (known < stop)]
    if inside.size == 0:
        raise ParameterError(
            f"the box holds no {dim} of the frames", found=limits, expected=f"labels {list(labels[:6])} ..."
        )
    return tuple(inside.tolist())


def in_order(labels: Labels, dim: str, what: str) -> npt.NDArray[np.intp]:
    """Positions of labels in rising order, so that neighbours in the array are neighbours on the detector.

    Raises
    ------
    DataError
        Labels with gaps.
    """
    order = np.argsort(labels, kind="stable")
    if (np.diff(np.array(labels)[order]) != 1).any():
        raise DataError(
            f"{what} needs pixels that are neighbours on the detector",
            found=f"labels of {dim} {list(labels[:6])} ...",
            expected="labels without gaps",
            fix=f"keep every {dim}: slice with a step of 1 and use a mask for what is not wanted",
        )
    return order
