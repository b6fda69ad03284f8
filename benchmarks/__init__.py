"""Timings of kernels and pipelines, as ratios that one run measures side by side.

``python -m benchmarks`` prints the table, ``python -m benchmarks azint droplet`` that of some modules, ``--quick`` runs
everything once on small arrays (the tests do that).

A module in this folder adds to the table by having a function

    def cases(scale: float) -> list[Case]: ...

where ``scale`` is 1 for the sizes of real detectors and less for a smoke test: multiply the number of rows (or events)
by it. A :class:`Case` names what is timed (``run``), how many events one call works on (``events``), what users would
otherwise take for the same (``baselines``, left out where their package is missing: use :func:`optional`), and the
floor: reading the same raw array once (``floor``, see :func:`read`).
"""

from __future__ import annotations

import importlib
import pkgutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from types import ModuleType

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["Case", "Timing", "measure", "modules", "optional", "read", "table"]

Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Parameters
    ----------
    name
        What is measured, with its size: ``"azint 4.2 Mpixel, 500 bins"``.
    run
        Ours; everything that is made once per process is made before.
    events
        Events that one call of ``run``, ``floor`` and every baseline works on; times are given per event.
    baselines
        By name, what is compared with; (call, events) where a slow one works on fewer events than ``run``.
    floor
        Reading the raw data of the same events once.
    goals
        How often the time of a baseline, of the ``"floor"``, or a number of ``"ms"``, we may take at the most.
    workers
        Threads that ``run`` works on: they share the time of the processor, where that is what is measured.
    wall
        Whether it is timed by the clock on the wall, whatever measures the others: what threads lose by waiting for one
        another is no time of the processor.
    """

    name: str
    run: Call
    events: int = 1
    baselines: Mapping[str, Call | tuple[Call, int]] = field(default_factory=dict)
    floor: Call | tuple[Call, int] | None = None
    goals: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    wall: bool = False


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one event: the least and the middle of some repeats."""

    least: float
    middle: float
    repeats: int


@njit
def _sum(values):  # type: ignore[no-untyped-def]
    total = values[0] * 0
    for i in range(values.size):
        total += values[i]
    return total


def read(*arrays: np.ndarray) -> Call:
    """Make the floor: sum contiguous arrays once, one after the other, with vector instructions."""
    flat = [a.reshape(-1) for a in arrays]
    return lambda: [_sum(a) for a in flat]


def optional(package: str) -> ModuleType | None:
    """Import a package that a baseline needs, or return None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what other people's packages warn of is not for our tests
            return importlib.import_module(package)
    except ImportError:
        return None


def modules(names: Iterable[str] = ()) -> Iterator[ModuleType]:
    """Import the modules of this folder that have ``cases``, or those of some names."""
    wanted = list(names)
    for found in pkgutil.iter_modules(__path__):
        if found.name != "__main__" and (not wanted or found.name in wanted):
            module = importlib.import_module(f"{__name__}.{found.name}")
            if hasattr(module, "cases"):
                yield module


def measure(
    case: Case, *, budget: float, most: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Time floor, run and baselines of a case in turn, so that a busy moment hits all of them.

    Each is called once to warm up, then until ``budget`` seconds are spent on it or ``most`` repeats are done.
    """
    clock = time.perf_counter if case.wall else clock
    calls: dict[str, tuple[Call, int]] = {"run": (case.run, case.events)}
    others = dict(case.baselines) if case.floor is None else {"floor": case.floor, **case.baselines}
    for name, given in others.items():
        calls[name] = given if isinstance(given, tuple) else (given, case.events)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    if most > 1:
        for call, _ in calls.values():
            call()
    for _ in range(most):
        for name, (call, _) in calls.items():
            if sum(seconds[name]) > budget:
                continue
            start = clock()
            call()
            seconds[name].append(clock() - start)
    per = {name: 1e3 / events for name, (_, events) in calls.items()}
    if clock is time.process_time:
        per["run"] /= case.workers
    return {name: Timing(min(s) * per[name], median(s) * per[name], len(s)) for name, s in seconds.items()}


def table(
    cases: Iterable[Case], *, budget: float = 0.5, most: int = 25, clock: Callable[[], float] = time.perf_counter
) -> Iterator[str]:
    """Time cases by a clock and yield the lines of the table as they come."""
    yield f"{'':44s} {'ms/event':>9s} {'median':>9s} {'floor':>9s} {'x floor':>8s}   others: ms/event (times ours)"
    for case in cases:
        timings = measure(case, budget=budget, most=most, clock=clock)
        ours, floor = timings["run"], timings.get("floor")
        ratio = f"{floor.least:9.3f} {ours.least / floor.least:8.2f}" if floor else f"{'':18s}"
        others = [
            f"{name} {t.least:.3g} ({t.least / ours.least:.3g}x)"
            for name, t in timings.items()
            if name in case.baselines
        ]
        others += [f"[{goal}]" for goal in _reached(case, timings)]
        others += ["by the clock on the wall"] if case.wall and clock is time.process_time else []
        yield f"{case.name:44s} {ours.least:9.3f} {ours.middle:9.3f} {ratio}   {', '.join(others)}"


def _reached(case: Case, timings: Mapping[str, Timing]) -> Iterator[str]:
    """Say for each goal of a case what we took, what we may take, and of what."""
    ours = timings["run"].least
    for name, limit in case.goals.items():
        if name == "ms" or name in timings:
            took = ours if name == "ms" else ours / timings[name].least
            yield f"{took:.3g} of {limit:.3g} {name}: {'reached' if took <= limit else 'missed'}"
