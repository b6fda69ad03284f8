"""A record of frames that another record makes: what follows photons of each pixel, in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import chained
from xsmall.engine.record import Input, Output, Record, Reducer, Totals, no_record

__all__ = ["OfMadeFrames"]


@dataclass(frozen=True)
class OfMadeFrames(Record):
    """The record that makes frames, the variable and the unit of these, and what is done with them."""

    first: Record
    variable: str
    units: str
    following: Record

    @property
    def name(self) -> str:  # type: ignore[override]  # that of what is done in the end
        """Name of what is done with the frames."""
        return self.following.name

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """What is to lie beside the frames of what follows."""
        return self.following.beside

    def seeing(self, frames: xr.DataArray) -> Record:
        """Show the labels of the events to what follows."""
        return replace(self, following=self.following.seeing(frames))

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Record:
        """Make the record that knows what lies beside the frames."""
        return replace(self, following=self.following.bound(inputs, left_out))

    def __or__(self, following: Record) -> Record:
        """Chain: what follows comes after what is done with the frames."""
        if not isinstance(following, Record):
            return no_record(following)  # type: ignore[unreachable]  # users are not typed
        return chained(self, following, replace(self, following=self.following | following))

    def after(self, first: Record) -> Record:
        """Let what makes the frames follow another record."""
        return replace(self, first=self.first.after(first))

    def made(self, frames: Frames) -> Frames:
        """What is known of the frames that are made, once what makes them has been asked."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*keeps.*of each event")  # here they are not kept
            output = self.first.outputs(frames)[self.variable]
        return replace(frames, dtype=output.dtype, units=self.units, variance=False)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what follows returns."""
        return self.following.outputs(self.made(frames))

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of what follows."""
        return self.following.coords(self.made(frames))

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return MadeFramesReducer(self.first.reducer(frames), self.variable, self.following.reducer(self.made(frames)))


class MadeFramesReducer(Reducer):
    """Makes the frames of a group and hands them on."""

    def __init__(self, first: Reducer, variable: str, following: Reducer) -> None:
        self._first, self._variable, self._following = first, variable, following
        self.most_together = min(first.most_together, following.most_together)
        self.takes_whole_frames = following.takes_whole_frames  # type: ignore[misc]  # as what follows does

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        for reducer in (self._first, self._following):
            reducer.energy, reducer.beside = self.energy, self.beside
            reducer.begin(k)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        del variance  # the frames that are made have none
        self._first.add(s, frames)

    def whole(self, frames: npt.NDArray[np.floating[Any]], variance: Any, here: Any) -> None:
        """Take whole frames, and hand on what is made of them at once."""
        del variance
        for s in range(frames.shape[1]):
            self._first.add(s, frames[:, s])
        self._following.whole(self._first.end()[self._variable], None, here)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand the frames on, and finish the group."""
        if not self.takes_whole_frames:
            made = self._first.end()[self._variable]
            for s in range(made.shape[1]):
                self._following.add(s, np.ascontiguousarray(made[:, s]))
        return self._following.end()

    def totals(self) -> Totals | None:
        """What was gathered of all groups."""
        return self._following.totals()
