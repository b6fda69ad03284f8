"""A user's own function: one pass with all other records, and an event in which it fails does not stop the others."""

import threading
from typing import Any

import dask
import dask.array as da
import numba
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError

SHAPE = (2, 16, 32)


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(9, shape=SHAPE, seed=1)
    found: xr.DataArray = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    return found


def total(frame: Any) -> float:
    return float(np.nansum(frame))


@numba.njit(nogil=True)
def bright(frame):  # type: ignore[no-untyped-def]
    n = 0
    for value in frame.ravel():
        n += value > 5.0
    return n


def several(frame: Any) -> dict[str, Any]:
    return {
        "mean": np.nanmean(frame),
        "rows": np.nansum(frame, axis=(0, 2)),
        "high": [float(v) for v in frame[frame > 8.0]],
        "lit": bool(np.nanmax(frame) > 20.0),
    }


def test_it_equals_a_bare_loop_however_the_frames_are_cut(cal: xr.DataArray, computing_is_forbidden: Any) -> None:
    frames = cal.compute().values
    with computing_is_forbidden():
        lazy = cal.chunk(event=4).sd.reduce(
            {"mine": several, "sum": total, "fast": bright, "box": xs.projection("row")}
        )
    for small in (lazy.compute(scheduler="threads"), lazy.compute(scheduler="synchronous"), cal.compute().sd.reduce(
        {"mine": several, "sum": total, "fast": bright}
    )):  # fmt: skip
        np.testing.assert_array_equal(small["sum_value"], [total(f) for f in frames])
        np.testing.assert_array_equal(small["fast_value"], [bright(f) for f in frames])
        np.testing.assert_array_equal(small["mine_rows"], [np.nansum(f, axis=(0, 2)) for f in frames])
        for found, f in zip(small["mine_high"].values, frames, strict=True):
            np.testing.assert_array_equal(found, f[f > 8.0])
        assert small["mine_lit"].dtype == bool
        assert not small["mine_failed"].any()
    flat = xs.flatten(lazy.compute())
    assert flat["mine_high"].size == (frames > 8.0).sum()


def test_apply_has_the_names_of_the_function_itself(cal: xr.DataArray) -> None:
    ours = cal.sd.apply(total)
    assert sorted(ours) == ["error", "failed", "value"]
    xr.testing.assert_identical(ours.compute(), xs.apply(cal, total).compute())


def test_an_event_in_which_it_fails_is_told_and_the_others_go_on(cal: xr.DataArray) -> None:
    limit = float(np.median([total(f) for f in cal.values]))

    def fussy(frame: Any) -> dict[str, Any]:
        if total(frame) > limit:
            raise RuntimeError("too much light")
        return {"sum": total(frame), "n": 3, "list": [1.0]}

    outputs = {"sum": "f8", "n": "i4", "list": xs.Output(("hit",), (None,), np.dtype("f8"))}
    small = cal.chunk(event=2).sd.apply(fussy, outputs=outputs).compute()
    expected = np.array([total(f) > limit for f in cal.values])
    assert 0 < expected.sum() < 9
    np.testing.assert_array_equal(small["failed"], expected)
    assert set(small["error"].values[expected]) == {"RuntimeError: too much light"}
    assert set(small["error"].values[~expected]) == {""}
    assert np.isnan(small["sum"].values[expected]).all()
    assert [len(v) for v in small["list"].values] == [0 if e else 1 for e in expected]

    def uneven(frame: Any) -> Any:
        return np.zeros(2 if np.nansum(frame) > limit else 3)

    shapes = cal.sd.apply(uneven, outputs={"value": xs.Output(("a",), (3,), np.dtype("f8"))}).compute()
    np.testing.assert_array_equal(shapes["failed"], expected)


def test_it_may_take_the_variance() -> None:
    sim = xs.simulate(4, shape=SHAPE, seed=1)
    raw = sim.run["jungfrau"]["raw"]
    both = raw.sd.calibrate(sim.constants, variance="noise")
    ours = both.sd.apply(lambda frame, variance: np.nansum(frame / variance), variance=True)
    expected = (both["calibrated"] / both["calibrated_variance"]).sum(("segment", "row", "column"))
    np.testing.assert_allclose(ours["value"], expected, rtol=1e-4)
    with pytest.raises(ParameterError, match="do not have"):
        both["calibrated"].sd.apply(lambda frame, variance: 0.0, variance=True, outputs={"value": "f8"})


def test_every_chunk_is_read_and_calibrated_once() -> None:
    sim = xs.simulate(60, shape=SHAPE, seed=1)
    raw = sim.run["jungfrau"]["raw"].compute()
    reads: list[int] = []

    def read(block: Any, block_info: Any = None) -> Any:
        reads.append(block_info[0]["chunk-location"][0])
        return block

    source = da.from_array(raw.values, chunks=(10, -1, -1, -1))
    counted = raw.copy(data=source.map_blocks(read, dtype=raw.dtype, meta=np.empty((0,) * 4, raw.dtype)))
    cal = counted.sd.calibrate(sim.constants)
    small = cal.sd.reduce({"rows": xs.projection("row"), "mine": total, "more": several})
    assert reads == []
    dask.compute(small)
    assert sorted(reads) == list(range(6))


def test_what_cannot_be_a_record_is_refused(cal: xr.DataArray) -> None:
    def broken(frame: Any) -> float:
        raise KeyError("no")

    lock = threading.Lock()
    for make, text in (
        (lambda: cal.sd.apply(3), "made of a function"),
        (lambda: xs.apply(cal, 3), "neither a record nor a function"),  # type: ignore[arg-type]
        (lambda: cal.sd.apply(broken), "fails on a frame of ones"),
        (lambda: cal.sd.apply(lambda frame: "text"), "no number"),
        (lambda: cal.sd.apply(lambda frame: lock.locked()), "sent to workers"),
        (lambda: cal.sd.apply(total, outputs={"failed": "f8"}), "cannot be called"),
        (lambda: cal.sd.apply(total, outputs={"value": "nonsense"}), "output 'value'"),
    ):
        with pytest.raises(ParameterError, match=text):
            make()
