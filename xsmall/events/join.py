"""What belongs together: events of two arrays by their timestamps, never by position; values and their variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import EVENT, TIMESTAMP, VARIANCE_SUFFIX

__all__ = ["pair", "positions"]


def positions(wanted: xr.Dataset | xr.DataArray, of: xr.Dataset | xr.DataArray, name: str) -> npt.NDArray[np.int64]:
    """Find, for each event of ``of``, the event of ``wanted`` with the same timestamp; -1 where there is none.

    Raises
    ------
    DataError
        No timestamps, a timestamp twice, or not a single one in common.
    """
    left = _timestamps(wanted, "the small data")
    right = _timestamps(of, f"the images {name!r}")
    found = left.get_indexer(right)
    if len(left) and len(right) and not (found >= 0).any():
        raise DataError(
            f"the images {name!r} and the small data have no event in common",
            found=f"timestamps {left[0]} to {left[-1]} and {right[0]} to {right[-1]}",
            fix="images and small data of the same run",
        )
    return np.asarray(found, np.int64)


def _timestamps(obj: xr.Dataset | xr.DataArray, what: str) -> Any:
    if TIMESTAMP not in obj.coords or obj.coords[TIMESTAMP].dims != (EVENT,):
        raise DataError(
            f"{what} cannot be joined: events have no timestamps",
            found=f"coordinates {sorted(map(str, obj.coords))}",
            expected=f"{TIMESTAMP!r} over {EVENT!r}",
            fix=f"obj.assign_coords({TIMESTAMP}=({EVENT!r}, times)).set_xindex({TIMESTAMP!r})",
        )
    index = obj.coords[TIMESTAMP].variable.to_base_variable().to_index()
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise DataError(
            f"{what} cannot be joined: a timestamp is there twice",
            found=f"{twice} {int((index == twice).sum())} times",
            fix=f"obj.drop_duplicates({EVENT!r}) after looking at why",
        )
    return index


def pair(name: str, given: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the values over events that are meant, and in a Dataset their variance."""
    if isinstance(given, xr.DataArray):
        return given, None
    if not isinstance(given, xr.Dataset):
        raise DataError(f"{name!r} has to be a DataArray, or a Dataset with its variance", found=type(given).__name__)
    all_of_them = [str(v) for v in given.data_vars if EVENT in given[v].dims]
    values = [v for v in all_of_them if v.removesuffix(VARIANCE_SUFFIX) not in set(all_of_them) - {v}]
    if len(values) != 1:
        raise DataError(
            f"{name!r} has to be one variable, perhaps with its variance",
            found=f"{len(values)} variables over events: {values[:8]}",
            fix='dataset["name"], or dataset[["name", "name_variance"]]',
        )
    variance = f"{values[0]}{VARIANCE_SUFFIX}"
    if variance not in all_of_them:
        return given[values[0]], None
    if given[variance].dims != given[values[0]].dims:
        raise DataError(
            f"{variance} has other dims than its values", found=given[variance].dims, expected=given[values[0]].dims
        )
    return given[values[0]], given[variance]
