"""Pictures that are no events: bins of a cube, an average. Stacked as events they go wherever frames go, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xsmall.engine.pairs import paired
from xsmall.vocabulary import EVENT, FRAME_DIMS, PIXEL_DIMS

__all__ = ["Stacked", "as_events"]


@dataclass(frozen=True)
class Stacked:
    """Pictures as frames, and what their dims were."""

    frames: xr.DataArray | xr.Dataset
    """The pictures (event, segment, row, column); events are numbers."""
    sizes: Mapping[Hashable, int]
    """The dims of the bins, in order; none where there was one picture."""
    coords: Mapping[Hashable, xr.DataArray]
    """The coordinates of the bins."""

    def back(self, result: xr.Dataset) -> xr.Dataset:
        """Give what was made per event the dims of the bins."""
        done = {str(name): self._unstacked(v) for name, v in result.variables.items() if name != EVENT}
        named = {name: v for name, v in done.items() if name in result.coords and name not in self.coords}
        out = xr.Dataset({n: v for n, v in done.items() if n in result.data_vars}, attrs=result.attrs)
        return paired(out.assign_coords(named).assign_coords({n: c.variable for n, c in self.coords.items()}))

    def _unstacked(self, variable: xr.Variable) -> xr.Variable:
        if EVENT not in variable.dims:
            return variable
        ordered = variable.transpose(EVENT, ...)
        data = ordered.data.reshape((*self.sizes.values(), *ordered.shape[1:]))
        return xr.Variable((*self.sizes, *ordered.dims[1:]), data, variable.attrs)


def as_events(obj: Any) -> Stacked | None:
    """Stack pictures over bins, or a single one, as events; None where they have events, or are no pictures."""
    if isinstance(obj, xr.Dataset):
        pictures = [str(v) for v in obj.data_vars if set(PIXEL_DIMS) <= set(obj[v].dims)]
        if not pictures or EVENT in obj[pictures[0]].dims:
            return None
        obj = obj[[v for v in pictures if set(obj[v].dims) == set(obj[pictures[0]].dims)]]
        dims = obj[pictures[0]].dims
    elif isinstance(obj, xr.DataArray) and set(PIXEL_DIMS) <= set(obj.dims) and EVENT not in obj.dims:
        dims = obj.dims
    else:
        return None
    bins = [d for d in dims if d not in PIXEL_DIMS]
    if not bins and EVENT in obj.coords:  # one event that was chosen: isel(event=[0]) keeps it a frame
        return None
    sizes = {d: obj.sizes[d] for d in bins}
    coords = {n: c for n, c in obj.coords.items() if c.dims and set(c.dims) & set(bins)}
    bare = obj.drop_vars(list(coords))
    flat = bare.stack({EVENT: bins}, create_index=False) if bins else bare.expand_dims(EVENT)
    frames = flat.transpose(*FRAME_DIMS).assign_coords({EVENT: np.arange(flat.sizes[EVENT])})
    return Stacked(frames, sizes, coords)
