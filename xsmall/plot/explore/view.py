"""The figure of an explorer: the picture in the lab with what was drawn on it, and two axes beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.plot.detector import MASKED, MM, color_limits, color_norm, extent_of, outlines
from xsmall.plot.explore.panels import color_of
from xsmall.plot.explore.pictures import Pictures, Shown
from xsmall.plot.explore.rings import RingFit
from xsmall.plot.style import ORANGE, label_of
from xsmall.vocabulary import N_PIXELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["View", "new_figure", "redraw", "widgets_are_here"]

_SIZE = (11.0, 6.2)
_OVER = 0.45  # how far a region covers the picture
_HIDDEN = (0.85, 0.1, 0.2, 0.6)


def widgets_are_here() -> bool:
    """Whether this is a kernel of a notebook that has what tools for the mouse need."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None and all(map(find_spec, ("ipympl", "ipywidgets")))


def new_figure() -> Figure:
    """A figure on a canvas that hears the mouse where there is one: of a notebook, of a desktop, or none."""
    from matplotlib import get_backend, use
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.registry import BackendFilter, backend_registry
    from matplotlib.figure import Figure

    out = Figure(figsize=_SIZE)
    figure: Any = out
    if widgets_are_here():
        drawn_by = get_backend()
        from ipympl.backend_nbagg import Canvas, FigureManager

        use(drawn_by)  # the import made every later figure of the notebook one of ipympl
        canvas = Canvas(figure)
        manager = FigureManager(canvas, 0)
        canvas.toolbar_position = "top"
        canvas.header_visible = False  # the read-out stands in the footer
        canvas.resizable = False
        figure.canvas.manager = manager
        return out
    if get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE):
        import matplotlib.pyplot as plt

        shown: Figure = plt.figure(figsize=_SIZE)
        return shown
    FigureCanvasAgg(figure)
    return out


def redraw(figure: Any) -> None:
    """Draw what changed, where somebody sees it; a figure without a window is drawn when it is saved."""
    if figure.canvas.manager is not None:
        figure.canvas.draw_idle()


