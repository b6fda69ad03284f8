"""The label of an event: the coordinate ``event``, its time in UTC to the nanosecond, or another unique label."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import EVENT

__all__ = ["Labelled", "check_labels", "in_utc", "is_labelled", "labels_of", "times_in_utc"]

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
_NANOSECOND: Final = "datetime64[ns]"


def is_labelled(obj: xr.DataArray | xr.Dataset) -> bool:
    """Whether the events of ``obj`` have labels."""
    return EVENT in obj.coords


def labels_of(obj: xr.DataArray | xr.Dataset, what: str) -> pd.Index:
    """Return the labels of the events, times in UTC to the nanosecond; NaT and NaN are no labels and stay as they are.

    Raises
    ------
    DataError
        No labels, a label twice, or times that have no nanosecond.
    """
    if not is_labelled(obj):
        raise DataError(
            f"{what} cannot be joined: events have no labels",
            found=f"coordinates {sorted(map(str, obj.coords))}",
            expected=f"the coordinate {EVENT!r}, such as the time of each event in UTC",
            fix=f"obj.assign_coords({EVENT}=times)",
        )
    index = _labels_index(obj.coords[EVENT].variable, f"the labels of {what}")
    known = index[index.notna()]
    if not known.is_unique:
        twice = known[known.duplicated()][0]
        raise DataError(
            f"{what} cannot be joined: a label is there twice",
            found=f"{twice} {int((known == twice).sum())} times",
            fix=f"obj.drop_duplicates({EVENT!r}) after looking at why",
        )
    return index


def check_labels(obj: xr.DataArray | xr.Dataset, what: str) -> None:
    """Refuse events without a label among labelled ones: whoever opens the file would join them to each other.

    Raises
    ------
    DataError
        NaT or NaN among the labels.
    """
    if not is_labelled(obj):
        return
    index = _labels_index(obj.coords[EVENT].variable, f"the labels of {what}")
    lost = int(index.isna().sum())
    if lost:
        raise DataError(
            f"{what} cannot be saved: some events have no label",
            found=f"{lost} of {index.size} are {'NaT' if index.dtype.kind == 'M' else 'NaN'}",
            expected="a label for each event; two without one would be taken for the same",
            fix=f"obj.isel({EVENT}=obj.{EVENT}.notnull().values) leaves them out",
        )


def in_utc(obj: xr.Dataset) -> xr.Dataset:
    """Give all times of a Dataset, labels among them, in UTC to the nanosecond; lazy ones stay lazy.

    Raises
    ------
    DataError
        Times that have no nanosecond (before 1677, after 2262), or some with a time zone and some without.
    """
    for name, variable in obj.variables.items():
        if not _has_times(variable) or variable.dtype == _NANOSECOND:
            continue
        if variable.chunks is not None:
            data = xr.apply_ufunc(
                times_in_utc, variable, str(name), dask="parallelized", output_dtypes=[np.dtype(_NANOSECOND)]
            ).data
        else:
            data = times_in_utc(variable.to_index() if variable.ndim == 1 else variable.values, str(name))
        fresh = xr.Variable(variable.dims, data, variable.attrs)
        obj = obj.assign_coords({name: fresh}) if name in obj.coords else obj.assign({name: fresh})
    return obj


def times_in_utc(values: Any, what: str) -> npt.NDArray[np.datetime64]:
    """Give times of any resolution and zone as datetime64[ns] in UTC; times without a zone are UTC.

    Raises
    ------
    DataError
        Times that have no nanosecond (before 1677, after 2262), or some with a time zone and some without.
    """
    shape = np.shape(values)
    try:
        index = pd.DatetimeIndex(values if isinstance(values, pd.Index) else np.ravel(values))
        if index.tz is not None:
            index = index.tz_convert("UTC").tz_localize(None)
        return np.asarray(index.as_unit("ns").to_numpy().reshape(shape))
    except (ValueError, TypeError) as error:  # pandas' errors of times out of bounds and of mixed zones are these
        raise DataError(
            f"{what}: these times cannot be brought to UTC",
            found=str(error).splitlines()[0],
            expected="times from 1678 to 2262, all with a time zone or all in UTC without one",
            fix='pandas.to_datetime(times, utc=True).tz_localize(None).as_unit("ns")',
        ) from error


def _labels_index(variable: xr.Variable, what: str) -> pd.Index:
    """Labels as a pandas index, times in UTC to the nanosecond."""
    index = variable.to_base_variable().to_index()
    return pd.DatetimeIndex(times_in_utc(index, what)) if _has_times(variable) else index


def _has_times(variable: xr.Variable) -> bool:
    """Whether these are times, of any resolution, with or without a time zone."""
    if variable.dtype.kind == "M" or isinstance(variable.dtype, pd.DatetimeTZDtype):
        return True
    if variable.dtype.kind != "O" or variable.chunks is not None or not variable.size:
        return False
    return pd.api.types.infer_dtype(np.ravel(variable.values), skipna=True) in ("datetime", "datetime64")
