"""Event building: streams of any rate come together by time, whatever read them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Joined", "join_streams"]


class Joined(NamedTuple):
    """The events of several streams.

    Attributes
    ----------
    time
        Time of each event, rising; twice the same only where a stream has it twice.
    rows
        For each stream the number of its record in each event, -1 where it has none.
    repeated
        Records whose time their stream has already had.
    out_of_order
        Records that come after a later one in their stream.
    """

    time: npt.NDArray[np.uint64]
    rows: tuple[npt.NDArray[np.int64], ...]
    repeated: int
    out_of_order: int


def join_streams(times: Sequence[npt.NDArray[np.uint64]]) -> Joined:
    """Join streams by time, nothing left out: equal time is the same event.

    A time that a stream has twice makes two events, the second of them of the second records: nothing is lost, and
    whoever joins by label is told.

    Parameters
    ----------
    times
        Of the records of each stream, in its own order.
    """
    orders = [np.argsort(t, kind="stable") for t in times]
    ordered = [t[order] for t, order in zip(times, orders, strict=True)]
    out_of_order = sum(int((t < np.maximum.accumulate(t)).sum()) for t in times if t.size)
    occurrences = [_occurrence(t) for t in ordered]
    if len(times) == 1:
        repeated = int((occurrences[0] > 0).sum())
        return Joined(ordered[0], (orders[0].astype(np.int64),), repeated, out_of_order)
    time = _union_of_times(ordered, occurrences)
    rows = []
    for own, number, order in zip(ordered, occurrences, orders, strict=True):
        at = np.searchsorted(time, own) + number  # events of one time are numbered from 0 without a gap
        row = np.full(time.size, -1, np.int64)
        row[at] = order
        rows.append(row)
    return Joined(time, tuple(rows), sum(int((n > 0).sum()) for n in occurrences), out_of_order)


def _occurrence(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How often each time was there before, in rising times."""
    first = np.searchsorted(ordered, ordered, side="left") if _has_twins(ordered) else np.arange(ordered.size)
    return np.arange(ordered.size) - first


def _has_twins(ordered: npt.NDArray[np.uint64]) -> bool:
    return bool((ordered[1:] == ordered[:-1]).any())


def _union_of_times(
    times: Sequence[npt.NDArray[np.uint64]], occurrences: Sequence[npt.NDArray[np.int64]]
) -> npt.NDArray[np.uint64]:
    time = np.concatenate([*times, np.empty(0, np.uint64)])
    occurrence = np.concatenate([*occurrences, np.empty(0, np.int64)])
    order = np.lexsort((occurrence, time))
    time, occurrence = time[order], occurrence[order]
    new = np.ones(time.size, bool)
    new[1:] = (time[1:] != time[:-1]) | (occurrence[1:] != occurrence[:-1])
    return np.asarray(time[new])
