"""What belongs together: events of two arrays by their labels, never by position."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.calls import warn_user
from xsmall.errors import DataError
from xsmall.events.labels import labels_of
from xsmall.vocabulary import EVENT

__all__ = ["JoinWarning", "find", "joined", "of_the_events", "positions"]


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
    labels = labels_of(of, f"the images {name!r}"), labels_of(wanted, "the small data")
    return joined(*labels, f"the images {name!r} and the small data")


def joined(these: pd.Index, among: pd.Index, names: str) -> npt.NDArray[np.int64]:
    """Find the place of each of ``these`` labels among others as :func:`find` does; ``names`` says whose both are.

    Raises
    ------
    DataError
        Labels of another kind, or not a single one in common.

    Warns
    -----
    JoinWarning
        Fewer than half of the events that could be joined are.
    """
    if len(these) and len(among) and _kind_of_labels(these) != _kind_of_labels(among):
        raise DataError(
            f"{names} have labels of other kinds",
            found=f"{these.dtype} and {among.dtype}",
            expected="the same kind of label, such as the time of each event",
        )
    found = find(these, among)
    n, most = int((found >= 0).sum()), min(int(these.notna().sum()), int(among.notna().sum()))
    if len(these) and len(among) and not n:
        raise DataError(
            f"{names} have no event in common",
            found=f"events {these[0]} to {these[-1]} and {among[0]} to {among[-1]}{_rounded(these, among)}",
            expected="events of the same run",
        )
    if n < most / 2:
        warn_user(
            f"only {n} of {most} events of {names} belong together{_rounded(these, among)}; the others are left out",
            JoinWarning,
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
