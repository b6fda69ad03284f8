"""What the previous frame leaves behind in this one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.detector.part import Part
from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import labels_of
from xsmall.frames.describe import check_frames, usable_segments
from xsmall.frames.per_pixel import aligned
from xsmall.frames.variance import values_and_variance
from xsmall.vocabulary import EVENT, SEGMENT

__all__ = ["subtract_ghost"]


def subtract_ghost(
    frames: xr.DataArray | xr.Dataset,
    fraction: xr.DataArray | float,
    *,
    offset: xr.DataArray | float = 0.0,
    max_gap: Any = None,
) -> xr.DataArray | xr.Dataset:
    """Subtract from each frame a fraction of the frame before it.

    Parameters
    ----------
    frames
        Calibrated frames (event, segment, row, column) in the order of their times; or a Dataset of them and
        their variance.
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
    the previous frame is not known (the first one, after a gap, NaN in it, flagged as missing): never uncorrected in
    silence. Of a Dataset, a Dataset: the variance is that of the frame and fraction² times that of the previous one.

    Raises
    ------
    DataError
        Raw words, frames out of the order of their times, or without times where ``max_gap`` needs them.
    ParameterError
        A fraction that is not between -1 and 1, or values of pixels that do not cover those of the frames.

    Notes
    -----
    Cost: one more pass over the frames. Reductions of the result take it as it comes and do not calibrate in their
    own pass. The previous frame is taken as recorded, its own ghost included, as modes 180 and 181 of smalldata_tools
    do. Consecutive results share the noise of a frame: errors of sums over events come out somewhat wrong, by the
    fraction.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> frames = xr.DataArray(np.array([4.0, 2.0, 0.0]).reshape(3, 1, 1, 1), dims=("event", "segment", "row", "column"))
    >>> xs.subtract_ghost(frames, 0.5).values.ravel().tolist()
    [nan, 0.0, -1.0]
    """
    values, variance = values_and_variance(frames)
    check_frames(values)
    if values.dtype.kind != "f":
        raise DataError(
            "the ghost of a frame is known of calibrated values, not of raw words",
            found=f"dtype {values.dtype}",
            expected="floats",
            fix="raw.sd.calibrate(constants).sd.subtract_ghost(fraction)",
        )
    part, constant = (_per_pixel(x, values, name) for x, name in ((fraction, "fraction"), (offset, "offset")))
    if (np.abs(part) > 1.0).any() or np.isnan(part).all():
        raise ParameterError("invalid fraction of a ghost", found=float(np.max(np.abs(part))), expected="-1 to 1")
    known = _follows(values, max_gap)
    out = _less_previous(values, part, known, constant)
    if variance is None:
        return out
    return paired(out.to_dataset().assign({str(variance.name): _less_previous(variance, -np.square(part), known)}))


def _per_pixel(given: xr.DataArray | float, frames: xr.DataArray, name: str) -> npt.NDArray[Any]:
    """A number, or one for each pixel (segment, row, column) of the frames, chosen by labels where there are some."""
    if isinstance(given, xr.DataArray) and given.ndim:
        return aligned(given, Part.of(frames), name)
    values = np.asarray(given)
    if values.ndim and values.shape != frames.shape[1:]:
        raise ParameterError(f"{name} has another shape than the frames", found=values.shape, expected=frames.shape[1:])
    return values


def _follows(frames: xr.DataArray, max_gap: Any) -> npt.NDArray[np.bool_] | None:
    """Which frames the one before them belongs to; None: all but the first."""
    times = labels_of(frames, "a ghost").to_numpy() if EVENT in frames.coords else None
    if times is not None and (times[1:] < times[:-1]).any():
        raise DataError("the frames are not in the order of their times", fix=f".sortby({EVENT!r})")
    if max_gap is None:
        return None
    if times is None or times.dtype.kind != "M":
        raise DataError(
            "gaps in time need the time of each event",
            found=list(frames.coords) if times is None else f"{EVENT!r} of {times.dtype}",
            expected=f"{EVENT!r} of datetime64[ns]",
            fix=f"frames.assign_coords({EVENT}=times)",
        )
    steps = np.diff(times)
    known: npt.NDArray[np.bool_] = np.concatenate([[False], steps <= _gap(max_gap)])
    return known[: frames.sizes[EVENT]]


def _less_previous(
    frames: xr.DataArray, fraction: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None, offset: Any = 0.0
) -> xr.DataArray:
    """Values - offset - fraction * previous values, NaN where ``known`` is False."""
    usable = usable_segments(frames)  # what was flagged since has values still
    there = frames if usable is None else frames.where(xr.Variable((EVENT, SEGMENT), usable))
    previous = there.shift({EVENT: 1}, fill_value=np.nan).variable
    out = frames - offset - fraction * previous
    if known is not None:
        out = out.where(xr.Variable(EVENT, known))
    rest: xr.DataArray = out.transpose(*frames.dims).astype(frames.dtype)
    return rest.assign_attrs(frames.attrs).rename(frames.name)


def _gap(max_gap: Any) -> np.timedelta64:
    """Largest gap as a length of time; a bare number does not say its unit."""
    try:
        if not isinstance(max_gap, str | timedelta | np.timedelta64):
            raise TypeError
        gap = pd.Timedelta(max_gap)
        if gap is pd.NaT or gap < pd.Timedelta(0):
            raise ValueError
    except (TypeError, ValueError):
        raise ParameterError(
            "invalid max_gap", found=repr(max_gap), expected="a length of time", fix='max_gap="10ms"'
        ) from None
    length: np.timedelta64 = gap.to_timedelta64()
    return length
