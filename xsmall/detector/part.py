"""Which pixels of the whole detector an array holds: the one answer that every room of the package takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, GeometryError
from xsmall.vocabulary import PIXEL_DIMS

__all__ = ["Labels", "Part"]

Labels: TypeAlias = range | tuple[int, ...]
Array = TypeVar("Array")


class HasLabels(Protocol):
    """What :meth:`Part.of` asks of a labelled array: xarray's objects have it, and no more of them is needed here."""

    @property
    def sizes(self) -> Mapping[Any, int]:
        """Lengths by dim."""

    @property
    def coords(self) -> Mapping[Any, Any]:
        """Labels by dim."""


@dataclass(frozen=True)
class Part:
    """Which pixels of the whole detector these are: the labels along segment, row and column, in their order.

    Labels are positions in the whole detector. A part is small (evenly spaced labels are kept as a range), hashable,
    and equal to another one when the labels are.

    Parameters
    ----------
    segment, row, column
        Integer labels.

    Examples
    --------
    >>> import numpy as np
    >>> from xsmall.detector.part import Part
    >>> part = Part((2, 0), range(1, 3), range(4))
    >>> part.shape
    (2, 2, 4)
    >>> part.take(np.arange(36).reshape(3, 3, 4))[:, 0, 0].tolist()
    [28, 4]
    """

    segment: Labels
    row: Labels
    column: Labels

    def __post_init__(self) -> None:
        for dim in PIXEL_DIMS:
            object.__setattr__(self, dim, _compact(getattr(self, dim), dim))

    @classmethod
    def of(cls, source: HasLabels | Sequence[Any]) -> Part:
        """Read the labels of a labelled array, or take three arrays of labels.

        A dim without a coordinate counts from 0; a dim that was selected has its scalar label.

        Raises
        ------
        DataError
            Labels that are not integers, or a dim that is gone with its label.
        """
        if isinstance(source, Sequence):
            segment, row, column = source
            return cls(segment, row, column)
        labels: list[Any] = []
        coords = getattr(source.coords, "variables", source.coords)  # without making an array of each
        for dim in PIXEL_DIMS:
            if dim in coords:
                labels.append(np.atleast_1d(coords[dim].values))
            elif dim in source.sizes:
                labels.append(range(source.sizes[dim]))
            else:
                raise DataError(
                    f"the pixels have lost their {dim}",
                    found=f"dims {tuple(source.sizes)}",
                    expected=f"dims {PIXEL_DIMS}; where one was selected its label stays as a scalar coordinate",
                    fix=f"ask before averaging or selecting over {dim}",
                )
        return cls(*labels)

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Part:
        """All pixels of a detector of ``shape``."""
        return cls(*map(range, shape))

    @classmethod
    def from_text(cls, text: str) -> Part:
        """Read what :meth:`to_text` says.

        Raises
        ------
        DataError
            Something else.
        """
        try:
            dims = [[range(*map(int, run.split(":"))) for run in dim.split(",")] for dim in text.split(" ")]
            segment, row, column = (runs[0] if len(runs) == 1 else tuple(chain(*runs)) for runs in dims)
            return cls(segment, row, column)
        except (TypeError, ValueError):
            raise DataError("no labels of pixels", found=repr(text)[:80], expected="'0:2:1 0:512:1 0:1024:1'") from None

    def to_text(self) -> str:
        """Say the labels in a line: start, stop and step of each run along segment, row and column.

        Examples
        --------
        >>> from xsmall.detector.part import Part
        >>> Part((2, 3, 0), range(4), range(7, -1, -1)).to_text()
        '2:4:1,0:1:1 0:4:1 7:-1:-1'
        """
        return " ".join(",".join(f"{r.start}:{r.stop}:{r.step}" for r in _ranges(labels)) for labels in self.labels)

    @property
    def labels(self) -> tuple[Labels, Labels, Labels]:
        """Labels along segment, row and column."""
        return self.segment, self.row, self.column

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of segments, rows and columns."""
        return len(self.segment), len(self.row), len(self.column)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return len(self.segment) * len(self.row) * len(self.column)

    def within(self, shape: Sequence[int]) -> Part:
        """Return this part where a detector of ``shape`` has all its pixels.

        Raises
        ------
        GeometryError
            A label beyond the detector.
        """
        for dim, labels, size in zip(PIXEL_DIMS, self.labels, shape, strict=True):
            if labels and max(labels) >= size:
                raise GeometryError(
                    f"labels of {dim} do not fit the geometry",
                    found=f"{min(labels)} to {max(labels)}",
                    expected=f"integers from 0 to {size - 1}",
                    fix="assign the geometry of this detector",
                )
        return self

    def take(self, whole: Array) -> Array:
        """Cut this part out of an array (..., segment, row, column) of the whole detector.

        NumPy or dask; a view where the labels rise evenly.

        Raises
        ------
        GeometryError
            A label beyond the array.
        """
        array: Any = whole
        self.within(array.shape[-3:])
        for axis, labels in zip((-1, -2, -3), reversed(self.labels), strict=True):
            size = array.shape[axis]
            if labels != range(size):
                array = array[(..., _indexer(labels), *(slice(None),) * (-1 - axis))]
        return array  # type: ignore[no-any-return]

    def match(self, given: Part, what: str) -> Part:
        """Find these pixels in an array that holds the pixels ``given``: the part of that array to take.

        Parameters
        ----------
        given
            The pixels of the array, in its order.
        what
            The array's name, for the error.

        Returns
        -------
        Positions in the array, in the order of this part: ``part.match(given, "mask").take(values)``.

        Raises
        ------
        DataError
            A pixel that ``given`` lacks, or a label that it has twice.
        """
        pairs = zip(self.labels, given.labels, PIXEL_DIMS, strict=True)
        segment, row, column = (_positions(wanted, known, dim, what) for wanted, known, dim in pairs)
        return Part(segment, row, column)

    def find(self, labels: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.intp], ...]:
        """Positions of single pixels in an array of this part, -1 where it lacks one.

        Parameters
        ----------
        labels
            Segment, row and column of each pixel in the whole detector, arrays of one shape; -1 stands for none.
        """
        out: list[npt.NDArray[np.intp]] = []
        for have, asked in zip(self.labels, labels, strict=True):
            place = np.full(max(max(have, default=-1), int(asked.max(initial=-1))) + 2, -1, dtype=np.intp)
            place[np.asarray(have, dtype=np.intp)] = np.arange(len(have))
            out.append(place[asked])  # the last entry is -1 and answers for the label -1
        return tuple(out)

    def __iter__(self) -> Iterator[Labels]:
        return iter(self.labels)


def _compact(labels: Any, dim: str) -> Labels:
    """Labels as a range where they are evenly spaced, else as a tuple."""
    values: Labels = labels
    if not isinstance(labels, range):
        array = np.asarray(labels)
        if array.size and array.dtype.kind not in "iu":
            raise DataError(
                f"labels of {dim} are not positions in the detector",
                found=f"dtype {array.dtype}: {array[:3].tolist()} ...",
                expected="integers",
                fix=f"average pixels after reducing; .assign_coords({dim}=...) where the labels are just wrong",
            )
        values = _range_or_tuple(array.astype(np.int64))
    least = min((values[0], values[-1]) if isinstance(values, range) and values else values, default=0)
    if least < 0:
        raise DataError(
            f"labels of {dim} are positions in the detector",
            found=f"{least} among them",
            expected="integers from 0",
            fix=f".assign_coords({dim}=...) with the positions in the whole detector",
        )
    return values or range(0)


def _range_or_tuple(labels: npt.NDArray[np.int64]) -> Labels:
    step = int(labels[1] - labels[0]) if labels.size > 1 else 1
    if labels.size and step and (np.diff(labels) == step).all():
        return range(int(labels[0]), int(labels[0]) + step * labels.size, step)
    return tuple(labels.tolist())


def _ranges(labels: Labels) -> list[range]:
    """Labels as ranges one behind the other."""
    if isinstance(labels, range):
        return [labels]
    values = np.array(labels)
    borders = [0, *(np.flatnonzero(np.diff(values) != 1) + 1).tolist(), len(values)]
    return [range(labels[a], labels[b - 1] + 1) for a, b in pairwise(borders)]


def _indexer(labels: Labels) -> Any:
    """What indexes an axis: a slice where it can, which makes a view."""
    if isinstance(labels, range) and labels.step > 0:
        return slice(labels.start, labels.stop, labels.step)
    return np.array(labels, dtype=np.intp)


def _positions(wanted: Labels, known: Labels, dim: str, what: str) -> Labels:
    """Positions of labels among known ones."""
    if wanted == known:
        return range(len(known))
    if isinstance(known, range) and known.step == 1 and isinstance(wanted, range) and wanted:
        first, last = wanted[0] - known.start, wanted[-1] - known.start
        if min(first, last) >= 0 and max(first, last) < len(known):
            return range(first, first + wanted.step * len(wanted), wanted.step)
    place = {label: i for i, label in enumerate(known)}
    missing = [label for label in wanted if label not in place]
    if missing:
        raise DataError(
            f"the {what} does not cover every {dim} of the frames",
            found=f"no {what} for {dim} {missing[:5]}{' ...' if len(missing) > 5 else ''}",
            expected=f"labels {min(wanted)} to {max(wanted)}",
            fix=f"make the {what} for the whole detector; it is cut by its labels",
        )
    if len(place) != len(known):
        twice = next(label for label in known if tuple(known).count(label) > 1)
        if any(tuple(known).count(label) > 1 for label in set(wanted)):
            raise DataError(
                f"the {what} has a {dim} twice",
                found=f"{dim} {twice} more than once",
                expected="every label once",
                fix=f'.drop_duplicates("{dim}")',
            )
    return tuple(place[label] for label in wanted)
