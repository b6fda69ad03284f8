"""Bins as users say them, and as coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import ParameterError
from xsmall.events.borders import as_written
from xsmall.vocabulary import BIN_EDGE, BOUNDS, BOUNDS_SUFFIX, UNITS

RANGE = "range"
_EDGES = "a number of bins, or two or more finite numbers that rise"

__all__ = ["as_bins", "as_edges", "labels_of_bins", "written_edges"]


def as_bins(bins: object, what: str) -> int | tuple[float, ...]:
    """Check a number of bins, or their edges."""
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        if bins < 1:
            raise ParameterError(f"{what} is a number of bins", found=bins, expected="1 or more", fix=f"{what}=500")
        return int(bins)
    return as_edges(bins, what)


def as_edges(values: object, what: str) -> tuple[float, ...]:
    """Check edges."""
    try:
        edges = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        edges = np.empty(0)
    said = _as_said(values)
    if said:
        what = f"{what} of this form are those of cubes"
        raise ParameterError(what, found=repr(values)[:80], expected=_EDGES, fix=said)
    rising = edges.ndim == 1 and edges.size >= 2 and np.all(np.isfinite(edges)) and np.all(np.diff(edges) > 0)
    if not rising or (what == RANGE and edges.size != 2):
        raise ParameterError(
            f"{what} are not edges",
            found=repr(values)[:80],
            expected="(low, high)" if what == RANGE else _EDGES,
            fix=_likely_edges(edges, what),
        )
    return tuple(edges.tolist())


def _as_said(values: object) -> str | None:
    """The arguments that mean the same, where bins were given as cubes take them."""
    n, start, stop = (getattr(values, name, None) for name in ("n", "start", "stop"))
    return f"bins={n}, range=({start:g}, {stop:g})" if n and start is not None and stop is not None else None


def _likely_edges(edges: npt.NDArray[np.float64], what: str) -> str:
    if what != RANGE:
        return f"{what}=np.linspace(0.5, 4, 201)"
    low, high = sorted(edges.ravel().tolist()) if edges.size == 2 and np.ptp(edges) > 0 else (0.5, 4.0)
    return f"{what}=({low:g}, {high:g})"


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
