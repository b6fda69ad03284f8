"""Shapes drawn in space that become pixels in memory: polygon, circle, ring, rectangle, band of a quantity.

A region is a value: small, frozen, without pixels. Regions combine with ``|``, ``&`` and ``~``. A pixel is inside when
its centre is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from xsmall.detector.pixel import pixel_array
from xsmall.errors import ParameterError
from xsmall.vocabulary import AZIMUTH, RADIUS, TWO_THETA, Q, X, Y

if TYPE_CHECKING:
    from xsmall.detector.beam import Beam
    from xsmall.detector.geometry import Geometry

__all__ = ["Band", "Circle", "Polygon", "Rectangle", "Region", "Ring", "Space"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = tuple[float, float]
Space: TypeAlias = Literal["lab", "image", "q"]

_BANDS: Final = (Q, TWO_THETA, RADIUS, AZIMUTH, X, Y)


class Region(ABC):
    """A part of space; ``region.inside(geometry, beam)`` says which pixels it holds."""

    @abstractmethod
    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        """Mark the pixels whose centre is inside: boolean (segment, row, column) of the whole detector."""

    def __or__(self, other: Region) -> Region:
        return _Combined(self, other, "or")

    def __and__(self, other: Region) -> Region:
        return _Combined(self, other, "and")

    def __invert__(self) -> Region:
        return _Outside(self)


@dataclass(frozen=True)
class _Combined(Region):
    left: Region
    right: Region
    how: Literal["or", "and"]

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        combine = np.logical_or if self.how == "or" else np.logical_and
        out: BoolArray = combine(self.left.inside(geometry, beam), self.right.inside(geometry, beam))
        return out


@dataclass(frozen=True)
class _Outside(Region):
    region: Region

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        return ~self.region.inside(geometry, beam)


class _Shape(Region):
    """A region drawn in a plane: subclasses say what is inside it."""

    space: Space

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        return self.contains(*_plane(geometry, beam, self.space))

    @abstractmethod
    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points of the plane that are inside."""


