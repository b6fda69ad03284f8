"""Borders of bins as one writes them: decimal numbers, exact in any unit, met by readings of any float width.

0.3 is no float, nor is 75e-15: the border is the float next to the decimal number, not what adding widths makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import gcd
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SLACK: Final = 4
"""Last places by which a reading may miss a border that it was meant to be on: what a product and a sum do."""
_LOG_DIGITS: Final = 14
_SHORT: Final = 12
"""Digits of what one writes."""
_FEWEST: Final = 3
_SAMPLE: Final = 1000
_DIGITS: Final = 15
"""Digits of a decimal number that float64 always holds."""
_MOST_DIGITS_OF_FLOAT32: Final = 9
_LARGEST_POWER: Final = 300


def exact(value: Any) -> Fraction:
    """The decimal number that one writes for a float: 3/10 for 0.3, of whatever width."""
    return Fraction(str(value)) if isinstance(value, np.floating) else Fraction(repr(float(value)))


def regular(start: float, stop: float, n: int) -> Floats:
    """Return n + 1 borders at equal distances, each the float next to the exact number."""
    first, width = exact(start), (exact(stop) - exact(start)) / n
    common = first.denominator * width.denominator // gcd(first.denominator, width.denominator)
    a, b = first.numerator * (common // first.denominator), width.numerator * (common // width.denominator)
    return np.array([(a + k * b) / common for k in range(n + 1)])  # ints are divided correctly rounded


def logarithmic(start: float, stop: float, n: int) -> Floats:
    """Return n + 1 borders at equal ratios; powers of ten are what one writes."""
    grid = np.geomspace(start, stop, n + 1)
    inner = [float(f"{x:.{_LOG_DIGITS}g}") for x in grid[1:-1]]
    return np.array([start, *inner, stop])


def around(places: Sequence[float], tolerance: float) -> tuple[Floats, Floats]:
    """Return the lower and upper end of a tolerance around each place."""
    reach = exact(tolerance)
    low, high = ([float(exact(p) + sign * reach) for p in places] for sign in (-1, 1))
    return np.array(low), np.array(high)


def closest(places: Sequence[float]) -> Fraction:
    """Smallest distance between two places."""
    ordered = sorted(map(exact, places))
    return min((b - a for a, b in pairwise(ordered)), default=Fraction(10**400))


def slack(borders: Floats, dtype: np.dtype[Any]) -> Floats:
    """How far from each border a reading of this type may be that was meant to be on it."""
    size = np.abs(borders)
    own = _SLACK * np.spacing(size.astype(dtype)).astype(np.float64)
    out: Floats = np.maximum(own, np.spacing(size.max().astype(dtype)).astype(np.float64))
    if borders.size > 1:
        out = np.minimum(out, np.diff(borders).min(initial=np.inf, where=np.diff(borders) > 0) / 1000)
    return out


def as_written(borders: Floats) -> Floats:
    """Borders at equal distances, as arithmetic made them (``np.arange``, sums), as the decimals that one writes.

    Others are taken for what they are, to the last place; so are three or fewer.
    """
    n = borders.size - 1
    if n < _FEWEST:
        return borders
    first, last = (float(f"{x:.{_SHORT}g}") for x in (borders[0], borders[-1]))
    reach = (_SLACK + n) * np.spacing(np.abs(borders).max())  # each sum on the way has lost a last place
    if not first < last:
        return borders
    grid = regular(first, last, n)
    return grid if (np.abs(grid - borders) <= min(reach, (last - first) / n / 1000)).all() else borders


def are_regular(borders: npt.NDArray[Any]) -> bool:
    """Whether borders are the decimal numbers at equal distances that :func:`as_written` makes."""
    n = borders.size - 1
    return n >= _FEWEST and borders.dtype.kind == "f" and np.array_equal(regular(borders[0], borders[-1], n), borders)


def met(borders: Floats, dtype: np.dtype[Any]) -> Floats:
    """Borders as values of a type are compared with: in its precision, where 0.7 is 0.7."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = borders.astype(dtype if dtype.kind == "f" else np.float64).astype(np.float64)
        rises = np.isfinite(narrow).all() and (np.diff(narrow) > 0).all()
    return narrow if rises else borders


def as_read(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give readings in the precision that they were read in: float32 where they went through it.

    Readings in float64 that all are float32 numbers, and not the decimal numbers that one writes for those, went
    through float32: 0.699999988 was 0.7.
    """
    if data.dtype != np.float64:
        return data
    finite = data[np.isfinite(data)]
    with np.errstate(over="ignore"):
        narrow = finite.astype(np.float32)
    if not np.array_equal(narrow, finite):
        return data
    sample = np.unique(narrow)[:_SAMPLE]
    if all(float(str(x)) == float(x) for x in sample):
        return data
    with np.errstate(over="ignore"):
        return data.astype(np.float32)


def as_decimals(readings: npt.NDArray[Any]) -> Floats:
    """Give readings as the shortest decimal numbers that they may be: 0.7 for 0.699999988 of float32, in float64."""
    out = readings.astype(np.float64)
    if readings.dtype.kind != "f" or readings.dtype.itemsize >= out.dtype.itemsize:
        return out
    size, left = np.abs(out), np.isfinite(out)
    for digits in range(_FEWEST, _MOST_DIGITS_OF_FLOAT32 + 1):
        short = rounded(out, size, digits)
        with np.errstate(over="ignore"):
            found = left & (short.astype(readings.dtype) == readings)
        out, left = np.where(found, short, out), left & ~found
    return out


def rounded(values: Floats, size: Floats, digits: int = _DIGITS) -> Floats:
    """Round to so many digits of a number of this size: what arithmetic left behind the decimal number goes."""
    known = np.isfinite(values) & np.isfinite(size) & (size > 0)
    with np.errstate(all="ignore"):
        behind = np.where(known, digits - 1 - np.floor(np.log10(np.where(known, size, 1.0))), 0)
        up, down = (10.0 ** np.clip(sign * behind, 0, _LARGEST_POWER) for sign in (1, -1))
        made = np.rint(values * up / down) / up * down
    return np.where(known & np.isfinite(made), made, values)
