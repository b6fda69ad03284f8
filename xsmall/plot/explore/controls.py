"""The tools of an explorer in a notebook: sliders and buttons around the picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from xsmall.errors import XsmallError
from xsmall.plot.explore.mouse import LOOK, TOOLS
from xsmall.plot.explore.scan import variables_of
from xsmall.plot.explore.view import redraw, widgets_are_here
from xsmall.vocabulary import DELAY, EVENT, LASER_ON

__all__ = ["bundle_of", "widget_of"]

AnyExplorer: TypeAlias = Any
"""An ``Explorer``, whose module imports this one."""

_MEAN: Final = "mean"
_USES: Final = {"region": None, "mask: user": "user", "mask: shadow": "shadow"}
_NONE: Final = "none"


def bundle_of(explorer: AnyExplorer) -> Mapping[str, Any]:
    """What a notebook shows: the tools where it can have them, and a picture for everybody else."""
    picture = base64.b64encode(explorer.png()).decode()
    bundle: dict[str, Any] = {"text/plain": repr(explorer), "image/png": picture}
    if widgets_are_here() and hasattr(explorer.figure.canvas, "comm"):
        bundle |= widget_of(explorer)._repr_mimebundle_()
    return bundle


def widget_of(explorer: AnyExplorer) -> Any:
    """All tools and the picture as one widget of ``ipywidgets``."""
    import ipywidgets as w

    code = w.Textarea(value=explorer.code(), layout=w.Layout(width="98%", height="7em"), disabled=True)
    said = w.HTML()

    def update() -> None:
        code.value = explorer.code()
        said.value = ""

    explorer.on_change(update)

    def tried(call: Any) -> Any:
        """Do something; what cannot be is told below the picture."""

        def run(*_: Any) -> None:
            try:
                call()
            except XsmallError as error:
                said.value = f"<pre style='color:crimson'>{error}</pre>"

        return run

    wrapped = w.Layout(flex_flow="row wrap")
    rows = [
        w.Box(_frame_controls(w, explorer, tried), layout=wrapped),
        w.Box(_drawing(w, explorer, tried), layout=wrapped),
        w.Box([explorer.figure.canvas], layout=w.Layout(overflow="auto")),
        w.Box(_analysis(w, explorer, tried), layout=wrapped),
        said,
        code,
    ]
    return w.VBox(rows)


def _frame_controls(w: Any, explorer: AnyExplorer, tried: Any) -> list[Any]:
    """Which frame is shown, and how its colours are scaled."""
    dims = explorer.pictures.dims
    sliders = {
        name: w.IntSlider(0, 0, n - 1, description=name, continuous_update=False, layout=w.Layout(width="20em"))
        for name, n in dims.items()
    }
    mean = w.ToggleButton(EVENT in dims, description=_MEAN, layout=w.Layout(width="5em"))
    mean.layout.display = None if EVENT in dims else "none"

    def show() -> None:
        if mean.value and EVENT in dims:
            explorer.show()
        else:
            explorer.show(**{name: slider.value for name, slider in sliders.items()})

    def moved() -> None:
        if mean.value:
            mean.value = False  # which shows
        else:
            show()

    for slider in sliders.values():
        slider.observe(tried(moved), "value")
    mean.observe(tried(show), "value")
    colors = w.FloatRangeSlider(
        value=(1.0, 99.0), min=0, max=100, step=0.5, description="colours %", continuous_update=False
    )
    log = w.Checkbox(value=False, description="log", indent=False, layout=w.Layout(width="4em"))

    def paint() -> None:
        explorer.colors(*colors.value, log=log.value)
        redraw(explorer.figure)

    colors.observe(tried(paint), "value")
    log.observe(tried(paint), "value")
    return [*sliders.values(), mean, colors, log]


def _drawing(w: Any, explorer: AnyExplorer, tried: Any) -> list[Any]:
    """What the mouse draws, and what for."""
    tools = w.ToggleButtons(options=TOOLS, value=LOOK)
    tools.style.button_width = "6.2em"
    tools.layout.width = "auto"
    use = w.Dropdown(options=list(_USES), layout=w.Layout(width="9em"))
    ring = w.BoundedIntText(0, min=0, max=99, description="ring", layout=w.Layout(width="11em"))
    undo = w.Button(description="undo", layout=w.Layout(width="5em"))
    use_fit = w.Button(description="use beam", layout=w.Layout(width="7em"))

    def take() -> None:
        explorer.tool(tools.value, _USES[use.value])
        explorer.ring = ring.value

    for one in (tools, use, ring):
        one.observe(tried(take), "value")
    undo.on_click(tried(explorer.undo))
    use_fit.on_click(tried(explorer.use_fit))
    return [tools, use, ring, undo, use_fit]


def _analysis(w: Any, explorer: AnyExplorer, tried: Any) -> list[Any]:
    """Thresholds of droplets, and a scan by region."""
    if list(explorer.pictures.dims) != [EVENT]:
        return []
    narrow = w.Layout(width="13em")
    high, low = (w.FloatText(v, description=d, layout=narrow) for v, d in ((5.0, "threshold"), (2.5, "low")))
    droplets = w.Button(description="droplets", layout=w.Layout(width="6em"))
    droplets.on_click(tried(lambda: explorer.droplets(high.value, low.value)))
    known = variables_of(explorer.pictures.obj, explorer.events)
    numbers = [name for name, values in known.items() if values.dtype.kind != "b"]
    switches = [_NONE, *(name for name, values in known.items() if values.dtype.kind == "b")]
    if not numbers:
        return [high, low, droplets]
    by = w.Dropdown(options=numbers, value=DELAY if DELAY in numbers else numbers[0], description="scan", layout=narrow)
    on = w.Dropdown(options=switches, value=LASER_ON if LASER_ON in switches else _NONE, description="on / off")
    per = w.Dropdown(options=[_NONE, *numbers], description="per", layout=narrow)
    on.layout = narrow
    scan = w.Button(description="scan", layout=w.Layout(width="5em"))
    scan.on_click(tried(lambda: explorer.scan(by.value, on=_chosen_option(on), per=_chosen_option(per))))
    return [high, low, droplets, by, on, per, scan]


def _chosen_option(dropdown: Any) -> str | None:
    """What is chosen, or None."""
    return None if dropdown.value == _NONE else str(dropdown.value)
