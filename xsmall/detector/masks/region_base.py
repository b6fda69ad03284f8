"""What regions of space share: how they combine, the plane they are drawn in, and the checks of their numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import ParameterError
from xsmall.vocabulary import AZIMUTH, Q, X, Y

if TYPE_CHECKING:
    from xsmall.detector.geometry.beam import Beam
    from xsmall.detector.geometry.geometry import Geometry

__all__ = [
    "BoolArray",
    "Combined",
    "Floats",
    "Outside",
    "Pair",
    "Region",
    "Shape",
    "Space",
    "finite",
    "known_space",
    "ordered",
    "pair",
    "positive",
    "turn",
]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = tuple[float, float]
Space: TypeAlias = Literal["lab", "image", "q"]


class Region(ABC):
    """A part of space; ``region.inside(geometry, beam)`` says which pixels it holds."""

    @abstractmethod
    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        """Mark the pixels whose centre is inside: boolean (segment, row, column) of the whole detector."""

    def __or__(self, other: Region) -> Region:
        if not isinstance(other, Region):
            return NotImplemented
        return Combined(self, other, "or")

    def __and__(self, other: Region) -> Region:
        if not isinstance(other, Region):
            return NotImplemented
        return Combined(self, other, "and")

    def __invert__(self) -> Region:
        return Outside(self)


@dataclass(frozen=True)
class Combined(Region):
    """The union of two regions, or what they share."""

    left: Region
    right: Region
    how: Literal["or", "and"]

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        combine = np.logical_or if self.how == "or" else np.logical_and
        out: BoolArray = combine(self.left.inside(geometry, beam), self.right.inside(geometry, beam))
        return out


@dataclass(frozen=True)
class Outside(Region):
    """All but a region; what is on no panel is in neither."""

    region: Region

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        placed: BoolArray = np.isfinite(pixel_array(geometry, None, X))
        return placed & ~self.region.inside(geometry, beam)


class Shape(Region):
    """A region drawn in a plane: subclasses say what is inside it."""

    space: Space

    def inside(self, geometry: Geometry, beam: Beam | None = None) -> BoolArray:
        return self.contains(*_plane(geometry, beam, self.space))

    @abstractmethod
    def contains(self, x: Floats, y: Floats) -> BoolArray:
        """Mark the points of the plane that are inside."""


def turn(span: float) -> float:
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
    from xsmall.detector.geometry.grids import detector_grid

    column, row = detector_grid(geometry).indices(x, y)
    return np.round(column, 6), np.round(row, 6)  # whole pixels are meant where only rounding says otherwise


def known_space(space: Space) -> Space:
    """Name of a space that exists."""
    known: tuple[object, ...] = get_args(Space)
    if space not in known:
        what, expected = "shapes are drawn in lab, image or q space", "'lab', 'image' or 'q'"
        raise ParameterError(what, found=space, expected=expected, fix="space='lab'")
    return space


def pair(values: Pair) -> Pair:
    """Two floats, or an error."""
    try:
        first, second = values
        return float(first), float(second)
    except (TypeError, ValueError):
        raise ParameterError(
            "a pair of numbers is needed",
            found=values,
            expected="(x, y) or (low, high)",
            fix="in m, (0.002, 0.001) is 2 mm and 1 mm",
        ) from None


def finite(what: str, *values: float) -> None:
    """Refuse what is not a finite number."""
    if not all(_is_finite_number(value) for value in values):
        raise ParameterError(f"{what} that is not finite", found=values)


def positive(what: str, value: float) -> None:
    """Refuse what is not above 0."""
    if not (_is_finite_number(value) and value > 0):
        raise ParameterError(
            f"invalid {what}", found=value, expected="a number above 0", fix="in m, 0.001 is 1 mm; no text, no unit"
        )


def ordered(what: str, low: float, high: float, fix: str | None = None) -> None:
    """Refuse limits out of order; ``fix`` says what to type, without it the same limits in order."""
    numbers = _is_finite_number(low) and _is_finite_number(high)
    if not (numbers and low < high):
        fix = fix or (f"({high}, {low})" if numbers and low > high else None)
        raise ParameterError(f"{what} out of order", found=(low, high), expected="low < high, finite", fix=fix)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))
