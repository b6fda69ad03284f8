"""What changes slowly: steps, scan variables, slow control, run information, configuration.

A slow value holds from its own time until the next: an event has the last one with time <= its own, and none before the
first. Steps count the BeginStep datagrams of the file from 0.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.io.sources.xtc2.format import Enumeration, Service, Value
from xsmall.io.sources.xtc2.index import Content, Index

SCAN: Final = "scan"
EPICS: Final = "epics"
_SLOW: Final = frozenset({SCAN, EPICS})
_BEARERS: Final = (Service.BEGIN_RUN, Service.BEGIN_STEP, Service.ENABLE, Service.SLOW_UPDATE)
"""Transitions that bring slow values; the end of a run can bring sums as large as the detector instead."""
_EXACT: Final = 1 << 53
"""Integers up to here are exact as float64, which has NaN for what is missing."""

Configuration = dict[int, dict[str, Value]]
"""Values by segment and field."""


class Held(NamedTuple):
    """A slow variable: where it comes from, and its values in the order of time."""

    source: str  # "scan" or "epics"
    name: str
    times: npt.NDArray[np.uint64]
    values: list[Value]


@dataclass(frozen=True)
class RunInfo:
    """What BeginRun says: experiment and number of the run, with the time from which it holds."""

    time: int
    experiment: str
    run: int


def last_before(times: npt.NDArray[np.uint64], events: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """For each event the number of the last of the rising ``times`` with time <= its own; -1 where there is none."""
    return np.searchsorted(times, events, side="right") - 1


def step_of_event(index: Index) -> npt.NDArray[np.int64]:
    """Number of the step of each event, -1 before the first BeginStep."""
    times = np.array([t.datagram.time for t in index.of_service(Service.BEGIN_STEP)], np.uint64)
    return last_before(times, index.time).astype(np.int64)


def _slow_contents(index: Index) -> Iterator[tuple[int, Content]]:
    for transition in index.of_service(*_BEARERS):
        if transition.datagram.size > 24:
            for content in index.read(transition):
                yield transition.datagram.time, content


@lru_cache(maxsize=8)
def held_variables(index: Index) -> list[Held]:
    """Collect scan variables and slow-control values of a file, in the order of their first value."""
    found: dict[tuple[str, str, int], tuple[list[int], list[Value]]] = {}
    for time, content in _slow_contents(index):
        source = content.names.detector
        if source in _SLOW and content.names.alg == "raw":
            for name, value in content.values.items():
                times, values = found.setdefault((source, name, content.names.segment), ([], []))
                times.append(time)
                values.append(value)
    several: dict[tuple[str, str], int] = defaultdict(int)
    for source, name, _ in found:
        several[source, name] += 1
    return [
        Held(source, name if several[source, name] == 1 else f"{name}_{segment}", np.array(times, np.uint64), values)
        for (source, name, segment), (times, values) in found.items()
    ]


@lru_cache(maxsize=8)
def run_infos(index: Index) -> list[RunInfo]:
    """Experiment and run number of every BeginRun."""
    result = []
    for transition in index.of_service(Service.BEGIN_RUN):
        for content in index.read(transition):
            expt, run = content.values.get("expt"), content.values.get("runnum")
            if content.names.detector == "runinfo" and isinstance(expt, str) and isinstance(run, np.integer):
                result.append(RunInfo(transition.datagram.time, expt, int(run)))
    return result


def process_variables(index: Index) -> dict[str, str]:
    """Name of the process variable behind each slow-control field, where the Configure tells."""
    return {
        field: value
        for t in index.of_service(Service.CONFIGURE)
        for c in index.read(t)
        if c.names.detector == "epicsinfo"
        for field, value in c.values.items()
        if isinstance(value, str) and field != "keys"
    }


@lru_cache(maxsize=8)
def configurations(index: Index) -> dict[str, list[Configuration]]:
    """Configuration of every detector, one for each step of the file, or a single one where there is no step.

    Values that come with a later transition lie over those of the Configure; an enumeration keeps the labels of the
    Configure, because later tables bring none.
    """
    state: dict[str, Configuration] = {}
    steps: list[dict[str, Configuration]] = []
    for transition in index.transitions:
        datagram = transition.datagram
        if datagram.service == Service.CONFIGURE:
            state = {}
        if datagram.service == Service.BEGIN_STEP:
            steps.append({})
        if datagram.size > 24 and datagram.service in (Service.CONFIGURE, *_BEARERS):
            for content in index.read(transition):
                if content.names.alg == "config":
                    state = _overlay(state, content)
        if steps:
            steps[-1] = state
    versions = steps or [state]
    detectors = dict.fromkeys(d for version in versions for d in version)
    return {d: [version.get(d, {}) for version in versions] for d in detectors}


def _overlay(state: dict[str, Configuration], content: Content) -> dict[str, Configuration]:
    names = content.names
    detector = state.get(names.detector, {})
    values = dict(detector.get(names.segment, {}))
    for name, value in content.values.items():
        before = values.get(name)
        if isinstance(value, Enumeration) and isinstance(before, Enumeration) and not value.labels:
            value = Enumeration(value.value, before.labels)
        values[name] = value
    return {**state, names.detector: {**detector, names.segment: values}}


class Column(NamedTuple):
    """Values brought to one array, one along the first axis for each; with CF attributes."""

    data: npt.NDArray[Any]
    attrs: dict[str, Any]


def column(values: Sequence[Value | None]) -> Column | None:
    """Bring values, None where missing, to one array; None where they have no common form.

    Missing text is empty, missing numbers are NaN: integers become float64 then, if they are exact in it.
    """
    known = [v for v in values if v is not None]
    if not known:
        return None
    if all(isinstance(v, str) for v in known):
        return Column(np.array(["" if v is None else v for v in values], dtype=np.str_), {})
    attrs: dict[str, Any] = {}
    labels: Mapping[int, str] = {}
    numbers: list[npt.NDArray[Any] | None] = []
    for v in values:
        if isinstance(v, str):
            return None
        if isinstance(v, Enumeration):
            labels = v.labels or labels
        number = v.value if isinstance(v, Enumeration) else v
        numbers.append(None if number is None else np.asarray(number))
    first = next(n for n in numbers if n is not None)
    if any(n is not None and n.shape != first.shape for n in numbers):
        return None
    if labels:
        attrs = {"flag_values": [int(k) for k in labels], "flag_meanings": " ".join(labels.values())}
    there = [n for n in numbers if n is not None]
    if len(there) == len(numbers):
        return Column(np.stack(there), attrs)
    stacked = np.stack(there)
    if stacked.dtype.kind in "iu" and stacked.size and int(np.abs(stacked.astype(object)).max()) > _EXACT:
        return None
    result = np.full((len(numbers), *first.shape), np.nan, np.result_type(stacked.dtype, np.float32))
    result[[n is not None for n in numbers]] = stacked
    return Column(result, attrs)
