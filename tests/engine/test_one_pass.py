"""The engine: one pass, nothing before it is asked for, the same bits however it is cut."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.one_pass import Source, run_records
from xsmall.engine.record import Output, Record, Reducer
from xsmall.engine.transform import Cast, Transform, origin_of, transform_frames

SHAPE = (2, 3, 5)
FRAMES = Frames(Part.whole(SHAPE), np.dtype("f4"))


@dataclass(frozen=True)
class Total(Record):
    """Sum of the valid pixels and their number, per segment."""

    name: ClassVar[str] = "total"

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        n = frames.shape[0]
        return {
            "sum": Output(("segment",), (n,), np.dtype("f8")),
            "n_valid": Output((), (), np.dtype("i8")),
        }

    def reducer(self, frames: Frames) -> Reducer:
        return TotalReducer(frames.shape[0])


class TotalReducer(Reducer):
    def __init__(self, n_segments: int) -> None:
        self.n_segments = n_segments

    def begin(self, k: int) -> None:
        self.sum = np.zeros((k, self.n_segments))
        self.n_valid = np.zeros(k, dtype="i8")

    def add(self, s: int, frames: np.ndarray, variance: np.ndarray | None = None) -> None:
        self.sum[:, s] = np.nansum(frames, axis=(1, 2), dtype="f8")
        self.n_valid += np.isfinite(frames).sum(axis=(1, 2))

    def end(self) -> Mapping[str, np.ndarray]:
        return {"sum": self.sum, "n_valid": self.n_valid}


class Halve(Transform):
    dtype = np.dtype("f4")

    def apply(
        self, s: int, raw: np.ndarray, present: np.ndarray, out: np.ndarray, variance: np.ndarray | None = None
    ) -> None:
        np.multiply(raw, np.float32(0.5), out=out, casting="unsafe")
        out[~present] = np.nan

    def __dask_tokenize__(self) -> object:
        return "halve"


def raw_frames(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 1000, (n, *SHAPE)).astype("u2")


class CountedReads:
    """Raw frames behind a dask array that counts how often each chunk is read."""

    def __init__(self, values: np.ndarray, chunk: int) -> None:
        self.reads: list[int] = []
        n = len(values)
        sizes = (*(chunk,) * (n // chunk), *((n % chunk,) if n % chunk else ()))

        def read(block_info: Any = None) -> np.ndarray:
            start, stop = block_info[None]["array-location"][0]
            self.reads.append(start)
            return values[start:stop]

        self.array = da.map_blocks(
            read, chunks=(sizes, *((s,) for s in SHAPE)), dtype=values.dtype, meta=np.empty((0,) * 4, values.dtype)
        )


def total_of(array: Any, present: np.ndarray | None = None) -> Mapping[tuple[str, str], Any]:
    return run_records(Source.of(array, present, np.dtype("f4")), {"total": Total()}, FRAMES)


def test_numpy_frames_are_reduced_at_once() -> None:
    raw = raw_frames(7)
    out = total_of(raw)
    np.testing.assert_array_equal(out["total", "sum"], raw.sum(axis=(2, 3), dtype="f8"))
    np.testing.assert_array_equal(out["total", "n_valid"], np.full(7, raw[0].size))


def test_nothing_computes_before_it_is_asked_for(computing_is_forbidden: Callable[[], Any]) -> None:
    counted = CountedReads(raw_frames(20), 4)
    with computing_is_forbidden():
        halved = transform_frames(counted.array, None, Halve(), dtype=Halve.dtype, label="halve")
        out = total_of(halved)
    assert counted.reads == []
    assert out["total", "sum"].shape == (20, 2)


def test_one_compute_reads_each_chunk_once_whatever_the_number_of_records() -> None:
    counted = CountedReads(raw_frames(20), 4)
    halved = transform_frames(counted.array, None, Halve(), dtype=Halve.dtype, label="halve")
    records = {f"r{i}": Total() for i in range(5)}
    out = run_records(Source.of(halved, None, np.dtype("f4")), records, FRAMES)
    dask.compute(*out.values())
    assert sorted(counted.reads) == [0, 4, 8, 12, 16]


def test_the_untouched_result_of_a_transform_is_read_raw_and_a_changed_one_is_not() -> None:
    raw = raw_frames(9)
    halved = transform_frames(da.from_array(raw, chunks=(3, *SHAPE)), None, Halve(), dtype=Halve.dtype, label="halve")
    assert origin_of(halved) is not None
    assert origin_of(halved * 2) is None
    for array, factor in ((halved, 0.5), (halved * 2, 1.0), (halved[2:5], 0.5)):
        out = total_of(array)["total", "sum"].compute()
        rows = raw[2:5] if len(out) == 3 else raw
        np.testing.assert_array_equal(out, factor * rows.sum(axis=(2, 3), dtype="f8"))


def test_a_missing_segment_counts_no_pixel() -> None:
    raw = raw_frames(5)
    present = np.ones((5, 2), dtype=bool)
    present[3, 1] = False
    for array in (raw, da.from_array(raw, chunks=(2, *SHAPE)), da.from_array(raw, chunks=(2, *SHAPE)).persist()):
        sums, valid = dask.compute(
            total_of(array, present)["total", "sum"], total_of(array, present)["total", "n_valid"]
        )
        assert sums[3, 1] == 0
        np.testing.assert_array_equal(valid, [30, 30, 30, 15, 30])


def test_a_persisted_array_is_not_taken_for_work_to_do() -> None:
    counted = CountedReads(raw_frames(8), 4)
    halved = transform_frames(counted.array, None, Halve(), dtype=Halve.dtype, label="halve").persist()
    before = len(counted.reads)
    total_of(halved)["total", "sum"].compute()
    assert len(counted.reads) == before


def test_zero_events_give_empty_results_of_the_right_shape() -> None:
    for array in (raw_frames(0), da.from_array(raw_frames(0), chunks=(1, *SHAPE))):
        out = np.asarray(total_of(array)["total", "sum"])
        assert out.shape == (0, 2)


def test_a_million_events_make_a_small_graph() -> None:
    frames = da.zeros((1_000_000, *SHAPE), chunks=(100, *SHAPE), dtype="u2")
    out = total_of(frames)
    tasks = dask.base.collections_to_expr([out["total", "sum"], out["total", "n_valid"]]).__dask_graph__()
    assert len(tasks) < 20_000


def test_the_result_is_the_same_on_a_cluster() -> None:
    distributed = pytest.importorskip("distributed")
    raw = raw_frames(12)
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        frames = da.from_array(raw, chunks=(5, *SHAPE))
        halved = transform_frames(frames, None, Halve(), dtype=Halve.dtype, label="halve")
        lazy = client.compute(total_of(halved)["total", "sum"]).result()
        kept = total_of(client.persist(halved))["total", "sum"].compute()
        held = client.persist(frames)[3:11]
        part = total_of(transform_frames(held, None, Halve(), dtype=Halve.dtype, label="halve"))[
            "total", "sum"
        ].compute()
    np.testing.assert_array_equal(part, lazy[3:11])
    np.testing.assert_array_equal(lazy, raw.sum(axis=(2, 3)) / 2)
    np.testing.assert_array_equal(kept, lazy)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.booleans())
def test_any_chunking_gives_the_same_bits(sizes: list[int], split_segments: bool) -> None:
    raw = raw_frames(sum(sizes))
    chunks = (tuple(sizes), (1, 1) if split_segments else (2,), (3,), (5,))
    halved = transform_frames(da.from_array(raw, chunks=chunks), None, Halve(), dtype=Halve.dtype, label="halve")
    expected = total_of(transform_frames(raw, None, Halve(), dtype=Halve.dtype, label="halve"))
    found = total_of(halved)
    for key, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[key]), value)


def test_cast_turns_missing_segments_into_nan() -> None:
    out = np.empty((2, 3, 5), dtype="f4")
    Cast(np.dtype("f4")).apply(0, raw_frames(2)[:, 0], np.array([True, False]), out)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1]).all()
