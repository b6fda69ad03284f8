"""Which pixels a reduction looks at: a box in memory, a region of space, any mask, or all of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.masks.regions import Region
from xsmall.detector.part import Part
from xsmall.errors import GeometryError, ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import Box, Window

__all__ = ["Place", "as_place", "inside", "usable", "windows", "with_masks"]

Place: TypeAlias = Box | Region | StaticMask
"""A box, a region of space, or a mask that is True inside."""


def as_place(given: Any, what: str) -> Place:
    """Check what a user gave as a place.

    Raises
    ------
    ParameterError
        Neither a box nor a region nor a boolean array.
    """
    if isinstance(given, Box | Region | StaticMask):
        return given
    if hasattr(given, "dtype") and np.ndim(given):
        mask = StaticMask.of(given)
        assert mask is not None
        return mask
    raise ParameterError(
        f"{what} is no place",
        found=repr(given)[:80],
        expected="a Box, a region such as xs.Polygon or xs.Band, or a boolean mask (segment, row, column)",
        fix='xs.Box(segment=2, row=(200, 500), column=(300, 580)), or xs.Band("q", 1.0, 1.2)',
    )


def inside(place: Place, frames: Frames) -> npt.NDArray[np.bool_]:
    """Pixels of the frames (segment, row, column) that a place holds, made once per process.

    Raises
    ------
    GeometryError
        A region of space on frames without a geometry.
    ParameterError
        A place that holds no pixel of the frames, or a region of q where each event has a photon energy of its own.
    """
    if isinstance(place, StaticMask):
        return _some(place.on(frames), place)
    geometry, beam = frames.geometry, frames.beam
    if isinstance(place, Box):
        found = np.zeros(frames.shape, dtype=bool)
        found[np.ix_(*place.of(frames.part).match(frames.part, "array"))] = True
        return found
    if geometry is None:
        raise GeometryError(
            "a region of space needs to know where the pixels are",
            found="frames without geometry",
            expected="frames with a geometry",
            fix='.sd.assign_geometry(xs.Geometry.from_psana("geometry.data"))',
        )
    if beam is not None and frames.energy_varies:  # a region of q would hold other pixels in each event
        beam = beam.replace(photon_energy=None)
    key = ("inside", place, frames.part, geometry.token, beam)
    return _some(CACHE.get(key, lambda: frames.part.take(place.inside(geometry, beam))), place)


def windows(place: Place | None, frames: Frames) -> list[Window]:
    """The pieces of the arrays of the frames that hold a place, one for each segment it reaches; None is all pixels."""
    part = frames.part
    if place is None:
        return [Window.of(Part((s,), part.row, part.column), part) for s in part.segment]
    if isinstance(place, Box):
        return [place.on(frames)]
    out = []
    for s, held in enumerate(inside(place, frames)):
        rows, columns = (np.flatnonzero(held.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            continue
        row, column = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        labels = np.array(part.row[row], dtype=np.float64), np.array(part.column[column], dtype=np.float64)
        out.append(Window(s, row, column, *labels, np.array(held[row, column])))
    return out


def _some(found: npt.NDArray[np.bool_], place: Place) -> npt.NDArray[np.bool_]:
    if not found.any():
        raise ParameterError(
            "the region holds no pixel of the frames",
            found=repr(place)[:120],
            expected="a region that overlaps the pixels",
            fix="look at it: xs.inside(cal, region)",
        )
    return found


def with_masks(*masks: StaticMask | None) -> tuple[StaticMask, ...]:
    """Those masks that are there."""
    return tuple(mask for mask in masks if mask is not None)


def usable(frames: Frames, place: Place | None, masks: tuple[StaticMask, ...]) -> npt.NDArray[np.bool_] | None:
    """Pixels of a place that all masks leave: (segment, row, column); None where nothing is said."""
    said = [mask.on(frames) for mask in masks] + ([] if place is None else [inside(place, frames)])
    return np.logical_and.reduce(said) if said else None
