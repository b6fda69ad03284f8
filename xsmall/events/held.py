"""Which events a result holds: how many, from when to when, and a fixed sample of them that tells the same ones again.

The sample is the labels with the smallest hashes, all of them up to 4096. Two samples of which one label is the same
share events for sure. Of two that share none, less than one event in 500 is in both (chance 3e-4), and none where no
more than 4096 events are held.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.events.labels import is_labelled, labels_of
from xsmall.vocabulary import (
    BINNED_EVENTS,
    EVENT,
    FIRST_EVENT,
    GEOMETRY,
    LAST_EVENT,
    LONG_NAME,
    RUN,
    RUNS,
    SAMPLE_OF_EVENTS,
)

__all__ = ["Held", "held_by", "with_events"]

SAMPLE: Final = 4096


@dataclass(frozen=True, eq=False)
class Held:
    """Events that a result holds.

    Attributes
    ----------
    n
        How many.
    first, last
        Smallest and largest label as text.
    sample
        Smallest hashes of their labels, rising, uint64.
    runs
        Numbers of the runs that they are of, as far as they are known.
    """

    n: int
    first: str
    last: str
    sample: npt.NDArray[np.uint64]
    runs: tuple[int, ...] = ()

    @classmethod
    def of(cls, labels: pd.Index, runs: Iterable[int] = ()) -> Held:
        """Take the events with these labels, and the numbers of their runs; cost: one hash of each."""
        known = labels[labels.notna()]
        values = known.to_numpy()
        hashes = pd.util.hash_array(values.view(np.int64) if values.dtype.kind == "M" else values)
        if hashes.size > SAMPLE:
            hashes = np.partition(hashes, SAMPLE)[:SAMPLE]
        ends = ("", "") if not len(known) else (_label_text(known.min()), _label_text(known.max()))
        return cls(len(known), *ends, np.sort(hashes), tuple(sorted({int(r) for r in runs})))

    def __or__(self, other: Held) -> Held:
        ends = [x for one in (self, other) if one.n for x in (one.first, one.last)] or [""]
        sample = np.union1d(self.sample, other.sample)[:SAMPLE]
        return Held(self.n + other.n, min(ends), max(ends), sample, tuple(sorted({*self.runs, *other.runs})))

    def shared(self, other: Held) -> int:
        """How many events of the two samples are the same."""
        return int(np.intersect1d(self.sample, other.sample).size)

    def coordinate(self) -> xr.Variable:
        """Write it as a scalar coordinate: the number as value, the rest in its attributes."""
        attrs: dict[str, Any] = {
            LONG_NAME: "events in the bins",
            FIRST_EVENT: self.first,
            LAST_EVENT: self.last,
            **({RUNS: list(self.runs)} if self.runs else {}),
            SAMPLE_OF_EVENTS: base64.b64encode(self.sample.astype("<u8").tobytes()).decode(),
        }
        return xr.Variable((), self.n, attrs)


def with_events(result: xr.Dataset, events: xr.Dataset | xr.DataArray, bins: npt.NDArray[np.int64]) -> xr.Dataset:
    """Write down in a result which events are in it: those that have a bin, as far as they have labels."""
    if not is_labelled(events):
        return result
    held = Held.of(labels_of(events, "the events")[bins >= 0], _run_numbers(events, bins))
    # the geometry stays the last coordinate: a representation shows the long text of its rule at the end
    last = {name: c.variable for name, c in result.coords.items() if name == GEOMETRY}
    return result.drop_vars(list(last)).assign_coords({BINNED_EVENTS: held.coordinate(), **last})


def _run_numbers(events: xr.Dataset | xr.DataArray, bins: npt.NDArray[np.int64]) -> list[int]:
    """Numbers of the runs of the events in the bins, as far as they are known without computing."""
    known = events.variables if isinstance(events, xr.Dataset) else events.coords
    if RUN in known and events[RUN].dims == (EVENT,):
        numbers = events[RUN].variable
        return [] if numbers.chunks is not None else np.unique(numbers.values[bins >= 0]).astype(int).tolist()
    said = np.ravel(events.attrs.get(RUN, []))
    return [int(n) for n in said] if said.dtype.kind in "iu" else []


def held_by(obj: xr.Dataset) -> Held | None:
    """Read which events a result holds; None where nobody knows."""
    coord = obj.coords.get(BINNED_EVENTS)
    if coord is None or coord.ndim or SAMPLE_OF_EVENTS not in coord.attrs:
        return None
    sample = np.frombuffer(base64.b64decode(coord.attrs[SAMPLE_OF_EVENTS]), "<u8")
    runs = tuple(int(r) for r in np.ravel(coord.attrs.get(RUNS, [])))
    return Held(int(coord), coord.attrs.get(FIRST_EVENT, ""), coord.attrs.get(LAST_EVENT, ""), sample, runs)


def _label_text(label: Any) -> str:
    return str(label.isoformat()) if isinstance(label, pd.Timestamp) else str(label)
