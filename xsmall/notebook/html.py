"""Facts as HTML, for notebooks: a small picture beside a table; the list of methods folds."""

from __future__ import annotations

import base64
import html

import xarray as xr

from xsmall.io.nodes import frames_nodes
from xsmall.notebook.facts import Facts
from xsmall.notebook.kinds import frames_of
from xsmall.plot.thumbnail import layout_svg, thumbnail_png
from xsmall.vocabulary import ROW

__all__ = ["as_html"]

_LEFT = "text-align:left;vertical-align:top;padding:1px 8px 1px 0;background:transparent"
_FOLDED = ("can", "bins", "event variables")
_LONG = 120


def as_html(obj: xr.DataArray | xr.Dataset | xr.DataTree, facts: Facts) -> str:
    """A picture where one costs nothing, and the facts; texts longer than a line or two fold."""
    rows = "".join(_fact_row(name, text) for name, text in facts.lines)
    table = f"<table style='border:0;margin:0'>{rows}</table>"
    head = f"<div style='font-weight:bold'>xsmall .sd of {html.escape(facts.what)}</div>"
    pictures = "".join(_figure_html(name, array) for name, array in _arrays_to_show(obj).items())
    left = f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{pictures}</div>" if pictures else ""
    return (
        "<div style='font-size:90%'>"
        f"{head}<div style='display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start'>{left}{table}</div></div>"
    )


def _fact_row(name: str, text: str) -> str:
    shown = html.escape(text)
    if name == "next":
        shown = f"<code>{shown}</code>"
    elif name in _FOLDED and len(text) > _LONG:
        n = len(text.split(", "))
        shown = f"<details><summary>{n} {'methods' if name == 'can' else 'variables'}</summary>{shown}</details>"
    return f"<tr><td style='{_LEFT};color:gray'>{html.escape(name)}</td><td style='{_LEFT}'>{shown}</td></tr>"


def _arrays_to_show(obj: xr.DataArray | xr.Dataset | xr.DataTree) -> dict[str, xr.DataArray]:
    """What may have a picture, by name."""
    if isinstance(obj, xr.DataTree):
        return frames_nodes(obj)
    if isinstance(obj, xr.DataArray):
        return {"": obj}
    frames = frames_of(obj)
    if frames is not None:
        return {"": frames}
    pictures = [str(n) for n, v in obj.data_vars.items() if ROW in v.dims]
    return {pictures[0]: obj[pictures[0]]} if pictures else {}


def _figure_html(name: str, array: xr.DataArray) -> str:
    png = thumbnail_png(array)
    if png is not None:
        inside = f"<img style='margin:0' src='data:image/png;base64,{base64.b64encode(png).decode()}'/>"
    else:
        inside = layout_svg(array) or ""
    return f"<div>{html.escape(name)}<br/>{inside}</div>" if inside and name else inside
