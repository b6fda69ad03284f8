"""Bins of a scan variable: said by the user, never guessed.

``bins``, ``edges``, ``steps``, ``quantiles`` and ``categories`` each make a value object of
:mod:`xsmall.cube.binning`; a bare array means edges, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.cube.binning import Binning, Bins, Categories, Edges, Quantiles, Steps
from xsmall.errors import ParameterError
from xsmall.events.borders import as_written, closest, exact
from xsmall.events.labels import times_in_utc

__all__ = ["as_binning", "bins", "categories", "edges", "quantiles", "steps"]

_WIDE = 8
MOST_BINS = 1_000_000
"""More bins than this along one variable are a slip of the unit, not a wish."""


def bins(start: float, stop: float, *, width: float | None = None, n: int | None = None, log: bool = False) -> Bins:
    """Make bins from ``start`` to ``stop`` of equal width, or of equal ratio; closed on the left, open on the right.

    Parameters
    ----------
    start, stop
        First and last border, in the unit of the variable.
    width
        Width of a bin, in the unit of the variable; ``stop - start`` has to be a whole number of widths.
    n
        Number of bins; give either this or ``width``.
    log
        Each bin has the same ratio of its borders, not the same width; ``start`` is above 0, and ``n`` is given.
        The labels are geometric means.

    Returns
    -------
    Bins
        A value object for :func:`xsmall.cube.cube.cube`. An event on a border is in the bin to the right of it:
        borders are the decimal numbers that one writes (0.3, not 0.30000000000000004), in any unit; a reading that
        went through float32, or misses a border by its last places only, is on it.

    Raises
    ------
    ParameterError
        Borders not finite or in the wrong order; neither or both of ``width`` and ``n``; widths that do not fill the
        range; logarithmic bins with a width or from 0.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.bins(-2, 5, width=0.1).n
    70
    >>> xs.bins(0, 1, n=10).assign([0.3, 0.29, 1.0]).index.tolist()
    [3, 2, -1]
    >>> xs.bins(0.001, 1000, n=6, log=True).edges().tolist()
    [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]
    """
    start, stop = _finite_number(start, "start"), _finite_number(stop, "stop")
    if not start < stop:
        raise ParameterError("bins need start below stop", found=f"start={start:g}, stop={stop:g}", fix="swap them")
    if (width is None) == (n is None):
        raise ParameterError(
            "bins need a width or a number, one of them",
            found="neither" if n is None else f"width={width!r} and n={n!r}",
            fix=f"xs.bins({start:g}, {stop:g}, n={10 if n is None else n})",
        )
    if log and (width is not None or start <= 0):
        raise ParameterError(
            "logarithmic bins have a number and start above 0",
            found=f"start={start:g}" if width is None else f"width={width!r}",
            fix="xs.bins(0.001, 1000, n=60, log=True)",
        )
    if width is not None:
        width = _finite_number(width, "width")
        if width <= 0:
            raise ParameterError(
                "the width of a bin has to be positive", found=width, fix=f"xs.bins({start:g}, {stop:g}, n=10)"
            )
        ratio = float((exact(stop) - exact(start)) / exact(width))
        n = round(ratio)
        if n < 1 or abs(ratio - n) > 1e-6:
            n = max(1, n)
            raise ParameterError(
                "bins of this width do not fill the range",
                found=f"{stop - start:g} is {ratio:g} widths of {width:g}",
                expected="a whole number of widths",
                fix=f"xs.bins({start:g}, {start + n * width:g}, width={width:g}) or xs.bins(..., n={n})",
            )
    return Bins(start, stop, _number_of_bins(n), bool(log))


def edges(borders: Sequence[Any] | npt.NDArray[Any]) -> Edges:
    """Make bins between given borders: n + 1 rising values make n bins, closed on the left and open on the right.

    Parameters
    ----------
    borders
        Rising values in the unit of the variable (datetime64 for a time).

    Returns
    -------
    Edges
        A value object for :func:`xsmall.cube.cube.cube`; a bare array there means the same. Edges at equal distances
        are the decimal numbers that one writes: ``np.arange(0, 1, 0.1)`` is 0, 0.1, 0.2, 0.3, not 0.30000000000000004.
        A reading that misses one of them by its last places only is on it, as for :func:`bins`; other edges are taken
        to the last place.

    Raises
    ------
    ParameterError
        Fewer than two borders, or not rising, or not finite.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.edges([0, 1, 10]).assign([0.5, 1.0, 10.0]).index.tolist()
    [0, 1, -1]
    """
    try:
        values: npt.NDArray[Any] = np.asarray(borders)
    except ValueError:  # lists of several lengths
        values = np.empty((0, 0))
    if values.ndim != 1 or values.size < 2:
        raise ParameterError(
            "edges need one dimension and two values at least",
            found=f"shape {values.shape}",
            fix="[0, 1, 10]",
        )
    if values.dtype.kind == "M" or all(isinstance(x, datetime) for x in values[:1]):
        values = np.asarray(times_in_utc(borders, "edges"))
        finite = ~np.isnat(values)
    elif values.dtype.kind in "iuf":
        narrow = values.dtype.kind == "f" and values.dtype.itemsize < _WIDE
        values = np.array([float(str(x)) for x in values]) if narrow else values.astype(np.float64)
        finite = np.isfinite(values)
    else:
        raise ParameterError("edges have to be numbers or times", found=values.dtype, fix="xs.categories([...])")
    if not finite.all():
        raise ParameterError("every edge has to be finite", found=values[~finite][0])
    bad = np.flatnonzero(values[1:] <= values[:-1])
    if bad.size:
        i = int(bad[0])
        what = "edges are repeated" if values[i] == values[i + 1] else "edges have to rise"
        raise ParameterError(
            what, found=f"{values[i]} followed by {values[i + 1]} at position {i}", fix="xs.edges(np.unique(edges))"
        )
    _number_of_bins(values.size - 1)
    return Edges(tuple(values) if values.dtype.kind == "M" else tuple(as_written(values).tolist()))


def steps(*, tolerance: float, at: Sequence[float] | npt.NDArray[Any] | None = None) -> Steps:
    """Make one bin per value at which the variable stood, up to a jitter.

    Parameters
    ----------
    tolerance
        Largest jitter, in the unit of the variable. Values further apart than this start a new step; a step may be
        two tolerances wide.
    at
        Nominal positions, in the order the bins are wanted: an event is in a bin when it is within ``tolerance`` of
        its position, both ends included. Without them the steps are found in the data: their label is the median,
        their bounds the lowest and highest value.

    Returns
    -------
    Steps
        A value object for :func:`xsmall.cube.cube.cube`.

    Raises
    ------
    ParameterError
        A tolerance below zero, or positions closer than two tolerances.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.steps(tolerance=0.01).assign([1.0, 2.001, 1.999, 1.002]).index.tolist()
    [0, 1, 1, 0]
    """
    tolerance = _finite_number(tolerance, "tolerance")
    if tolerance < 0:
        raise ParameterError(
            "the tolerance of steps must not be negative", found=tolerance, fix=f"tolerance={-tolerance:g}"
        )
    if at is None:
        return Steps(tolerance)
    try:
        given = np.asarray(at, dtype=None if isinstance(at, np.ndarray) else np.float64)
    except (TypeError, ValueError):
        given = np.array(np.nan)
    if given.dtype.kind not in "iuf":
        given = np.array(np.nan)
    positions = np.array([float(str(x)) for x in given.ravel()]).reshape(given.shape) if given.dtype == "f4" else given
    positions = positions.astype(np.float64)
    if positions.ndim != 1 or not positions.size or not np.isfinite(positions).all():
        raise ParameterError(
            "positions of steps are finite numbers, one at least",
            found=repr(at),
            fix="xs.steps(tolerance=0.01, at=[0, 1, 2])",
        )
    gap = closest(positions.tolist())
    if gap <= 2 * exact(tolerance):
        raise ParameterError(
            "positions of steps have to be more than two tolerances apart",
            found=f"{float(gap):g} apart with tolerance {tolerance:g}",
            fix=f"a tolerance below {float(gap) / 2:g}" if gap else "each position once",
        )
    return Steps(tolerance, tuple(positions.tolist()))


def quantiles(n: int) -> Quantiles:
    """Make ``n`` bins that hold equal numbers of events; the largest value is in the last one.

    Parameters
    ----------
    n
        Number of bins.

    Returns
    -------
    Quantiles
        A value object for :func:`xsmall.cube.cube.cube`; its borders come from the data (linear interpolation).

    Raises
    ------
    ParameterError
        ``n`` is not a positive whole number.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.quantiles(2).assign([1.0, 2.0, 3.0, 4.0]).index.tolist()
    [0, 0, 1, 1]
    """
    return Quantiles(_number_of_bins(n))


def categories(labels: Sequence[Any] | npt.NDArray[Any] | None = None) -> Categories:
    """Make one bin per value of a variable of true/false, whole numbers or text.

    Parameters
    ----------
    labels
        The values, in the order the bins are wanted. Without them: the sorted values that are there (for true/false
        always both).

    Returns
    -------
    Categories
        A value object for :func:`xsmall.cube.cube.cube`. The bins' coordinate keeps the dtype of the variable.

    Raises
    ------
    ParameterError
        No labels, or labels given twice.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.categories().assign([True, False, True]).index.tolist()
    [1, 0, 1]
    """
    if labels is None:
        return Categories()
    if isinstance(labels, str):
        raise ParameterError("categories need a list", found=labels, fix=f"xs.categories([{labels!r}])")
    try:
        values = np.asarray(labels).tolist()
    except ValueError:  # lists of several lengths
        values = None
    if not isinstance(values, list) or not values or any(isinstance(v, list) for v in values):
        raise ParameterError("categories need a list of one value at least", found=labels, fix="xs.categories()")
    kinds = {"text" if isinstance(v, str | bytes) else "true/false" if isinstance(v, bool | np.bool_) else "numbers"
             for v in (labels if isinstance(labels, list | tuple) else values)}  # fmt: skip
    if len(kinds) > 1:
        raise ParameterError(
            "categories are of one kind", found=f"{' and '.join(sorted(kinds))}: {labels}", fix="xs.categories([...])"
        )
    if len(set(values)) != len(values):
        raise ParameterError(
            "a category is listed twice", found=values, fix=f"xs.categories({list(dict.fromkeys(values))})"
        )
    return Categories(tuple(values))


def as_binning(given: object, name: str) -> Binning:
    """Take bins as the user wrote them for the variable ``name``: a value object, or a bare array, which means edges.

    Raises
    ------
    ParameterError
        Something that says neither.
    """
    if isinstance(given, Binning):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str):
        return edges(given)
    if getattr(given, "ndim", 0) == 1:
        return edges(np.asarray(given))
    raise ParameterError(
        f"these are no bins for {name}",
        found=repr(given),
        expected="bins, edges, steps, quantiles or categories; a bare array means edges",
        fix=f"{{{name!r}: xs.bins(start, stop, width=...)}}",
    )


def _finite_number(value: Any, name: str) -> float:
    try:
        number = float(str(value)) if isinstance(value, np.floating) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise ParameterError(f"{name} has to be a finite number", found=repr(value))
    return number


def _number_of_bins(n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ParameterError("the number of bins has to be a whole number above zero", found=repr(n), fix="n=10")
    if n > MOST_BINS:
        raise ParameterError("invalid number of bins", found=f"{n} bins", expected=f"at most {MOST_BINS}")
    return int(n)
