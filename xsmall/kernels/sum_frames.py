"""Sums of deviations of some frames from a shift, as :mod:`xsmall.kernels.add_frames` needs them.

Compiled without any freedom to reorder: a pixel has the same bits whichever of these sums it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = ["choose_shift", "first_valid", "sum_group"]

_Array = npt.NDArray[Any]

_FEW = 128
"""One pixel in so many that is missing somewhere is summed by itself; where there are more, all of them are."""

_FEW_LEFT = 8
"""One pixel in so many that has no valid value yet is followed by itself through the frames."""


@njit(fastmath=False, inline="always")
def choose_shift(values: _Array, places: _Array, count: _Array, mean: _Array, shift: _Array) -> None:
    """Set ``shift`` to the mean so far, else the first valid value, else 0."""
    missing = 0
    for p in range(count.shape[0]):
        missing += count[p] == 0
    if missing == 0:
        shift[: count.shape[0]] = mean
        return
    for p in range(count.shape[0]):
        shift[p] = mean[p] if count[p] > 0 else np.nan
    _fill_shift(values, places, shift[: count.shape[0]])


@njit(fastmath=False, inline="always")
def first_valid(values: _Array, places: _Array, shift: _Array) -> None:
    """Set ``shift`` to the first valid value, else 0."""
    shift[:] = np.nan
    _fill_shift(values, places, shift)


@njit(fastmath=False)
def _fill_shift(values: _Array, places: _Array, shift: _Array) -> None:
    """Fill what is NaN in ``shift`` with the first valid value, else 0: all pixels at once, the last few one by one."""
    size = shift.shape[0]
    seen = 0
    missing = size
    while seen < places.shape[0] and missing * _FEW_LEFT > size:
        of = values[places[seen] : places[seen] + size]
        missing = 0
        for p in range(size):
            s = shift[p]
            v = np.float64(of[p])
            s = v if s != s and abs(v) < np.inf else s
            shift[p] = s
            missing += s != s
        seen += 1
    if missing == 0:
        return
    for p in range(size):
        if shift[p] != shift[p]:
            s = 0.0
            for i in range(seen, places.shape[0]):
                v = np.float64(values[places[i] + p])
                if abs(v) < np.inf:
                    s = v
                    break
            shift[p] = s


@njit(fastmath=False)
def sum_group(
    values: _Array, places: _Array, size: int, shift: _Array, total: _Array, square: _Array, valid: _Array
) -> bool:
    """Sum the deviations of some frames from the shift, as if all were finite; then again where a sum is not.

    What is missing in the first frame mostly is in all of them: where that is much, nothing is tried. Returns whether
    nothing is missing.
    """
    missing = _n_missing(values, places, size)
    if missing * _FEW <= size:
        missing = _sum_as_finite(values, places, size, shift, total, square)
        valid[:size] = np.float64(places.shape[0])
    if missing * _FEW > size:
        _sum_valid(values, places, shift[:size], total[:size], square[:size], valid[:size])
    elif missing > 0:
        for p in range(size):
            if not square[p] < np.inf:
                one = slice(p, p + 1)
                _sum_valid(values, places + p, shift[one], total[one], square[one], valid[one])
    return bool(missing == 0)


@njit(fastmath=False)
def _sum_as_finite(values: _Array, places: _Array, size: int, shift: _Array, total: _Array, square: _Array) -> Any:
    """Sum deviations whatever they are; returns in how many pixels the sum is not finite."""
    total[:size] = 0.0
    square[:size] = 0.0
    last = places.shape[0] - places.shape[0] % 4
    for i in range(0, last, 4):
        a = values[places[i] : places[i] + size]
        b = values[places[i + 1] : places[i + 1] + size]
        c = values[places[i + 2] : places[i + 2] + size]
        d = values[places[i + 3] : places[i + 3] + size]
        _add_four_finite(a, b, c, d, shift, total, square)
    if places.shape[0] - last >= 2:
        a = values[places[last] : places[last] + size]
        b = values[places[last + 1] : places[last + 1] + size]
        _add_two_finite(a, b, shift, total, square)
        last += 2
    if places.shape[0] > last:
        _add_one_finite(values[places[last] : places[last] + size], shift, total, square)
    missing = 0
    for p in range(size):
        missing += not square[p] < np.inf
    return missing


@njit(fastmath=False, inline="always")
def _n_missing(values: _Array, places: _Array, size: int) -> int:
    """How many pixels are missing in the first of some frames."""
    missing = 0
    if places.shape[0] > 0:
        of = values[places[0] : places[0] + size]
        for p in range(size):
            missing += not abs(np.float64(of[p])) < np.inf
    return missing


@njit(fastmath=False)
def _sum_valid(values: _Array, places: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    """Sum what is finite, in the order in which all is summed: a pixel has the same bits either way."""
    size = total.shape[0]
    total[:] = 0.0
    square[:] = 0.0
    valid[:] = 0.0
    last = places.shape[0] - places.shape[0] % 4
    for i in range(0, last, 4):
        a = values[places[i] : places[i] + size]
        b = values[places[i + 1] : places[i + 1] + size]
        c = values[places[i + 2] : places[i + 2] + size]
        d = values[places[i + 3] : places[i + 3] + size]
        _add_four(a, b, c, d, shift, total, square, valid)
    if places.shape[0] - last >= 2:
        a = values[places[last] : places[last] + size]
        b = values[places[last + 1] : places[last + 1] + size]
        _add_two(a, b, shift, total, square, valid)
        last += 2
    if places.shape[0] > last:
        _add_one(values[places[last] : places[last] + size], shift, total, square, valid)


@njit(fastmath=False, inline="always")
def _add_one_finite(a: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        x = np.float64(a[p]) - s
        total[p] += x
        square[p] += x * x


@njit(fastmath=False, inline="always")
def _add_two_finite(a: _Array, b: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        x = np.float64(a[p]) - s
        y = np.float64(b[p]) - s
        total[p] += x + y
        square[p] += x * x + y * y


@njit(fastmath=False, inline="always")
def _add_four_finite(a: _Array, b: _Array, c: _Array, d: _Array, shift: _Array, total: _Array, square: _Array) -> None:
    for p in range(a.shape[0]):
        s = np.float64(shift[p])
        w = np.float64(a[p]) - s
        x = np.float64(b[p]) - s
        y = np.float64(c[p]) - s
        z = np.float64(d[p]) - s
        total[p] += (w + x) + (y + z)
        square[p] += (w * w + x * x) + (y * y + z * z)


@njit(fastmath=False, inline="always")
def _add_one(a: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    for p in range(a.shape[0]):
        x = np.float64(a[p]) - shift[p]
        good = abs(x) < np.inf
        x = x if good else 0.0
        total[p] += x
        square[p] += x * x
        valid[p] += 1.0 if good else 0.0


@njit(fastmath=False, inline="always")
def _add_two(a: _Array, b: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array) -> None:
    for p in range(a.shape[0]):
        s = shift[p]
        x = np.float64(a[p]) - s
        y = np.float64(b[p]) - s
        n = (1.0 if abs(x) < np.inf else 0.0) + (1.0 if abs(y) < np.inf else 0.0)
        x = x if abs(x) < np.inf else 0.0
        y = y if abs(y) < np.inf else 0.0
        total[p] += x + y
        square[p] += x * x + y * y
        valid[p] += n


@njit(fastmath=False, inline="always")
def _add_four(
    a: _Array, b: _Array, c: _Array, d: _Array, shift: _Array, total: _Array, square: _Array, valid: _Array
) -> None:
    for p in range(a.shape[0]):
        s = shift[p]
        w = np.float64(a[p]) - s
        x = np.float64(b[p]) - s
        y = np.float64(c[p]) - s
        z = np.float64(d[p]) - s
        n = (
            (1.0 if abs(w) < np.inf else 0.0)
            + (1.0 if abs(x) < np.inf else 0.0)
            + (1.0 if abs(y) < np.inf else 0.0)
            + (1.0 if abs(z) < np.inf else 0.0)
        )
        w = w if abs(w) < np.inf else 0.0
        x = x if abs(x) < np.inf else 0.0
        y = y if abs(y) < np.inf else 0.0
        z = z if abs(z) < np.inf else 0.0
        total[p] += (w + x) + (y + z)
        square[p] += (w * w + x * x) + (y * y + z * z)
        valid[p] += n
