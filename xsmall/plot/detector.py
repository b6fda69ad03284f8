"""Pictures with matplotlib: the assembled detector, as one sees it looking downstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.errors import DataError, ParameterError
from xsmall.frames.beam import beam_of
from xsmall.frames.image import image
from xsmall.frames.pixels import geometry_of, need_geometry
from xsmall.plot.style import BLUE, pyplot
from xsmall.vocabulary import (
    COLUMN,
    EVENT,
    FLAG_MEANINGS,
    IMAGE_X,
    IMAGE_Y,
    LONG_NAME,
    N_PIXELS,
    PIXEL_DIMS,
    PRESENT,
    ROW,
    SEGMENT,
    UNITS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MASKED", "MM", "color_limits", "color_norm", "extent_of", "mean_of_few", "pixel_size_of", "plot"]

MASKED = "0.72"  # grey of pixels that exist but say nothing
USED = BLUE
OUTLINE = "0.35"
MM = 1e3
DRAWN = 2048  # image pixels along an axis that a figure can show


def plot(
    obj: xr.DataArray,
    *,
    mask: xr.DataArray | None = None,
    frames: int = 8,
    percentile: tuple[float, float] = (1.0, 99.0),
    vmin: float | None = None,
    vmax: float | None = None,
    log: bool = False,
    cmap: str = "viridis",
    outlines: bool = True,
    beam: bool = True,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the assembled detector as seen looking downstream: x grows to the left, y upwards.

    Parameters
    ----------
    obj
        Data, mask or reasons over (segment, row, column) with a geometry, whole or a slice; or an image from
        :func:`xsmall.frames.image.image`. Of a run the mean of a few frames is drawn.
    mask
        Boolean, True = use the pixel; others are grey, as are pixels without a valid value. Gaps stay white.
    frames
        How many frames are read, evenly spread over the run.
    percentile
        Percentiles of the picture that the colours range over, unless ``vmin`` and ``vmax`` say otherwise.
    vmin, vmax
        Ends of the colours, in the unit of the data.
    log
        Logarithmic colours; values up to 0 then take the lowest colour.
    cmap
        matplotlib's name of the colours.
    outlines, beam, colorbar
        Whether to draw outlines of the panels, the beam centre (where a beam is known) and the bar of colours.
    ax
        Axes to draw on; None: of a new figure.

    Returns
    -------
    The matplotlib axes, in mm.

    Raises
    ------
    DataError
        Data with dims that cannot be drawn; a picture without a valid pixel.
    GeometryError
        Data without a geometry.

    Notes
    -----
    Cost: ``frames`` frames are read, and one image of at most some 2000 x 2000 is made.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0"
    >>> ax = plot(xs.mask(xs.Geometry.from_psana(text), edges=5) == 0)
    >>> ax.get_xlabel()
    'x (mm)'
    """
    picture, title = _image_to_draw(obj, mask, frames)
    values = np.asarray(picture.values, dtype=np.float64)
    low, high = color_limits(values, percentile, vmin, vmax, log)
    extent = extent_of(picture)
    axes = _axes_of_shape(extent) if ax is None else ax
    _draw_masked(axes, picture, values, extent)
    two = _two_colors(obj)
    drawn = axes.imshow(
        values,
        extent=extent,
        cmap=two or cmap,
        norm=color_norm(0.0, 1.0, False) if two else color_norm(low, high, log),
        interpolation="nearest",
    )
    geometry = geometry_of(obj)
    if outlines and geometry is not None:
        _draw_outlines(axes, geometry, obj)
    if beam and (known := beam_of(obj)) is not None and not known.lost:
        x, y = (MM * c for c in known.center)
        axes.plot([x], [y], marker="+", markersize=12, markeredgewidth=1.5, color="crimson", linestyle="none")
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="x (mm)", ylabel="y (mm)", title=title)
    if colorbar:
        _draw_colorbar(axes, drawn, obj, two is not None)
    return axes


