"""Shapes drawn in space that become pixels in memory: polygon, circle, ring, arc, rectangle, half-plane, band.

A region is a value: small, frozen, without pixels. Regions combine with ``|``, ``&`` and ``~``. A pixel is inside when
its centre is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from xsmall.calls import tells_its_names
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.detector.masks.region_base import (
    BoolArray,
    Floats,
    Pair,
    Region,
    Shape,
    Space,
    finite,
    known_space,
    ordered,
    pair,
    positive,
    turn,
)
from xsmall.errors import ParameterError
from xsmall.vocabulary import AZIMUTH, RADIUS, TWO_THETA, Q, X, Y

if TYPE_CHECKING:
    from xsmall.detector.geometry.beam import Beam
    from xsmall.detector.geometry.geometry import Geometry

__all__ = ["Arc", "Band", "Circle", "HalfPlane", "Polygon", "Rectangle", "Region", "Ring", "Space"]

_BANDS: Final = (Q, TWO_THETA, RADIUS, AZIMUTH, X, Y)


@tells_its_names
@dataclass(frozen=True)
class Polygon(Shape):
    """The inside of a polygon.

    Parameters
    ----------
    points
        Corners (x, y), the last one equal to the first. Where sides cross, a point is inside that is separated from
        far away by an odd number of sides.
    space
        ``"lab"``: x and y in m, lab frame (x to the left when looking along the beam, y up). ``"image"``: column and
        row of the picture that :func:`xsmall.frames.image.image` makes of the whole detector, centre of the
        upper left pixel at (0, 0), as in psana's image. ``"q"``: components q cos(azimuth) and q sin(azimuth) in
        1/angstrom, which needs a beam.

    Raises
    ------
    ParameterError
        Less than three corners, not closed, or not finite.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> xs.Polygon([(0, 0), (1, 0), (0, 1), (0, 0)]).contains(np.array([0.2, 0.8]), np.array([0.2, 0.8]))
    array([ True, False])
    """

    points: tuple[Pair, ...]
    space: Space = "lab"

    def __init__(self, points: Sequence[Sequence[float]] | Floats, space: Space = "lab") -> None:
        try:
            corners = np.asarray(points, dtype=np.float64)
        except (TypeError, ValueError):
            corners = np.empty(0)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 4 or not np.isfinite(corners).all():
            raise ParameterError(
                "invalid corners of a polygon",
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
        object.__setattr__(self, "space", known_space(space))

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        from xsmall.kernels.locate import inside_polygon

        corners = np.array(self.points)
        xs = np.ascontiguousarray(x, dtype=np.float64)
        ys = np.ascontiguousarray(y, dtype=np.float64)
        out = np.empty(xs.shape, dtype=bool)
        inside_polygon(xs.reshape(-1), ys.reshape(-1), corners[:, 0].copy(), corners[:, 1].copy(), out.reshape(-1))
        return out


@tells_its_names
@dataclass(frozen=True)
class Circle(Shape):
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
    >>> import numpy as np, xsmall as xs
    >>> xs.Circle((0, 0), 2e-3).contains(np.array([0.0, 2e-3]), np.array([0.0, 1e-3]))
    array([ True, False])
    """

    center: Pair
    radius: float
    space: Space = "lab"

    def __post_init__(self) -> None:
        finite("center of a circle", *pair(self.center))
        positive("radius of a circle", self.radius)
        known_space(self.space)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        return np.asarray(np.hypot(x - self.center[0], y - self.center[1]) <= self.radius)


@tells_its_names
@dataclass(frozen=True)
class Ring(Shape):
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
    >>> import numpy as np, xsmall as xs
    >>> xs.Ring((0, 0), 1.0, 1.2, space="q").contains(np.array([0.0, 1.1]), np.array([0.0, 0.0]))
    array([False,  True])
    """

    center: Pair
    inner: float
    outer: float
    space: Space = "lab"

    def __post_init__(self) -> None:
        finite("center of a ring", *pair(self.center))
        ordered("radii of a ring", self.inner, self.outer)
        known_space(self.space)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        radius = np.hypot(x - self.center[0], y - self.center[1])
        return np.asarray((radius >= self.inner) & (radius <= self.outer))


@tells_its_names
@dataclass(frozen=True)
class Rectangle(Shape):
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
    >>> import numpy as np, xsmall as xs
    >>> xs.Rectangle(x=(0, 1e-3), y=(-1e-3, 1e-3)).contains(np.array([5e-4, -5e-4]), np.zeros(2))
    array([ True, False])
    """

    x: Pair
    y: Pair
    space: Space = "lab"

    def __post_init__(self) -> None:
        x, y = pair(self.x), pair(self.y)
        known_space(self.space)
        columns, rows = sorted((x[0], y[0])), sorted((x[1], y[1]))  # two corners, as other programs want them
        corners = columns[0] < columns[1] and rows[0] < rows[1] and not (x[0] < x[1] and y[0] < y[1])
        space = "" if self.space == "lab" else f", space={self.space!r}"
        fix = f"xs.Rectangle(x={tuple(columns)}, y={tuple(rows)}{space}); where corners are meant" if corners else None
        ordered("x of a rectangle", *x, fix)
        ordered("y of a rectangle", *y, fix)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        return np.asarray((x >= self.x[0]) & (x <= self.x[1]) & (y >= self.y[0]) & (y <= self.y[1]))


