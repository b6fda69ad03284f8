"""Frames that are added from where they lie, and those that cannot be."""

import numpy as np
import pytest

from xsmall.cube.pieces import in_place
from xsmall.engine.blocks import Batch

FRAMES = np.random.default_rng(0).normal(size=(20, 2, 6, 8)).astype(np.float32)


def seen(pieces: list[tuple[int, Batch]], start: int, stop: int, segment: int = 1) -> np.ndarray | None:
    found = in_place(pieces, segment, start, stop)
    if found is None:
        return None
    values, begin = found
    assert not values.flags.writeable
    return np.stack([values[b : b + 48] for b in begin]).reshape(-1, 6, 8)


@pytest.mark.parametrize("backwards", [False, True])
def test_frames_are_found_wherever_their_pieces_lie(backwards: bool) -> None:
    order = [(0, 7), (7, 12), (12, 20)]
    made = {span: Batch(FRAMES[slice(*span)].copy()) for span in (order[::-1] if backwards else order)}
    pieces = [(span[0], made[span]) for span in order]
    np.testing.assert_array_equal(seen(pieces, 3, 15), FRAMES[3:15, 1])
    np.testing.assert_array_equal(seen(pieces[2:], 12, 20, 0), FRAMES[12:20, 0])


def test_a_part_of_a_larger_array_is_read_where_it_lies() -> None:
    wide = np.zeros((40, 3, 6, 8), np.float32)
    wide[::2, :2] = FRAMES
    np.testing.assert_array_equal(seen([(0, Batch(wide[::2]))], 0, 20), FRAMES[:, 1])


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES.astype(np.int32),
        FRAMES.astype(">f4"),
        np.asfortranarray(FRAMES),
        FRAMES[:, :, :, ::-1],
        FRAMES[::-1],
        np.frombuffer(b"x" + FRAMES.tobytes(), np.uint8)[1:].view(np.float32).reshape(FRAMES.shape),
    ],
    ids=["integers", "other byte order", "columns first", "mirrored", "backwards", "odd address"],
)
def test_what_no_kernel_reads_as_it_is_gets_copied(frames: np.ndarray) -> None:
    assert in_place([(0, Batch(frames))], 0, 0, 20) is None


def test_pieces_that_differ_or_miss_a_segment_are_not_read_in_place() -> None:
    present = np.ones((10, 2), bool)
    present[4, 1] = False
    pieces = [(0, Batch(FRAMES[:10], present)), (10, Batch(FRAMES[10:].astype(np.float64)))]
    assert in_place(pieces[:1], 1, 0, 10) is None
    assert in_place(pieces, 0, 0, 20) is None
    np.testing.assert_array_equal(seen(pieces[:1], 0, 10, 0), FRAMES[:10, 0])
    np.testing.assert_array_equal(seen(pieces[:1], 5, 10), FRAMES[5:10, 1])
    assert in_place([], 0, 0, 4) is None
