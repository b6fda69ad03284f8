"""What belongs together: events of two arrays by their labels, never by position."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.errors import DataError
from xsmall.events.labels import labels_of
from xsmall.vocabulary import EVENT

__all__ = ["JoinWarning", "find", "of_the_events", "positions"]


class JoinWarning(UserWarning):
    """Most events of two arrays do not belong together."""


def positions(wanted: xr.Dataset | xr.DataArray, of: xr.Dataset | xr.DataArray, name: str) -> npt.NDArray[np.int64]:
    """Find, for each event of ``of``, the event of ``wanted`` with the same label; -1 where there is none.

    An event without a label (NaT) is none of the others.

    Raises
    ------
    DataError
        No labels, labels of another kind, a label twice, or not a single one in common.

    Warns
    -----
    JoinWarning
        Fewer than half of the events that could be joined are.
    """
    left = labels_of(wanted, "the small data")
    right = labels_of(of, f"the images {name!r}")
    if len(left) and len(right) and _kind_of_labels(left) != _kind_of_labels(right):
        raise DataError(
            f"the images {name!r} and the small data have labels of other kinds",
            found=f"{right.dtype} and {left.dtype}",
            expected="the same kind of label, such as the time of each event",
        )
    found = find(right, left)
    joined, most = int((found >= 0).sum()), min(int(left.notna().sum()), int(right.notna().sum()))
    if len(left) and len(right) and not joined:
        raise DataError(
            f"the images {name!r} and the small data have no event in common",
            found=f"events {left[0]} to {left[-1]} and {right[0]} to {right[-1]}{_rounded(left, right)}",
            fix="images and small data of the same run",
        )
    if joined < most / 2:
        warnings.warn(
            f"only {joined} of {most} events of the images {name!r} and the small data belong together"
            f"{_rounded(left, right)}; the others are left out",
            JoinWarning,
            stacklevel=2,
        )
    return found


def _rounded(left: pd.Index, right: pd.Index) -> str:
    """Say how much times differ that would be neighbours: a clock that was rounded, or that is late."""
    if left.dtype.kind != "M" or len(left) < 2:
        return ""
    ours = np.sort(left[left.notna()].to_numpy().astype(np.int64))
    theirs = right[right.notna()].to_numpy().astype(np.int64)
    after = np.clip(np.searchsorted(ours, theirs), 1, ours.size - 1)
    away = np.minimum(np.abs(ours[after] - theirs), np.abs(ours[after - 1] - theirs))
    typical = float(np.median(away[away > 0])) if (away > 0).any() else 0.0
    if not 0 < typical < np.median(np.diff(ours)):
        return ""
    return f" (times that would be neighbours differ by {typical * 1e-6:.4g} ms: was one of them rounded?)"


def of_the_events(values: xr.DataArray, obj: xr.Dataset | xr.DataArray, name: str) -> xr.DataArray:
    """Give ``values`` (event, ...) in the order of the events of ``obj``, by labels; as they come where one has none.

    Raises
    ------
    DataError
        An event of ``obj`` that has no value; a label twice.
    """
    if EVENT not in values.coords or EVENT not in obj.coords or values[EVENT].variable.equals(obj[EVENT].variable):  # type: ignore[no-untyped-call]
        return values
    ours, theirs = labels_of(obj, "the data"), labels_of(values, name)
    at = find(ours, theirs)
    if (at < 0).any():
        raise DataError(
            f"{name} belongs to other events",
            found=f"{theirs.size} events, {int((at >= 0).sum())} of the {ours.size} events of the data among them",
            expected="a value for each event of the data",
            fix=f"data.sel({EVENT}=data.{EVENT}.isin({name}.{EVENT})), or {name} of the same events",
        )
    return values.isel({EVENT: at})


def find(these: pd.Index, among: pd.Index) -> npt.NDArray[np.int64]:
    """Place of each of ``these`` labels among others, -1 where it is none of them; what is no label is none."""
    known = np.flatnonzero(among.notna())
    at = np.where(these.isna(), -1, among[known].get_indexer(these))
    return np.where(at < 0, -1, np.append(known, -1)[at]).astype(np.int64)


def _kind_of_labels(index: pd.Index) -> str:
    return "number" if index.dtype.kind in "iuf" else str(index.dtype.kind)
