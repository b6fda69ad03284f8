"""Figures of a produced run: what one looks at the morning after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.plot.calibration import plot_dark
from xsmall.plot.detector import plot
from xsmall.vocabulary import (
    AVERAGE,
    BIN_EDGE,
    CHANNEL,
    DELAY,
    EVENT,
    FAULT,
    GEOMETRY,
    I0,
    NOISE,
    PEDESTAL,
    SAMPLE,
    SCAN_PREFIX,
    SEGMENT,
    STD_SUFFIX,
    SUM,
    TT_AMPLITUDE,
    TT_POSITION,
    UNITS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["average_figure", "figures_of", "thumbnail"]

_BINS: Final = 100
_SIZE: Final = (6.2, 3.6)
_POINTS: Final = 4000
"""Points of a curve over events; a figure shows no more."""


def figures_of(small: xr.Dataset, groups: dict[str, xr.Dataset]) -> Iterator[tuple[str, Figure]]:
    """Yield figures of a run, each with its title.

    Parameters
    ----------
    small
        The table over events.
    groups
        Configuration and averages of each detector.
    """
    yield from _variable_figures(small)
    for name, group in groups.items():
        if AVERAGE in group and bool(np.isfinite(group[AVERAGE].values).any()):
            yield f"{name}: average", average_figure(group)
            yield f"{name}: spread between events", average_figure(group, STD_SUFFIX)
        yield from _profiles(small, name)
        yield from _list_spectra(small, name)
        if f"{name}_{FAULT}" in small:
            yield from _faults(small, name)
        if PEDESTAL in group and NOISE in group:
            yield f"{name}: pedestal and noise", plot_dark(group)


def average_figure(group: xr.Dataset, suffix: str = "", size: tuple[float, float] = _SIZE) -> Figure:
    """Draw the average of a detector: in space where a geometry is known, else one segment below the other.

    Waveforms are curves.
    """
    figure, axes = _new(size)
    values = group[AVERAGE + suffix]
    if SAMPLE in values.dims:
        for channel in values[CHANNEL].values if CHANNEL in values.dims else [None]:
            axes.plot(values[SAMPLE], values if channel is None else values.sel({CHANNEL: channel}), label=channel)
        axes.set(xlabel=SAMPLE, ylabel=str(values.attrs.get(UNITS, "")))
        return figure
    if GEOMETRY in values.coords:
        plot(values, ax=axes, outlines=False)
        return figure
    stack = np.concatenate([values.sel({SEGMENT: s}).values for s in values[SEGMENT]])
    finite = stack[np.isfinite(stack)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    drawn = axes.imshow(stack, vmin=low, vmax=high, interpolation="nearest", aspect="equal")
    axes.set(xlabel="column", ylabel="row, segments below each other")
    figure.colorbar(drawn, ax=axes, label=str(values.attrs.get(UNITS, "")))
    return figure


def thumbnail(group: xr.Dataset) -> Figure:
    """Draw the average of a detector, small and without any words."""
    figure = average_figure(group, size=(1.6, 1.2))
    for axes in figure.axes[1:]:
        axes.remove()
    figure.axes[0].set_title("")
    figure.axes[0].set_axis_off()
    return figure


def _new(size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    figure = _new_figure(size)
    return figure, figure.subplots()


def _new_figure(size: tuple[float, float] = _SIZE) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _event_numbers(small: xr.Dataset, name: str) -> npt.NDArray[np.float64] | None:
    """Numbers of an event variable; None where it is none or has none."""
    if name not in small.variables or small[name].dims != (EVENT,) or small[name].dtype.kind not in "fiub":
        return None
    values = small[name].values.astype(np.float64)
    return values if np.isfinite(values).any() else None


def _label_with_unit(small: xr.Dataset, name: str) -> str:
    unit = str(small[name].attrs.get(UNITS, ""))
    return name if unit in ("", "1") else f"{name} ({unit})"


def _variable_figures(small: xr.Dataset) -> Iterator[tuple[str, Figure]]:
    scans = [str(n) for n in small.variables if str(n).startswith(SCAN_PREFIX)]
    for name, title in [(I0, "I0"), (DELAY, "delay"), *((n, f"scan of {n.removeprefix(SCAN_PREFIX)}") for n in scans)]:
        values = _event_numbers(small, name)
        if values is not None:
            yield title, _over_events(small, name, values)
    position, amplitude = _event_numbers(small, TT_POSITION), _event_numbers(small, TT_AMPLITUDE)
    if position is not None:
        figure, axes = _new()
        if amplitude is not None:
            axes.plot(position, amplitude, ".", markersize=2, color="tab:blue")
            axes.set(xlabel=_label_with_unit(small, TT_POSITION), ylabel=_label_with_unit(small, TT_AMPLITUDE))
        else:
            axes.hist(position[np.isfinite(position)], _BINS, color="tab:blue")
            axes.set(xlabel=_label_with_unit(small, TT_POSITION), ylabel="events")
        lost = int((~np.isfinite(position)).sum())
        axes.set_title(f"{lost} of {position.size} events without a fit", fontsize="medium")
        yield "time tool", figure


def _over_events(small: xr.Dataset, name: str, values: npt.NDArray[np.float64]) -> Figure:
    """A variable in the order of events, and how often it has each value."""
    figure = _new_figure()
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    step = max(1, values.size // _POINTS)
    left.plot(np.arange(values.size)[::step], values[::step], ".", markersize=1.5, color="tab:blue")
    left.set(xlabel="event", ylabel=_label_with_unit(small, name))
    right.hist(values[np.isfinite(values)], _BINS, orientation="horizontal", color="tab:blue")
    right.set(xlabel="events")
    return figure


def _profiles(small: xr.Dataset, detector: str) -> Iterator[tuple[str, Figure]]:
    """Mean over events of what a detector has along one dim: integrals over rings, projections."""
    for key, x in small.data_vars.items():
        name = str(key)
        if not name.startswith(f"{detector}_") or x.ndim != 2 or x.dims[0] != EVENT or x.dtype.kind != "f":
            continue
        dim = str(x.dims[1])
        if dim not in small.coords or small[dim].dtype.kind not in "fiu" or x.sizes[dim] < 4 or BIN_EDGE in x.dims:
            continue
        values = x.values.astype(np.float64)
        known = np.isfinite(values)
        n = known.sum(axis=0)
        mean = np.divide(np.where(known, values, 0).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)
        square = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
        spread = np.sqrt(np.divide(square, n - 1, out=np.full(n.shape, np.nan), where=n > 1))
        figure, axes = _new()
        along = small[dim].values
        axes.fill_between(along, mean - spread, mean + spread, color="tab:blue", alpha=0.25, linewidth=0)
        axes.plot(along, mean, color="tab:blue", linewidth=1)
        axes.set(xlabel=_label_with_unit(small, dim), ylabel=_label_with_unit(small, name).removeprefix(f"{detector}_"))
        axes.set_title("mean over events, and spread between them", fontsize="medium")
        yield name, figure


def _list_spectra(small: xr.Dataset, detector: str) -> Iterator[tuple[str, Figure]]:
    """Spectra of what is found in lists, such as sums of droplets."""
    for key, x in small.data_vars.items():
        name = str(key)
        of_list = x.ndim == 1 and x.dims[0] != EVENT
        if not (name.startswith(f"{detector}_") and name.endswith(f"_{SUM}") and of_list) or not x.size:
            continue
        values = x.values[np.isfinite(x.values)]
        figure, axes = _new()
        if values.size:
            axes.hist(values, _BINS, range=tuple(np.percentile(values, [0, 99.8])), color="tab:blue")
        axes.set(xlabel=_label_with_unit(small, name), ylabel="number", yscale="log")
        yield f"{name}: {values.size} in all", figure


def _faults(small: xr.Dataset, detector: str) -> Iterator[tuple[str, Figure]]:
    """Where in the run events lack something, if any do."""
    flags: Any = small[f"{detector}_{FAULT}"]
    if not bool((flags.values != 0).any()):
        return
    names = str(flags.attrs.get("flag_meanings", "")).split()
    bits = np.atleast_1d(flags.attrs.get("flag_masks", []))
    met = [(n, int(b)) for n, b in zip(names, bits, strict=True) if bool((flags.values & int(b) != 0).any())]
    figure, axes = _new((_SIZE[0], 0.8 + 0.5 * len(met)))
    for row, (_, bit) in enumerate(met):
        at = np.flatnonzero(flags.values & bit)
        axes.plot(at, np.full(at.size, row), "|", color="tab:red", markersize=12)
    axes.set_yticks(range(len(met)), [n.replace("_", " ") for n, _ in met])
    axes.set(xlabel="event", xlim=(0, flags.size), ylim=(-0.5, len(met) - 0.5))
    yield f"{detector}: events that lack something", figure
