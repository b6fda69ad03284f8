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

from xsmall.vocabulary import BINNED_EVENTS, FIRST_EVENT, LAST_EVENT, LONG_NAME, RUNS, SAMPLE_OF_EVENTS

__all__ = ["Held", "held_by"]

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
        ends = ("", "") if not len(known) else (_text(known.min()), _text(known.max()))
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


def held_by(obj: xr.Dataset) -> Held | None:
    """Read which events a result holds; None where nobody knows."""
    coord = obj.coords.get(BINNED_EVENTS)
    if coord is None or coord.ndim or SAMPLE_OF_EVENTS not in coord.attrs:
        return None
    sample = np.frombuffer(base64.b64decode(coord.attrs[SAMPLE_OF_EVENTS]), "<u8")
    runs = tuple(int(r) for r in np.ravel(coord.attrs.get(RUNS, [])))
    return Held(int(coord), coord.attrs.get(FIRST_EVENT, ""), coord.attrs.get(LAST_EVENT, ""), sample, runs)


def _text(label: Any) -> str:
    return str(label.isoformat()) if isinstance(label, pd.Timestamp) else str(label)
