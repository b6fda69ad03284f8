"""A box of pixels of one segment, in the labels of the whole detector."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xsmall.engine.record import Frames
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import COLUMN, ROW, SEGMENT

__all__ = ["Box", "Place", "neighbours_are_neighbours"]


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
    >>> Box(segment=2, row=(200, 500), column=(300, 580))
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
                    f"{dim} of a box", found=repr(limits), expected="(start, stop)", fix=f"{dim}=(200, 500)"
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

    def on(self, frames: Frames) -> Place:
        """Find the box in ``frames``.

        Raises
        ------
        ParameterError
            A segment that has to be said or is not there; a box that reaches beyond the frames or misses all pixels.
        """
        row, column = _span(self.row, frames.row, ROW), _span(self.column, frames.column, COLUMN)
        return Place(
            segment=self._segment(frames),
            row=row,
            column=column,
            row_labels=np.array(frames.row[row], dtype=np.float64),
            column_labels=np.array(frames.column[column], dtype=np.float64),
        )

    def _segment(self, frames: Frames) -> int:
        if self.segment is None:
            if len(frames.segment) != 1:
                raise ParameterError(
                    "a box needs its segment where there are several",
                    found=f"{self} on segments {frames.segment}",
                    expected="the label of one segment",
                    fix=f"xs.Box(segment={frames.segment[0]}, row={self.row}, column={self.column})",
                )
            return 0
        if frames.segment.count(self.segment) != 1:
            raise ParameterError(
                "the segment of a box is not there", found=self.segment, expected=f"one of {frames.segment}"
            )
        return frames.segment.index(self.segment)


@dataclass(frozen=True)
class Place:
    """Where a box lies in the arrays: position of the segment, slices, and the labels of rows and columns."""

    segment: int
    row: slice
    column: slice
    row_labels: npt.NDArray[np.float64]
    column_labels: npt.NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_labels.size, self.column_labels.size


def _integer(value: object, what: str) -> int:
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ParameterError(f"{what} of a box", found=repr(value), expected="an integer label") from None


def _span(limits: tuple[int, int] | None, labels: tuple[int, ...], dim: str) -> slice:
    """Positions whose labels lie in ``limits``; the labels have to rise or fall."""
    if limits is None:
        return slice(0, len(labels))
    known = np.array(labels)
    steps = np.diff(known)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise DataError(
            f"labels of {dim} are out of order, a box is not one piece of these frames",
            found=f"{labels[:6]} ...",
            expected="labels that rise or fall",
            fix=f'.sortby("{dim}")',
        )
    start, stop = limits
    spacing = int(np.abs(steps).max()) if steps.size else 1
    if start < known.min() or stop > known.max() + spacing:
        raise ParameterError(
            f"the box reaches beyond the frames along {dim}",
            found=f"{dim}={limits}",
            expected=f"within ({known.min()}, {known.max() + 1})",
            fix=f"{dim}=({max(start, int(known.min()))}, {min(stop, int(known.max()) + 1)})",
        )
    inside = np.flatnonzero((known >= start) & (known < stop))
    if inside.size == 0:
        raise ParameterError(f"the box holds no {dim} of the frames", found=limits, expected=f"labels {labels[:6]} ...")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def neighbours_are_neighbours(frames: Frames, what: str) -> None:
    """Raise unless pixels that are neighbours in the array are so on the detector."""
    for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
        steps = np.diff(labels)
        if steps.size and not (np.all(steps == 1) or np.all(steps == -1)):
            raise DataError(
                f"{what} needs pixels that are neighbours on the detector",
                found=f"labels of {dim} {labels[:6]} ...",
                expected="labels without gaps, in order",
                fix=f"keep every {dim}: slice with a step of 1 and use a mask for what is not wanted",
            )
