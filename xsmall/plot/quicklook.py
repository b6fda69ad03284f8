"""The first look at a run: an average of every detector, the intensity, the scan, in one figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.types import DETECTOR_TYPES
from xsmall.errors import DataError, ParameterError, XsmallError
from xsmall.events.names import event_variables
from xsmall.frames.describe import presence
from xsmall.frames.pixels import geometry_of
from xsmall.io.info import event_lines
from xsmall.io.nodes import frames_nodes
from xsmall.plot.detector import plot
from xsmall.plot.style import BLUE, ORANGE, pyplot
from xsmall.vocabulary import (
    CALIBRATED,
    DELAY,
    DETECTOR_TYPE,
    EVENT,
    EVENTS_NODE,
    EXPERIMENT,
    I0,
    LASER_ON,
    RUN,
    SCAN_PREFIX,
    STEP,
    UNITS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["quicklook"]

_BYTES: Final = 400 * 2**20
"""Raw bytes of a detector that are read at most: what a disk gives in a second or two."""
_PLACES: Final = 5  # of the run that frames are taken from
_SHOWN: Final = 1024  # pixels of a picture along an axis
_ACROSS: Final = 2  # pictures in a row


@dataclass(frozen=True)
class _FewFrames:
    """The mean of a few frames, and how many they were."""

    mean: xr.DataArray
    n: int
    missing: int


def quicklook(run: xr.DataTree, detector: str | None = None, *, events: int = 100) -> Figure:
    """Draw a first look at a run: an average of every detector, the intensity of the shots, and what was scanned.

    Parameters
    ----------
    run
        What :func:`xsmall.open_run` returned.
    detector
        Name of the only detector to draw; None: all that have frames.
    events
        How many events are averaged, taken from five places of the run; of large frames fewer, so that no detector
        reads more than 400 MiB. The titles say how many it were.

    Returns
    -------
    The figure. Detectors with a geometry are drawn in lab coordinates, others segment by segment as they lie in memory.
    Raw words are shown without their gain bits; they are not calibrated, so pedestals are in them.

    Raises
    ------
    DataError
        A run without frames.
    ParameterError
        A detector that the run does not have, or no events to average.

    Notes
    -----
    Cost: reads the frames that it averages and the event variables; nothing is compiled. Seconds for a run of any
    length.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import xsmall as xs
    >>> figure = quicklook(xs.simulate(60, shape=(2, 32, 64), seed=1).run, events=20)
    >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
    ['jungfrau: mean of 20 of 60 events', 'intensity', 'scan_laser_delay']
    """
    if isinstance(events, bool) or events < 1:
        raise ParameterError("events to average", found=events, expected="a whole number from 1 on", fix="events=100")
    frames = _chosen_frames(frames_nodes(run), detector)
    across = min(len(frames), _ACROSS)
    rows = -(-len(frames) // across)
    wide, height = 4.5 * across + 2.0, max(4.8, 3.6 * rows + 0.8)
    figure: Figure = pyplot().figure(figsize=(wide + 4.5, height), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(wide, 4.5))
    axes = parts[0].subplots(rows, across, squeeze=False).ravel()
    for ax, (name, array) in zip(axes, frames.items(), strict=False):
        _draw_detector(ax, name, array, events)
    for ax in axes[len(frames) :]:
        ax.set_axis_off()
    small = _variables_to_show(run)
    above, below = parts[1].subplots(2, 1)
    _draw_intensity(above, small)
    _draw_scan(below, small)
    figure.suptitle("\n".join([_run_title(run), *(line.strip() for line in event_lines(run))][:4]), fontsize="medium")
    return figure


def _chosen_frames(frames: dict[str, xr.DataArray], detector: str | None) -> dict[str, xr.DataArray]:
    if not frames:
        raise DataError("a run without frames", expected="a detector with raw frames", fix="run.sd says what is in it")
    if detector is None:
        return frames
    if detector not in frames:
        fix = f'run.sd.quicklook("{next(iter(frames))}")'
        raise ParameterError(
            "no such detector with frames", found=repr(detector), expected=f"one of {list(frames)}", fix=fix
        )
    return {detector: frames[detector]}


def _run_title(run: xr.DataTree) -> str:
    known = [f"{name} {run.attrs[name]}" for name in (EXPERIMENT, RUN) if name in run.attrs]
    return ", ".join(known) or "run"


# ---- detectors ------------------------------------------------------------------------------------------------------


def _mean_of_few(array: xr.DataArray, events: int) -> _FewFrames:
    """Mean of some consecutive events in each of a few places; what is missing or not finite does not count."""
    n = array.sizes[EVENT]
    frame_bytes = max(1, array.nbytes // max(1, n))
    wanted = min(n, events, max(1, _BYTES // frame_bytes))
    places = min(_PLACES, wanted)
    starts = np.unique(np.linspace(0, n - -(-wanted // places), places).astype(int))
    total = np.zeros(array.shape[1:])
    count = np.zeros(array.shape[1:], np.int32)
    taken, missing = 0, 0
    for start, size in zip(starts, _even_shares(wanted, len(starts)), strict=True):
        part = array.isel({EVENT: slice(int(start), int(start) + size)}).compute()
        there = presence(part)
        for i, words in enumerate(_without_gain_bits(part)):
            good = np.isfinite(words) if words.dtype.kind == "f" else np.ones(words.shape, bool)
            if there is not None:
                good &= there[i][:, None, None]
            np.add(total, words, out=total, where=good)
            count += good
            missing += 0 if there is None else int((~there[i]).sum())
        taken += part.sizes[EVENT]
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    frame = array.isel({EVENT: 0}, drop=True)
    return _FewFrames(frame.copy(data=mean).assign_attrs(array.attrs), taken, missing)


def _even_shares(total: int, places: int) -> list[int]:
    return [total // places + (i < total % places) for i in range(places)]


def _without_gain_bits(part: xr.DataArray) -> npt.NDArray[Any]:
    """Raw words as ADC values, where the type of the detector says which bits those are."""
    words = np.asarray(part.values)
    kind = DETECTOR_TYPES.get(str(part.attrs.get(DETECTOR_TYPE)).lower())
    if kind is None or words.dtype.kind not in "iu" or part.name == CALIBRATED or kind.data_bits >= 16:
        return words
    values: npt.NDArray[Any] = (words >> kind.data_shift) & words.dtype.type(2**kind.data_bits - 1)
    return values


def _draw_detector(ax: Axes, name: str, array: xr.DataArray, events: int) -> None:
    if array.sizes[EVENT] == 0:
        ax.set(title=f"{name}: no events")
        ax.set_axis_off()
        return
    few = _mean_of_few(array, events)
    title = f"{name}: mean of {few.n} of {array.sizes[EVENT]} events"
    if few.missing:
        title += f"\n{few.missing} segments of them are missing"
    if not np.isfinite(few.mean.values).any():
        ax.set(title=f"{title}\nno valid pixel")
        ax.set_axis_off()
        return
    if geometry_of(few.mean) is not None:
        plot(few.mean, ax=ax)
        ax.set_title(title)
        return
    grid = _side_by_side(few.mean.values)
    low, high = np.nanpercentile(grid, (1, 99))
    drawn = ax.imshow(grid, vmin=low, vmax=max(high, low + 1e-6), cmap="viridis", interpolation="nearest")
    unit = array.attrs.get(UNITS, "")
    ax.figure.colorbar(drawn, ax=ax, label=f"{array.name} ({unit})" if unit else str(array.name), pad=0.02)
    n = array.shape[1]
    ax.set(title=title, xlabel=f"{n} segment{'s' * (n > 1)} as in memory", xticks=[], yticks=[])


def _side_by_side(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Segments on a grid that is about square, thinned to what a figure shows, with gaps."""
    segments, rows, columns = values.shape
    across = max(1, min(segments, round((segments * rows / columns) ** 0.5)))
    down = -(-segments // across)
    step = max(1, -(-max(across * columns, down * rows) // _SHOWN))
    thin = values[:, ::step, ::step]
    gap = max(2, thin.shape[1] // 40)
    out = np.full((down * (thin.shape[1] + gap) - gap, across * (thin.shape[2] + gap) - gap), np.nan)
    for s in range(segments):
        y, x = (s // across) * (thin.shape[1] + gap), (s % across) * (thin.shape[2] + gap)
        out[y : y + thin.shape[1], x : x + thin.shape[2]] = thin[s]
    return out


# ---- events ---------------------------------------------------------------------------------------------------------


def _variables_to_show(run: xr.DataTree) -> xr.Dataset:
    """Event variables, with their common names where a table knows them."""
    known = run.children[EVENTS_NODE].to_dataset() if EVENTS_NODE in run.children else xr.Dataset()
    if I0 in known:
        return known
    try:
        return event_variables(run)
    except XsmallError:  # no table of this hutch: the picture says that there is no i0
        return known


def _draw_intensity(ax: Axes, small: xr.Dataset) -> None:
    ax.set(title="intensity", xlabel=EVENT)
    if I0 not in small or small[I0].dims != (EVENT,):
        _say(ax, "no i0: run.sd.event_variables(i0=...) says where it is")
        return
    values = np.asarray(small[I0].values, dtype=np.float64)
    unit = small[I0].attrs.get(UNITS, "1")
    ax.set_ylabel(I0 if unit == "1" else f"{I0} ({unit})")
    laser = small[LASER_ON].values.astype(bool) if LASER_ON in small and small[LASER_ON].dims == (EVENT,) else None
    every = np.ones(values.size, bool)
    groups = [("", every)] if laser is None else [("laser on", laser), ("laser off", ~laser)]
    index = np.arange(values.size)
    step = max(1, values.size // 20000)
    for (label, which), color in zip(groups, (ORANGE, BLUE), strict=False):
        ax.plot(index[which][::step], values[which][::step], ".", markersize=2, color=color, label=label or None)
    if laser is not None:
        ax.legend(fontsize="small", markerscale=4, loc="upper right")
    lost = int(np.isnan(values).sum())
    if lost:
        ax.set_title(f"intensity, {lost} events without")


def _draw_scan(ax: Axes, small: xr.Dataset) -> None:
    scalars = [str(n) for n in small.data_vars if small[n].dims == (EVENT,) and small[n].dtype.kind in "iuf"]
    moved = [n for n in scalars if n.startswith(SCAN_PREFIX) and np.unique(_finite_values(small[n])).size > 1]
    chosen = [*moved, *(n for n in (DELAY, STEP) if n in scalars and np.unique(_finite_values(small[n])).size > 1)]
    if not chosen:
        ax.set_title("scan")
        _say(ax, "nothing was scanned")
        return
    name = chosen[0]
    values = _finite_values(small[name])
    places, counts = np.unique(values, return_counts=True)
    if places.size <= 200:
        width = 0.8 * float(np.diff(places).min())
        ax.bar(places, counts, width=width, color=BLUE)
    else:
        ax.hist(values, bins=100, color=BLUE)
    unit = small[name].attrs.get(UNITS, "1")
    ax.set(title=name, xlabel=name if unit == "1" else f"{name} ({unit})", ylabel="events")


def _finite_values(array: xr.DataArray) -> npt.NDArray[np.float64]:
    values = np.asarray(array.values, dtype=np.float64)
    return values[np.isfinite(values)]


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, wrap=True)
    ax.set(xticks=[], yticks=[])
