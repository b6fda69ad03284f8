"""What changes slowly: steps, scan variables, slow control, run information, configuration.

A slow value holds from its own time until the next: an event has the last one with time <= its own, and none before the
first. Whichever stream of a run has a value gives it. Steps are counted from 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.io.sources.xtc2.format import HEADER_BYTES, Enumeration, Service, Value
from xsmall.io.sources.xtc2.index import Content
from xsmall.io.sources.xtc2.run_index import Bearer, RunIndex

SCAN: Final = "scan"
EPICS: Final = "epics"
_SLOW: Final = frozenset({SCAN, EPICS})
_BEARERS: Final = (Service.BEGIN_RUN, Service.BEGIN_STEP, Service.ENABLE, Service.SLOW_UPDATE)
"""Transitions that bring slow values; the end of a run can bring sums as large as the detector instead."""
_EXACT: Final = 1 << 53
"""Integers up to here are exact as float64, which has NaN for what is missing."""

Configuration = dict[int, dict[str, Value]]
"""Values by segment and field."""


class SlowVariable(NamedTuple):
    """A slow variable: where it comes from, and its values in the order of time."""

    source: str  # "scan" or "epics"
    name: str
    times: npt.NDArray[np.uint64]
    values: list[Value]


def last_before(times: npt.NDArray[np.uint64], events: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """For each event the number of the last of the rising ``times`` with time <= its own; -1 where there is none."""
    return np.searchsorted(times, events, side="right") - 1


def step_of_event(run: RunIndex) -> npt.NDArray[np.int64]:
    """Number of the step of each event, -1 before the first BeginStep."""
    return last_before(run.steps, run.time).astype(np.int64)


def _slow_contents(run: RunIndex) -> Iterator[tuple[Bearer, Content]]:
    for bearer in run.of_service(*_BEARERS):
        if bearer.transition.datagram.size > HEADER_BYTES:
            for content in run.read(bearer):
                yield bearer, content


@lru_cache(maxsize=8)
def held_variables(run: RunIndex) -> list[SlowVariable]:
    """Collect scan variables and slow-control values of a run, in the order of their first value.

    Their tables are known by the name of the detector: what the algorithm is called differs between writers. The same
    values in several streams are one variable; others of the same name are told apart by segment and stream.
    """
    found: dict[tuple[str, str], dict[tuple[int, int], tuple[list[int], list[Value]]]] = {}
    for bearer, content in _slow_contents(run):
        source = content.names.detector
        if source in _SLOW:
            for name, value in content.values.items():
                lists = found.setdefault((source, name), {})
                times, values = lists.setdefault((content.names.segment, bearer.stream), ([], []))
                times.append(bearer.time)
                values.append(value)
    result = []
    for (source, name), lists in found.items():
        one: dict[tuple[int, int], tuple[list[int], list[Value]]] = {}
        for key, series in lists.items():
            if not any(key[0] == other[0] and _tell_the_same(series, known) for other, known in one.items()):
                one[key] = series
        for key, (times, values) in one.items():
            result.append(SlowVariable(source, name + _ending(key, list(one)), np.array(times, np.uint64), values))
    return result


def _tell_the_same(a: tuple[list[int], list[Value]], b: tuple[list[int], list[Value]]) -> bool:
    """Whether two streams tell the same values at the same times."""
    if a[0] != b[0]:
        return False
    pairs = zip(a[1], b[1], strict=True)
    return all(x == y if isinstance(x, str | Enumeration) else _equal(x, y) for x, y in pairs)


def _equal(x: Value, y: Value) -> bool:
    if isinstance(y, str | Enumeration):
        return False
    return np.array_equal(np.asarray(x), np.asarray(y), equal_nan=np.asarray(x).dtype.kind == "f")


def _ending(key: tuple[int, int], others: Sequence[tuple[int, int]]) -> str:
    """Tell apart what has one name: by segment, and where that is not enough by stream."""
    ending = f"_{key[0]}" if len({segment for segment, _ in others}) > 1 else ""
    return ending + (f"_s{key[1]}" if sum(key[0] == segment for segment, _ in others) > 1 else "")


def process_variables(run: RunIndex) -> dict[str, str]:
    """Name of the process variable behind each slow-control field, where the Configure tells."""
    return {
        field: value
        for bearer in run.of_service(Service.CONFIGURE)
        for c in run.read(bearer)
        if c.names.detector == "epicsinfo"
        for field, value in c.values.items()
        if isinstance(value, str) and field != "keys"
    }


@lru_cache(maxsize=8)
def configurations(run: RunIndex) -> dict[str, list[Configuration]]:
    """Configuration of every detector, one for each step of the run, or a single one where there is no step.

    Values that come with a later transition lie over those of the Configure; an enumeration keeps the labels of the
    Configure, because later tables bring none. A new Configure replaces what its own stream said.
    """
    states: list[dict[str, Configuration]] = [{} for _ in run.streams]
    before: dict[str, Configuration] = {}
    steps: dict[int, dict[str, Configuration]] = {}
    for bearer in run.transitions:
        if bearer.service == Service.CONFIGURE:
            states[bearer.stream] = {}
        if bearer.transition.datagram.size > HEADER_BYTES and bearer.service in (Service.CONFIGURE, *_BEARERS):
            for content in run.read(bearer):
                if content.names.alg == "config":
                    states[bearer.stream] = _overlay(states[bearer.stream], content)
        step = int(last_before(run.steps, np.array([bearer.time], np.uint64))[0])
        if step < 0:
            before = _streams_together(states)
        else:
            steps[step] = _streams_together(states)
    versions = [steps.get(k, before) for k in range(run.steps.size)] or [before]
    detectors = dict.fromkeys(d for version in versions for d in version)
    return {d: [version.get(d, {}) for version in versions] for d in detectors}


def _streams_together(states: Sequence[dict[str, Configuration]]) -> dict[str, Configuration]:
    """Join what the streams say: a detector's segments may be spread over them."""
    if len(states) == 1:
        return states[0]
    result: dict[str, Configuration] = {}
    for state in states:
        for detector, segments in state.items():
            held = result.setdefault(detector, {})
            result[detector] = held | {s: held.get(s, {}) | values for s, values in segments.items()}
    return result


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
