"""Common modes tile by tile give the same bits as step after step over whole segments."""

import numpy as np
import numpy.typing as npt
import pytest

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.kernels.calibrate import calibrate_stack
from xsmall.kernels.common_mode import StepTables, apply_common_mode
from xsmall.kernels.common_mode_tiles import calibrate_tiles, tile_of
from xsmall.kernels.gain_code import participation_stack
from xsmall.kernels.scale import scale_stack

PLANE = np.array([0, 1, -1, 2])
CODE = 14, 3


def rows_and_columns(
    columns: int = 64, height: int = 64, applied_to: str = "used", failed: str = "keep", estimator: str = "median"
) -> tuple[Subtract, ...]:
    more = {"applied_to": applied_to, "failed": failed, "estimator": estimator, "min_count": 11, "max_correction": 10}
    return Subtract(name="row", rows=1, columns=columns, **more), Subtract(
        name="column", rows=height, columns=1, **more
    )


class Segment:
    """Raw words of a segment and its constants, with all that may happen to a pixel."""

    def __init__(self, shape: tuple[int, int], k: int, switched: float, per_pixel: bool = False) -> None:
        rng = np.random.default_rng(k)
        n = shape[0] * shape[1]
        self.shape, self.k, self.n = shape, k, n
        adc = rng.normal(3000, 3, (k, *shape)) + rng.normal(0, 4, (k, shape[0], 1))
        adc[rng.random(adc.shape) < 0.001] += 9000
        words = adc.astype(np.uint16)
        other = rng.random(words.shape) < switched
        words[other] |= rng.integers(1, 4, int(other.sum())).astype(np.uint16) << np.uint16(14)
        self.words = words.reshape(-1)
        self.pedestal = rng.normal(3000, 1, (3, n)).astype(np.float32)
        self.factor = rng.uniform(0.1, 0.2, (3, n)).astype(np.float32)
        self.factor[rng.random(self.factor.shape) < 0.01] = np.nan
        self.good = (rng.random(n) < 0.97).astype(np.uint8)
        self.takes = np.array([[1], [0], [0], [0]], np.uint8)
        if per_pixel:
            self.takes = rng.integers(0, 2, (4, n)).astype(np.uint8)
        self.limits = np.array([[10, 11990], [0, 65535], [0, 65535], [5, 65535]], np.int32)

    def in_tiles(self, plan: StepTables, tile: tuple[int, int]) -> npt.NDArray[np.float32]:
        out = np.full((self.k, self.n), -7, np.float32)
        calibrate_tiles(
            self.words, self.n, self.k, PLANE, self.pedestal, np.ones_like(self.factor), self.factor, *CODE, 0x3FFF,
            self.limits, self.takes, self.good, plan.steps, plan.limits, self.shape, tile, out.reshape(-1), self.n,
        )  # fmt: skip
        return out

    def in_steps(self, plan: StepTables) -> npt.NDArray[np.float32]:
        out, use = np.full((self.k, self.n), -7, np.float32), np.empty((self.k, self.n), np.uint8)
        frames = self.words, self.n, self.k
        calibrate_stack(
            *frames,
            PLANE,
            self.pedestal,
            np.ones_like(self.factor),
            *CODE,
            0x3FFF,
            self.limits,
            out.reshape(-1),
            self.n,
        )
        participation_stack(*frames, self.takes, self.good, *CODE, use)
        corrections, counts = np.empty((self.k, plan.n_units), np.float32), np.empty((self.k, plan.n_units), np.int32)
        stack, taking = out.reshape(-1, *self.shape), use.reshape(-1, *self.shape)
        apply_common_mode(stack, taking, plan, corrections, counts)
        assert np.isfinite(corrections).any()
        scale_stack(*frames, PLANE, self.factor, *CODE, out.reshape(-1), self.n)
        return out


def check(segment: Segment, steps: tuple[Subtract, ...]) -> tuple[int, int]:
    plan = compile_plan(CommonMode(steps=steps), range(segment.shape[0]), range(segment.shape[1]))
    tile = tile_of(plan.steps, segment.shape)
    assert tile is not None
    np.testing.assert_array_equal(segment.in_tiles(plan, tile).view(np.uint32), segment.in_steps(plan).view(np.uint32))
    return tile


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("switched", [0.0, 0.0005, 0.3])
def test_tiles_give_the_bits_of_steps(k: int, switched: float) -> None:
    assert check(Segment((128, 512), k, switched), rows_and_columns()) == (128, 512)


def test_many_tiles_give_the_bits_of_steps() -> None:
    assert check(Segment((512, 1024), 2, 0.0005), rows_and_columns(64, 256)) == (256, 512)


@pytest.mark.parametrize("columns", [1, 12, 60, 600, 1200])
def test_pieces_of_any_length_give_the_bits_of_steps(columns: int) -> None:
    check(Segment((64, 1200), 3, 0.001), rows_and_columns(columns, 16))


@pytest.mark.parametrize("applied_to", ["used", "all", "nothing"])
@pytest.mark.parametrize("failed", ["keep", "nan"])
@pytest.mark.parametrize("estimator", ["median", "integer_median"])
def test_what_steps_are_told_holds_in_tiles(applied_to: str, failed: str, estimator: str) -> None:
    segment = Segment((64, 256), 4, 0.05)
    segment.good[: 5 * 256] = 0  # rows without an estimate
    check(segment, rows_and_columns(64, 32, applied_to, failed, estimator))


def test_gain_codes_that_take_part_pixel_by_pixel_do_so_in_tiles() -> None:
    check(Segment((64, 256), 3, 0.4, per_pixel=True), rows_and_columns())


def test_a_step_over_a_whole_segment_is_one_tile() -> None:
    whole = Subtract(name="all", rows=96, columns=1000)
    assert check(Segment((96, 1000), 2, 0.01), (whole, *rows_and_columns(100, 48))) == (96, 1000)


@pytest.mark.parametrize(
    "steps",
    [
        (Subtract(name="mean", rows=1, columns=64, estimator="mean"),),
        (Subtract(name="odd", rows=1, columns=64, interleave=2),),
        (Subtract(name="all pixels", rows=1, columns=64, mask=False),),
        (Exclude(within=30), Subtract(name="row", rows=1, columns=64)),
    ],
)
def test_other_steps_see_the_whole_segment(steps: tuple[Subtract | Exclude, ...]) -> None:
    plan = compile_plan(CommonMode(steps=steps), range(64), range(256))
    assert tile_of(plan.steps, (64, 256)) is None
