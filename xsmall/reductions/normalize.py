"""Results divided by something of the event, such as the pulse energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Input, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.vocabulary import DIMENSIONLESS, EVENT, I0, UNITS, VARIANCE_SUFFIX

__all__ = ["Normalized", "normalized"]


def normalized(record: Record, i0: Any, variables: tuple[str, ...]) -> Record:
    """Divide ``variables`` of a record by ``i0`` of the event; the record itself where there is none."""
    if i0 is None:
        return record
    if not isinstance(i0, xr.DataArray) or i0.dims != (EVENT,) or i0.dtype.kind not in "fiu":
        raise ParameterError(
            "i0 is a number for each event",
            found=f"dims {i0.dims}, {i0.dtype}" if isinstance(i0, xr.DataArray) else type(i0).__name__,
            expected=f"a DataArray ({EVENT},)",
            fix='i0=run["events"]["i0"]',
        )
    return Normalized(record, variables, i0.attrs.get(UNITS), given=i0)


@dataclass(frozen=True)
class Normalized(Record):
    """A record and what is divided; made by :func:`normalized`."""

    record: Record
    variables: tuple[str, ...]
    units: str | None = None
    input: Input | None = None
    given: xr.DataArray | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]  # that of the record
        """Name of the record."""
        return self.record.name

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """What is divided by."""
        return {} if self.given is None else {I0: self.given}

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Normalized:
        """Make the record that knows where to find it."""
        del left_out  # its events that are none of the frames' have nothing to be divided
        return replace(self, input=inputs[I0], given=None)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what the record returns, in other units."""
        out = dict(self.record.outputs(frames))
        for name in self._divided(out):
            before = out[name].attrs.get(UNITS)
            power = -2 if name.endswith(VARIANCE_SUFFIX) else -1
            attrs = {k: v for k, v in out[name].attrs.items() if k != UNITS}
            if before and self.units:
                attrs[UNITS] = before if self.units == DIMENSIONLESS else f"{before} ({self.units}){power}"
            out[name] = replace(out[name], attrs=attrs)
        return out

    def _divided(self, names: Mapping[str, Any]) -> list[str]:
        return [v for name in self.variables for v in (name, f"{name}{VARIANCE_SUFFIX}") if v in names]

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of the record."""
        return self.record.coords(frames)

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        assert self.input is not None
        return NormalizedReducer(self.record.reducer(frames), self, self.input.name)


class NormalizedReducer(Reducer):
    """Divides what another reducer has found."""

    def __init__(self, inner: Reducer, record: Normalized, name: str) -> None:
        self._inner = inner
        self.most_together = inner.most_together
        self._record = record
        self._name = name

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._inner.energy, self._inner.beside = self.energy, self.beside
        values, there = self.beside[self._name]
        i0 = np.where(there, values.reshape(k).astype(np.float64), np.nan)
        self._i0 = np.where((i0 > 0) & (i0 < np.inf), i0, np.nan)
        self._inner.begin(k)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        self._inner.add(s, frames, variance)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Divide."""
        out = dict(self._inner.end())
        for name in self._record._divided(out):
            power = 2 if name.endswith(VARIANCE_SUFFIX) else 1
            out[name] = out[name] / self._i0.reshape(-1, *(1,) * (out[name].ndim - 1)) ** power
        return out
