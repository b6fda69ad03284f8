"""Pictures of results: small data against events or each other, cubes with their errors, lists as histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import is_ragged
from xsmall.plot.detector import plot as plot_detector
from xsmall.plot.style import BLUE, COLORS, DIVERGING, GREY, label_of, pyplot
from xsmall.vocabulary import (
    BOUNDS_SUFFIX,
    COLUMN,
    COMPANIONS,
    COUNT,
    DIFFERENCE,
    EVENT,
    IMAGE_X,
    IMAGE_Y,
    ROW,
    STDERR_SUFFIX,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]

_BESIDE: Final = (*COMPANIONS, BOUNDS_SUFFIX)
_LINES: Final = len(COLORS)  # in one picture; more are a map
_POINTS: Final = 20_000
_HISTOGRAM: Final = 100


def plot(
    obj: xr.Dataset,
    name: str | None = None,
    *,
    against: str | None = None,
    where: xr.DataArray | None = None,
    bins: int = _HISTOGRAM,
    ax: Axes | None = None,
) -> Axes:
    """Draw one variable of small data or of a cube, with its errors, labels and units.

    Parameters
    ----------
    obj
        Small data (event, ...), or bins: a cube, averages, a difference.
    name
        The variable; None where there is only one, not counting its spread, error and count.
    against
        Small data: another variable of one value per event, to see how they are correlated. Cubes: the dim of the
        horizontal axis; None: the first one.
    where
        Boolean (event): events that are left out are drawn in grey, below the others.
    bins
        Of the histogram of lists per event.
    ax
        Axes to draw on; None: of a new figure.

    Returns
    -------
    The axes. What is drawn follows the dims: one value per event as points; lists (droplets) as a histogram of all of
    them; a spectrum per event as its mean over events, with the standard error as a band; one value per bin as points
    with error bars, a second dim of up to 7 bins as one line each; two dims as a map, of differences with colours about
    0; pixels as the detector in the lab. Empty bins and NaN are left out.

    Raises
    ------
    ParameterError
        No such variable, or several and none named.
    DataError
        A variable with more dims than a picture has, or without numbers.

    Notes
    -----
    Cost: computes this variable and what stands beside it, in one pass.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"signal": ("event", np.arange(8.0)), "delay": ("event", np.arange(8) % 4)})
    >>> cube = small.sd.cube({"delay": xs.bins(0, 4, n=4)})
    >>> cube.sd.plot("signal").get_xlabel()
    'delay'
    """
    chosen = _chosen_variable(obj, name)
    array = obj[chosen]
    if where is not None and (where.dtype != np.bool_ or where.dims != (EVENT,) or EVENT not in array.dims):
        raise ParameterError(
            "where says which events are drawn",
            found=f"{where.dtype} over {where.dims}, for {chosen} over {array.dims}",
            expected=f"boolean over ({EVENT!r},), with small data",
            fix='where=small["xray_on"]',
        )
    if {ROW, COLUMN} <= set(array.dims) or {IMAGE_X, IMAGE_Y} <= set(array.dims):
        return _draw_pixels(array, ax)
    if not is_ragged(array) and array.dtype.kind not in "biuf":
        raise DataError(f"{chosen} has no numbers to draw", found=f"dtype {array.dtype}", expected="numbers")
    if EVENT in array.dims:
        return _draw_small(obj, array, against, where, bins, _axes_or_new(ax))
    return _draw_bins(obj, array, against, _axes_or_new(ax))


def _axes_or_new(ax: Axes | None) -> Axes:
    drawn: Axes = pyplot().subplots(figsize=(6.4, 4.2), layout="constrained")[1] if ax is None else ax
    return drawn


def _chosen_variable(obj: xr.Dataset, name: str | None) -> str:
    """Name of the variable to draw."""
    there = [str(v) for v in obj.data_vars]
    main = [v for v in there if v != COUNT and not any(v.endswith(s) and v.removesuffix(s) in there for s in _BESIDE)]
    if name is not None:
        if name not in obj.variables:
            raise ParameterError("no such variable", found=repr(name), expected=f"one of {main}")
        return name
    if len(main) != 1:
        fix = f'.sd.plot("{main[0]}")' if main else None
        raise ParameterError("which variable is drawn?", found=f"{len(main)}: {', '.join(main[:12])}", fix=fix)
    return main[0]


def _companion_variable(obj: xr.Dataset, array: xr.DataArray, suffix: str) -> xr.DataArray | None:
    name = f"{array.name}{suffix}"
    return obj[name] if name in obj and obj[name].dims == array.dims else None


# ---- pixels ---------------------------------------------------------------------------------------------------------


def _draw_pixels(array: xr.DataArray, ax: Axes | None) -> Axes:
    """The detector; of the first bin, which the title then says."""
    extra = [d for d in array.dims if d not in ("segment", ROW, COLUMN, IMAGE_X, IMAGE_Y, EVENT)]
    one = array.isel(dict.fromkeys(extra, 0))
    drawn = plot_detector(one, ax=ax)
    if extra:
        said = ", ".join(f"{d} = {one[d].values}" if d in one.coords else f"{d} 0" for d in extra)
        sizes = {str(d): array.sizes[d] for d in extra}
        drawn.set_title(f"{array.name}: {said}\n(the first of {sizes})", fontsize="medium")
    return drawn


# ---- small data -----------------------------------------------------------------------------------------------------


def _draw_small(
    obj: xr.Dataset, array: xr.DataArray, against: str | None, where: xr.DataArray | None, bins: int, ax: Axes
) -> Axes:
    if is_ragged(array):
        return _draw_lists(array if where is None else array[where.compute().values], bins, ax)
    array = array.isel({d: 0 for d in array.dims if d != EVENT and array.sizes[d] == 1})
    if array.ndim > 2:
        raise DataError(
            f"{array.name} has more dims than a picture",
            found=f"dims {dict(array.sizes)}",
            expected="one beside the events",
            fix=f".isel({next(d for d in array.dims if d != EVENT)}=0).sd.plot({array.name!r})",
        )
    if array.ndim == 2:
        return _draw_mean(array if where is None else array.where(where), ax)
    x = xr.DataArray(np.arange(array.sizes[EVENT]), dims=EVENT) if against is None else _one_per_event(obj, against)
    known, other = dask.compute(array, x)
    used = np.ones(known.sizes[EVENT], bool) if where is None else where.compute().values
    step = max(1, known.sizes[EVENT] // _POINTS)
    y, x_values = np.asarray(known.values, np.float64)[::step], np.asarray(other.values, np.float64)[::step]
    used = used[::step]
    ax.plot(x_values[~used], y[~used], ".", markersize=3, color=GREY, label="left out" if (~used).any() else None)
    ax.plot(x_values[used], y[used], ".", markersize=3, color=BLUE)
    ax.set(xlabel=EVENT if against is None else label_of(other), ylabel=label_of(known), title=_lost_text(y))
    if (~used).any():
        ax.legend(loc="upper right")
    return ax


def _one_per_event(obj: xr.Dataset, name: str) -> xr.DataArray:
    if name in obj.variables and obj[name].dims == (EVENT,) and obj[name].dtype.kind in "biuf":
        return obj[name]
    there = sorted(str(v) for v in obj.variables if obj[v].dims == (EVENT,) and obj[v].dtype.kind in "biuf")
    raise ParameterError("no such variable of one number per event", found=repr(name), expected=f"one of {there}")


def _lost_text(values: npt.NDArray[np.float64]) -> str:
    lost = int((~np.isfinite(values)).sum())
    return f"{lost} of {values.size} are NaN" if lost else ""


def _draw_lists(array: xr.DataArray, bins: int, ax: Axes) -> Axes:
    rows = array.compute().values.ravel()
    values = np.concatenate([np.asarray(v, np.float64) for v in rows]) if rows.size else np.empty(0)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError(f"{array.name} holds no value", found=f"{rows.size} events with empty lists")
    high = float(np.percentile(finite, 98))  # a few bright ones must not hide the others; the title counts them
    low = float(finite.min())
    ax.hist(finite, bins=bins, range=(low, high if high > low else low + 1), color=BLUE)
    over = int((finite > high).sum())
    title = f"{finite.size} values of {rows.size} events" + (f", {over} beyond" if over else "")
    ax.set(xlabel=label_of(array), ylabel="values", yscale="log", title=title)
    return ax


def _draw_mean(array: xr.DataArray, ax: Axes) -> Axes:
    """Mean over events of a spectrum, with its standard error."""
    (dim,) = (d for d in array.dims if d != EVENT)
    n = array.notnull().sum(EVENT)
    mean, std, n = dask.compute(array.mean(EVENT), array.std(EVENT, ddof=1), n)
    error = std / np.sqrt(n)
    if array.sizes[dim] <= _LINES or array[dim].dtype.kind not in "iuf":
        positions = np.arange(array.sizes[dim])
        ax.errorbar(positions, mean, error, fmt="o", color=BLUE, capsize=3)
        ax.set_xticks(positions, [str(v) for v in array[dim].values])
        ax.set_xlabel(str(dim))
    else:
        x = array[dim].values
        ax.plot(x, mean, color=BLUE)
        ax.fill_between(x, mean - error, mean + error, color=BLUE, alpha=0.3, linewidth=0)
        ax.set_xlabel(label_of(array[dim]))
    ax.set(ylabel=label_of(array), title=f"mean of {array.sizes[EVENT]} events, band: standard error")
    return ax


# ---- bins -----------------------------------------------------------------------------------------------------------


def _draw_bins(obj: xr.Dataset, array: xr.DataArray, against: str | None, ax: Axes) -> Axes:
    array = array.isel({d: 0 for d in array.dims if array.sizes[d] == 1 and array.ndim > 1})
    error = _companion_variable(obj, obj[array.name], STDERR_SUFFIX)
    if error is not None:
        error = error.isel({d: 0 for d in error.dims if d not in array.dims})
    if against is not None and against not in array.dims:
        raise ParameterError("no such dim", found=repr(against), expected=f"one of {array.dims}")
    if array.ndim == 0 or array.ndim > 2:
        dims = dict(array.sizes)
        fix = f".isel({array.dims[-1]}=0).sd.plot({array.name!r})" if array.ndim else None
        raise DataError(f"{array.name} is no curve and no map", found=f"dims {dims}", expected="one or two", fix=fix)
    across = against or str(array.dims[0])
    values, errors = dask.compute(array, error)
    said = str(obj.attrs.get(DIFFERENCE, ""))
    if array.ndim == 1:
        _draw_curve(ax, values, errors, COLORS[0], None)
    else:
        (other,) = (str(d) for d in array.dims if d != across)
        if array.sizes[other] > _LINES:
            return _draw_map(ax, values, across, other, said)
        for i in range(array.sizes[other]):
            part = values.isel({other: i})
            label = f"{other} {part[other].values}" if other in part.coords else f"{other} {i}"
            _draw_curve(ax, part, None if errors is None else errors.isel({other: i}), COLORS[i], label)
        ax.legend(loc="upper right")
    if said:
        ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.set(xlabel=_axis_label(values, across), ylabel=label_of(values), title=said)
    return ax


def _axis_label(values: xr.DataArray, dim: str) -> str:
    return label_of(values[dim]) if dim in values.coords else dim


def _draw_curve(ax: Axes, values: xr.DataArray, errors: xr.DataArray | None, color: str, label: str | None) -> None:
    (dim,) = values.dims
    x: Any = values[dim].values
    if x.dtype.kind not in "iuf":
        x = [str(v) for v in x]
    bars = None if errors is None else errors.values
    ax.errorbar(x, values.values, bars, fmt="o-", markersize=3.5, linewidth=0.8, capsize=2, color=color, label=label)


def _draw_map(ax: Axes, values: xr.DataArray, across: str, other: str, difference: str) -> Axes:
    shown = values.transpose(other, across)
    finite = shown.values[np.isfinite(shown.values)]
    if not finite.size:
        raise DataError(f"{values.name} has no value to draw", found="nothing but NaN")
    low, high = (float(v) for v in np.percentile(finite, (1, 99)))
    if difference:
        high = float(np.percentile(np.abs(finite), 95)) or 1.0
        low = -high
    drawn = ax.pcolormesh(
        _axis_values(shown, across), _axis_values(shown, other), shown.values,
        vmin=low, vmax=high if high > low else low + 1, cmap=DIVERGING if difference else "viridis", shading="nearest",
    )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, label=label_of(values), pad=0.02)
    ax.set(xlabel=_axis_label(values, across), ylabel=_axis_label(values, other), title=difference)
    return ax


def _axis_values(values: xr.DataArray, dim: str) -> npt.NDArray[Any]:
    numbers = dim in values.coords and values[dim].dtype.kind in "iuf"
    return np.asarray(values[dim].values) if numbers else np.arange(values.sizes[dim])