def _image_to_draw(obj: xr.DataArray, mask: xr.DataArray | None, frames: int) -> tuple[xr.DataArray, str]:
    """The image to draw, in memory, and what it shows."""
    name = "" if obj.name is None else str(obj.name)
    if obj.dims == (IMAGE_Y, IMAGE_X):
        if mask is not None:
            raise ParameterError("an image takes no mask any more", fix="data.sd.plot(mask=mask)")
        return obj.compute(), name
    extra = [d for d in obj.dims if d not in (EVENT, *PIXEL_DIMS)]
    if extra:
        raise DataError(
            "one picture at a time is drawn", found=f"dims {obj.dims}", fix=f".isel({extra[0]}=0).sd.plot()"
        )
    if EVENT in obj.dims:
        obj, name = mean_of_few(obj, frames, name)
    if mask is not None:
        if getattr(mask, "dims", None) is None or mask.dtype != np.bool_:
            found = f"{type(mask).__name__} of {getattr(mask, 'dtype', 'no dtype')}"
            raise DataError("a mask to draw is a boolean DataArray", found=found, fix="mask=xs.usable(flags)")
        obj = (obj.astype(np.float32) if obj.dtype == np.bool_ else obj).where(mask.compute())
    if FLAG_MEANINGS in obj.attrs:
        attrs = dict(obj.attrs)
        obj = (obj != 0).astype(np.float32).assign_attrs({LONG_NAME: attrs.get(LONG_NAME, "")})
    elif obj.dtype == np.bool_:
        obj = obj.astype(np.float32)
    return image(obj, pixel_size=pixel_size_of(obj)).compute(), name


def mean_of_few(obj: xr.DataArray, frames: int, name: str) -> tuple[xr.DataArray, str]:
    """Mean over a few events, evenly spread; those where no segment is there are passed over."""
    n = obj.sizes[EVENT]
    if isinstance(frames, bool) or frames < 1 or n == 0:
        raise ParameterError("no frames to draw", found=f"{frames} of {n} events", expected="at least one")
    events = np.arange(n)
    if PRESENT in obj.coords and obj.coords[PRESENT].dims == (EVENT, SEGMENT):
        there = np.asarray(obj.coords[PRESENT].values, dtype=bool).any(axis=1)
        events = events[there] if there.any() else events
    chosen = events[np.unique(np.linspace(0, len(events) - 1, min(frames, len(events))).round().astype(int))]
    few = obj.isel({EVENT: chosen}).compute()
    if few.dtype.kind != "f":
        few = few.astype(np.float64)
        if PRESENT in few.coords:
            few = few.where(few.coords[PRESENT])
    counts = few.notnull().sum(EVENT)
    mean = few.sum(EVENT) / counts.where(counts > 0)
    text = f"{name}: mean of {len(chosen)} of {n} events" if len(chosen) > 1 else f"{name}: 1 of {n} events"
    return mean.assign_attrs(obj.attrs), text.removeprefix(": ")


def pixel_size_of(obj: xr.DataArray) -> float | None:
    """Pixels of the picture: those of the detector, or larger ones where a figure could not show them."""
    from xsmall.detector.geometry.grids import part_grid
    from xsmall.detector.part import Part

    geometry = need_geometry(obj)
    labels = [np.atleast_1d(obj.coords[d].values) for d in (SEGMENT, ROW, COLUMN) if d in obj.coords]
    if len(labels) < 3:
        return None
    grid = part_grid(geometry, Part.of(labels))
    times = int(np.ceil(max(grid.n_x, grid.n_y) / DRAWN))
    return None if times <= 1 else times * grid.step


def color_limits(
    values: Any, percentile: tuple[float, float], vmin: float | None, vmax: float | None, log: bool
) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise DataError("there is no valid pixel to draw", expected="at least one value that is not NaN")
    if log:
        finite = finite[finite > 0]
        if finite.size == 0:
            raise DataError("no value above 0 to draw in logarithmic colours", fix="log=False")
    bounds = np.asarray(percentile, dtype=np.float64)
    if bounds.shape != (2,) or not 0 <= bounds[0] < bounds[1] <= 100:
        raise ParameterError("percentiles of the colours", found=percentile, expected="(low, high) within 0 to 100")
    low, high = (float(v) for v in np.percentile(finite, bounds))
    if not high > low:
        low, high = float(finite.min()), float(finite.max())
    low, high = (low if vmin is None else float(vmin)), (high if vmax is None else float(vmax))
    if log and low <= 0:
        raise ParameterError("logarithmic colours begin above 0", found=f"vmin={vmin}", fix="vmin=0.1")
    return low, high if high > low else low + (abs(low) or 1.0)


