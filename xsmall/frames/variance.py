"""Values and their variance: where both are in a Dataset, which is which, and whether they still belong together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.engine.pairs import check_pair, is_variance, paired
from xsmall.engine.transform import origin_of
from xsmall.errors import DataError
from xsmall.events.ragged import is_ragged
from xsmall.frames.describe import usable_segments
from xsmall.vocabulary import EVENT, FRAME_DIMS, PIXEL_DIMS, RAW, SEGMENT, UNITS, VARIANCE_SUFFIX

__all__ = ["not_negative", "paired", "same_labels", "square_of", "values_and_variance", "with_variance"]

FRAMES = "frames"
PIXELS = "pixels"
EVENTS = "events"
_EXPECTED = {FRAMES: f"of one detector's frames {FRAME_DIMS}", PIXELS: "over pixels", EVENTS: "over events"}


def values_and_variance(
    obj: xr.DataArray | xr.Dataset, of: str = FRAMES, name: str = "these data"
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the values and, in a Dataset, their variance ``<name>_variance``.

    Parameters
    ----------
    obj
        An array, or a Dataset with one variable of values and perhaps their variance.
    of
        What the values run over: ``"frames"`` (event, segment, row, column), any ``"pixels"``, or ``"events"``.
    name
        What the error calls them.

    Raises
    ------
    DataError
        None or several variables of values; a variance of other dims than its values, or that may not be theirs any
        more.
    """
    if isinstance(obj, xr.DataArray):
        return obj, None
    if not isinstance(obj, xr.Dataset):
        raise DataError(
            f"{name} are neither an array nor a Dataset",
            found=type(obj).__name__,
            expected="a DataArray, or a Dataset of values and their variance",
            fix=_frames_of_run(obj),
        )
    found = [str(v) for v in obj.data_vars if _runs_over(obj[v], of)]
    values = [v for v in found if not is_variance(v, found)]
    if not values and of == FRAMES and any(is_ragged(v) for v in obj.data_vars.values()):
        raise DataError(
            "lists are no frames",
            found=", ".join(map(str, obj.data_vars))[:200],
            expected="frames, or photons as sparse frames, which are reduced as frames are",
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))",
        )
    if len(values) != 1:
        raise DataError(
            f"{name} have to be one variable {_EXPECTED[of]}, perhaps with its variance",
            found=f"{len(values)} such variables in the Dataset: {values[:8]}",
            expected="<name>, and perhaps <name>_variance",
            fix='choose: dataset["jungfrau"], or dataset[["jungfrau", "jungfrau_variance"]]',
        )
    variance = f"{values[0]}{VARIANCE_SUFFIX}"
    if variance not in found:
        return obj[values[0]], None
    check_pair(obj, values[0])
    if obj[variance].dims != obj[values[0]].dims:
        raise DataError(
            f"{variance} has other dims than its values", found=obj[variance].dims, expected=obj[values[0]].dims
        )
    return obj[values[0]], obj[variance]


def _frames_of_run(obj: object) -> str | None:
    """What to type for the frames of a run: its first detector."""
    nodes = obj.children if isinstance(obj, xr.DataTree) else {}
    return next((f'run["{name}"]["{RAW}"]' for name, node in nodes.items() if RAW in node.dataset), None)


