"""A record that somebody else wrote keeps what its outputs promise, or one error says what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(10, shape=(2, 32, 64), seed=1)
    return sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)


class Totals(xs.Totals):
    def __init__(self, counts: Any, made: Callable[[Any], Any] = lambda counts: {"c": counts}) -> None:
        self.counts, self.made = counts, made

    def joined(self, other: Any) -> "Totals":
        return Totals(self.counts + other.counts, self.made)

    def finish(self) -> Any:
        return self.made(self.counts)

    def arrays(self) -> dict[str, Any]:
        return {"counts": self.counts}


class MineReducer(xs.Reducer):
    def __init__(self, record: "Mine") -> None:
        self.record = record

    def begin(self, k: int) -> None:
        self.k = k

    def add(self, s: int, frames: Any, variance: Any = None) -> None:
        if self.record.add is not None:
            self.record.add(frames)

    def end(self) -> Any:
        good = {"a": np.ones((self.k, 2), "i4"), "b": np.ones(self.k)}
        return self.record.change(good, self.k)

    def totals(self) -> Any:
        return None if self.record.totals is None else self.record.totals()


@dataclass(frozen=True)
class Mine(xs.Record):
    change: Callable[[Any, int], Any] = lambda good, k: good
    add: Any = None
    totals: Any = None
    summed: bool = False

    def outputs(self, frames: Any) -> dict[str, xs.Output]:
        out = {"a": xs.Output(("segment",), (2,), np.dtype("i4")), "b": xs.Output((), (), np.dtype("f8"))}
        return out | ({"c": xs.Output(("bin",), (3,), np.dtype("f8"), summed=True)} if self.summed else {})

    def reducer(self, frames: Any) -> xs.Reducer:
        return MineReducer(self)


AGAIN = {"a": np.ones((4, 2), "i4"), "b": np.ones(4)}
BROKEN: dict[str, tuple[Mine, str]] = {
    "a variable less": (Mine(lambda good, k: {"a": good["a"]}), r"end\(\) gives \['a'\]"),
    "a variable more": (Mine(lambda good, k: good | {"z": good["b"]}), r"\['a', 'b', 'z'\]"),
    "nothing": (Mine(lambda good, k: None), "NoneType"),
    "another shape": (Mine(lambda good, k: good | {"a": np.ones((k, 3), "i4")}), r"a of shape \(4, 3\)"),
    "no event": (Mine(lambda good, k: good | {"b": 1.0}), "events first"),
    "fractions as integers": (Mine(lambda good, k: good | {"a": np.full((k, 2), 1.7)}), "float64"),
    "the same array again": (Mine(lambda good, k: {n: x[:k] for n, x in AGAIN.items()}), "anew for each group"),
    "nothing gathered": (Mine(summed=True), r"totals\(\) gives NoneType"),
    "an array gathered": (Mine(summed=True, totals=lambda: np.ones(3)), "an xs.Totals"),
    "sums of nothing": (Mine(totals=lambda: np.ones(3)), "nothing is summed"),
    "another sum": (Mine(summed=True, totals=lambda: Totals(np.ones(3), lambda c: {"d": c})), r"finish\(\) gives"),
    "a sum of another shape": (Mine(summed=True, totals=lambda: Totals(np.ones(4))), r"c of shape \(4,\)"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_record_that_returns_something_else_is_told_so(cal: xr.DataArray, what: str, lazy: bool) -> None:
    record, message = BROKEN[what]
    frames = cal if lazy else cal.compute()
    with pytest.raises(ParameterError, match=message):
        xs.apply(frames, record).compute()


def test_a_record_that_keeps_its_promise_is_taken(cal: xr.DataArray) -> None:
    lists = Mine(lambda good, k: {"a": good["a"], "b": [1.0] * k}, summed=True, totals=lambda: Totals(np.ones(3)))
    for frames in (cal, cal.compute(), cal.chunk(event=3)):
        found = xs.apply(frames, lists).compute()
        assert {name: (x.shape, x.dtype.kind) for name, x in found.data_vars.items()} == {
            "a": ((10, 2), "i"),
            "b": ((10,), "f"),
            "c": ((3,), "f"),
        }


def test_frames_of_a_user_cannot_be_written_to(cal: xr.DataArray) -> None:
    frames = cal.compute()
    before = frames.copy(deep=True)
    with pytest.raises(ValueError, match="read-only"):
        xs.apply(frames, Mine(add=lambda stack: stack.fill(0)))
    xr.testing.assert_identical(frames, before)


def test_a_record_is_called_as_its_class_where_it_does_not_say() -> None:
    assert Mine.name == "mine"
    assert type(xs.roi(xs.Box())).name == "roi"


def test_a_record_without_a_reducer_is_told_so(cal: xr.DataArray) -> None:
    class NoReducer(Mine):
        def reducer(self, frames: Any) -> Any:
            return None

    with pytest.raises(ParameterError, match="makes no reducer"):
        xs.apply(cal.compute(), NoReducer())
