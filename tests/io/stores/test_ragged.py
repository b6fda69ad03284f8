"""Lists that are longer than a chunk, and the chunks of long arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.io.stores.test_write import ENDINGS, opened
from xsmall.events.ragged import object_array, ragged_attrs
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


def test_what_has_a_prime_length_has_few_chunks() -> None:
    prime = 2_000_003
    assert encoded("/", "x", xr.Variable("sample", np.zeros(prime))).chunks == (2**20,)
    assert encoded("/", "x", xr.Variable("sample", np.zeros(2**21))).chunks == (2**20,)
