"""Coordinates of some bytes per event or pixel: they are loaded where ``.chunk()`` has made them lazy."""

from __future__ import annotations

from typing import TypeVar

import dask.array as da
import xarray as xr

__all__ = ["is_lazy", "small"]

Coordinate = TypeVar("Coordinate", xr.DataArray, xr.Variable)


def is_lazy(coord: xr.DataArray | xr.Variable) -> bool:
    """Whether a coordinate is a dask array; xarray's ``chunks`` takes longer than all else that is asked of one."""
    return isinstance(getattr(coord, "variable", coord)._data, da.Array)


def small(coord: Coordinate) -> Coordinate:
    """Load a coordinate of some bytes per event or pixel where ``.chunk()`` has made it lazy."""
    return coord.copy(data=coord.data.compute(scheduler="synchronous")) if is_lazy(coord) else coord