@tells_its_names
@dataclass(frozen=True)
class HalfPlane(Shape):
    """One side of a straight line, the line included.

    Parameters
    ----------
    first, second
        Two points (x, y) of the line in the units of ``space`` (see :class:`Polygon`).
    within
        A point (x, y) on the side that is marked.
    space
        ``"lab"``, ``"image"`` or ``"q"``.

    Raises
    ------
    ParameterError
        Two points that are one, a point ``within`` that lies on the line, numbers that are not finite.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> xs.HalfPlane((0, 0), (1e-3, 1e-3), within=(0, 1e-3)).contains(np.array([0.0, 1e-3]), np.array([1e-3, 0.0]))
    array([ True, False])
    """

    first: Pair
    second: Pair
    within: Pair
    space: Space = "lab"

    def __post_init__(self) -> None:
        known_space(self.space)
        finite("points of a half-plane", *pair(self.first), *pair(self.second), *pair(self.within))
        if self._side(*self.within) == 0:
            raise ParameterError(
                "a half-plane without sides",
                found=f"line through {self.first} and {self.second}, point within {self.within}",
                expected="two different points, and a third beside the line through them",
            )

    def _side(self, x: Any, y: Any) -> Any:
        """Positive on one side of the line, negative on the other; 0 where only rounding says otherwise."""
        (x1, y1), (x2, y2) = self.first, self.second
        along, across = (x2 - x1) * (y - y1), (y2 - y1) * (x - x1)
        side = along - across
        return np.where(np.abs(side) <= 1e-12 * (np.abs(along) + np.abs(across)), 0.0, side)

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points on the side of ``within``."""
        return np.asarray(self._side(x, y) * np.sign(self._side(*self.within)) >= 0)


@tells_its_names
@dataclass(frozen=True)
class Arc(Shape):
    """A piece of a ring, its border included.

    Parameters
    ----------
    center
        (x, y) in the units of ``space`` (see :class:`Polygon`).
    inner, outer
        Radii in the same units.
    start, stop
        Azimuths in degrees from +x towards +y, from the one to the other upwards: 350 to 10 are the 20 degrees around
        +x. In the image x is the column and y the row.
    space
        ``"lab"``, ``"image"`` or ``"q"``.

    Raises
    ------
    ParameterError
        Radii out of order, equal azimuths, numbers that are not finite.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> xs.Arc((0, 0), 1.0, 2.0, 350, 10, space="q").contains(np.array([1.5, 0.0]), np.array([0.0, 1.5]))
    array([ True, False])
    """

    center: Pair
    inner: float
    outer: float
    start: float
    stop: float
    space: Space = "lab"

    def __post_init__(self) -> None:
        known_space(self.space)
        finite("center of an arc", *pair(self.center))
        finite("azimuths of an arc", self.start, self.stop)
        ordered("radii of an arc", self.inner, self.outer)
        if self.start == self.stop:
            raise ParameterError(
                "an arc without width", found=f"{self.start} to {self.stop} degrees", expected="two azimuths"
            )

    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points inside."""
        x, y = x - self.center[0], y - self.center[1]
        radius = np.hypot(x, y)
        azimuth = np.round((np.degrees(np.arctan2(y, x)) - self.start) % 360.0, 9) % 360.0
        seen = azimuth <= round(turn(self.stop - self.start), 9)
        return np.asarray((radius >= self.inner) & (radius <= self.outer) & seen)


@tells_its_names
@dataclass(frozen=True)
class Band(Region):
    """The pixels with a quantity from ``low`` to ``high``, both included.

    Parameters
    ----------
    quantity
        ``"q"``, ``"two_theta"``, ``"radius"``, ``"azimuth"``, ``"x"`` or ``"y"``. A band of q needs one photon energy
        for all events.
    low, high
        In the unit of the quantity (1/angstrom, degrees, m). An azimuth may run through its end: 170 to -170 is the
        20 degrees around -x.

    Examples
    --------
    >>> import xsmall as xs
    >>> region = xs.Band("q", 1.0, 1.2) & xs.Band("azimuth", -30, 30)
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
            finite("limits of a band", self.low, self.high)
        else:
            ordered(f"limits of a band of {self.quantity}", self.low, self.high)

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        """Mark the pixels inside."""
        values = pixel_array(geometry, beam, self.quantity)
        if self.quantity == AZIMUTH:
            return np.asarray((values - self.low) % 360.0 <= turn(self.high - self.low))
        return np.asarray((values >= self.low) & (values <= self.high))
