"""Medians of rows and columns, common modes, and dark sums, of a 0.5-Mpixel segment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks import Case, read
from xsmall.calibration.common_mode.numbers import resolve_common_mode
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.calibration.dark.sums import DarkLimits, DarkSums
from xsmall.detector.types import detector_type
from xsmall.kernels.common_mode import apply_common_mode
from xsmall.kernels.median import column_medians, row_medians
from xsmall.kernels.reference.common_mode import apply_common_mode as common_mode_twin


def cases(scale: float) -> list[Case]:
    """Medians of whole rows and columns and of the stretches that psana uses; modes of Jungfrau and ePix100."""
    rows, columns = max(2, round(512 * scale / 2) * 2), 1024
    image = photon_frame(rows, columns)
    use = np.ones(image.shape, np.uint8)
    holed = np.where(np.random.default_rng(1).random(image.shape) < 0.01, np.nan, image).astype(np.float32)
    out = []
    for name, shape, axis in (
        ("rows of 1024", (rows, 1, columns), 2),
        ("rows of 64", (rows, 16, 64), 2),
        ("columns", (1, rows, columns), 1),
        ("half columns", (2, rows // 2, columns), 1),
    ):
        ours = _row_call if axis == 2 else _column_call
        out.append(
            Case(
                f"median of {name}, 0.5 Mpixel",
                ours(image, use, shape[axis]),
                1,
                {
                    "np.median": _call(np.median, image.reshape(shape), axis),
                    "np.nanmedian": _call(np.nanmedian, holed.reshape(shape), axis),
                },
                read(image),
            )
        )
    out.append(_dark_case(rows, columns))
    if scale == 1:
        out += [
            _mode_case("jungfrau", 7, image),
            _mode_case("jungfrau", 71, image),
            _mode_case("jungfrau", 72, image),
            _mode_case("epix100", 46, photon_frame(704, 768)),
            _mode_case("cspad", 1, photon_frame(185, 388)),
        ]
    return out


def photon_frame(rows: int, columns: int) -> np.ndarray:
    """A frame with the noise of 3 ADU, offsets of rows, and photons in 2 % of the pixels."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 3, (rows, columns)) + rng.normal(0, 2, (rows, 1))
    hit = rng.random(image.shape) < 0.02
    image[hit] += rng.exponential(100, hit.sum())
    return image.astype(np.float32)


def _dark_case(rows: int, columns: int) -> Case:
    """Sums of dark Jungfrau words of 16 events, beside NumPy's count, sum and sum of squares of one gain."""
    words = np.random.default_rng(0).normal(2800, 4, (16, rows, columns)).round().astype(np.uint16)
    sums = DarkSums(detector_type("jungfrau"), DarkLimits(), (1, rows, columns))

    def numpy_sums() -> None:
        value = (words & 0x3FFF).astype(np.float64)
        of_gain = words >> 14 == 0
        of_gain.sum(axis=0)
        value.sum(axis=0, where=of_gain)
        np.square(value).sum(axis=0, where=of_gain)

    return Case("dark sums, 0.5 Mpixel", lambda: sums.add(0, words), 16, {"NumPy": numpy_sums}, read(words))


def _row_call(image: np.ndarray, use: np.ndarray, width: int) -> Callable[[], object]:
    return lambda: row_medians(image, use, width)


def _column_call(image: np.ndarray, use: np.ndarray, height: int) -> Callable[[], object]:
    return lambda: column_medians(image, use, height)


def _call(function: Callable[..., object], image: np.ndarray, axis: int) -> Callable[[], object]:
    return lambda: function(image, axis=axis)


def _mode_case(detector: str, number: int, image: np.ndarray) -> Case:
    """Four frames with one mode, copied first, since the correction is made in place."""
    plan = compile_plan(
        resolve_common_mode(number, detector),
        range(image.shape[0]),
        range(image.shape[1]),
        np.full(image.shape, 3, np.float32),
    )
    frames = np.stack([image] * 4)
    stack, use = frames.copy(), np.ones((1, *image.shape), np.uint8)
    corrections, counts = np.empty((4, plan.n_units), np.float32), np.empty((4, plan.n_units), np.int32)

    def run() -> None:
        np.copyto(stack, frames)
        apply_common_mode(stack, use, plan, corrections, counts)

    def twin() -> None:
        np.copyto(stack, frames)
        common_mode_twin(stack, use, plan, corrections, counts)

    return Case(
        f"common mode {number} of {detector}, {image.size / 1e6:.1f} Mpixel", run, 4, {"NumPy twin": twin}, read(frames)
    )