class View:
    """What is drawn in the figure.

    Parameters
    ----------
    figure
        Where.
    pictures, shown
        What there is to show, and what is shown first.
    readout
        Text for a point of the picture in mm.
    """

    def __init__(self, figure: Any, pictures: Pictures, shown: Shown, readout: Callable[[float, float], str]) -> None:
        self.scale = (1.0, 99.0, False)
        self.axes = figure.add_axes((0.06, 0.09, 0.5, 0.84))
        self._bar = figure.add_axes((0.575, 0.09, 0.012, 0.84))
        self.beside = figure.add_axes((0.705, 0.55, 0.285, 0.26))
        self.below = figure.add_axes((0.705, 0.09, 0.285, 0.32))
        self.below.set(xticks=[], yticks=[])
        self.below.text(
            0.5, 0.5, "droplets, rings or a scan", ha="center", va="center", transform=self.below.transAxes, color="0.5"
        )
        self.pictures = pictures
        self._drawn: list[Any] = []
        self._rings: list[Any] = []
        picture = pictures.assembled(shown.frame)
        extent = extent_of(picture)
        self._silent = self._image(np.zeros(picture.shape), extent, 0)
        self._main = self._image(picture.values, extent, 1)
        self._over = self._image(np.zeros((*picture.shape, 4), np.float32), extent, 2)
        self._main.set_cmap("viridis")
        self._colorbar = figure.colorbar(self._main, cax=self._bar, label=label_of(shown.frame))
        self._outlines()
        self._cross: list[Any] = []
        self.use(pictures)
        self.axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="x (mm)", ylabel="y (mm)")
        self.axes.format_coord = readout
        self._assembled: tuple[Shown | None, xr.DataArray] = (shown, picture)

    def _image(self, values: Any, extent: Any, order: int) -> Any:
        drawn = self.axes.imshow(values, extent=extent, interpolation="nearest", zorder=order)
        drawn.set_mouseover(False)  # the read-out tells the value
        return drawn

    def use(self, pictures: Pictures) -> None:
        """Show these pictures from now on, and mark where their beam is."""
        self.pictures = pictures
        for artist in self._cross:
            artist.remove()
        beam: Beam | None = pictures.beam
        x, y = ([], []) if beam is None or beam.lost else ([MM * c] for c in beam.center)
        self._cross = self.axes.plot(x, y, "+", markersize=12, markeredgewidth=1.5, color="crimson")

    def _outlines(self) -> None:
        from matplotlib.collections import LineCollection

        lines = outlines(self.pictures.geometry, set(self.pictures.part.segment))
        self.axes.add_collection(LineCollection(lines, colors="0.35", linewidths=0.7, zorder=3), autolim=False)

    def say(self, text: str) -> None:
        """Tell something above the picture."""
        self.axes.set_title(text, fontsize="small", color="crimson")
        redraw(self.axes.figure)

    def draw_picture(self, shown: Shown) -> None:
        """Show another frame, or the same with other colours."""
        if self._assembled[0] is not shown:
            self._assembled = (shown, self.pictures.assembled(shown.frame))
        picture = self._assembled[1]
        values = np.asarray(picture.values, dtype=np.float64)
        low, high, log = self.scale
        if np.isfinite(values).any():
            self._main.set_norm(color_norm(*color_limits(values, (low, high), None, None, log), log))
        self._main.set_data(values)
        grey = np.zeros((*values.shape, 4), np.float32)
        grey[np.isnan(values) & (picture[N_PIXELS].values > 0)] = (*[float(MASKED)] * 3, 1.0)
        self._silent.set_data(grey)
        self.axes.set_title(shown.title, fontsize="medium", color="black")

    def draw_regions(
        self, regions: Mapping[str, npt.NDArray[np.bool_]], hidden: npt.NDArray[np.bool_] | None, frame: xr.DataArray
    ) -> None:
        """Colour the very pixels of each region, and those that are masked."""
        from matplotlib.colors import to_rgba

        for artist in self._drawn:
            artist.remove()
        self._drawn = []
        over = np.zeros((*self._assembled[1].shape, 4), np.float32)
        for i, (name, inside) in enumerate(regions.items()):
            where = self._seen(inside, frame)
            over[where] = to_rgba(color_of(i), _OVER)
            rows, columns = np.nonzero(where)
            if rows.size:
                picture = self._assembled[1]
                x = MM * float(picture.image_x[int(np.median(columns))])
                y = MM * float(picture.image_y[int(rows.min())])
                text = self.axes.text(
                    x, y, name, color="white", fontsize="small", ha="center", va="bottom", zorder=5, clip_on=True,
                    bbox={"facecolor": color_of(i), "edgecolor": "none", "pad": 1, "alpha": 0.8},
                )  # fmt: skip
                self._drawn.append(text)
        if hidden is not None:
            over[self._seen(hidden, frame)] = _HIDDEN
        self._over.set_data(over)

    def _seen(self, pixels: npt.NDArray[np.bool_], frame: xr.DataArray) -> npt.NDArray[np.bool_]:
        """Image pixels that show some of these pixels."""
        values = frame.copy(data=pixels.astype(np.float32))
        values.attrs = {}
        return np.asarray(self.pictures.assembled(values).values) > 0

    def draw_rings(self, fit: RingFit | None, clicks: list[tuple[float, float, int]]) -> None:
        """Mark the clicks, and the circles through them."""
        for artist in self._rings:
            artist.remove()
        self._rings = []
        if clicks:
            at = [[MM * point[k] for point in clicks] for k in (0, 1)]
            self._rings += self.axes.plot(*at, "x", color=ORANGE, markersize=6, zorder=5)
        if fit is not None:
            from matplotlib.patches import Circle

            x, y = (MM * c for c in fit.beam.center)
            circles = [
                Circle((x, y), MM * r, fill=False, color=ORANGE, linewidth=1, zorder=4) for r in fit.radii.values()
            ]
            self._rings += [self.axes.add_patch(circle) for circle in circles]