def with_variance(values: xr.DataArray, variance: xr.DataArray | float) -> xr.Dataset:
    """Put values and their variance together, which reductions, pictures, averages and cubes then propagate.

    Parameters
    ----------
    values
        Frames, or anything over events or pixels, with a name.
    variance
        Variance of each value, in the square of its unit: of the same dims and labels, or one number for all.

    Returns
    -------
    Dataset of ``<name>`` and ``<name>_variance``; whole numbers become float64, NaN where a segment is missing. It
    stays a pair through what chooses, orders or joins (``isel``, ``sel``, ``xs.concat``, ``rename``, ``compute``),
    through :func:`~xsmall.scale` and :func:`~xsmall.add`, and through files: of :func:`~xsmall.save`, and of xarray's
    own ``to_netcdf`` and ``to_zarr`` unless they are given an ``encoding`` for it. After any other arithmetic it
    is refused, before and after saving, until it is declared again.

    Raises
    ------
    DataError
        Values without a name, a variance of other dims, sizes or labels, or that is negative: of lazy ones when they
        are computed.

    Notes
    -----
    Nothing lazy is computed. The mark of a pair is what files are filled with where there is no value, a NaN.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> frames = xr.DataArray(np.full((2, 1, 4, 4), 10.0), dims=("event", "segment", "row", "column"), name="cal")
    >>> both = xs.with_variance(frames, 4.0)
    >>> float(both.sd.roi(xs.Box(segment=0))["sum_variance"][0, 0])
    64.0
    """
    if getattr(values, "name", None) is None:
        raise DataError(
            "values need a name to have a variance", found=type(values).__name__, expected="a DataArray with a name",
            fix='values.rename("cal")',
        )  # fmt: skip
    if isinstance(variance, xr.DataArray):
        return _put_together(values, variance)
    one = np.result_type(values.dtype, np.float32).type(variance)
    _not_negative(one)
    lazy = isinstance(values.variable._data, da.Array)
    same = da.full(values.shape, one, chunks=values.chunks) if lazy else np.full(values.shape, one)
    return _put_together(values, values.copy(data=same))


def _put_together(values: xr.DataArray, variance: xr.DataArray) -> xr.Dataset:
    if set(variance.dims) != set(values.dims) or any(variance.sizes[d] != n for d, n in values.sizes.items()):
        raise DataError(
            "a variance has the dims of its values", found=dict(variance.sizes), expected=dict(values.sizes)
        )
    for dim in values.dims:
        if dim in values.indexes and dim in variance.indexes and not same_labels(values, variance, dim):
            raise DataError(
                "a variance has the labels of its values", found=f"{dim} differs", expected="the same labels",
                fix="values, variance = xr.align(values, variance)",
            )  # fmt: skip
    values, variance = _floats_of_words(values), not_negative(variance.transpose(*values.dims))
    unit = {UNITS: square_of(str(values.attrs[UNITS]))} if UNITS in values.attrs else {}
    bare = variance.variable.copy(deep=False)
    bare.attrs = {k: v for k, v in variance.attrs.items() if k != UNITS} | unit
    return paired(values.to_dataset().assign({f"{values.name}{VARIANCE_SUFFIX}": bare}))


def _floats_of_words(values: xr.DataArray) -> xr.DataArray:
    """Whole numbers as float64, NaN in segments that are missing or damaged: of floats nothing else need say so."""
    if values.dtype.kind not in "iu" or values.dims != FRAME_DIMS:
        return values
    usable = usable_segments(values)
    floats = values.astype(np.float64)
    return floats if usable is None else floats.where(xr.DataArray(usable, dims=(EVENT, SEGMENT)))


def not_negative(variance: xr.DataArray) -> xr.DataArray:
    """The same variance, where none is negative: in memory that is seen here, of a lazy one when it is computed.

    Raises
    ------
    DataError
        A negative one.
    """
    data = variance.variable._data
    if not isinstance(data, da.Array):
        _not_negative(variance.values)
        return variance
    known = origin_of(data)
    if known is not None and known.variance:  # as calibration makes it; as such it is read in the pass of the values
        return variance
    meta = np.empty((0,) * data.ndim, data.dtype)
    return variance.copy(data=data.map_blocks(_not_negative, dtype=data.dtype, meta=meta, name=None))


def _not_negative(variance: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if (variance < 0).any():
        raise DataError(
            "a variance is negative", found=float(np.nanmin(variance)), expected="0 or more, NaN if unknown"
        )
    return variance


def same_labels(a: xr.DataArray, b: xr.DataArray, dim: Hashable) -> bool:
    """Whether two arrays have the same labels along a dim, whatever lies beside these."""
    return bool(a.indexes[dim].equals(b.indexes[dim]))


def square_of(unit: str) -> str:
    """The square of a unit as it is written here: ``keV2``."""
    return unit if unit == "1" else f"{unit}2"


def _runs_over(variable: xr.DataArray, of: str) -> bool:
    if of == FRAMES:
        return set(variable.dims) == set(FRAME_DIMS)
    return EVENT in variable.dims if of == EVENTS else bool(set(variable.dims) & set(PIXEL_DIMS))
