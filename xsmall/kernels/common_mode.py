"""Common mode: the offset that pixels read out together share, estimated and taken away, event by event.

A :class:`StepTables` is the compiled form of a common mode for one segment: a table of steps, done in order, each on
the result of the one before. A step cuts the segment into equal units (banks, stretches of rows or columns,
everything), estimates one number per unit from the pixels that take part, and subtracts it.
``xsmall.calibration.common_mode.mode`` makes plans out of records; :func:`apply_common_mode` runs them on frames in
ADU with the pedestal subtracted, before the gain is divided out.

What a step cannot estimate (too few pixels, beyond the largest correction, no peak) is NaN in the corrections; its
pixels are left as they are, or become NaN where the step says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from xsmall.kernels.jit import njit
from xsmall.kernels.median import unit_medians
from xsmall.kernels.median_search import LANES
from xsmall.kernels.vectors import Emit, constant, vector_code

__all__ = ["StepTables", "apply_common_mode", "median_estimates", "subtract_estimates"]


# estimators
MEDIAN, INTEGER_MEDIAN, MEAN, PEAK, UNBONDED, EXCLUDE, HISTOGRAM_MEDIAN = range(7)
# what a correction is subtracted from
NOTHING, USED, ALL = range(3)
# columns of Plan.steps
ESTIMATOR, ROWS, COLUMNS, FIRST, STOP, MIN_COUNT, APPLY, IGNORE_USE, OFFSET, FALLBACK, NEIGHBOURS, BLANK = range(12)
INTERLEAVE = 12
N_STEP = 13
# columns of Plan.limits
MAX_CORRECTION, LOW, HIGH, SIGMA_MAX, MIN_PEAK, N_SIGMA = range(6)
N_LIMIT = 6

_PEAK_LOW, _PEAK_BINS = -1000, 3000  # histogram of the peak fit, 1 ADU per bin
_MOST_BINS, _BIN_SHIFT = 10000, 0.8  # of the histogram median: where it gives up, and what it adds to the bin's value
_FAR = 1e6  # beyond every bin of it
_INTEGER_HALF = 16384  # the integer median ends at -16384 and 16383
_UNBONDED_PITCH = 10  # pixels (10, 10), (20, 20) ... (180, 180) of each ASIC of a CSPAD section see no charge


class StepTables(NamedTuple):
    """The steps of a common mode for one segment, as tables that kernels read.

    Attributes
    ----------
    steps
        int64 (step, 13): estimator, rows and columns of a unit, first and last column of it that take part, smallest
        number of pixels, what to subtract from, whether the use mask is ignored, first unit, fallback, neighbours,
        whether a unit without a correction becomes NaN, how many units lie interleaved along columns.
    limits
        float32 (step, 6): largest correction (inclusive), smallest and largest value that takes part (of a histogram
        median: the first and the last bin to begin with), largest width and smallest height of a peak, how many sigmas
        are bright.
    noise
        float32 (row, column) in ADU; (0, 0) where no step asks for it.
    n_units
        Units of all steps together.
    """

    steps: npt.NDArray[np.int64]
    limits: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    n_units: int


@njit
def _exclude(image: Any, use: Any, step: Any, limit: Any, noise: Any, keep: Any) -> None:
    """Keep the pixels that go on taking part: neither bright, nor beside a bright one, nor out of the window."""
    rows, columns = image.shape
    low, high, n_sigma = limit[LOW], limit[HIGH], limit[N_SIGMA]
    bright = np.zeros((rows + 2, columns + 2), np.uint8)  # with a border, so that every pixel has four neighbours
    for r in range(rows if n_sigma > 0 else 0):
        values, noisy, marks = image[r], noise[r], bright[r + 1, 1 : columns + 1]
        for c in range(columns):
            marks[c] = np.uint8(values[c] >= n_sigma * noisy[c])
    around = np.uint8(step[NEIGHBOURS] != 0)
    for r in range(rows):
        values, taking, kept = image[r], use[r], keep[r]
        here, above, below = bright[r + 1], bright[r, 1 : columns + 1], bright[r + 2, 1 : columns + 1]
        for c in range(columns):
            beside = here[c] | here[c + 2] | above[c] | below[c]
            near = np.uint8(here[c + 1] | (beside & around))
            inside = (taking[c] != 0) & (values[c] >= low) & (values[c] <= high)
            kept[c] = np.uint8(inside & (near == 0))


@njit
def median_estimates(image: Any, use: Any, step: Any, limit: Any, values: Any, counts: Any) -> None:
    """Medians of the values in the window."""
    lower = np.empty(values.size, np.float32)
    medians = np.empty(values.size)
    unit_medians(
        image, use, step[ROWS], step[COLUMNS], step[FIRST], step[STOP], limit[LOW], limit[HIGH], medians, lower, counts
    )
    for u in range(values.size):
        values[u] = medians[u]
        if step[ESTIMATOR] == INTEGER_MEDIAN and counts[u] > 0:
            values[u] = min(max(np.trunc(np.float64(lower[u])), -_INTEGER_HALF), _INTEGER_HALF - 1)


@njit
def _mean_estimates(image: Any, use: Any, step: Any, limit: Any, values: Any, counts: Any) -> None:
    """Means of the values in the window."""
    rows, columns = step[ROWS], step[COLUMNS]
    low, high = limit[LOW], limit[HIGH]
    u = 0
    for r in range(0, image.shape[0], rows):
        for c in range(0, image.shape[1], columns):
            total, n = 0.0, np.int32(0)
            for i in range(r, r + rows):
                pixels = image[i, c + step[FIRST] : c + step[STOP]]
                taking = use[i, c + step[FIRST] : c + step[STOP]]
                for p in range(pixels.size):
                    v = pixels[p]
                    ok = (taking[p] != 0) & (v >= low) & (v <= high)
                    total += np.float64(v) if ok else 0.0
                    n = np.int32(n + np.int32(ok))  # 32 bits wide: eight at once
            values[u], counts[u] = (total / n if n > 0 else np.nan), n
            u += 1


@njit
def _unbonded(image: Any, row: Any, column: Any) -> Any:
    """Return the mean of the unbonded pixels of the CSPAD section that begins at a pixel, and how many are finite."""
    total, n = 0.0, np.int32(0)
    half = 194
    for p in range(_UNBONDED_PITCH, 185, _UNBONDED_PITCH):
        for c in (p, p + half):
            v = np.float64(image[row + p, column + c])
            if abs(v) < np.inf:
                total += v
                n += np.int32(1)
    return (total / n if n > 0 else np.nan), n


@njit
def _peak_of(histogram: Any, min_peak: Any) -> Any:
    """Return position and full width at half maximum of the first peak of a histogram, (-1, 0) where there is none."""
    at, height, right = -1, -1, histogram.size
    for i in range(histogram.size):
        if histogram[i] > height and histogram[i] > min_peak:
            at, height = i, histogram[i]
        elif height > 0 and histogram[i] <= height // 2:
            right = i
            break
    left = at
    while left >= 0 and histogram[left] > height // 2:
        left -= 1
    return at, (right - left if at >= 0 else 0)


@njit
def _zero_photon_peak(histogram: Any, limit: Any) -> Any:
    """Return the mean of the peak of the pixels without photons in ADU, NaN where there is none or it is too wide."""
    at, width = _peak_of(histogram, limit[MIN_PEAK])
    if at < 0:
        return np.nan
    sigma, mean = width / 2.36, np.float64(at)
    for _ in range(2):
        d = int(sigma * 2 + 0.5)
        s0, s1, s2 = 0.0, 0.0, 0.0
        for i in range(max(0, at - d), min(histogram.size, at + d + 1)):
            x = i - mean
            s0 += histogram[i]
            s1 += x * histogram[i]
            s2 += x * x * histogram[i]
        mean += s1 / s0
        sigma = np.sqrt(max(s2 / s0 - (s1 / s0) ** 2, 0.0))
    return mean + _PEAK_LOW if sigma <= limit[SIGMA_MAX] else np.nan


@njit
def _section_estimates(image: Any, use: Any, step: Any, limit: Any, values: Any, counts: Any) -> None:
    """Peak fits and unbonded pixels of CSPAD-like sections; the first falls back to the second where asked to."""
    rows, columns, u = step[ROWS], step[COLUMNS], 0
    histogram = np.empty(_PEAK_BINS, np.int64)
    for r in range(0, image.shape[0], rows):
        for c in range(0, image.shape[1], columns):
            value, n, failed = np.nan, np.int32(0), True
            if step[ESTIMATOR] == PEAK:
                histogram[:] = 0
                for i in range(r, r + rows):
                    for j in range(c, c + columns):
                        v = np.float64(image[i, j])
                        if use[i, j] != 0 and abs(v) < _PEAK_BINS:
                            k = int(v - 0.5 if v < 0 else v + 0.5) - _PEAK_LOW
                            if 0 <= k < _PEAK_BINS:
                                histogram[k] += 1
                                n += np.int32(1)
                value = _zero_photon_peak(histogram, limit)
                failed = not abs(value) <= limit[MAX_CORRECTION]
            if step[ESTIMATOR] == UNBONDED or (failed and step[FALLBACK] != 0):
                value, n = _unbonded(image, r, c)
            values[u], counts[u] = value, n
            u += 1


@njit
def _histogram_median(whole: Any, half_range: Any, histogram: Any) -> Any:
    """Return psana's median of whole numbers, NaN where there are none or a histogram would need too many bins.

    The end bins hold what lies beyond. As long as one of them holds more than half, the histogram grows by a quarter
    on that side; then the median is found within its bin by how many pixels of the bin lie below.
    """
    n, low, high = whole.size, -half_range, half_range
    while n > 0 and high - low < _MOST_BINS:
        bins = high - low + 1
        histogram[:bins] = 0
        for v in whole:
            histogram[min(max(v - low, 0), bins - 1)] += 1
        if histogram[0] > n // 2:
            low -= bins // 4
        elif histogram[bins - 1] > n // 2:
            high += bins // 4
        else:
            at, left = 0, (n + 1) // 2 - histogram[0]
            while left > 0:
                at += 1
                left -= histogram[at]
            within = np.float32(left) / np.float32(histogram[at])  # single precision, as there
            return np.float32(np.float64(np.float32(low + at) + within) + _BIN_SHIFT)
    return np.float32(np.nan)


@njit
def _histogram_estimates(image: Any, use: Any, step: Any, limit: Any, values: Any, counts: Any) -> None:
    """Medians of histograms of values cut to whole ADU."""
    rows, columns, u = step[ROWS], step[COLUMNS], 0
    whole, histogram = np.empty(rows * columns, np.int64), np.empty(_MOST_BINS, np.int64)
    for r in range(0, image.shape[0], rows):
        for c in range(0, image.shape[1], columns):
            n = 0
            for i in range(r, r + rows):
                for j in range(c, c + columns):
                    v = np.float64(image[i, j])
                    if use[i, j] != 0 and abs(v) < np.inf:
                        whole[n] = int(min(max(v, -_FAR), _FAR))
                        n += 1
            values[u], counts[u] = _histogram_median(whole[:n], int(limit[HIGH]), histogram), n
            u += 1


@njit
def _take_of_used(pixels: Any, use: Any, start: Any, take: Any, n: Any) -> None:
    """Do what :func:`_take_away` does."""
    for i in range(n):
        pixels[start + i] -= take[i] if use[start + i] != 0 else np.float32(0)


@vector_code(types.void, _take_of_used)
def _take_away(emit: Emit, pixels: Any, use: Any, start: Any, take: Any, n: Any) -> Any:
    """Subtract from ``n`` pixels (a multiple of 16) from ``start`` on what belongs to each, where they are used."""
    build = emit.build
    first, used = emit.at(pixels, start), emit.at(use, start)
    with emit.loop(n, LANES) as i:
        marks, value = emit.load(emit.at(used, i), LANES), emit.at(first, i)
        belongs = emit.load(emit.at(take, i), LANES)
        taken = build.select(
            build.icmp_unsigned("!=", marks, constant(marks.type, 0)), belongs, constant(belongs.type, 0.0)
        )
        emit.store(build.fsub(emit.load(value, LANES), taken), value)
    return emit.nothing()


@njit
def subtract_estimates(image: Any, use: Any, step: Any, limit: Any, values: Any, counts: Any) -> None:
    """Make the estimates NaN that must not be applied, and subtract the others from their pixels."""
    rows, columns = step[ROWS], step[COLUMNS]
    for u in range(values.size):
        if counts[u] < step[MIN_COUNT] or not abs(values[u]) <= limit[MAX_CORRECTION]:
            values[u] = np.nan
    if step[APPLY] == NOTHING:
        return
    failed = np.float32(np.nan) if step[BLANK] != 0 else np.float32(0)
    per_row, width = image.shape[1] // columns, np.int64(image.shape[1])
    pixels, used = image.reshape(-1), use.reshape(-1)
    whole = width // LANES * LANES
    take = np.zeros(width, np.float32)
    for r in range(image.shape[0]):
        if r % rows == 0:
            for u in range(per_row):
                v = values[r // rows * per_row + u]
                v = v if v == v else failed
                of_unit = take[u * columns : (u + 1) * columns]
                for c in range(of_unit.size):
                    of_unit[c] = v
        start = r * width
        if step[APPLY] == ALL:
            row = pixels[start : start + width]
            for c in range(row.size):
                row[c] -= take[c]
        else:
            _take_away(pixels, used, start, take, whole)
            for c in range(whole, width):
                pixels[start + c] -= take[c] if used[start + c] != 0 else np.float32(0)


def _estimator(step: npt.NDArray[np.int64]) -> Any:
    """The kernel that makes the estimates of a step; each is compiled when it is first used."""
    if step[ESTIMATOR] == MEAN:
        return _mean_estimates
    if step[ESTIMATOR] in (PEAK, UNBONDED):
        return _section_estimates
    if step[ESTIMATOR] == HISTOGRAM_MEDIAN:
        return _histogram_estimates
    return median_estimates


def _apart(image: npt.NDArray[Any], step: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return a copy in which each interleaved unit of a step is a block of its own."""
    n = step[INTERLEAVE]
    return image.reshape(len(image), -1, step[COLUMNS], n).swapaxes(2, 3).reshape(image.shape)


