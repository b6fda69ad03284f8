"""Small pieces of files: copied out of what lies between them, or read one by one, they are the same."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xsmall.errors import DamagedDataError
from xsmall.io.files import identify
from xsmall.io.sources.xtc2 import pieces
from xsmall.io.sources.xtc2.chain import Chain
from xsmall.io.sources.xtc2.pieces import fill_rows

SIZES = (60_000, 3_000, 2_500_000)
DATA = np.random.default_rng(0).integers(0, 256, sum(SIZES)).astype(np.uint8)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder, files, at = tmp_path_factory.mktemp("pieces"), [], 0
    for k, size in enumerate(SIZES):
        (folder / f"c{k}").write_bytes(DATA[at : at + size].tobytes())
        files.append(identify(folder / f"c{k}"))
        at += size
    return Chain(tuple(files))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    gaps=st.lists(st.sampled_from([0, 1, 8, 30, 500, 1500, 70_000]), min_size=1, max_size=40),
    repeat=st.integers(1, 80),
    width=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_rows_are_the_bytes_at_their_places(chain: Chain, gaps: list[int], repeat: int, width: int, seed: int) -> None:
    size = 8 * width  # 72 bytes are read one by one
    where = np.cumsum(np.tile(np.array(gaps) + size, repeat)) - size
    edges = np.cumsum(SIZES)
    where = where[[not any(w < e < w + size for e in edges) for w in where] & (where + size <= DATA.size)]
    numbers = np.random.default_rng(seed).permutation(where.size + 3)[: where.size]
    rows = np.zeros((where.size + 3, width), np.uint64)
    fill_rows(chain, where, rows, numbers)
    expected = np.zeros_like(rows)
    for row, at in zip(numbers, where, strict=True):
        expected[row] = DATA[at : at + size].view("<u8")
    np.testing.assert_array_equal(rows, expected)


def test_many_small_pieces_are_few_reads(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    real = Chain.read_into
    monkeypatch.setattr(Chain, "read_into", lambda self, at, part: reads.append(at) or real(self, at, part))
    where = np.arange(63_000, DATA.size - 8, 100)
    rows = np.zeros((where.size, 1), np.float64)
    fill_rows(chain, where, rows, np.arange(where.size))
    assert len(reads) == 3  # 2.5 MB by 1 MB
    monkeypatch.setattr(pieces, "_SMALL", 0)
    one_by_one = np.zeros_like(rows)
    fill_rows(chain, where, one_by_one, np.arange(where.size))
    assert rows.tobytes() == one_by_one.tobytes()


def test_what_was_cut_off_since_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA[:10_000].tobytes())
    chain = Chain((identify(path),))
    where = np.arange(0, 9_000, 50)
    rows = np.zeros((where.size, 1), np.uint64)
    fill_rows(chain, where, rows, np.arange(where.size))
    with path.open("r+b") as file:
        file.truncate(8_000)
    with pytest.raises(DamagedDataError, match="byte 8000: cannot be read"):
        fill_rows(chain, where, rows, np.arange(where.size))
