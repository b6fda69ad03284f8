"""Sparse frames: a Dataset with the pixels of each event that are not zero, in place of frames.

Three lists per event say it all: ``pixel``, the pixels that are not zero, counted over segment, row and column, in
order, as they stood when it was made (its attribute ``counted_over`` tells); ``pixel_value``, their values; and
``lost_pixels``, where runs of pixels that this event lacks begin and end. The coordinate ``used`` (segment, row,
column) says which pixels may be used at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import CACHE
from xsmall.detector.part import Part
from xsmall.engine.entries import filled, pixels_of_runs
from xsmall.errors import DataError
from xsmall.events.own_names import own_names
from xsmall.events.ragged import is_ragged, object_array
from xsmall.frames.pixels import assign_geometry, geometry_of
from xsmall.frames.small import small
from xsmall.vocabulary import (
    COUNTED_OVER,
    DIMENSIONLESS,
    EVENT,
    FRAME_DIMS,
    LOST_PIXELS,
    PIXEL,
    PIXEL_DIMS,
    PIXEL_VALUE,
    RAGGED_DTYPE,
    UNITS,
    USED,
)

__all__ = ["Sparse", "dense", "dense_of", "sparse_of"]


Objects = npt.NDArray[np.object_]


class Sparse(NamedTuple):
    """Sparse frames, taken apart."""

    lists: tuple[Any, Any, Any]
    """Pixels, values and borders of runs of lost pixels: arrays (event,) of lists, NumPy or dask."""
    used: npt.NDArray[np.bool_]
    """(segment, row, column)."""
    values: xr.DataArray
    """Frames (event, segment, row, column) in name only: their labels, coordinates and unit."""

    @property
    def is_lazy(self) -> bool:
        """Whether the lists are still to be computed."""
        return any(isinstance(part, da.Array) for part in self.lists)

    def chunked(self, n: int) -> Sparse:
        """The same as lazy lists of ``n`` events, unless they are lazy already."""
        if self.is_lazy:
            return self
        pixel, value, lost = (da.from_array(part, n) for part in self.lists)
        return Sparse((pixel, value, lost), self.used, self.values)

    def first(self, n: int) -> Sparse:
        """The first ``n`` events."""
        pixel, value, lost = (part[:n] for part in self.lists)
        return Sparse((pixel, value, lost), self.used, self.values.isel({EVENT: slice(n)}))


def sparse_of(obj: Any) -> Sparse | None:
    """Find the sparse frames of a Dataset, also where their names have a prefix; None where it has none.

    Raises
    ------
    DataError
        Several of them, or something of them is missing or other than it was made.
    """
    if not isinstance(obj, xr.Dataset):
        return None
    found = [str(name) for name, v in obj.data_vars.items() if str(name).endswith(PIXEL_VALUE)]
    if not found:
        return None
    if len(found) > 1:
        raise DataError(
            "which sparse frames?",
            found=", ".join(found),
            expected="those of one record",
            fix=f"drop the others: .drop_vars({found[1]!r})",
        )
    prefix = found[0].removesuffix(PIXEL_VALUE)
    if prefix and not is_ragged(obj[found[0]]):
        obj, prefix = own_names(obj, PIXEL_VALUE, PIXEL, LOST_PIXELS), ""
    lists = [obj.get(f"{prefix}{name}") for name in (PIXEL, PIXEL_VALUE, LOST_PIXELS)]
    used = obj.coords.get(f"{prefix}{USED}", obj.coords.get(USED))
    if any(v is None or not is_ragged(v) or v.dims != (EVENT,) for v in lists) or used is None:
        raise DataError(
            "sparse frames that are not whole",
            found=", ".join(map(str, obj.variables))[:200],
            expected=f"lists {PIXEL}, {PIXEL_VALUE}, {LOST_PIXELS} over {EVENT}; the coordinate {USED} {PIXEL_DIMS}",
            fix="what xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True)) returns; xs.lists(...) of it "
            "where it was flattened",
        )
    if used.dims != PIXEL_DIMS:
        raise DataError(
            "sparse frames of events whose pixels differ",
            found=f"{USED} {used.dims}",
            expected=f"{PIXEL_DIMS}: the same mask for all",
            fix="reduce each run by itself",
        )
    arrays = tuple(v.variable._data if isinstance(v.variable._data, da.Array) else v.values for v in lists)
    arrays = _renumbered(arrays, _counted_over(lists[0]), Part.of(used))
    return Sparse(arrays, np.asarray(small(used).values, bool), _stand_in(obj, lists[1], used))


def _counted_over(pixel: Any) -> Part:
    """The pixels that were there when they were counted."""
    text = pixel.attrs.get(COUNTED_OVER)
    try:
        return Part.from_text(str(text))
    except DataError:
        raise DataError(
            "sparse frames that do not say which pixels they count",
            found="no such attribute" if text is None else repr(text)[:80],
            expected=f"the attribute {COUNTED_OVER} of {pixel.name}, such as '0:2:1 0:512:1 0:1024:1'",
            fix=f'sparse["{pixel.name}"].attrs = before["{pixel.name}"].attrs, of the sparse frames as they were made',
        ) from None


def _renumbered(lists: tuple[Any, Any, Any], counted: Part, part: Part) -> tuple[Any, Any, Any]:
    """Number pixels as the labels stand now, where frames were sliced or turned since; the rest is left out."""
    if part == counted:
        return lists
    twice = [dim for dim, labels in zip(PIXEL_DIMS, part.labels, strict=True) if len(set(labels)) < len(labels)]
    if twice:
        raise DataError(
            f"sparse frames that have a {twice[0]} twice",
            expected="every label once",
            fix=f"sparse.drop_duplicates({twice[0]!r})",
        )
    part.match(counted, "sparse frames")
    lazy = next((one for one in lists if isinstance(one, da.Array)), None)
    if lazy is None:
        return _renumber(*lists, counted, part)
    same = [one.rechunk(lazy.chunks) if isinstance(one, da.Array) else da.from_array(one, lazy.chunks) for one in lists]
    moved = [
        da.map_blocks(_renumber_one, *same, i, counted, part, dtype=object, meta=np.empty(0, object))
        for i in range(len(same))
    ]
    return moved[0], moved[1], moved[2]


def _renumber_one(pixel: Objects, value: Objects, lost: Objects, i: int, counted: Part, part: Part) -> Objects:
    return _renumber(pixel, value, lost, counted, part)[i]


def _renumber(
    pixel: Objects, value: Objects, lost: Objects, counted: Part, part: Part
) -> tuple[Objects, Objects, Objects]:
    """Lists of pixels in ``part`` of lists of pixels in ``counted``."""
    number = CACHE.get(("numbers of pixels", counted, part), lambda: _pixel_numbers(counted, part))
    pixels, values, borders = [], [], []
    for p, v, runs in zip(pixel, value, lost, strict=True):
        moved = number[p]
        order = np.argsort(moved, kind="stable")[np.count_nonzero(moved < 0) :]
        pixels.append(moved[order])
        values.append(v[order])
        gone = np.sort(number[pixels_of_runs(runs)])
        gone = gone[gone >= 0]
        first = np.diff(gone, prepend=-2) != 1
        last = np.diff(gone, append=part.size + 1) != 1
        borders.append(np.stack([gone[first], gone[last] + 1], axis=1).ravel().astype(np.int32))
    return object_array(pixels), object_array(values), object_array(borders)


def _pixel_numbers(counted: Part, part: Part) -> npt.NDArray[np.int32]:
    """Number in ``part`` of each pixel of ``counted``, -1 where it is not there."""
    places = part.find([np.asarray(labels, dtype=np.intp) for labels in counted.labels])
    segment, row, column = np.ix_(*places)
    number = (segment * part.shape[1] + row) * part.shape[2] + column
    number[(segment < 0) | (row < 0) | (column < 0)] = -1
    return number.astype(np.int32).ravel()


def _stand_in(obj: xr.Dataset, value: xr.DataArray, used: xr.DataArray) -> xr.DataArray:
    """Frames that hold nothing, with all labels: what the real ones would be described by."""
    dtype = np.dtype(np.float64 if np.dtype(value.attrs[RAGGED_DTYPE]) == np.float64 else np.float32)
    shape = tuple(obj.sizes[d] if d == EVENT else used.sizes[d] for d in FRAME_DIMS)
    coords = {k: c.variable for k, c in obj.coords.items() if set(c.dims) <= set(FRAME_DIMS) and k != used.name}
    attrs = {**obj.attrs, UNITS: value.attrs.get(UNITS, DIMENSIONLESS)}
    frames = xr.DataArray(np.broadcast_to(np.zeros((), dtype), shape), coords, FRAME_DIMS, attrs=attrs)
    geometry = geometry_of(frames)
    if geometry is None:
        return frames
    return assign_geometry(frames, geometry, partial=True)  # with the places of the pixels


def dense(obj: xr.Dataset) -> xr.DataArray:
    """Make frames of sparse frames.

    Parameters
    ----------
    obj
        What :func:`~xsmall.photon` and :func:`~xsmall.sparse` return with ``sparse=True``, or as they are.

    Returns
    -------
    Frames (event, segment, row, column), float32, or float64 where the values are, with their unit: 0 where nothing
    was, NaN where a pixel is not valid. Lazy where the lists are.

    Raises
    ------
    DataError
        No sparse frames.

    Notes
    -----
    Reductions, cubes and correlations take sparse frames as they are: dense ones are for what does not, such as a look
    at one event.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> photons = xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))
    >>> frames = xs.dense(photons)
    >>> frames.dims, int(frames[0].sum()) == int(photons["n_photons"][0])
    (('event', 'segment', 'row', 'column'), True)
    """
    given = sparse_of(obj)
    if given is None:
        raise DataError(
            "no sparse frames",
            found=", ".join(map(str, getattr(obj, "variables", [type(obj).__name__])))[:200],
            expected=f"lists {PIXEL}, {PIXEL_VALUE} and {LOST_PIXELS}",
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))",
        )
    return dense_of(given)


def dense_of(given: Sparse) -> xr.DataArray:
    """Frames of sparse ones, lazy where the lists are; see :func:`dense`."""
    lists, used, dtype = given.lists, given.used, given.values.dtype
    if not given.is_lazy:
        return given.values.copy(data=_filled_frames(*lists, used=used, kind=dtype))
    chunks = next(part.chunks for part in lists if isinstance(part, da.Array))
    parts = [part.rechunk(chunks) if isinstance(part, da.Array) else da.from_array(part, chunks) for part in lists]
    data = da.map_blocks(
        _filled_frames, *parts, used=used, kind=dtype, dtype=dtype, chunks=(chunks[0], *used.shape), new_axis=[1, 2, 3],
        meta=np.empty((0, 0, 0, 0), dtype),
    )  # fmt: skip
    return given.values.copy(data=data)


def _filled_frames(
    pixel: npt.NDArray[np.object_],
    value: npt.NDArray[np.object_],
    lost: npt.NDArray[np.object_],
    *,
    used: npt.NDArray[np.bool_],
    kind: np.dtype[Any],
) -> npt.NDArray[Any]:
    out = np.empty((len(pixel), *used.shape), kind)
    out[:] = np.where(used, 0, np.nan)
    for j, frame in enumerate(out):
        filled(frame, pixel[j], value[j], pixels_of_runs(lost[j]))
    return out