def _back(blocks: npt.NDArray[Any], step: npt.NDArray[np.int64], image: npt.NDArray[Any]) -> None:
    """Put the blocks of :func:`_apart` where they came from."""
    n, columns = step[INTERLEAVE], step[COLUMNS]
    image.reshape(len(image), -1, columns, n)[...] = blocks.reshape(len(image), -1, n, columns).swapaxes(2, 3)


def apply_common_mode(
    stack: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    plan: StepTables,
    corrections: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int32],
) -> None:
    """Estimate and subtract the common mode of one segment of some events, in place.

    Parameters
    ----------
    stack
        float32 (event, row, column), contiguous: ADU minus pedestal; corrected in place. NaN and infinite pixels take
        no part and stay.
    use
        uint8 (event, row, column), contiguous: 1 where a pixel takes part in estimates (good, in the right gain stage).
        One event stands for all where it is the same for all.
    plan
        The :class:`StepTables` of the segment, whose units divide rows and columns without remainder.
    corrections, counts
        Filled: float32 and int32 (event, plan.n_units), contiguous: what was subtracted in each unit of each step in
        ADU (NaN: nothing could be), and how many pixels it was estimated from.

    Notes
    -----
    One event's result does not depend on the others. Sums are 64 bit; medians are exact.
    """
    everybody = np.ones(stack.shape[1:], np.uint8) if plan.steps[:, IGNORE_USE].any() else use[0]
    kept = np.empty(stack.shape[1:], np.uint8) if (plan.steps[:, ESTIMATOR] == EXCLUDE).any() else use[0]
    for e, image in enumerate(stack):
        given = taking = use[min(e, len(use) - 1)]
        for step, limit in zip(plan.steps, plan.limits, strict=True):
            if step[ESTIMATOR] == EXCLUDE:
                _exclude(image, everybody if step[IGNORE_USE] else given, step, limit, plan.noise, kept)
                taking = kept
                continue
            who = everybody if step[IGNORE_USE] else taking
            units = image.shape[0] // step[ROWS] * (image.shape[1] // step[COLUMNS])
            part = slice(step[OFFSET], step[OFFSET] + units)
            pixels = image
            if step[INTERLEAVE] > 1:
                pixels, who = _apart(image, step), _apart(who, step)
            _estimator(step)(pixels, who, step, limit, corrections[e, part], counts[e, part])
            subtract_estimates(pixels, who, step, limit, corrections[e, part], counts[e, part])
            if pixels is not image:
                _back(pixels, step, image)
