"""Pictures of calibration: dark runs and common modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xsmall.errors import DataError
from xsmall.plot.style import BLUE, pyplot
from xsmall.vocabulary import (
    COLUMN,
    COUNT,
    DETECTOR_TYPE,
    EVENT,
    FRACTION_CORRECTED,
    GAIN_STAGE,
    LIMITS_SUFFIX,
    MODE,
    NOISE,
    PEDESTAL,
    ROW,
    SEGMENT,
    STATUS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_common_modes", "plot_dark"]

_BINS = 100
_MOST_IMAGE = 1024  # pixels of a map along an axis; a figure shows no more


def plot_dark(constants: xr.Dataset, *, segment: int | None = None) -> Figure:
    """Draw the constants of dark runs: for each gain stage that was seen, maps of pedestal and noise and histograms.

    Parameters
    ----------
    constants
        What :func:`xsmall.dark` returned. Compute it first where it is lazy, or it is read for the figure.
    segment
        Label of the segment that the maps show; None: the first. The histograms are of all segments.

    Returns
    -------
    The figure: a row for each gain stage with its pedestals, its noise, and the histograms of both with the limits
    beyond which a pixel is bad. Bad pixels are white in the maps.

    Raises
    ------
    DataError
        ``constants`` has no pedestal and noise.
    MissingDependency
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> words = np.random.default_rng(0).normal(100, 3, (200, 1, 8, 16)).round().astype("uint16")
    >>> frames = xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "opal"})
    >>> len(xs.plot_dark(xs.dark(frames)).axes)
    6
    """
    _need(constants, (PEDESTAL, NOISE), "constants of dark runs", "xs.dark(raw)")
    plt = pyplot()
    wanted = [name for name in (PEDESTAL, NOISE, STATUS, COUNT) if name in constants]
    limits = [name + LIMITS_SUFFIX for name in (PEDESTAL, NOISE) if name + LIMITS_SUFFIX in constants]
    known = constants[wanted + limits].compute()
    names = str(known[GAIN_STAGE].attrs.get("flag_meanings", "")).split() if GAIN_STAGE in known.coords else []
    stages = [i for i in range(known.sizes[GAIN_STAGE]) if bool(np.isfinite(known[PEDESTAL][i]).any())]
    shown = int(known[SEGMENT][0]) if segment is None else segment
    figure: Figure
    figure, axes = plt.subplots(
        max(1, len(stages)), 4, figsize=(15, 3.2 * max(1, len(stages))), squeeze=False, layout="constrained"
    )
    for row, stage in zip(axes, stages, strict=False):
        title = names[stage] if stage < len(names) else f"stage {stage}"
        of_stage = known.isel({GAIN_STAGE: stage})
        good = of_stage[STATUS] == 0 if STATUS in of_stage else xr.ones_like(of_stage[PEDESTAL], dtype=bool)
        for i, name in enumerate((PEDESTAL, NOISE)):
            _map(row[i], of_stage[name].where(good).sel({SEGMENT: shown}), f"{title}: {name}, segment {shown}", figure)
            _histogram(row[2 + i], of_stage, name, good)
    bad = "" if STATUS not in known else f", {float((known[STATUS] != 0).any(GAIN_STAGE).mean()):.2%} of the pixels bad"
    figure.suptitle(f"dark of {known.attrs.get(DETECTOR_TYPE, 'detector')}{bad}")
    return figure


def _map(ax: Axes, values: xr.DataArray, title: str, figure: Figure) -> None:
    step = {dim: slice(None, None, -(-values.sizes[dim] // _MOST_IMAGE)) for dim in (ROW, COLUMN)}
    thin = values.isel(step).transpose(ROW, COLUMN).to_numpy()
    known = thin[np.isfinite(thin)]
    low, high = np.quantile(known, (0.01, 0.99)) if known.size else (0.0, 1.0)
    drawn = ax.imshow(thin, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest", cmap="viridis")
    figure.colorbar(drawn, ax=ax, label="ADU", shrink=0.8)
    ax.set(title=title, xlabel="column", ylabel="row")


def _histogram(ax: Axes, of_stage: xr.Dataset, name: str, good: xr.DataArray) -> None:
    values = of_stage[name].to_numpy()
    known = np.isfinite(values)
    low, high = np.quantile(values[known], (0.001, 0.999))
    margin = 0.3 * (high - low) + 1e-6
    bounds = of_stage[name + LIMITS_SUFFIX].to_numpy() if name + LIMITS_SUFFIX in of_stage else np.array([])
    near = [b for b in bounds if low - 4 * margin < b < high + 4 * margin]
    span = min([low - margin, *near]), max([high + margin, *near])
    within = np.clip(values, *span)  # what lies beyond stands in the outermost bins
    ax.hist(within[known], bins=_BINS, range=span, histtype="stepfilled", color="0.75", label="all pixels")
    ax.hist(within[known & good.to_numpy()], bins=_BINS, range=span, histtype="step", color=BLUE, label="good")
    for bound in near:
        ax.axvline(bound, color="#cc3311", linestyle="--", linewidth=1)
    ax.set(yscale="log", xlabel=f"{name} [ADU]", ylabel="pixels")
    ax.legend(fontsize="small", loc="upper right")


def plot_common_modes(comparison: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the noise that common modes leave, segment by segment.

    Parameters
    ----------
    comparison
        What :func:`xsmall.compare_common_modes` returned.
    ax
        Where to draw; None: a new figure.

    Returns
    -------
    The axes: for each mode a point per segment, the median over events, with the middle 68 % of the events as a bar;
    a mode that could correct less than 99 % of its units says so.

    Raises
    ------
    DataError
        ``comparison`` is something else.
    MissingDependency
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> values = np.random.default_rng(0).normal(0, 2, (9, 1, 512, 512)).astype("f4")
    >>> data = xr.DataArray(values, dims=("event", "segment", "row", "column"))
    >>> comparison = xs.compare_common_modes(data.assign_attrs(units="ADU", detector_type="pnccd"))
    >>> xs.plot_common_modes(comparison).get_ylabel()
    'noise about the pedestal [ADU]'
    """
    _need(comparison, (NOISE, FRACTION_CORRECTED), "a comparison of common modes", "xs.compare_common_modes(raw, ...)")
    known = comparison.compute()
    if ax is None:
        _, ax = pyplot().subplots(figsize=(1.8 + 1.1 * known.sizes[MODE], 4), layout="constrained")
    assert ax is not None
    middle = known[NOISE].quantile([0.16, 0.5, 0.84], EVENT).transpose("quantile", MODE, SEGMENT).to_numpy()
    n = known.sizes[SEGMENT]
    ticks: list[Any] = []
    for m, mode in enumerate(known[MODE].to_numpy()):
        x = m + np.linspace(-0.3, 0.3, n) if n > 1 else np.array([float(m)])
        low, mid, high = middle[:, m]
        ax.errorbar(x, mid, np.stack([mid - low, high - mid]), fmt="o", markersize=4, capsize=2, color=BLUE)
        share = float(known[FRACTION_CORRECTED][m].mean())
        ticks.append(f"{mode}\n({share:.0%} of units)" if share < 0.99 else str(mode))
    ax.axhline(float(np.nanmedian(middle[1, 0])), color="0.6", linestyle=":", zorder=0)
    ax.set_xticks(range(len(ticks)), ticks)
    ax.set(xlabel="common mode", ylabel="noise about the pedestal [ADU]", ylim=(0, 1.1 * float(np.nanmax(middle))))
    return ax


def _need(dataset: xr.Dataset, names: tuple[str, ...], what: str, fix: str) -> None:
    if not all(name in dataset for name in names):
        raise DataError(f"this is not {what}", found=list(map(str, dataset.data_vars)), expected=names, fix=fix)
