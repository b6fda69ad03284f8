"""What kind of thing an xarray object is, for completion and for what a notebook shows of it."""

from __future__ import annotations

from typing import Final

import xarray as xr

from xsmall.vocabulary import (
    CALIBRATED,
    COLUMN,
    COUNT,
    EVENT,
    FLAG_MEANINGS,
    FRAME_DIMS,
    IMAGE_X,
    IMAGE_Y,
    PARAMETERS,
    PIXEL_DIMS,
    PIXEL_VALUE,
    ROW,
    VARIANCE_SUFFIX,
)

__all__ = [
    "BINS",
    "CALIBRATED_FRAMES",
    "FLAGS",
    "IMAGE",
    "OTHER",
    "PICTURES",
    "PIXELS",
    "RAW_FRAMES",
    "RUN",
    "SMALL",
    "SPARSE",
    "kind_of",
]

RAW_FRAMES: Final = "raw frames"
CALIBRATED_FRAMES: Final = "calibrated frames"  # or any floats over (event, segment, row, column)
FLAGS: Final = "flags"  # reasons, over pixels or frames
PIXELS: Final = "pixels"  # (segment, row, column) or a part of it, perhaps with other dims
PICTURES: Final = "pictures"  # whole pixels without events: bins of a cube, an average; reduced as frames are
IMAGE: Final = "image"  # an assembled picture
SPARSE: Final = "sparse frames"  # small data, among them the pixels of each event that are not zero
SMALL: Final = "small data"  # whatever runs over events
BINS: Final = "bins"  # a cube, or averages
RUN: Final = "run"
OTHER: Final = "other"


def kind_of(obj: xr.DataArray | xr.Dataset | xr.DataTree) -> str:
    """Say what kind of thing an object is, by its dims and attributes; nothing is read.

    Examples
    --------
    >>> import xarray as xr
    >>> kind_of(xr.Dataset({"i0": ("event", [1.0, 2.0])}))
    'small data'
    """
    if isinstance(obj, xr.DataTree):
        return RUN
    if isinstance(obj, xr.Dataset):
        one = frames_of(obj)
        return _kind_of_dataset(obj) if one is None else kind_of(one)
    if FLAG_MEANINGS in obj.attrs and {ROW, COLUMN} <= set(obj.dims):
        return FLAGS
    if obj.dims == FRAME_DIMS:
        raw = obj.dtype.kind in "iu" and PARAMETERS not in obj.attrs and obj.name != CALIBRATED
        return RAW_FRAMES if raw else CALIBRATED_FRAMES
    if {IMAGE_X, IMAGE_Y} <= set(obj.dims):
        return IMAGE
    if {ROW, COLUMN} <= set(obj.dims):
        return PICTURES if _are_pictures(obj) else PIXELS
    return SMALL if EVENT in obj.dims else OTHER


def _are_pictures(obj: xr.DataArray) -> bool:
    """Whether these are numbers over whole pixels without events; one event that was chosen is none of them."""
    if not set(PIXEL_DIMS) <= set(obj.dims) or EVENT in obj.dims or obj.dtype.kind not in "iuf":
        return False
    return len(obj.dims) > len(PIXEL_DIMS) or EVENT not in obj.coords


def frames_of(obj: xr.Dataset) -> xr.DataArray | None:
    """The frames of a Dataset that holds frames, perhaps with their variance; None of any other Dataset."""
    names = [v for v in obj.data_vars if obj[v].dims == FRAME_DIMS and not str(v).endswith(VARIANCE_SUFFIX)]
    return obj[names[0]] if len(names) == 1 else None


def _kind_of_dataset(obj: xr.Dataset) -> str:
    if EVENT in obj.dims:
        return SPARSE if any(str(name).endswith(PIXEL_VALUE) for name in obj.data_vars) else SMALL
    return BINS if COUNT in obj else OTHER
