"""Frames that are read piece by piece, the next ones while others are added."""

import dask.array as da
import numpy as np
import pytest

from xsmall.cube import pieces
from xsmall.engine.blocks import Batch, Unopened
from xsmall.engine.team import Team


@pytest.mark.parametrize("step", [2, 10, 25])
def test_no_more_is_read_ahead_than_threads_can_read(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 10 events, added 2 at a time, or several chunks together."""
    monkeypatch.setattr(pieces, "READ_BYTES", 1)
    frames = np.arange(100 * 16.0).reshape(100, 1, 4, 4)
    team, seen = Team(4), []
    read = pieces.Pieces(Unopened(Batch(da.from_array(frames, (10, 1, 4, 4))), 0, 100), np.zeros(100, np.int64), team)
    for start in range(0, 100, step):
        for first, piece in read.between(start, start + step, 100):
            low, high = max(start, first), min(start + step, first + len(piece.frames))
            np.testing.assert_array_equal(piece.frames[low - first : high - first], frames[low:high])
        read.map(lambda _: None, range(3))
        needed = len(range(start // 10 * 10, start + step, 10))
        seen.append(len(read._held) - needed)
    assert max(seen) == team.n  # beside those that are needed now
