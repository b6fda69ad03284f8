"""Waveforms: what lies below a pulse, its sum, the times of hits, and the share of templates in it.

A waveform is a row of numbers; samples that are NaN are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["baseline", "fit", "hits", "integral"]


@njit
def baseline(wave: npt.NDArray[Any], start: int, stop: int, median: bool, out: npt.NDArray[np.float64]) -> None:
    """Fill (level, standard deviation, number of samples) of a window without signal; 0, NaN, 0 of an empty one."""
    values = np.empty(stop - start)
    n = 0
    for i in range(start, stop):
        v = np.float64(wave[i])
        if abs(v) < np.inf:
            values[n] = v
            n += 1
    out[0], out[1], out[2] = (0.0 if stop == start else np.nan), np.nan, n
    if n == 0:
        return
    mean = values[:n].mean()
    square = 0.0
    for i in range(n):
        square += (values[i] - mean) ** 2
    out[1] = np.sqrt(square / (n - 1)) if n > 1 else np.nan
    out[0] = mean
    if median:
        ordered = np.sort(values[:n])
        out[0] = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])


@njit
def integral(
    wave: npt.NDArray[Any], start: int, stop: int, level: float, sign: float, out: npt.NDArray[np.float64]
) -> None:
    """Fill (sum, highest value, its position, number of samples) of a window above a level, times ``sign``."""
    total, highest, at, n = 0.0, -np.inf, np.nan, 0
    for i in range(start, stop):
        v = sign * (np.float64(wave[i]) - level)
        if abs(v) < np.inf:
            total += v
            n += 1
            if v > highest:
                highest, at = v, np.float64(i)
    out[0], out[1] = (total, highest) if n else (np.nan, np.nan)
    out[2], out[3] = at, n


@njit
def _value(wave: Any, i: int, level: float, sign: float) -> float:
    """A sample above the level; nothing outside of the waveform, and where there is no value."""
    if i < 0 or i >= wave.shape[0]:
        return 0.0
    v = sign * (np.float64(wave[i]) - level)
    return v if abs(v) < np.inf else 0.0


@njit
def hits(
    wave: npt.NDArray[Any],
    window: tuple[int, int],
    how: tuple[float, float, float],
    timing: tuple[float, int, int],
    out: npt.NDArray[np.float64],
) -> int:
    """Find where a waveform rises above a threshold.

    Parameters
    ----------
    wave
        (sample).
    window
        First and last sample that are looked at, half open.
    how
        (level, sign, threshold above the level).
    timing
        (fraction, delay, fewest samples from one hit to the next). Without delay the time is that of the threshold,
        else where ``fraction * v(t) - v(t - delay)`` falls through zero.
    out
        (hits, 4): time, highest value, samples above the threshold, first sample; filled as far as there is room.

    Returns
    -------
    How many there are.
    """
    level, sign, threshold = how
    fraction, delay, apart = timing
    n, i, last = 0, window[0], -apart
    while i < window[1]:
        if _value(wave, i, level, sign) < threshold:
            i += 1
            continue
        first = i
        highest = 0.0
        while i < window[1] and _value(wave, i, level, sign) >= threshold:
            highest = max(highest, _value(wave, i, level, sign))
            i += 1
        if first - last < apart:
            continue
        last = first
        before, here = _value(wave, first - 1, level, sign), _value(wave, first, level, sign)
        rises = first - 1 + (threshold - before) / (here - before) if first > window[0] else np.float64(first)
        here, after = _value(wave, i - 1, level, sign), _value(wave, i, level, sign)
        falls = i - 1 + (here - threshold) / (here - after) if i < window[1] else np.float64(i)
        time = rises
        if delay > 0:
            time = np.nan
            for j in range(first, min(i + delay, wave.shape[0])):
                a = fraction * _value(wave, j - 1, level, sign) - _value(wave, j - 1 - delay, level, sign)
                b = fraction * _value(wave, j, level, sign) - _value(wave, j - delay, level, sign)
                if a > 0.0 and b <= 0.0:
                    time = j - 1 + a / (a - b)
                    break
        if n < out.shape[0]:
            out[n, 0], out[n, 1], out[n, 2], out[n, 3] = time, highest, falls - rises, first
        n += 1
    return n


@njit
def fit(
    wave: npt.NDArray[Any],
    start: int,
    level: float,
    templates: npt.NDArray[np.float64],
    inverse: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> tuple[float, float]:
    """Fit templates (m, n) to the samples from ``start`` on, above a level; ``inverse`` (m, n) is their pseudo-inverse.

    Fills the coefficients (m,), and returns the squared sums of what is left and of what there was; all NaN where a
    sample is not valid.
    """
    m, n = templates.shape
    out[:] = 0.0
    square = 0.0
    for i in range(n):
        v = np.float64(wave[start + i]) - level
        square += v * v
        for j in range(m):
            out[j] += inverse[j, i] * v
    if not square < np.inf:
        out[:] = np.nan
        return np.nan, np.nan
    rest = 0.0
    for i in range(n):
        v = np.float64(wave[start + i]) - level
        for j in range(m):
            v -= out[j] * templates[j, i]
        rest += v * v
    return rest, square
