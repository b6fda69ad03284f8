"""From what the mouse did to regions, and from regions to the code that makes them again."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, Final, TypeAlias

import numpy as np

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.detector.masks.region_base import Combined, Outside
from xsmall.detector.masks.regions import Band, Circle, Polygon, Rectangle, Region, Ring
from xsmall.detector.part import Part
from xsmall.errors import ParameterError
from xsmall.reductions.box import Box
from xsmall.vocabulary import RADIUS, Q

__all__ = ["SHAPES", "DrawnShape", "code_of", "region_of"]

DrawnShape: TypeAlias = Box | Region
Point: TypeAlias = tuple[float, float]

SHAPES: Final = ("box", "rectangle", "circle", "polygon", "ring", "band")
_DIGITS: Final = 4  # of q


def region_of(shape: str, points: list[Point], geometry: Geometry, part: Part, beam: Beam | None) -> DrawnShape:
    """Make the region of a shape from points in m.

    Parameters
    ----------
    shape
        One of :data:`SHAPES`.
    points
        Two of a drag: corners; centre and rim of a circle; any two points of which a ring about the beam, or a band of
        q, gets its limits. Of a polygon its corners.
    geometry, part, beam
        Of the detector that was drawn on. A box of memory needs both corners on one segment, else it is a rectangle of
        space; a band without photon energy or distance is one of the radius.

    Raises
    ------
    ParameterError
        A shape without size, or an unknown one.
    """
    rounded = [(_metres(x), _metres(y)) for x, y in points]
    if shape == "polygon":
        return Polygon([*rounded, rounded[0]])
    if shape not in SHAPES:
        raise ParameterError("unknown shape", found=repr(shape), expected=", ".join(SHAPES))
    (x0, y0), (x1, y1) = rounded
    if (x0, y0) == (x1, y1):
        raise ParameterError("a shape without size", found=f"{shape} from {(x0, y0)} to {(x1, y1)}")
    if shape == "circle":
        return Circle((x0, y0), _metres(np.hypot(x1 - x0, y1 - y0)))
    if shape == "ring":
        center = (0.0, 0.0) if beam is None else (_metres(beam.center[0]), _metres(beam.center[1]))
        low, high = sorted(_metres(np.hypot(x - center[0], y - center[1])) for x, y in rounded)
        return Ring(center, low, high)
    if shape == "band":
        return _band_between(rounded, geometry, beam)
    box = _box_between(rounded, geometry, part) if shape == "box" else None
    (left, right), (bottom, top) = sorted((x0, x1)), sorted((y0, y1))
    return box or Rectangle(x=(left, right), y=(bottom, top))


def _metres(value: float) -> float:
    """A length in whole micrometres, so that the code that makes it again is short and exact."""
    return float(f"{round(float(value) * 1e6)}e-6")


def _box_between(points: list[Point], geometry: Geometry, part: Part) -> Box | None:
    """The pixels of one segment between two corners; None where they lie on none, or on two."""
    x, y = np.array(points).T
    segment, row, column = locate_pixels(geometry, x, y)
    if segment[0] != segment[1] or any((place < 0).any() for place in part.find((segment, row, column))):
        return None
    spans = [(int(labels.min()), int(labels.max()) + 1) for labels in (row, column)]
    return Box(segment=int(segment[0]), row=spans[0], column=spans[1])


def _band_between(points: list[Point], geometry: Geometry, beam: Beam | None) -> Band:
    """A band of q, or of the radius where no q is known, between the pixels under two points."""
    known = beam is not None and beam.photon_energy is not None and beam.distance is not None
    quantity = Q if known else RADIUS
    x, y = np.array(points).T
    found = locate_pixels(geometry, x, y)
    if (found[0] < 0).any():
        raise ParameterError(
            "a band goes from pixel to pixel", found="a point where no pixel is", expected="both ends on the detector"
        )
    values = pixel_array(geometry, beam, quantity)[found]
    low, high = sorted(round(float(v), _DIGITS) if known else _metres(v) for v in values)
    if low == high:
        raise ParameterError("a band without width", found=f"{quantity} from {low} to {high}")
    return Band(quantity, low, high)


def code_of(value: Any) -> str:
    """The code that makes a value again, after ``import xsmall as xs``.

    Examples
    --------
    >>> code_of(Circle((0.001, -0.002), 0.0005))
    'xs.Circle((0.001, -0.002), 0.0005)'
    >>> code_of(Box(segment=2, row=(0, 4)))
    'xs.Box(segment=2, row=(0, 4))'
    """
    if isinstance(value, Combined):
        sign = "|" if value.how == "or" else "&"
        return f"({code_of(value.left)} {sign} {code_of(value.right)})"
    if isinstance(value, Outside):
        return f"~{code_of(value.region)}"
    said = []
    for field in fields(value):
        given = getattr(value, field.name)
        if field.default is MISSING:
            said.append(repr(given))
        elif given != field.default:
            said.append(f"{field.name}={given!r}")
    return f"xs.{type(value).__name__}({', '.join(said)})"
