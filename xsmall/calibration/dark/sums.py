"""From sums of dark frames to constants: exact sums per gain code, limits, status bits.

The status bits are those of psana's dark processing, and one more:

=====  =====  ==========================================================
bit    value  the pixel, in this gain stage
=====  =====  ==========================================================
0      1      is noisier than the upper limit
1      2      is quieter than the lower limit
2      4      is above the largest value in too many events
3      8      is below the smallest value in too many events
4      16     has a pedestal above the upper limit
5      32     has a pedestal below the lower limit
6      64     has shown a gain code that belongs to no stage
7      128    was seen in too few events
=====  =====  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from xsmall.calibration.tables import control_stages
from xsmall.calls import tells_its_names
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import ParameterError
from xsmall.kernels.dark import add_dark_words, codes_in, moments_of_sums
from xsmall.kernels.stack import flat_frames

__all__ = [
    "STATUS_MEANINGS",
    "DarkLimits",
    "DarkStage",
    "DarkSums",
    "limits_of_type",
    "stage_of_codes",
    "stage_result",
]

STATUS_MEANINGS: Final = (
    "noise_above_limit", "noise_below_limit", "often_above_range", "often_below_range",
    "pedestal_above_limit", "pedestal_below_limit", "bad_gain_code", "too_few_events",
)  # fmt: skip
"""Meaning of each bit, lowest first."""

_TO_SIGMA: Final = 2.3263478740408408  # a normal distribution has 1 % beyond so many sigma
_BEAM_ASYMMETRY: Final = 3.0
_BEAM_LEVEL: Final = 3.0
_COVERED: Final = 0.5  # a stage that fewer pixels were in was not measured: some pixels have strayed into it
_FIELDS: Final = ("count", "total", "square", "least", "most", "below", "above")
_NO_LEAST: Final = np.iinfo(np.int32).max
_DTYPES: Final = (np.uint32, np.int64, np.int64, np.int32, np.int32, np.uint32, np.uint32)
_NO_MOST: Final = np.iinfo(np.int32).min
_EMPTY: Final = (0, 0, 0, _NO_LEAST, _NO_MOST, 0, 0)
_WORDS: Final = (np.dtype(np.uint8), np.dtype(np.uint16))
_ALL_BITS: Final = -1


@tells_its_names
@dataclass(frozen=True, kw_only=True)
class DarkLimits:
    """Where a dark pixel stops being good.

    Parameters
    ----------
    n_sigma
        Noise and pedestal may lie so many sigma from those of the other pixels of the stage.
    spread
        ``"quantile"``: sigma and middle come from the median and the outer percents of all pixels, each side by itself,
        which up to 1 % bad pixels do not move; ``"rms"``: mean and standard deviation, as psana has it.
    value
        Smallest and largest good ADC value, pedestals included; None: 1 and one below the largest possible.
    noise
        Smallest and largest noise in ADU; None: 0.001 and one below the largest possible value.
    fraction
        A pixel may be outside ``value`` in this share of the events.
    min_count
        Smallest number of events in which a pixel was in the stage.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.DarkLimits(n_sigma=8).fraction
    0.1
    """

    n_sigma: float = 6.0
    spread: Literal["quantile", "rms"] = "quantile"
    value: tuple[float, float] | None = None
    noise: tuple[float, float] | None = None
    fraction: float = 0.1
    min_count: int = 10

    def __post_init__(self) -> None:
        if not self.n_sigma > 0 or not 0 <= self.fraction <= 1 or self.min_count < 2:
            raise ParameterError(
                "invalid limits",
                found=f"n_sigma={self.n_sigma}, fraction={self.fraction}, min_count={self.min_count}",
                expected="n_sigma above 0, fraction from 0 to 1, min_count of at least 2",
            )
        if self.spread not in ("quantile", "rms"):
            raise ParameterError("unknown spread", found=repr(self.spread), expected="'quantile' or 'rms'")
        for name, limits in (("value", self.value), ("noise", self.noise)):
            if limits is not None and not limits[0] < limits[1]:
                raise ParameterError(f"the limits of the {name} are out of order", found=limits, expected="(low, high)")

    def values_of(self, entry: DetectorType) -> tuple[int, int]:
        """Smallest and largest good ADC value of a detector."""
        low, high = self.value or (1, entry.adc_max - 1)
        return int(low), int(high)

    def noise_of(self, entry: DetectorType) -> tuple[float, float]:
        """Smallest and largest noise of a detector in ADU."""
        return self.noise or (0.001, float(entry.adc_max - 1))


class DarkSums:
    """Exact sums of dark frames (segment, pixel) for each gain code that was seen; sums of sums are sums.

    Arrays are (segment, slot, pixel), one slot for each code seen so far: a dark run shows one code of four, as a rule.
    """

    def __init__(self, entry: DetectorType, limits: DarkLimits, shape: tuple[int, int, int]) -> None:
        self._entry, self._limits = entry, limits
        self.shape = shape
        self.codes: list[int] = []
        self.arrays = [np.empty((shape[0], 0, shape[1] * shape[2]), dtype) for dtype in _DTYPES]
        self.level = np.zeros((entry.n_codes, shape[0], 3))  # events, sum, sum of squares of the mean of a frame

    def _slots(self, seen: int) -> npt.NDArray[np.int64]:
        """Slot of each code; makes room for those in the bits of ``seen`` that are new."""
        new = [c for c in range(self._entry.n_codes) if seen >> c & 1 and c not in self.codes]
        if new:
            more = (self.shape[0], len(new), self.shape[1] * self.shape[2])
            self.arrays = [
                np.concatenate([a, np.full(more, empty, a.dtype)], axis=1)
                for a, empty in zip(self.arrays, _EMPTY, strict=True)
            ]
            self.codes += new
        slot = np.full(self._entry.n_codes, -1, np.int64)
        slot[self.codes] = np.arange(len(self.codes))
        return slot

    def add(self, s: int, frames: npt.NDArray[np.integer[Any]]) -> None:
        """Add frames (event, row, column) of segment ``s``."""
        if len(frames) == 0:
            return
        entry = self._entry
        words, step = flat_frames(frames)
        n = self.shape[1] * self.shape[2]
        shift, mask = entry.code_shift, entry.n_codes - 1
        seen = int(codes_in(words, step, len(frames), n, shift, mask))
        slot = self._slots(seen)
        level = np.empty(len(frames), np.int64)
        low, high = self._limits.values_of(entry)
        add_dark_words(
            words, step, len(frames), shift, mask, entry.data_shift, _data_mask(entry, frames.dtype), low, high, slot,
            *(a[s] for a in self.arrays), level,
        )  # fmt: skip
        if seen & (seen - 1) == 0:  # the mean of a frame says something where all its pixels share a gain
            code, mean = seen.bit_length() - 1, level / n
            self.level[code, s] += len(frames), mean.sum(), np.square(mean).sum()

    def empty(self) -> DarkSums:
        """Return sums of the same kind without any frame in them."""
        return DarkSums(self._entry, self._limits, self.shape)

    def merge(self, other: DarkSums) -> DarkSums:
        """Add the sums of other frames to these, and return these."""
        slot = self._slots(sum(1 << c for c in other.codes))
        for theirs, code in enumerate(other.codes):
            ours = slot[code]
            for name, a, b in zip(_FIELDS, self.arrays, other.arrays, strict=True):
                join = {"least": np.minimum, "most": np.maximum}.get(name, np.add)
                join(a[:, ours], b[:, theirs], out=a[:, ours])
        self.level += other.level
        return self


def _data_mask(entry: DetectorType, dtype: np.dtype[Any]) -> int:
    """Bits of a word that hold the value: numbers of a camera in a wider or signed type are values as they are."""
    return entry.adc_max if entry.decoding is not Decoding.FIXED or dtype in _WORDS else _ALL_BITS


def limits_of_type(limits: DarkLimits, entry: DetectorType, dtypes: Iterable[np.dtype[Any]]) -> DarkLimits:
    """Limits for frames of these types: those of wider or signed numbers, where none are given, are the type's ends.

    Parameters
    ----------
    limits
        As given.
    entry
        Type of the detector.
    dtypes
        Integer types of the frames, of at most 32 bits.
    """
    wide = [np.iinfo(dtype) for dtype in dtypes if _data_mask(entry, dtype) == _ALL_BITS]
    if not wide:
        return limits
    low, high = max(min(t.min for t in wide), _NO_MOST) + 1, min(max(t.max for t in wide), _NO_LEAST) - 1
    return replace(limits, value=limits.value or (low, high), noise=limits.noise or (0.001, float(high)))


@dataclass
class DarkStage:
    """Result of one gain stage, arrays (segment, row, column), and what it says about the frames."""

    pedestal: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    status: npt.NDArray[np.uint64]
    count: npt.NDArray[np.uint32]
    least: npt.NDArray[np.int32]
    most: npt.NDArray[np.int32]
    pedestal_limits: tuple[float, float]
    noise_limits: tuple[float, float]
    asymmetry: float
    """Median over pixels of how much further the values reach to one side than to the other; about 1 in the dark."""
    level: float
    """Largest spread of the mean of a frame between events, in units of the noise of a pixel by itself."""
    covered: float
    """Share of the pixels that can be in this stage in the dark which were there in enough events."""

    @property
    def seen(self) -> bool:
        """Whether any pixel was in this stage."""
        return bool(self.count.any())

    @property
    def measured(self) -> bool:
        """Whether most pixels that can be in this stage were."""
        return self.covered > _COVERED

    @property
    def looks_lit(self) -> bool:
        """Whether there seems to be beam in these frames."""
        return self.asymmetry > _BEAM_ASYMMETRY or self.level > _BEAM_LEVEL


def stage_of_codes(
    entry: DetectorType, gain_control: npt.NDArray[np.integer[Any]] | None, shape: tuple[int, int, int]
) -> npt.NDArray[np.int8]:
    """Gain stage (code, segment, pixel) of each gain code; -1 belongs to none."""
    n_segments, n = shape[0], shape[1] * shape[2]
    if entry.decoding is Decoding.CONTROL and gain_control is not None:
        return control_stages(entry, gain_control).reshape(2, n_segments, n)
    table = np.asarray(entry.stage_of_code, np.int8)[:, None, None]
    return np.broadcast_to(table, (len(table), n_segments, n))


def stage_result(
    entry: DetectorType, limits: DarkLimits, stage: int, runs: list[tuple[DarkSums, npt.NDArray[np.int8]]]
) -> DarkStage:
    """Put the sums of all runs together for one gain stage and judge its pixels.

    Parameters
    ----------
    entry, limits
        Type of the detector; where a pixel stops being good.
    stage
        Position in ``entry.stages``.
    runs
        Sums, and the stage (code, segment, pixel) of each code, of each run.
    """
    shape = runs[0][0].shape
    sums = [np.full((shape[0], shape[1] * shape[2]), e, d) for e, d in zip(_EMPTY, _DTYPES, strict=True)]
    bad_code, possible = np.zeros(sums[0].shape, bool), np.zeros(sums[0].shape, bool)
    level = np.zeros((shape[0], 3))
    for run, stages in runs:
        # of a configured pixel only the stage it begins in is measured in the dark
        possible |= ((stages[:1] if entry.decoding is Decoding.CONTROL else stages) == stage).any(axis=0)
        for slot, code in enumerate(run.codes):
            mine = np.broadcast_to(stages[code] == stage, sums[0].shape)
            bad_code |= (stages[code] < 0) & (run.arrays[0][:, slot] > 0)
            if mine.any():
                level += run.level[code]
            for name, a, array in zip(_FIELDS, sums, run.arrays, strict=True):
                join = {"least": np.minimum, "most": np.maximum}.get(name, np.add)
                join(a, array[:, slot], out=a, where=mine)
    return _judged(entry, limits, shape, sums, bad_code, possible, level)


def _judged(
    entry: DetectorType, limits: DarkLimits, shape: tuple[int, ...], sums: list[npt.NDArray[Any]],
    bad_code: npt.NDArray[np.bool_], possible: npt.NDArray[np.bool_], level: npt.NDArray[np.float64],
) -> DarkStage:  # fmt: skip
    count, total, square, least, most, below, above = sums
    mean, variance = np.empty(count.shape), np.empty(count.shape)
    moments_of_sums(count.ravel(), total.ravel(), square.ravel(), mean.ravel(), variance.ravel())
    noise = np.sqrt(variance)
    few = count < limits.min_count
    enough = ~few
    pedestal_limits = _map_limits(mean[enough], limits, limits.values_of(entry))
    noise_limits = _map_limits(noise[enough], limits, limits.noise_of(entry))
    often = (limits.fraction * count).astype(np.int64)
    conditions = (
        noise > noise_limits[1], noise < noise_limits[0], above > often, below > often,
        mean > pedestal_limits[1], mean < pedestal_limits[0], bad_code, few & possible,
    )  # fmt: skip
    seen = bool(count.any())
    covered = float((enough & possible).sum()) / max(float(possible.sum()), 1.0)
    status = np.zeros(count.shape, np.uint64)
    for bit, condition in enumerate(conditions):
        judged = condition & (enough if bit < 6 else seen if bit == 6 else covered > _COVERED)
        status |= judged.astype(np.uint64) << np.uint64(bit)
    mean[few] = noise[few] = np.nan
    return DarkStage(
        pedestal=mean.reshape(shape).astype(np.float32),
        noise=noise.reshape(shape).astype(np.float32),
        status=status.reshape(shape),
        count=count.reshape(shape),
        least=least.reshape(shape),
        most=np.where(count > 0, most, -1).astype(most.dtype).reshape(shape),
        pedestal_limits=pedestal_limits,
        noise_limits=noise_limits,
        asymmetry=_asymmetry(mean, noise, least, most, min(limits.values_of(entry)[0] - 1, 0)),
        level=_spread_of_level(level, noise),
        covered=covered,
    )


def _map_limits(
    values: npt.NDArray[np.floating[Any]], limits: DarkLimits, absolute: tuple[float, float]
) -> tuple[float, float]:
    """Lowest and highest good value of a map, never wider than the absolute ones."""
    if values.size == 0:
        return float(absolute[0]), float(absolute[1])
    if limits.spread == "rms":
        middle = float(values.mean())
        down = up = float(values.std())
    else:
        low, middle, high = (float(q) for q in np.quantile(values, (0.01, 0.5, 0.99)))
        down, up = (middle - low) / _TO_SIGMA, (high - middle) / _TO_SIGMA
    return max(middle - limits.n_sigma * down, absolute[0]), min(middle + limits.n_sigma * up, absolute[1])


def _asymmetry(
    mean: npt.NDArray[np.float64], noise: npt.NDArray[np.float64], least: npt.NDArray[Any], most: npt.NDArray[Any],
    end: int,
) -> float:  # fmt: skip
    known = np.isfinite(noise) & (noise > 0) & (least > end)  # at the end of the range there is no other side
    if not known.any():
        return 1.0
    up = np.maximum(most[known] - mean[known], 1.0)
    down = np.maximum(mean[known] - least[known], 1.0)
    middle = float(np.median(up / down))
    return max(middle, 1 / middle)


def _spread_of_level(level: npt.NDArray[np.float64], noise: npt.NDArray[np.float64]) -> float:
    """Spread of the mean of a frame between events over the noise of a pixel, of the worst segment."""
    worst = 0.0
    for (n, total, square), of_segment in zip(level, noise, strict=True):
        known = of_segment[np.isfinite(of_segment)]
        if n > 1 and known.size:
            variance = max(square / n - (total / n) ** 2, 0.0)
            own = max(float(np.median(known)) ** 2 - variance, 1 / 12)  # a pixel's own variance; no ADC does better
            worst = max(worst, math.sqrt(variance / own))
    return worst
