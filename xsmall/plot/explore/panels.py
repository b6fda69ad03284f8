"""The axes beside the picture: values of pixels, spectra of droplets, residuals of rings, a scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.plot.explore.rings import RingFit
from xsmall.plot.style import BLUE, COLORS, GREY, label_of
from xsmall.vocabulary import ROI, STDERR_SUFFIX

__all__ = ["color_of", "draw_droplets", "draw_histogram", "draw_residuals", "draw_scan"]

_BINS: Final = 120
_RANGE: Final = (0.1, 99.5)  # percentiles that the histogram reaches over
_UM: Final = 1e6


def color_of(i: int) -> str:
    """Colour of the region number ``i``."""
    return COLORS[(i + 1) % len(COLORS)]


def draw_histogram(
    ax: Any, everything: npt.NDArray[Any], parts: Mapping[str, npt.NDArray[Any]], numbers: xr.Dataset, label: str
) -> None:
    """Histograms of all pixels and of each region, with its numbers in the legend."""
    ax.clear()
    if everything.size:
        low, high = (float(v) for v in np.percentile(everything, _RANGE))
        for values in parts.values():
            if values.size:
                ends = np.percentile(values, _RANGE)
                low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        _draw_steps(ax, everything, edges, GREY, "all pixels")
        for i, (name, values) in enumerate(parts.items()):
            one = numbers.sel({ROI: name})
            text = f"{name}: sum {float(one['sum']):.5g}, mean {float(one['mean']):.4g}, max {float(one['max']):.4g}"
            _draw_steps(ax, values, edges, color_of(i), f"{text}, {int(one['n_valid'])} of {int(one['n_pixels'])} px")
        ax.set_yscale("log")
        ax.legend(fontsize="x-small", loc="lower left", bbox_to_anchor=(-0.2, 1.0), frameon=False, labelspacing=0.2)
    ax.set(xlabel=label, ylabel="pixels")


def _draw_steps(ax: Any, values: npt.NDArray[Any], edges: npt.NDArray[np.float64], color: str, label: str) -> None:
    counts = np.histogram(values, edges)[0]
    ax.stairs(np.where(counts > 0, counts, 0.5), edges, color=color, label=label, baseline=0.5)


def draw_threshold(ax: Any, threshold: float, threshold_low: float) -> None:
    """Lines of the two thresholds on the histogram of pixels."""
    ax.axvline(threshold, color=BLUE, linewidth=1.2)
    ax.axvline(threshold_low, color=BLUE, linewidth=1.0, linestyle=":")


def draw_droplets(ax: Any, sums: xr.DataArray, events: int, threshold: float, threshold_low: float) -> None:
    """Spectrum of the sums of droplets."""
    ax.clear()
    values = np.asarray(sums.values, dtype=np.float64)
    if values.size:
        ax.hist(values, bins=_BINS, range=(0, max(float(np.percentile(values, 99)), 2 * threshold)), color=BLUE)
        ax.set_yscale("log")
    title = f"threshold {threshold:.4g}, {threshold_low:.4g}: {values.size / events:.4g} droplets per event ({events})"
    ax.set_title(title, fontsize="small")
    ax.set(xlabel=label_of(sums), ylabel="droplets")


def draw_residuals(ax: Any, fit: RingFit) -> None:
    """How far each click is from its ring."""
    ax.clear()
    for i, ring in enumerate(np.unique(fit.ring)):
        here = fit.ring == ring
        ax.plot(fit.azimuth[here], _UM * fit.residuals[here], "o", color=color_of(i), label=f"ring {ring}")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.legend(fontsize="x-small", loc="upper right")
    ax.set_title(str(fit), fontsize="small")
    ax.set(xlabel="azimuth (degrees)", ylabel="click - ring (um)")


def draw_scan(ax: Any, cube: xr.Dataset, name: str, by: str, said: str) -> None:
    """Each region against what was scanned, with errors."""
    ax.clear()
    for i, region in enumerate(cube[ROI].values):
        values, errors = (cube[n].sel({ROI: region}) for n in (name, f"{name}{STDERR_SUFFIX}"))
        ax.errorbar(
            cube[by].values, values.values, errors.values, fmt="o-", markersize=3, linewidth=0.8, capsize=2,
            color=color_of(i), label=str(region),
        )  # fmt: skip
    ax.legend(fontsize="x-small", loc="upper right")
    ax.set_title(said, fontsize="small")
    ax.set(xlabel=label_of(cube[by]), ylabel=label_of(cube[name], "mean of a region"))
