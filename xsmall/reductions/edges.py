"""Bins as users say them, and as coordinates."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import ParameterError
from xsmall.events.borders import as_written
from xsmall.vocabulary import BIN_EDGE, BOUNDS, BOUNDS_SUFFIX, UNITS

_EDGES = "a number of bins, or two or more finite numbers that rise"
MOST_BINS: Final = 10_000_000
_MANY = 20
"""Edges that are too many for a line."""

__all__ = ["as_bins", "as_edges", "as_range", "labels_of_bins", "written_edges"]


def as_bins(bins: object, what: str) -> int | tuple[float, ...]:
    """Check a number of bins, or their edges."""
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        if bins < 1:
            raise ParameterError(f"{what} is a number of bins", found=bins, expected="1 or more", fix=f"{what}=500")
        return check_number(int(bins), what)
    return as_edges(bins, what)


def check_number(bins: int, what: str) -> int:
    """Refuse more bins than a detector fills, before memory is asked for them."""
    if bins > MOST_BINS:
        raise ParameterError(f"too many {what}", found=f"{bins:.3g}", expected=f"{MOST_BINS} at most", fix="bins=500")
    return bins


def as_edges(values: object, what: str) -> tuple[float, ...]:
    """Check edges."""
    said = _as_said(values)
    if said:
        raise ParameterError(
            f"{what} of this form are those of cubes", found=repr(values)[:80], expected=_EDGES, fix=f"{what}={said}"
        )
    edges = _rising(values)
    if edges is None or edges.size < 2:
        raise ParameterError(
            f"{what} are not edges", found=repr(values)[:80], expected=_EDGES, fix=f"{what}=np.linspace(0.5, 4, 201)"
        )
    return tuple(edges.tolist())


def as_range(values: object) -> tuple[float, float]:
    """Check the range that a number of bins share."""
    edges = _rising(values)
    if edges is None or edges.size != 2:
        low, high = _two_numbers(values)
        raise ParameterError(
            "range is not two edges",
            found=repr(values)[:80],
            expected="(low, high)",
            fix=f"range=({low:g}, {high:g})",
        )
    return float(edges[0]), float(edges[1])


def _as_floats(values: object) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _rising(values: object) -> npt.NDArray[np.float64] | None:
    """Finite numbers that rise; None of anything else."""
    edges = _as_floats(values)
    return edges if edges.ndim == 1 and np.all(np.isfinite(edges)) and np.all(np.diff(edges) > 0) else None


def _as_said(values: object) -> str | None:
    """The edges, as one types them, where bins were given as cubes take them."""
    n, start, stop, borders = (getattr(values, name, None) for name in ("n", "start", "stop", "borders"))
    if isinstance(borders, tuple) and len(borders) < _MANY:
        return repr(list(borders))
    if not n or start is None or stop is None:
        return None
    return f"np.{'geomspace' if getattr(values, 'log', False) else 'linspace'}({start:.15g}, {stop:.15g}, {n + 1})"


def _two_numbers(values: object) -> tuple[float, float]:
    """The range that may be meant."""
    numbers = _as_floats(values)
    if numbers.size != 2 or not np.all(np.isfinite(numbers)) or np.ptp(numbers) == 0:
        return 0.5, 4.0
    low, high = sorted(numbers.ravel().tolist())
    return low, high


def written_edges(values: object, what: str) -> tuple[float, ...]:
    """Check edges that values are counted between: those at equal distances are the decimals that one writes."""
    return tuple(as_written(np.array(as_edges(values, what))).tolist())


def labels_of_bins(name: str, edges: npt.NDArray[np.float64], units: str | None) -> dict[str, xr.Variable]:
    """Coordinates of bins: their centres, and the edges as CF bounds."""
    attrs = {} if units is None else {UNITS: units}
    bounds = f"{name}{BOUNDS_SUFFIX}"
    pairs = np.stack([edges[:-1], edges[1:]], axis=1)
    return {
        name: xr.Variable((name,), pairs.mean(axis=1), {**attrs, BOUNDS: bounds}),
        bounds: xr.Variable((name, BIN_EDGE), pairs, attrs),
    }
