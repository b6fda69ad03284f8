"""What the previous frame leaves behind in this one."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.reductions.frames import check_frames
from xsmall.vocabulary import EVENT, TIMESTAMP

__all__ = ["subtract_ghost"]


def subtract_ghost(
    frames: xr.DataArray, fraction: xr.DataArray | float, *, offset: xr.DataArray | float = 0.0, max_gap: Any = None
) -> xr.DataArray:
    """Subtract from each frame a fraction of the frame before it.

    Parameters
    ----------
    frames
        Calibrated frames (event, segment, row, column) in the order of their timestamps.
    fraction
        Part of the previous frame that is still there: one number, or one for each pixel (segment, row, column).
    offset
        Subtracted too, in the unit of the frames: a number or one for each pixel.
    max_gap
        Longest time between a frame and the one before it, such as ``np.timedelta64(15, "ms")`` at 120 Hz: where more
        time has passed, frames in between were not recorded and the ghost is not known. None: every frame follows the
        one before it.

    Returns
    -------
    Frames of the same dims and unit, lazy where ``frames`` are: value - offset - fraction * previous value. NaN where
    the previous frame is not known (the first one, after a gap, NaN in it): never uncorrected in silence.

    Raises
    ------
    DataError
        Frames without timestamps where ``max_gap`` needs them, or out of order.
    ParameterError
        A fraction that is not between -1 and 1.

    Notes
    -----
    Cost: one more pass over the frames. Reductions of the result take it as it comes and do not calibrate in their
    own pass. The previous frame is taken as recorded, its own ghost included, as modes 180 and 181 of smalldata_tools
    do.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> frames = xr.DataArray(np.array([4.0, 2.0, 0.0]).reshape(3, 1, 1, 1), dims=("event", "segment", "row", "column"))
    >>> subtract_ghost(frames, 0.5).values.ravel().tolist()
    [nan, 0.0, -1.0]
    """
    check_frames(frames)
    if np.ndim(fraction) == 0 and not -1.0 <= float(np.asarray(fraction)) <= 1.0:
        raise ParameterError("a fraction that cannot be meant", found=float(np.asarray(fraction)), expected="-1 to 1")
    previous = frames.shift({EVENT: 1}, fill_value=np.nan)
    out = frames - offset - fraction * previous.variable
    if max_gap is not None:
        if TIMESTAMP not in frames.coords:
            raise DataError("gaps in time need timestamps", found=list(frames.coords), expected=f"{TIMESTAMP} (event)")
        steps = np.diff(frames.coords[TIMESTAMP].to_numpy())
        if (steps < np.timedelta64(0)).any():
            raise DataError("the frames are not in the order of their timestamps", fix=f".sortby({TIMESTAMP!r})")
        known = np.concatenate([[False], steps <= np.timedelta64(max_gap)])[: frames.sizes[EVENT]]
        out = out.where(xr.Variable(EVENT, known))
    return out.transpose(*frames.dims).astype(frames.dtype).assign_attrs(frames.attrs).rename(frames.name)
