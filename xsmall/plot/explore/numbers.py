"""Numbers of regions of one frame, and spectra of its pixels and droplets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.masks.regions import Region
from xsmall.events.ragged import flatten
from xsmall.frames.mask import inside
from xsmall.reductions.box import Box
from xsmall.reductions.droplet import droplet
from xsmall.reductions.reduce import apply
from xsmall.vocabulary import COLUMN, LONG_NAME, PIXEL_DIMS, ROI, ROW, SEGMENT, SUM, UNITS

__all__ = ["droplet_sums", "inside_of", "numbers_of", "unit_of", "values_in"]

Bools = npt.NDArray[np.bool_]
_NAMES: Final = ("sum", "mean", "std", "min", "max", "n_valid", "n_pixels")


def inside_of(frame: xr.DataArray, region: Box | Region) -> Bools:
    """Pixels of a frame (segment, row, column) that lie in a region."""
    if isinstance(region, Region):
        return np.asarray(inside(frame, region).values)
    out = np.ones([frame.sizes[d] for d in PIXEL_DIMS], dtype=bool)
    limits = {ROW: region.row, COLUMN: region.column}
    if region.segment is not None:
        limits[SEGMENT] = (region.segment, region.segment + 1)
    for axis, dim in enumerate(PIXEL_DIMS):
        span = limits.get(dim)
        if span is not None:
            labels = frame.coords[dim].values if dim in frame.coords else np.arange(frame.sizes[dim])
            shape = [1, 1, 1]
            shape[axis] = -1
            out &= ((labels >= span[0]) & (labels < span[1])).reshape(shape)
    return out


def numbers_of(frame: xr.DataArray, regions: Mapping[str, Bools], hidden: Bools | None) -> xr.Dataset:
    """Numbers over the valid pixels of each region: variables over ``roi``; what is hidden by a mask does not count."""
    table: dict[str, list[Any]] = {name: [] for name in _NAMES}
    for where in regions.values():
        values = values_in(frame, where, hidden).astype(np.float64)
        some = values.size > 0
        nothing = float("nan")
        told = (
            values.sum() if some else nothing, values.mean() if some else nothing, values.std() if some else nothing,
            values.min(initial=np.inf) if some else nothing, values.max(initial=-np.inf) if some else nothing,
            values.size, int(where.sum()),
        )  # fmt: skip
        for name, value in zip(_NAMES, told, strict=True):
            table[name].append(value)
    unit = unit_of(frame)
    variables = {name: (ROI, np.array(values), {} if name.startswith("n_") else unit) for name, values in table.items()}
    return xr.Dataset(variables, coords={ROI: (ROI, np.array(list(regions), dtype=str))})


def values_in(frame: xr.DataArray, where: Bools | None, hidden: Bools | None) -> npt.NDArray[Any]:
    """The finite values of a frame, in a region, that no mask hides."""
    values = np.asarray(frame.values)
    good = np.isfinite(values)
    for said in (where, None if hidden is None else ~hidden):
        if said is not None:
            good &= said
    out: npt.NDArray[Any] = values[good]
    return out


def droplet_sums(few: xr.DataArray, threshold: float, threshold_low: float, hidden: Bools | None) -> xr.DataArray:
    """Sums of all droplets of a few frames: float (droplet,)."""
    record = droplet(threshold, threshold_low, mask=None if hidden is None else ~hidden)
    found = flatten(apply(few, record).compute())[SUM]
    return found.assign_attrs({LONG_NAME: "sum of a droplet", **unit_of(few)})


def unit_of(array: xr.DataArray) -> dict[str, Any]:
    """The unit of an array as attributes; nothing where it has none."""
    return {UNITS: array.attrs[UNITS]} if UNITS in array.attrs else {}