def color_norm(low: float, high: float, log: bool) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    return LogNorm(low, high, clip=True) if log else Normalize(low, high)


def _two_colors(obj: xr.DataArray) -> Any:
    """Colours of a mask or of reasons: grey where a pixel is not used; None for data."""
    from matplotlib.colors import ListedColormap

    if obj.dtype == np.bool_:
        return ListedColormap([MASKED, USED])
    return ListedColormap([USED, MASKED]) if FLAG_MEANINGS in obj.attrs else None


def _axes_of_shape(extent: tuple[float, float, float, float]) -> Any:
    """Axes of a new figure of about the shape of the picture."""
    left, right, bottom, top = extent
    height = float(np.clip(6.0 * (top - bottom) / (left - right) + 0.9, 2.2, 9.0))
    return pyplot().subplots(figsize=(7.5, height), layout="constrained")[1]


def extent_of(picture: xr.DataArray) -> tuple[float, float, float, float]:
    """Left, right, bottom and top border in mm; left is the larger x."""
    sides = []
    for dim in (IMAGE_X, IMAGE_Y):
        centres = picture[dim].values
        half = abs(centres[0] - centres[-1]) / max(len(centres) - 1, 1) / 2
        sides.append((MM * (centres[0] + half), MM * (centres[-1] - half)))
    (left, right), (top, bottom) = sides
    return left, right, bottom, top


def _draw_masked(axes: Any, picture: xr.DataArray, values: Any, extent: tuple[float, ...]) -> None:
    """Grey where there are pixels but no valid value."""
    if N_PIXELS not in picture.coords:
        return
    from matplotlib.colors import ListedColormap

    silent = np.where(np.isnan(values) & (picture[N_PIXELS].values > 0), 1.0, np.nan)
    axes.imshow(silent, extent=extent, cmap=ListedColormap([MASKED]), vmin=0, vmax=2, interpolation="nearest")


def outlines(geometry: Geometry, segments: set[int] | None) -> list[list[list[float]]]:
    """Borders of the panels of these segments (all where None) as closed lines of (x, y) in mm."""
    lines = []
    for panel in geometry.panels:
        if segments is not None and panel.memory[0] not in segments:
            continue
        a, b = (axis.edges()[[0, -1], [0, 1]] for axis in (panel.row_axis, panel.column_axis))
        corners = [(a[i], b[j]) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))]
        lines.append(
            [[MM * (panel.origin[k] + s * panel.slow[k] + f * panel.fast[k]) for k in (0, 1)] for s, f in corners]
        )
    return lines


def _draw_outlines(axes: Any, geometry: Geometry, obj: xr.DataArray) -> None:
    from matplotlib.collections import LineCollection

    shown = set(np.atleast_1d(obj.coords[SEGMENT].values).tolist()) if SEGMENT in obj.coords else None
    axes.add_collection(LineCollection(outlines(geometry, shown), colors=OUTLINE, linewidths=0.7), autolim=False)


def _draw_colorbar(axes: Any, drawn: Any, obj: xr.DataArray, two: bool) -> None:
    attrs: Mapping[Any, Any] = obj.attrs
    name, unit = attrs.get(LONG_NAME) or ("value" if obj.name is None else obj.name), attrs.get(UNITS)
    label = "" if two else f"{name} ({unit})" if unit else str(name)
    bar = axes.figure.colorbar(drawn, ax=axes, label=label, pad=0.02)
    if two:
        words = ["masked", "used"] if obj.dtype == np.bool_ else ["used", "masked"]
        bar.set_ticks([0.25, 0.75], labels=words, rotation=90, va="center")
