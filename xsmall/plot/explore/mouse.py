"""The mouse on the picture: drags and clicks become points in m, with a preview meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xsmall.plot.explore.shapes import SHAPES
from xsmall.plot.style import ORANGE

__all__ = ["LOOK", "RINGS", "TOOLS", "Mouse"]

LOOK: Final = "look"
RINGS: Final = "rings"
TOOLS: Final = (LOOK, *SHAPES, RINGS)
_CLOSE: Final = 8.0  # screen pixels from the first corner of a polygon that close it
_MM: Final = 1e3
_TURN: Final = np.linspace(0.0, 2 * np.pi, 73)
_POLYGON: Final = "polygon"

Finished = Callable[[str, list[tuple[float, float]]], None]


class Mouse:
    """Hears the canvas of a figure, and says when a shape is drawn or a ring clicked on.

    Parameters
    ----------
    figure, axes
        The picture, in mm.
    finished
        Called with the tool and the points in m: two of a drag, all corners of a polygon, one of a click on a ring.
    center
        Gives the centre in m about which rings are drawn.
    """

    def __init__(self, figure: Any, axes: Any, finished: Finished, center: Callable[[], tuple[float, float]]) -> None:
        self.figure, self.axes, self.finished, self.center = figure, axes, finished, center
        self.tool = LOOK
        self.points: list[tuple[float, float]] = []
        self._background: Any = None
        (self._line,) = axes.plot([], [], color=ORANGE, linewidth=1.5, animated=True)
        canvas = figure.canvas
        canvas.mpl_connect("button_press_event", self._press)
        canvas.mpl_connect("motion_notify_event", self._move)
        canvas.mpl_connect("button_release_event", self._release)
        canvas.mpl_connect("key_press_event", self._key)

    def choose(self, tool: str) -> None:
        """Take a tool in hand; what was begun with the last one is dropped."""
        self.tool = tool
        self._drop()

    def _mine(self, event: Any) -> bool:
        """Whether the event is meant for the tool: on the picture, and nobody zooms."""
        bar = getattr(self.figure.canvas, "toolbar", None)
        busy = bar is not None and bool(str(getattr(bar, "mode", "") or ""))
        return event.inaxes is self.axes and self.tool != LOOK and not busy

    def _press(self, event: Any) -> None:
        if not self._mine(event) or event.button != 1:
            return
        here = (event.xdata, event.ydata)
        if self.tool == RINGS:
            self._finish([here])
        elif self.tool != _POLYGON:
            self._begin()
            self.points = [here]
        elif event.dblclick or self._closes(event):
            self._finish(self.points)
        else:
            if not self.points:
                self._begin()
            self.points.append(here)
            self._preview(here)

    def _move(self, event: Any) -> None:
        if self.points and event.inaxes is self.axes:
            self._preview((event.xdata, event.ydata))

    def _release(self, event: Any) -> None:
        if self.points and self.tool != _POLYGON:
            end = (event.xdata, event.ydata) if event.inaxes is self.axes else self.points[-1]
            self._finish([self.points[0], end])

    def _key(self, event: Any) -> None:
        if event.key == "escape":
            self._drop()
        elif event.key == "enter" and self.tool == _POLYGON:
            self._finish(self.points)

    def _closes(self, event: Any) -> bool:
        if len(self.points) < 3:
            return False
        first = self.axes.transData.transform(self.points[0])
        return bool(np.hypot(first[0] - event.x, first[1] - event.y) < _CLOSE)

    def _finish(self, points: list[tuple[float, float]]) -> None:
        tool = self.tool
        points = [p for i, p in enumerate(points) if tool != _POLYGON or i == 0 or p != points[i - 1]]  # a double click
        self._drop()
        if len(points) >= (3 if tool == _POLYGON else 1) and (tool in (_POLYGON, RINGS) or points[0] != points[-1]):
            self.finished(tool, [(x / _MM, y / _MM) for x, y in points])

    # ---- the preview --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Keep the picture as it is: the preview is drawn over it, and nothing else again."""
        canvas = self.figure.canvas
        seen = canvas.manager is not None
        if seen and hasattr(canvas, "copy_from_bbox"):  # in browsers too, where matplotlib does not promise it
            canvas.draw()
            self._background = canvas.copy_from_bbox(self.axes.bbox)

    def _drop(self) -> None:
        drawn = bool(self.points)
        self.points, self._background = [], None
        self._line.set_data([], [])
        if drawn and self.figure.canvas.manager is not None:
            self.figure.canvas.draw_idle()

    def _preview(self, here: tuple[float, float]) -> None:
        self._line.set_data(*self._outline(here))
        if self._background is None:
            return
        canvas = self.figure.canvas
        canvas.restore_region(self._background)
        self.axes.draw_artist(self._line)
        canvas.blit(self.axes.bbox)

    def _outline(self, here: tuple[float, float]) -> tuple[Any, Any]:
        """The line to draw, in mm."""
        (x0, y0), (x1, y1) = self.points[0], here
        if self.tool == _POLYGON:
            corners = np.array([*self.points, here])
            return corners[:, 0], corners[:, 1]
        if self.tool == "circle":
            return _circles((x0, y0), [np.hypot(x1 - x0, y1 - y0)])
        if self.tool in ("ring", "band"):
            x, y = (_MM * c for c in self.center())
            return _circles((x, y), [np.hypot(a - x, b - y) for a, b in ((x0, y0), (x1, y1))])
        return [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0]


def _circles(center: tuple[float, float], radii: list[Any]) -> tuple[Any, Any]:
    gap = [np.nan]
    x = np.concatenate([np.append(center[0] + r * np.cos(_TURN), gap) for r in radii])
    y = np.concatenate([np.append(center[1] + r * np.sin(_TURN), gap) for r in radii])
    return x, y
