"""The slow obvious twin of :mod:`xsmall.kernels.common_mode`: one unit after the other, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels import common_mode as k

__all__ = ["apply_common_mode"]


def apply_common_mode(
    stack: npt.NDArray[np.float32],
    use: npt.NDArray[np.uint8],
    plan: k.StepTables,
    corrections: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int32],
) -> None:
    """Do what the kernel of the same name does, in place."""
    for e, image in enumerate(stack):
        given = use[min(e, len(use) - 1)] != 0
        taking, everybody = given, np.ones(image.shape, bool)
        for step, limit in zip(plan.steps, plan.limits, strict=True):
            if step[k.ESTIMATOR] == k.EXCLUDE:
                start = everybody if step[k.IGNORE_USE] else given
                taking = start & ~_excluded(image, step, limit, plan.noise)
                continue
            who = everybody if step[k.IGNORE_USE] else taking
            u, apart = step[k.OFFSET], max(step[k.INTERLEAVE], 1)
            reach = step[k.COLUMNS] * apart
            for r in range(0, image.shape[0], step[k.ROWS]):
                for c in (start + i for start in range(0, image.shape[1], reach) for i in range(apart)):
                    unit = slice(r, r + step[k.ROWS]), slice(c, c // reach * reach + reach, apart)
                    corrections[e, u], counts[e, u] = _correct_unit(image[unit], who[unit], step, limit)
                    u += 1


def _excluded(image: Any, step: Any, limit: Any, noise: Any) -> Any:
    with np.errstate(invalid="ignore"):
        out = ~((image >= limit[k.LOW]) & (image <= limit[k.HIGH]))
        bright = image >= limit[k.N_SIGMA] * noise if limit[k.N_SIGMA] > 0 else np.zeros(image.shape, bool)
    near = bright.copy()
    if step[k.NEIGHBOURS]:
        near[1:] |= bright[:-1]
        near[:-1] |= bright[1:]
        near[:, 1:] |= bright[:, :-1]
        near[:, :-1] |= bright[:, 1:]
    return out | near


def _correct_unit(pixels: Any, who: Any, step: Any, limit: Any) -> tuple[float, int]:
    """Estimate and subtract the correction of one unit; return it and the number of pixels."""
    value, n = _estimate(pixels, who, step, limit)
    if n < step[k.MIN_COUNT] or not abs(np.float32(value)) <= limit[k.MAX_CORRECTION]:
        if step[k.BLANK] and step[k.APPLY] != k.NOTHING:
            pixels[who if step[k.APPLY] == k.USED else ...] = np.nan
        return np.nan, n
    if step[k.APPLY] == k.ALL:
        pixels -= np.float32(value)
    elif step[k.APPLY] == k.USED:
        pixels[who] -= np.float32(value)
    return value, n


def _estimate(pixels: Any, who: Any, step: Any, limit: Any) -> tuple[float, int]:
    kind = step[k.ESTIMATOR]
    if kind == k.UNBONDED:
        return _unbonded(pixels)
    part = slice(step[k.FIRST], step[k.STOP])
    v = pixels[:, part][who[:, part] & np.isfinite(pixels[:, part])].astype(float)
    if kind == k.PEAK:
        value, n = _peak(v, limit)
        return _unbonded(pixels) if step[k.FALLBACK] and not abs(value) <= limit[k.MAX_CORRECTION] else (value, n)
    if kind == k.HISTOGRAM_MEDIAN:
        return _histogram_median(np.clip(np.trunc(v), -1e6, 1e6).astype(int), int(limit[k.HIGH])), v.size
    v = v[(v >= limit[k.LOW]) & (v <= limit[k.HIGH])]
    if v.size == 0:
        return np.nan, 0
    if kind == k.MEAN:
        return v.mean(), v.size
    if kind == k.INTEGER_MEDIAN:
        whole = np.sort(np.clip(np.trunc(v), -16384, 16383))
        return whole[int(np.ceil(v.size / 2)) - 1], v.size
    return float(np.median(v)), v.size


def _unbonded(pixels: Any) -> tuple[float, int]:
    p = np.arange(10, 185, 10)
    v = np.concatenate([pixels[p, p], pixels[p, p + 194]]).astype(float)
    v = v[np.isfinite(v)]
    return (v.mean() if v.size else np.nan), v.size


def _histogram_median(whole: Any, half_range: int) -> float:
    low, high = -half_range, half_range
    while whole.size and high - low + 1 <= 10000:
        bins = high - low + 1
        h = np.bincount(np.clip(whole - low, 0, bins - 1), minlength=bins)
        if h[0] > whole.size // 2:
            low -= bins // 4
        elif h[-1] > whole.size // 2:
            high += bins // 4
        else:
            up_to = np.cumsum(h)
            rank = int(np.ceil(whole.size / 2))
            at = int(np.argmax(up_to >= rank))
            within = np.float32(rank - up_to[at]) / np.float32(h[at])
            return float(np.float32(np.float64(np.float32(low + at) + within) + 0.8))
    return np.nan


def _peak(v: Any, limit: Any) -> tuple[float, int]:
    whole = np.trunc(v + np.where(v < 0, -0.5, 0.5)).astype(int)
    whole = whole[(whole >= -1000) & (whole < 2000)]
    h = np.bincount(whole + 1000, minlength=3000)
    at, height, right = -1, -1, h.size
    for i, count in enumerate(h):
        if count > height and count > limit[k.MIN_PEAK]:
            at, height = i, count
        elif height > 0 and count <= height // 2:
            right = i
            break
    if at < 0:
        return np.nan, whole.size
    lower = np.flatnonzero(h[: at + 1] <= height // 2)
    sigma, mean = (right - (lower[-1] if lower.size else -1)) / 2.36, float(at)
    for _ in range(2):
        d = int(2 * sigma + 0.5)
        bins = np.arange(max(0, at - d), min(h.size, at + d + 1))
        shift = np.average(bins - mean, weights=h[bins])
        sigma = np.sqrt(max(np.average((bins - mean) ** 2, weights=h[bins]) - shift**2, 0))
        mean += shift
    return (mean - 1000 if sigma <= limit[k.SIGMA_MAX] else np.nan), whole.size
