"""Which pixel is this point? From space back to memory, on labelled data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.detector.part import Part
from xsmall.errors import DataError
from xsmall.frames.image import only_usable
from xsmall.frames.pixels import need_geometry
from xsmall.vocabulary import COLUMN, FLAG_MEANINGS, LONG_NAME, PIXEL_DIMS, POINT, ROW, SEGMENT, UNITS, UNITS_OF, X, Y

__all__ = ["at", "locate"]

Coordinates = float | npt.ArrayLike | xr.DataArray


def locate(obj: xr.DataArray | xr.Dataset | Geometry, x: Coordinates, y: Coordinates) -> xr.Dataset:
    """Find the pixel under each point of space.

    A point (x, y) stands for the line along the beam (z) through it. Where panels lie behind each other the one
    nearest to the sample is taken. Wide pixels reach to the join of their ASICs.

    Parameters
    ----------
    obj
        Data with a geometry: the whole detector, or a slice of it, whose other pixels then count as outside; or a
        geometry.
    x, y
        In m, lab frame (x to the left when looking along the beam, y up): numbers, arrays, or DataArrays, which are
        broadcast by their dims (a dim ``row`` of points comes back as ``point_row``).

    Returns
    -------
    Dataset of ``segment``, ``row``, ``column``: int32 labels in the whole detector, -1 where no pixel is (gaps,
    outside, NaN), over the dims of the points (``point`` for a plain array), with ``x`` and ``y``.

    Raises
    ------
    GeometryError
        Data without a geometry.
    DataError
        Coordinates that are not real numbers or do not fit each other.

    Notes
    -----
    Cost: some 20 to 40 ns per point on one core; tables of a few 100 kB are made once per geometry.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> found = xs.locate(xs.Geometry.from_panels([panel]), [3e-4, 1.0], [2e-4, 0.0])
    >>> found.row.values, found.column.values
    (array([ 2, -1], dtype=int32), array([ 3, -1], dtype=int32))
    """
    geometry = obj if isinstance(obj, Geometry) else need_geometry(obj)
    points_x, points_y = _points_alike(x, y)
    found = locate_pixels(geometry, points_x.values, points_y.values)
    if not isinstance(obj, Geometry):
        positions = Part.of(obj).find(found)
        here = np.logical_and.reduce([p >= 0 for p in positions])
        found = tuple(np.where(here, labels, np.int32(-1)) for labels in found)  # type: ignore[assignment]
    named = zip((SEGMENT, ROW, COLUMN), found, strict=True)
    out = xr.Dataset({name: (points_x.dims, labels) for name, labels in named}, coords=points_x.coords)
    for name, values in ((X, points_x), (Y, points_y)):
        out = out.assign_coords({name: (values.dims, values.values, {UNITS: UNITS_OF[name]})})
    for name in (SEGMENT, ROW, COLUMN):
        out[name].attrs = {LONG_NAME: f"{name} of the pixel under the point, -1 where there is none"}
    return out


def at(obj: xr.DataArray, x: Coordinates, y: Coordinates) -> xr.DataArray:
    """Take the values at points of space.

    Parameters
    ----------
    obj
        Any array over the pixels of a detector with a geometry (data, masks, per-event stacks), whole or a slice.
    x, y
        As in :func:`locate`.

    Returns
    -------
    DataArray of the other dims of ``obj`` and the dims of the points; as lazy as ``obj``. NaN where no pixel is, and
    where the segment is not present in an event; integers become floats for that, but flags stay integers (0 where no
    pixel is) and masks boolean (False). The pixels are said by
    the coordinates ``segment``, ``row`` and ``column`` (-1 where there is none).

    Raises
    ------
    GeometryError, DataError
        As :func:`locate`.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(2, 3))
    >>> data = xr.DataArray(np.arange(6.0).reshape(1, 2, 3), dims=("segment", "row", "column"))
    >>> data = xs.assign_geometry(data, xs.Geometry.from_panels([panel]))
    >>> xs.at(data, [2e-4, 5e-4], [1e-4, 0.0]).values
    array([ 5., nan])
    """
    found = locate(obj, x, y)
    obj = only_usable(obj)
    for dim in PIXEL_DIMS:
        if dim not in obj.dims:
            obj = obj.expand_dims(dim)
    labels = tuple(found[dim].values for dim in PIXEL_DIMS)
    positions = Part.of(obj).find(labels)
    here = xr.DataArray(labels[0] >= 0, dims=found[SEGMENT].dims)
    where = {d: xr.DataArray(np.where(here, p, 0), dims=here.dims) for d, p in zip(PIXEL_DIMS, positions, strict=True)}
    bare = obj.drop_vars([name for name, c in obj.coords.items() if set(c.dims) & set(PIXEL_DIMS)])
    values = bare.isel(where).transpose(*(d for d in bare.dims if d not in PIXEL_DIMS), *here.dims)
    if obj.dtype == np.bool_:
        values = values & here
    elif obj.dtype.kind in "ui" and FLAG_MEANINGS in obj.attrs:
        values = values * here.astype(obj.dtype)
    else:
        values = values.where(here)
    values = values.assign_attrs(obj.attrs).rename(obj.name)
    coords = {name: found[name] for name in (X, Y, SEGMENT, ROW, COLUMN)}
    return values.assign_coords({k: v.variable for k, v in coords.items()} | dict(found.indexes.items()))


def _points_alike(x: Coordinates, y: Coordinates) -> tuple[xr.DataArray, xr.DataArray]:
    """Points as two DataArrays of the same dims."""
    labelled = []
    for values in (x, y):
        if isinstance(values, xr.DataArray):
            bare = values.drop_vars([name for name in values.coords if name not in values.dims])
            labelled.append(bare.rename({dim: f"{POINT}_{dim}" for dim in PIXEL_DIMS if dim in bare.dims}))
            continue
        array = np.asarray(values)
        dims = (POINT,) if array.ndim == 1 else tuple(f"{POINT}_{i}" for i in range(array.ndim))
        labelled.append(xr.DataArray(array, dims=dims))
    try:
        first, second = xr.broadcast(*xr.align(*labelled, join="exact"))
    except ValueError as error:
        raise DataError(
            "x and y of points do not fit each other",
            found=f"{dict(labelled[0].sizes)} and {dict(labelled[1].sizes)}: {error}",
            expected="the same shape, or DataArrays that broadcast by their dims",
        ) from None
    return first, second.transpose(*first.dims)
