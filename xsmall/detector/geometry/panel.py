"""A panel: a flat piece of a detector, and where its pixels lie in memory and in space.

Along rows and along columns a panel is a :class:`PixelAxis`: ASICs side by side, joined by wide pixels or by a gap.
Everything that varies along one axis only (centres, borders, sizes) is kept as a vector; no per-pixel array is stored.
"""

import operator
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.calls import tells_its_names
from xsmall.errors import GeometryError

__all__ = ["Panel", "PixelAxis"]

Vector: TypeAlias = tuple[float, float, float]
Floats: TypeAlias = npt.NDArray[np.float64]

MAX_PIXELS = 1 << 16  # along one axis; what is longer than that is a slip, and would cost memory before it is noticed


@dataclass(frozen=True)
class PixelAxis:
    """Pixels along one axis of a panel, in units of the regular pitch; 0 is the centre of the first pixel.

    Parameters
    ----------
    length
        Pixels of one ASIC along this axis.
    asics
        Number of ASICs side by side.
    joins
        Distance of the two inner pixels at each join when both are taken for regular pixels, one number per join.
    wide
        Size of the pixels at a join; 1 where they are regular.
    true_centres
        Centre of a wide pixel: True where it is, False where a regular pixel would have it (psana's default).
    stagger
        Shift of every second pixel row along this axis (hexagonal pixels); 0 for a rectangular grid.

    Raises
    ------
    GeometryError
        Where a number is invalid.

    Examples
    --------
    >>> from xsmall.detector.geometry.panel import PixelAxis
    >>> axis = PixelAxis(length=2, asics=2, joins=(3.0,), wide=2.0, true_centres=True)
    >>> axis.centres().tolist()
    [0.0, 1.5, 3.5, 5.0]
    >>> axis.sizes().tolist()
    [1.0, 2.0, 2.0, 1.0]
    """

    length: int
    asics: int = 1
    joins: tuple[float, ...] = ()
    wide: float = 1.0
    true_centres: bool = False
    stagger: float = 0.0

    def __post_init__(self) -> None:
        if self.length < 1 or self.asics < 1 or self.size > MAX_PIXELS:
            raise GeometryError(
                "invalid length of a panel axis",
                found=f"{self.asics} ASICs of {self.length} pixels",
                expected=f"1 to {MAX_PIXELS} pixels in all",
            )
        if len(self.joins) != self.asics - 1:
            raise GeometryError("wrong number of joins", found=len(self.joins), expected=self.asics - 1)
        numbers = (*self.joins, self.wide, self.stagger)
        if not all(isfinite(value) for value in numbers) or self.wide <= 0 or any(join <= 0 for join in self.joins):
            raise GeometryError("pixel sizes and joins have to be finite and positive", found=numbers)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.length * self.asics

    @property
    def plain(self) -> bool:
        """Whether all pixels are regular and evenly spaced."""
        return self.asics == 1 and self.stagger == 0

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each ASIC."""
        return tuple(range(0, self.size, self.length))

    def _inner(self) -> tuple[list[int], list[int]]:
        """Pixels that end an ASIC at a join, and those that begin one at a join."""
        return [s - 1 for s in self.starts[1:]], list(self.starts[1:])

    def nominal(self) -> Floats:
        """Centres as if every pixel were regular: float64 (size,)."""
        shifts = np.concatenate([[0.0], np.cumsum([join - 1.0 for join in self.joins])])
        at: Floats = np.arange(self.size, dtype=np.float64) + np.repeat(shifts, self.length)
        return at

    def centres(self) -> Floats:
        """Centres in the convention of this axis: float64 (size,)."""
        at = self.nominal()
        if self.true_centres:
            ends, begins = self._inner()
            at[ends] += (self.wide - 1.0) / 2
            at[begins] -= (self.wide - 1.0) / 2
        return at

    def edges(self) -> Floats:
        """Lower and upper border of each pixel, the same for both conventions of the centre: float64 (size, 2)."""
        at = self.nominal()
        borders = np.stack([at - 0.5, at + 0.5], axis=-1)
        ends, begins = self._inner()
        borders[ends, 1] += self.wide - 1.0
        borders[begins, 0] -= self.wide - 1.0
        return borders

    def sizes(self) -> Floats:
        """Size of each pixel: float64 (size,)."""
        borders = self.edges()
        sizes: Floats = borders[:, 1] - borders[:, 0]
        return sizes

    def to_list(self) -> list[Any]:
        """Turn into plain numbers for JSON."""
        return [self.length, self.asics, list(self.joins), self.wide, self.true_centres, self.stagger]

    @classmethod
    def from_list(cls, values: list[Any]) -> "PixelAxis":
        """Invert :meth:`to_list`."""
        length, asics, joins, wide, true_centres, stagger = values
        return cls(int(length), int(asics), tuple(map(float, joins)), float(wide), bool(true_centres), float(stagger))


@tells_its_names
@dataclass(frozen=True)
class Panel:
    """A flat panel: where it lies in space, and which block of which segment of the memory it is.

    The centre of pixel (r, c) lies at ``origin + a[r] * slow + b[c] * fast`` with ``a`` and ``b`` the centres of the
    two axes; on a plain grid ``a[r] = r`` and ``b[c] = c``.

    Parameters
    ----------
    origin
        Centre of pixel (0, 0) taken for a regular pixel, in m, lab frame (z along the beam, y up).
    slow, fast
        Step from one row to the next and from one column to the next, in m per regular pixel.
    shape
        Rows and columns.
    rows, columns
        The pixels along each axis; plain ones where not given.
    segment
        Index of the segment in memory; where no panel has one they are numbered as they come.
    row, column
        Where the panel starts in the segment.
    name
        Type or name of the panel, as its source calls it.
    thickness
        Of the sensor, in m, where known.

    Raises
    ------
    GeometryError
        Where a number is not finite, ``slow`` and ``fast`` are parallel, or the axes do not fit ``shape``.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.Panel(origin=(0, 0, 0.1), slow=(0, -75e-6, 0), fast=(75e-6, 0, 0), shape=(128, 256)).pitch
    (7.5e-05, 7.5e-05)
    """

    origin: Vector
    slow: Vector
    fast: Vector
    shape: tuple[int, int]
    rows: PixelAxis | None = None
    columns: PixelAxis | None = None
    segment: int | None = None
    row: int = 0
    column: int = 0
    name: str = ""
    thickness: float | None = None

    def __post_init__(self) -> None:
        for field in ("origin", "slow", "fast"):
            object.__setattr__(self, field, _checked_vector(field, getattr(self, field)))
        rows, columns = _shape(self.shape)
        object.__setattr__(self, "shape", (rows, columns))
        for field, size in (("rows", rows), ("columns", columns)):
            if getattr(self, field) == PixelAxis(
                max(size, 1)
            ):  # one way to say plain, so that equal panels compare equal
                object.__setattr__(self, field, None)
        if np.linalg.norm(np.cross(self.slow, self.fast)) <= 1e-6 * self.pitch[0] * self.pitch[1]:
            raise GeometryError(
                "slow and fast axis of a panel are parallel or zero", found=f"slow {self.slow}, fast {self.fast}"
            )
        if (self.row_axis.size, self.column_axis.size) != self.shape:
            raise GeometryError(
                "the pixel axes of a panel do not fit its shape",
                found=(self.row_axis.size, self.column_axis.size),
                expected=self.shape,
            )
        if self.row < 0 or self.column < 0 or (self.segment is not None and self.segment < 0):
            raise GeometryError("a panel starts before its memory", found=(self.segment, self.row, self.column))

    @property
    def row_axis(self) -> PixelAxis:
        """The pixels along the rows, the plain axis where none was given."""
        return self.rows or PixelAxis(self.shape[0])

    @property
    def column_axis(self) -> PixelAxis:
        """The pixels along the columns, the plain axis where none was given."""
        return self.columns or PixelAxis(self.shape[1])

    @property
    def pitch(self) -> tuple[float, float]:
        """Size of a regular pixel along slow and fast, in m."""
        return float(np.linalg.norm(self.slow)), float(np.linalg.norm(self.fast))

    @property
    def normal(self) -> Floats:
        """Unit vector fast x slow x, the side depending on how the panel is read out: float64 (3,)."""
        across = np.cross(self.fast, self.slow)
        unit: Floats = across / np.linalg.norm(across)
        return unit

    @property
    def memory(self) -> tuple[int, slice, slice]:
        """Index of the panel in an array (segment, row, column)."""
        r, c = self.row, self.column
        return self.segment or 0, slice(r, r + self.shape[0]), slice(c, c + self.shape[1])

    def along_fast(self) -> Floats:
        """Centres along fast, in pitches: float64 (1 or 2, columns); the second is of odd rows if staggered."""
        at = self.column_axis.centres()[None, :]
        stagger = self.column_axis.stagger
        both: Floats = np.concatenate([at, at + stagger]) if stagger else at
        return both

    def positions(self) -> Floats:
        """Centres of the pixels in m, lab frame: float64 (row, column, 3). Cost: one pass over the result."""
        a = self.row_axis.centres()
        b = self.along_fast()[np.arange(self.shape[0]) % len(self.along_fast())]
        at = np.empty((*self.shape, 3))
        for axis in range(3):
            at[..., axis] = self.origin[axis] + (a * self.slow[axis])[:, None] + b * self.fast[axis]
        return at

    def corners(self) -> Floats:
        """Corners of the pixels in m, lab frame, going round: float64 (row, column, 4, 3).

        In units of (slow, fast) the order is (low, low), (low, high), (high, high), (high, low). Wide pixels have their
        true borders in both conventions of the centre; staggered (hexagonal) pixels the box of their cell.
        """
        a = self.row_axis.edges()[:, [0, 0, 1, 1]]
        b = self.column_axis.edges()[:, [0, 1, 1, 0]]
        stagger = self.column_axis.stagger * (np.arange(self.shape[0]) % 2)
        at = np.empty((*self.shape, 4, 3))
        for axis in range(3):
            along = (a * self.slow[axis] + stagger[:, None] * self.fast[axis])[:, None, :]
            at[..., axis] = self.origin[axis] + along + (b * self.fast[axis])[None, :, :]
        return at

    def areas(self) -> Floats:
        """True areas of the pixels in m2, wide pixels included: float64 (row, column)."""
        cell = float(np.linalg.norm(np.cross(self.fast, self.slow)))
        area: Floats = cell * np.multiply.outer(self.row_axis.sizes(), self.column_axis.sizes())
        return area

    def centre(self) -> Floats:
        """Middle of the panel in m, lab frame: float64 (3,)."""
        a, b = self.row_axis.nominal()[-1] / 2, self.column_axis.nominal()[-1] / 2
        middle: Floats = np.array(self.origin) + a * np.array(self.slow) + b * np.array(self.fast)
        return middle

    def asics(self) -> "list[Panel]":
        """One plain panel per ASIC, row by row; wide pixels count as regular ones."""
        rows, columns = self.row_axis, self.column_axis
        a, b = rows.nominal(), columns.nominal()
        cut = []
        for r in rows.starts:
            for c in columns.starts:
                corner = np.array(self.origin) + a[r] * np.array(self.slow) + b[c] * np.array(self.fast)
                at: dict[str, Any] = {"row": self.row + r, "column": self.column + c, "origin": tuple(corner)}
                plain = PixelAxis(columns.length, stagger=columns.stagger)
                shape = (rows.length, columns.length)
                cut.append(replace(self, rows=None, columns=plain, shape=shape, **at))
        return cut

    def to_dict(self, axes: list[PixelAxis]) -> dict[str, Any]:
        """Turn into plain values for JSON; axes that are not plain are numbered in ``axes``."""

        def number(axis: PixelAxis) -> int | None:
            if axis == PixelAxis(axis.size):
                return None
            if axis not in axes:
                axes.append(axis)
            return axes.index(axis)

        memory = [self.segment, self.row, self.column, *self.shape]
        out = {"at": memory, "origin": list(self.origin), "slow": list(self.slow), "fast": list(self.fast)}
        return (
            out
            | {"axes": [number(self.row_axis), number(self.column_axis)], "name": self.name}
            | ({} if self.thickness is None else {"thickness": self.thickness})
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any], axes: list[PixelAxis]) -> "Panel":
        """Invert :meth:`to_dict`."""
        segment, row, column, n_rows, n_columns = values["at"]
        rows, columns = (None if i is None else axes[i] for i in values["axes"])
        return cls(
            origin=tuple(values["origin"]),
            slow=tuple(values["slow"]),
            fast=tuple(values["fast"]),
            shape=(n_rows, n_columns),
            rows=rows,
            columns=columns,
            segment=segment,
            row=row,
            column=column,
            name=values["name"],
            thickness=values.get("thickness"),
        )


def _shape(values: object) -> tuple[int, int]:
    """Rows and columns, or an error."""
    try:
        rows, columns = (operator.index(n) for n in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise GeometryError("shape of a panel", found=values, expected="(rows, columns)") from None
    return int(rows), int(columns)


def _checked_vector(field: str, values: object) -> Vector:
    """Three finite floats, without negative zeros, so that equal geometries have equal tokens."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (3,) or not np.isfinite(array).all():
        raise GeometryError(f"{field} of a panel", found=values, expected="three finite numbers in m")
    x, y, z = (float(v) + 0.0 for v in array)
    return x, y, z