@dataclass(frozen=True)
class Polygon(_Shape):
    """The inside of a polygon.

    Parameters
    ----------
    points
        Corners (x, y), the last one equal to the first. Where sides cross, a point is inside that is separated from
        far away by an odd number of sides.
    space
        ``"lab"``: x and y in m, lab frame (x to the left when looking along the beam, y up). ``"image"``: column and
        row of the picture that :func:`xsmall.reductions.image.image` makes of the whole detector, centre of the
        upper left pixel at (0, 0), as in psana's image. ``"q"``: components q cos(azimuth) and q sin(azimuth) in
        1/angstrom, which needs a beam.

    Raises
    ------
    ParameterError
        Less than three corners, not closed, or not finite.

    Examples
    --------
    >>> Polygon([(0, 0), (1, 0), (0, 1), (0, 0)]).contains(np.array([0.2, 0.8]), np.array([0.2, 0.8]))
    array([ True, False])
    """

    points: tuple[Pair, ...]
    space: Space = "lab"

    def __init__(self, points: Sequence[Sequence[float]] | Floats, space: Space = "lab") -> None:
        corners = np.asarray(points, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 4 or not np.isfinite(corners).all():
            raise ParameterError(
                "the corners of a polygon cannot be meant",
                found=f"an array of shape {corners.shape}" + ("" if np.isfinite(corners).all() else " with NaN"),
                expected="finite (x, y) of at least three corners and the first one again",
                fix="Polygon([(x0, y0), (x1, y1), (x2, y2), (x0, y0)])",
            )
        if not np.array_equal(corners[0], corners[-1]):
            raise ParameterError(
                "the polygon is not closed",
                found=f"first corner {tuple(corners[0].tolist())}, last {tuple(corners[-1].tolist())}",
                expected="the last corner equal to the first",
                fix="repeat the first corner at the end",
            )
        object.__setattr__(self, "points", tuple((float(a), float(b)) for a, b in corners))
        object.__setattr__(self, "space", _check_space(space))

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        from xsmall.kernels.locate import inside_polygon

        corners = np.array(self.points)
        xs = np.ascontiguousarray(x, dtype=np.float64)
        ys = np.ascontiguousarray(y, dtype=np.float64)
        out = np.empty(xs.shape, dtype=bool)
        inside_polygon(xs.reshape(-1), ys.reshape(-1), corners[:, 0].copy(), corners[:, 1].copy(), out.reshape(-1))
        return out


@dataclass(frozen=True)
class Circle(_Shape):
    """The inside of a circle, its border included.

    Parameters
    ----------
    center
        (x, y) in the units of ``space`` (see :class:`Polygon`).
    radius
        In the same units.
    space
        ``"lab"``, ``"image"`` or ``"q"``.

    Raises
    ------
    ParameterError
        A centre that is no pair of numbers, a radius that is not above 0.

    Examples
    --------
    >>> Circle((0, 0), 2e-3).contains(np.array([0.0, 2e-3]), np.array([0.0, 1e-3]))
    array([ True, False])
    """

    center: Pair
    radius: float
    space: Space = "lab"

    def __post_init__(self) -> None:
        _check_space(self.space)
        _finite("center of a circle", *_pair(self.center))
        _positive("radius of a circle", self.radius)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        return np.asarray(np.hypot(x - self.center[0], y - self.center[1]) <= self.radius)


@dataclass(frozen=True)
class Ring(_Shape):
    """What lies between two circles, their borders included.

    Parameters
    ----------
    center
        (x, y) in the units of ``space`` (see :class:`Polygon`).
    inner, outer
        Radii in the same units.
    space
        ``"lab"``, ``"image"`` or ``"q"``.

    Raises
    ------
    ParameterError
        Numbers out of order or not finite.

    Examples
    --------
    >>> Ring((0, 0), 1.0, 1.2, space="q").contains(np.array([0.0, 1.1]), np.array([0.0, 0.0]))
    array([False,  True])
    """

    center: Pair
    inner: float
    outer: float
    space: Space = "lab"

    def __post_init__(self) -> None:
        _check_space(self.space)
        _finite("center of a ring", *_pair(self.center))
        _ordered("radii of a ring", self.inner, self.outer)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        radius = np.hypot(x - self.center[0], y - self.center[1])
        return np.asarray((radius >= self.inner) & (radius <= self.outer))


@dataclass(frozen=True)
class Rectangle(_Shape):
    """A rectangle along the axes, its border included.

    Parameters
    ----------
    x, y
        (low, high) in the units of ``space`` (see :class:`Polygon`).
    space
        ``"lab"``, ``"image"`` or ``"q"``.

    Raises
    ------
    ParameterError
        Numbers out of order or not finite.

    Examples
    --------
    >>> Rectangle(x=(0, 1e-3), y=(-1e-3, 1e-3)).contains(np.array([5e-4, -5e-4]), np.zeros(2))
    array([ True, False])
    """

    x: Pair
    y: Pair
    space: Space = "lab"

    def __post_init__(self) -> None:
        _check_space(self.space)
        _ordered("x of a rectangle", *_pair(self.x))
        _ordered("y of a rectangle", *_pair(self.y))

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        return np.asarray((x >= self.x[0]) & (x <= self.x[1]) & (y >= self.y[0]) & (y <= self.y[1]))


@dataclass(frozen=True)
class Band(Region):
    """The pixels with a quantity from ``low`` to ``high``, both included.

    Parameters
    ----------
    quantity
        ``"q"``, ``"two_theta"``, ``"radius"``, ``"azimuth"``, ``"x"`` or ``"y"``.
    low, high
        In the unit of the quantity (1/angstrom, degrees, m). An azimuth may run through its end: 170 to -170 is the
        20 degrees around -x.

    Examples
    --------
    >>> region = Band("q", 1.0, 1.2) & Band("azimuth", -30, 30)
    """

    quantity: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.quantity not in _BANDS:
            raise ParameterError(
                "no band of this quantity", found=self.quantity, expected=", ".join(_BANDS), fix='Band("q", 1.0, 1.2)'
            )
        if self.quantity == AZIMUTH:
            _finite("limits of a band", self.low, self.high)
        else:
            _ordered(f"limits of a band of {self.quantity}", self.low, self.high)

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        """Mark the pixels inside."""
        values = pixel_array(geometry, beam, self.quantity)
        if self.quantity == AZIMUTH:
            return np.asarray((values - self.low) % 360.0 <= _turn(self.high - self.low))
        return np.asarray((values >= self.low) & (values <= self.high))


def _turn(span: float) -> float:
    """Angle from low to high, counted upwards: 0 to 360 degrees."""
    return 360.0 if abs(span) >= 360.0 else span % 360.0


def _plane(geometry: Geometry, beam: Beam | None, space: Space) -> tuple[Floats, Floats]:
    """Coordinates of all pixel centres in the plane in which a shape was drawn."""
    if space == "q":
        q = pixel_array(geometry, beam, Q)
        azimuth = np.radians(pixel_array(geometry, beam, AZIMUTH))
        return q * np.cos(azimuth), q * np.sin(azimuth)
    x, y = pixel_array(geometry, beam, X), pixel_array(geometry, beam, Y)
    if space == "lab":
        return x, y
    from xsmall.detector.grids import detector_grid

    column, row = detector_grid(geometry).indices(x, y)
    return np.round(column, 6), np.round(row, 6)  # whole pixels are meant where only rounding says otherwise


def _check_space(space: Space) -> Space:
    known: tuple[object, ...] = get_args(Space)
    if space not in known:
        raise ParameterError("shapes are drawn in lab, image or q space", found=space, expected="'lab', 'image' or 'q'")
    return space


def _pair(values: Pair) -> Pair:
    pair = tuple(values) if np.ndim(values) == 1 else ()
    if len(pair) != 2:
        raise ParameterError("a pair of numbers is needed", found=values, expected="(x, y) or (low, high)")
    return float(pair[0]), float(pair[1])


def _finite(what: str, *values: float) -> None:
    if not np.isfinite(values).all():
        raise ParameterError(f"{what} that is not finite", found=values)


def _positive(what: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ParameterError(f"{what} that cannot be meant", found=value, expected="a number above 0")


def _ordered(what: str, low: float, high: float) -> None:
    if not (np.isfinite((low, high)).all() and low < high):
        raise ParameterError(f"{what} out of order", found=(low, high), expected="low < high, finite")
