"""Lists that are longer than a chunk, and the chunks of long arrays."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.io.stores.test_write import ENDINGS, opened
from xsmall.events.ragged import lists_of_counts, object_array, ragged_attrs
from xsmall.io.stores import ragged as ragged_module
from xsmall.io.stores.schema import encoded


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("labels", [np.datetime64("2026-01-01", "ns") + np.arange(9), np.array([*"abcdefghi"])])
def test_lists_of_many_chunks_know_their_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, labels: Any
) -> None:
    monkeypatch.setattr(ragged_module, "CHUNK_BYTES", 64)
    lengths = [0, 3, 17, 0, 0, 1, 8, 12, 0]
    lists = [np.arange(n) + 100.0 * i for i, n in enumerate(lengths)]
    small = xr.Dataset({"sum": ("event", object_array(lists), ragged_attrs("droplet", float))}, {"event": labels})
    with opened(xs.save(small, tmp_path / f"small{ending}")) as read:
        np.testing.assert_array_equal(read["sum"], np.concatenate(lists))
        np.testing.assert_array_equal(read["droplet_event"], np.repeat(labels, lengths))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seed", range(3))
def test_lazy_lists_are_joined_whatever_their_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, seed: int
) -> None:
    monkeypatch.setattr(ragged_module, "CHUNK_BYTES", 8 * (1 + 4 * seed))
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, 23) * (rng.random(23) < 0.6)
    lists = object_array(rng.normal(size=n) for n in lengths)
    pieces = [list(lists[a:b]) for a, b in pairwise([0, *sorted({*rng.integers(1, 23, 5)}), 23])]
    lazy = da.concatenate([da.from_array(object_array(piece), chunks=-1) for piece in pieces])
    label = np.arange(23, dtype=np.uint64)
    small = xr.Dataset({"sum": ("event", lazy, ragged_attrs("droplet", float))}, {"event": label})
    with opened(xs.save(small, tmp_path / f"small{ending}")) as read:
        np.testing.assert_array_equal(read["sum"], np.concatenate(list(lists)))
        np.testing.assert_array_equal(read["droplet_event"], np.repeat(label, lengths))
        np.testing.assert_array_equal(read["n_droplets"], lengths)


def test_blocks_of_lists_are_kept_as_they_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[str] = []
    keep = ragged_module.ListSink.__setitem__

    def noted(sink: Any, key: Any, block: Any) -> None:
        met.append("kept")
        keep(sink, key, block)

    def computed(block: Any) -> Any:
        met.append("computed")
        return object_array([np.zeros(2)] * len(block))

    monkeypatch.setattr(ragged_module.ListSink, "__setitem__", noted)
    lazy = da.zeros(8, chunks=2).map_blocks(computed, dtype=object, meta=np.empty(0, object))
    small = xr.Dataset({"sum": ("event", lazy, ragged_attrs("droplet", float))})
    with dask.config.set(scheduler="synchronous"):
        xs.save(small, tmp_path / "small.zarr")
    assert met == ["computed", "kept"] * 4


def test_values_are_cut_into_lists_of_any_shape() -> None:
    values = np.arange(6)
    cut = lists_of_counts(values, np.array([[2, 0], [1, 3]]))
    assert [[list(one) for one in row] for row in cut] == [[[0, 1], []], [[2], [3, 4, 5]]]
    assert lists_of_counts(values[:0], np.zeros((0, 3), np.int64)).shape == (0, 3)
    assert [one.size for one in lists_of_counts(values[:0], np.zeros(2, np.int64))] == [0, 0]


def test_what_has_a_prime_length_has_few_chunks() -> None:
    prime = 2_000_003
    assert encoded("/", "x", xr.Variable("sample", np.zeros(prime))).chunks == (2**20,)
    assert encoded("/", "x", xr.Variable("sample", np.zeros(2**21))).chunks == (2**20,)
