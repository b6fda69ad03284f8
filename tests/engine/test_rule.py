"""Blocks carry rules: small, the same for runs of any length, right for every array a user may bring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest

from xsmall.engine.blocks import Batch, Unopened, event_blocks, rules_of, shared_of, unopened_blocks
from xsmall.engine.rule import Rule

N = 30
SHAPE = (4, 3, 5)
VALUES = np.random.default_rng(0).integers(0, 1000, (N, *SHAPE)).astype("u2")
DARK = np.random.default_rng(1).normal(100, 5, SHAPE)


class Stored:
    """Something in a file: indexable, with a count of what was read."""

    def __init__(self, values: np.ndarray = VALUES, step: int | None = None) -> None:
        self.values, self.reads = values, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        if step:
            self.storage_events = step

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads.append(key[0] if isinstance(key, tuple) else key)
        return self.values[key]

    def __dask_tokenize__(self) -> object:
        return "stored", id(self)


def stored(chunk: int = 4, **options: Any) -> da.Array:
    return da.from_array(
        Stored(), chunks=(chunk, 2, -1, -1), meta=np.empty((0,) * 4, VALUES.dtype), asarray=True, **options
    )


def numbered(block: np.ndarray, block_info: Any = None, block_id: Any = None) -> np.ndarray:
    return block + block_info[0]["array-location"][0][0] + 10 * block_id[0]


def delayed_chunks() -> da.Array:
    parts = [dask.delayed(lambda v: v)(VALUES[i : i + 5]) for i in range(0, N, 5)]
    return da.concatenate([da.from_delayed(p, (5, *SHAPE), VALUES.dtype) for p in parts])


USERS_ARRAYS: dict[str, Callable[[], da.Array]] = {
    "from a file": stored,
    "from a file, in the graph": lambda: stored(inline_array=True),
    "locked": lambda: stored(lock=True),
    "numpy": lambda: da.from_array(VALUES, chunks=(7, 4, 3, 5)),
    "arithmetic": lambda: stored() * 2 + 1,
    "minus a dark image": lambda: stored() - DARK,
    "a lazy dark image": lambda: stored() - da.from_array(DARK, chunks=(2, 3, 5)).mean(axis=0, keepdims=True),
    "its own mean": lambda: stored() - stored().mean(axis=(1, 2, 3), keepdims=True),
    "the mean of the run": lambda: stored() - stored().mean(axis=0),
    "a slice of events": lambda: stored()[3:27],
    "every second event": lambda: stored()[1::2],
    "chosen events": lambda: stored()[np.array([5, 3, 29, 0, 17])],
    "a mask of events": lambda: stored()[np.arange(N) % 3 > 0],
    "a slice of pixels": lambda: stored()[:, 1:3, 1:, ::2],
    "turned rows": lambda: stored()[:, :, ::-1] + 1,
    "joined runs": lambda: da.concatenate([stored(), stored(6) * 2]),
    "stacked segments": lambda: da.stack([stored()[:, 0], stored()[:, 2]], axis=1),
    "map_blocks": lambda: da.map_blocks(numbered, stored(), dtype=VALUES.dtype),
    "rechunked": lambda: (stored() + 1).rechunk((9, 4, 3, 5)),
    "overlap": lambda: da.map_overlap(lambda x: x + 1, stored().astype("f4"), depth={0: 1}, boundary="none"),
    "delayed": delayed_chunks,
    "where": lambda: da.where(stored() > 500, stored(), 0),
    "rolled": lambda: da.roll(stored(), 3, axis=0),
    "transposed": lambda: stored().transpose(0, 1, 3, 2),
}


@pytest.mark.parametrize("name", USERS_ARRAYS)
@pytest.mark.parametrize("pickled", [False, True])
def test_any_array_is_read_as_dask_computes_it(name: str, pickled: bool) -> None:
    array = USERS_ARRAYS[name]()
    expected = array.compute(scheduler="synchronous")
    for start, stop, segments in ((0, len(array), None), (2, 5, None), (1, len(array), (1, 2))):
        block = Unopened(Batch(array), start, stop, segments)
        if pickled:
            block = cloudpickle.loads(cloudpickle.dumps(cloudpickle.loads(cloudpickle.dumps(block))))
        read = np.concatenate([b.frames for b in block.batches(2000)])
        cut = expected[start:stop] if segments is None else expected[start:stop, slice(*segments)]
        np.testing.assert_array_equal(read, cut)


@pytest.mark.parametrize("name", USERS_ARRAYS)
def test_blocks_of_any_array_work_as_tasks(name: str) -> None:
    array = USERS_ARRAYS[name]()
    blocks = event_blocks(array)
    cells = unopened_blocks(Batch(array), blocks, "cells")

    def total(cell: np.ndarray) -> np.ndarray:
        return np.array([sum(float(b.frames.sum()) for b in cell.item().batches())])

    sums = da.map_blocks(total, cells, dtype=float, meta=np.empty(0))
    np.testing.assert_allclose(sums.compute().sum(), array.sum().compute(), atol=1e-6)


def size_of_a_block(n: int, change: Callable[[da.Array], da.Array]) -> int:
    lazy = np.lib.stride_tricks.as_strided(VALUES[:1], (n, *SHAPE), (0, *VALUES.strides[1:]))
    array = change(da.from_array(Stored(VALUES), chunks=(3, -1, -1, -1)) if n == N else da.concatenate(
        [da.from_array(Stored(VALUES), chunks=(3, -1, -1, -1))] * (n // N)))  # fmt: skip
    assert len(array) == len(lazy)
    return len(cloudpickle.dumps(Unopened(Batch(array), 9, 21)))


@pytest.mark.parametrize("change", [lambda a: a, lambda a: a * 2 - 1, lambda a: a[:, 1:]], ids=["raw", "math", "cut"])
def test_a_block_is_as_small_in_a_long_run_as_in_a_short_one(change: Callable[[da.Array], da.Array]) -> None:
    assert size_of_a_block(60 * N, change) < 1.2 * size_of_a_block(2 * N, change)


def test_data_that_all_blocks_need_are_one_node_of_the_graph() -> None:
    large = np.zeros((4, 64, 64))
    array = da.zeros((40, 4, 64, 64), chunks=(4, -1, -1, -1)) - large
    blocks = event_blocks(array)
    made = rules_of(Batch(array))
    assert shared_of(made, Batch(array), blocks, "shared") is not None
    assert max(len(cloudpickle.dumps(Unopened(made, *b))) for b in blocks) < large.nbytes / 4
    alone = Batch(stored() * 2)
    assert shared_of(rules_of(alone), alone, event_blocks(alone.frames), "shared") is None


def test_the_mean_of_a_run_is_made_once_for_all_blocks() -> None:
    source = Stored()
    raw = da.from_array(source, chunks=(3, -1, -1, -1), meta=np.empty((0,) * 4, "u2"))
    cells = unopened_blocks(Batch(raw - raw.mean(axis=0)), event_blocks(raw), "cells")
    total = da.map_blocks(
        lambda cell: np.array([sum(b.frames.sum() for b in cell.item().batches())]), cells, dtype=float
    )
    assert abs(total.compute().sum()) < 1e-6
    assert len(source.reads) == 2 * 10


def test_parts_of_a_chunk_are_read_where_the_source_allows_it() -> None:
    source = Stored(step=5)
    array = da.from_array(source, chunks=(-1, -1, -1, -1), meta=np.empty((0,) * 4, "u2"))
    block = Unopened(Batch(array), 3, 28)
    read = np.concatenate([b.frames for b in block.batches(10 * VALUES[0].nbytes)])
    np.testing.assert_array_equal(read, VALUES[3:28])
    assert [(k.start, k.stop) for k in source.reads] == [(3, 10), (10, 20), (20, 28)]
    assert Rule(stored()).step is None
    assert len(event_blocks(array)) == 6


def test_contiguous_hdf5_is_read_in_parts(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = VALUES
        file.create_dataset("chunked", data=VALUES, chunks=(6, *SHAPE))
    with h5py.File(tmp_path / "a.h5") as file:
        one, chunked = (Rule(da.from_array(file[name], chunks=-1)) for name in ("one", "chunked"))
        assert (one.step, one.together) == (1, 1)
        assert (chunked.step, chunked.together) == (6, 6)
        np.testing.assert_array_equal(one.read((3, 5)), VALUES[3:5])
    assert Rule(stored(7)).together == 7


def test_what_several_members_need_is_made_once() -> None:
    source = Stored()
    raw = da.from_array(source, chunks=(10, -1, -1, -1), meta=np.empty((0,) * 4, "u2"))
    values = raw.astype("f4") * 2
    block = Unopened(Batch(values, variance=values * 3), 0, N)
    for batch in block.batches():
        np.testing.assert_array_equal(batch.variance, batch.frames * 3)
    assert len(source.reads) == 3


@pytest.mark.parametrize("optimize", [True, False])
def test_what_dask_would_fuse_into_the_frames_stays_for_all_blocks(optimize: bool) -> None:
    """A lazy coordinate that is compared, in `frames.where(frames.x > 0)`, is a layer of its own."""
    raw = da.from_array(Stored(), chunks=(3, -1, -1, -1), meta=np.empty((0,) * 4, "u2"))
    bright = da.from_array(DARK, chunks=(2, 3, 5)) > 100
    cells = unopened_blocks(Batch(da.where(bright, raw, 0)), [(0, 12), (12, N)], "cells")
    total = da.map_blocks(
        lambda cell: np.array([sum(b.frames.sum() for b in cell.item().batches())]), cells, dtype=float
    )
    assert total.compute(optimize_graph=optimize).sum() == VALUES[:, DARK > 100].sum()
