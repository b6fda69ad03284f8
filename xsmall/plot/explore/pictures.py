"""What an explorer can show of an array: one event, one bin, or the mean of a few events; each is read when shown."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.part import Part
from xsmall.errors import DataError, ParameterError
from xsmall.frames.beam import beam_of
from xsmall.frames.image import image, only_usable
from xsmall.frames.pixels import need_geometry
from xsmall.plot.detector import mean_of_few, pixel_size_of
from xsmall.vocabulary import EVENT, PIXEL_DIMS

__all__ = ["Pictures", "Shown"]

_KEPT: Final = 8  # pictures, so that going back and forth reads nothing again
_FEW_BYTES: Final = 64 * 2**20
_FEW: Final = 20


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame in memory, (segment, row, column), and what it is."""

    frame: xr.DataArray
    title: str
    places: Mapping[str, int] | None
    """Position along each dim before the pixels; None of the mean."""

    @property
    def event(self) -> int | None:
        """Position of the event that it is of; None of means and bins."""
        return None if self.places is None else self.places.get(EVENT)

    @property
    def values(self) -> npt.NDArray[Any]:
        """The pixels as numbers, NaN where a segment is missing."""
        return np.asarray(self.frame.values)


class Pictures:
    """The frames that there are, along whatever dims stand before the pixels.

    Parameters
    ----------
    obj
        Frames, averages or bins over (segment, row, column), and other dims, with a geometry.
    frames
        How many events the mean is of.

    Raises
    ------
    DataError
        An array without all three pixel dims, or without events.
    GeometryError
        No geometry.
    """

    def __init__(self, obj: xr.DataArray, frames: int) -> None:
        lost = [d for d in PIXEL_DIMS if d not in obj.dims]
        if lost:
            raise DataError(
                "frames to explore have all dims of pixels",
                found=f"dims {obj.dims}",
                expected=f"dims {PIXEL_DIMS}, and others before them",
                fix=f".isel({lost[0]}=[0]) keeps the dim",
            )
        need_geometry(obj)
        self.dims = {str(d): n for d, n in obj.sizes.items() if d not in PIXEL_DIMS}
        if obj.size == 0:
            raise DataError("there is nothing to explore", found=f"sizes {dict(obj.sizes)}")
        self.obj = obj.transpose(*self.dims, *PIXEL_DIMS)
        self.part = Part.of(obj)
        self.frames = frames
        self._kept: OrderedDict[tuple[tuple[str, int], ...], Shown] = OrderedDict()

    @property
    def geometry(self) -> Any:
        """Where the pixels are."""
        return need_geometry(self.obj)

    @property
    def beam(self) -> Any:
        """The beam, or None; of a value per event the one of no event."""
        return beam_of(self.obj.isel(dict.fromkeys(self.dims, 0)))

    def one(self, places: Mapping[str, int]) -> Shown:
        """Read one frame: the positions along the dims before the pixels."""
        for dim, at in places.items():
            try:
                there = -self.dims.get(dim, 0) <= at < self.dims.get(dim, 0)
            except TypeError:  # "mean"
                there = False
            if not there:
                raise ParameterError(
                    "no such frame",
                    found=f"{dim}={at!r}",
                    expected=f"positions within {self.dims}",
                    fix="view.show() shows the mean, view.show(event=0) one event",
                )
        key = tuple((name, places.get(name, 0) % n) for name, n in self.dims.items())
        if key not in self._kept:
            chosen = self.obj.isel(dict(key))
            said = [f"{name} {i}" + _coordinate_text(chosen, name) for name, i in key]
            title = ", ".join(said) or ("" if chosen.name is None else str(chosen.name))
            self._keep(key, Shown(_frame_numbers(chosen.compute()), title, dict(key)))
        self._kept.move_to_end(key)
        return self._kept[key]

    def mean(self) -> Shown:
        """Mean of a few events, evenly spread over the run."""
        if EVENT not in self.dims:
            raise DataError("a mean is of events", found=f"dims {self.obj.dims}", expected=f"a dim {EVENT!r}")
        key = (("mean", self.frames),)
        if key not in self._kept:
            others = dict.fromkeys((d for d in self.dims if d != EVENT), 0)
            mean, title = mean_of_few(self.obj.isel(others), self.frames, "")
            self._keep(key, Shown(mean, title, None))
        return self._kept[key]

    def same(self, shown: Shown) -> Shown:
        """The frame that other pictures showed, of these."""
        return self.mean() if shown.places is None else self.one(shown.places)

    def few(self) -> xr.DataArray:
        """A few events in memory, evenly spread, of which spectra are made."""
        if list(self.dims) != [EVENT]:
            raise DataError("a spectrum is of events", found=f"dims {self.obj.dims}", expected=f"a dim {EVENT!r}")
        n = self.dims[EVENT]
        most = int(np.clip(_FEW_BYTES // (8 * self.part.size), 1, min(_FEW, n)))
        return self.obj.isel({EVENT: np.unique(np.linspace(0, n - 1, most).round().astype(int))}).compute()

    def assembled(self, frame: xr.DataArray) -> xr.DataArray:
        """The picture of a frame, or of a mask, in the lab."""
        return image(frame, pixel_size=pixel_size_of(frame)).compute()

    def _keep(self, key: tuple[tuple[str, int], ...], shown: Shown) -> None:
        self._kept[key] = shown
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def _frame_numbers(frame: xr.DataArray) -> xr.DataArray:
    """Numbers of a frame, NaN where a segment is not there."""
    if frame.dtype == np.bool_:
        return frame.astype(np.float32)
    usable = only_usable(frame)
    return usable if usable.dtype.kind == "f" else usable.astype(np.float64)


def _coordinate_text(chosen: xr.DataArray, name: str) -> str:
    if name not in chosen.coords:
        return ""
    value = chosen.coords[name].values
    text = f"{float(value):.6g}" if value.dtype.kind == "f" else str(value)[:23]
    return f" ({text})"
