"""Records that follow others: what is done in each region of interest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer, together
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.region import Place, with_masks
from xsmall.reductions.roi import Roi
from xsmall.vocabulary import BOUNDS

__all__ = ["InRegions", "in_regions"]


class Placed(Protocol):
    """A record that can be held to a place."""

    def within(self, place: Place, masks: tuple[StaticMask, ...]) -> Record:
        """The record of that place, with further masks."""


def in_regions(first: Roi, following: Placed) -> Record:
    """Make the record that does ``following`` in each region of ``first``."""
    parts = {name: following.within(place, with_masks(first.mask)) for name, place in first.places}
    return next(iter(parts.values())) if len(parts) == 1 else InRegions(tuple(parts.items()))


@dataclass(frozen=True)
class InRegions(Record):
    """The same in several regions: variables and dims are prefixed by the name of each."""

    parts: tuple[tuple[str, Record], ...]

    @property
    def name(self) -> str:  # type: ignore[override]  # that of what is done
        """Name of what is done in each region."""
        return self.parts[0][1].name

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what each part returns."""
        return {
            f"{name}_{variable}": Output(tuple(f"{name}_{d}" for d in o.dims), o.shape, o.dtype, o.attrs)
            for name, part in self.parts
            for variable, o in part.outputs(frames).items()
        }

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of each part."""
        out = {}
        for name, part in self.parts:
            for key, label in part.coords(frames).items():
                attrs = {k: f"{name}_{v}" if k == BOUNDS else v for k, v in label.attrs.items()}
                dims = tuple(f"{name}_{d}" if d in part.coords(frames) else d for d in label.dims)
                out[f"{name}_{key}"] = xr.Variable(dims, label.data, attrs)
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return _PartsReducer({name: part.reducer(frames) for name, part in self.parts})


class _PartsReducer(Reducer):
    """Hands each group to the reducers of all parts."""

    def __init__(self, parts: Mapping[str, Reducer]) -> None:
        self._parts = parts
        self.most_together = together(parts.values())
        self.takes_entries = all(part.takes_entries for part in parts.values())

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        for part in self._parts.values():
            part.energy, part.beside = self.energy, self.beside
            part.begin(k)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        for part in self._parts.values():
            part.add(s, frames, variance)

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        for part in self._parts.values():
            part.never(pixels)

    def entries(self, j: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]) -> None:
        """Take the pixels of event ``j`` that are not zero."""
        for part in self._parts.values():
            part.entries(j, pixel, value, lost)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        return {f"{name}_{v}": array for name, part in self._parts.items() for v, array in part.end().items()}
