"""Reports of a production: a page for each run and one over all of them, each complete in one file."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from xsmall.errors import ParameterError
from xsmall.events.select import selection_lines
from xsmall.io.stores.blocks import sweep_texts, write_text
from xsmall.run.state import RunState, production_status, stem_of
from xsmall.vocabulary import AVERAGE, COUNT_SUFFIX, EVENT, I0

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report", "write_index", "write_page"]

_INDEX: Final = "index.html"
_DPI: Final = 110
_GAP: Final = 1.5
"""A gap in time of more than so many usual distances means that shots are missing."""
_DRIFT: Final = 0.2
"""Relative change of I0 from the first to the last tenth of a run that is told."""
_TENTH: Final = 0.1
_STYLE: Final = """
:root { color-scheme: light; --line: #d8dde3; --soft: #5b6673; --bad: #b3261e; --good: #1b7a3d; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: #1c232b; background: #f5f7f9; }
main { max-width: 1500px; margin: 0 auto; padding: 20px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
p, ul { margin: 4px 0; } a { color: #0b57a4; } .soft { color: var(--soft); overflow-wrap: anywhere; }
td.soft { min-width: 16em; }
.done { color: var(--good); } .failed, .stopped, .refused, .warning { color: var(--bad); }
.scroll { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; background: #fff; }
th, td { text-align: left; padding: 6px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid #0b57a4; } .number { text-align: right; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 14px; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 10px; }
figure.wide { grid-column: 1 / -1; } figcaption { font-weight: 600; margin-bottom: 6px; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
img.thumb { height: 64px; width: auto; margin: 0; }
"""
_SORT: Final = """
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const cell = button.parentElement, column = [...cell.parentElement.children].indexOf(cell);
  const body = document.querySelector("tbody"), up = cell.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.children[column].dataset.key ?? row.children[column].textContent;
  const compare = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
  [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b)).forEach((row) => body.append(row));
  document.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  cell.setAttribute("aria-sort", up ? "ascending" : "descending");
}));
"""


def report(folder: str | os.PathLike[str], run: int | None = None) -> Path:
    """Write a page for each produced run, and one over all of them, to be opened in a browser.

    Parameters
    ----------
    folder
        Where :func:`xsmall.produce` wrote.
    run
        Number of the one run whose page is written anew; None: of all runs.

    Returns
    -------
    Path of the page: ``run0012.html``, or ``index.html`` over all runs, which is written in any case.

    Raises
    ------
    ParameterError
        No such folder, or no such run in it.

    Notes
    -----
    Each page is one file with its figures inside; nothing is loaded from elsewhere. Cost: the small data of a run are
    read, and some ten figures drawn.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = xs.save(xs.simulate(20, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> reductions = {"rows": {"kind": "projection", "onto": "row"}}
    >>> recipe = {"source": str(path), "detectors": {"jungfrau": {"reductions": reductions}}}
    >>> states = xs.produce(recipe, 12, folder / "out")
    >>> xs.report(folder / "out").name
    'index.html'
    """
    where = Path(folder).expanduser()
    states = production_status(where)
    chosen = [state for state in states if run in (None, state.run)]
    if run is not None and not chosen:
        known = ", ".join(str(s.run) for s in states) or "no run"
        raise ParameterError(f"{where}: run {run} was not produced here", found=known, fix="check the number")
    for state in chosen:
        write_page(where, state)
    index = write_index(where)
    return index if run is None else where / f"{stem_of(run)}.html"


def write_page(folder: Path, state: RunState) -> None:
    """Write the page of a run."""
    write_text(folder / f"{stem_of(state.run)}.html", _run_page(state))


def write_index(folder: Path) -> Path:
    """Write the page over all runs of a folder; returns its path."""
    sweep_texts(folder, _INDEX)
    write_text(folder / _INDEX, _index_page(folder, production_status(folder)))
    return folder / _INDEX


def _page(title: str, parts: Iterable[str], script: str = "") -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>\n{body}\n</main>{script and f'<script>{script}</script>'}</body></html>\n"
    )


def _png(figure: Figure, dpi: int = _DPI) -> str:
    from matplotlib import pyplot

    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=dpi)
    pyplot.close(figure)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


# ---- one run ---------------------------------------------------------------------------------------------------------


def _run_page(state: RunState) -> str:
    return _page(f"run {state.run}", _run_parts(state))


def _run_parts(state: RunState) -> Iterator[str]:
    yield f'<p><a href="{_INDEX}">all runs</a></p>'
    yield f'<h1>Run {state.run}: <span class="{state.state}">{state.state}</span></h1>'
    yield f'<p class="soft">{html.escape(str(state.request.get("source", "")))}</p>'
    if state.why:
        yield f'<p class="warning">{html.escape(state.why)}</p>'
    opened = _opened_output(state)
    small = opened[0] if opened else None
    warnings = [*_warnings(state, small), *(_short_pixels(opened[1]) if opened else ())]
    if warnings:
        yield "<h2>Look at this</h2>" + _listed(warnings, ' class="warning"')
    yield "<h2>Events</h2>" + _html_table(("", ""), _facts(state, small))
    yield from _detectors_table(state)
    if state.messages:
        yield "<h2>Met on the way</h2>" + _listed(state.messages)
    from xsmall.plot.cube_figures import cube_figures, cubes_of

    cubes = list(cubes_of(state))
    cuts = [f"cube {name}: {line}" for name, cube in cubes for line in selection_lines(cube.attrs)]
    if cuts:
        yield "<h2>Cuts</h2>" + _listed(cuts)
    if opened:
        from xsmall.plot.run_figures import figures_of

        yield '<h2>Figures</h2><div class="figures">'
        drawn = (figures_of(*opened), *(cube_figures(name, cube, opened[1]) for name, cube in cubes))
        for title, figure in itertools.chain.from_iterable(drawn):
            wide = ' class="wide"' if figure.get_figwidth() > 10 else ""
            caption = html.escape(title)
            yield f'<figure{wide}><figcaption>{caption}</figcaption><img alt="{caption}" src="{_png(figure)}"></figure>'
        yield "</div>"


def _listed(texts: Iterable[str], attributes: str = "") -> str:
    return "<ul>" + "".join(f"<li{attributes}>{html.escape(text)}</li>" for text in texts) + "</ul>"


def _opened_output(state: RunState) -> tuple[xr.Dataset, dict[str, xr.Dataset]] | None:
    """The output of a run, in memory; None where there is none."""
    path = Path(state.output)
    if state.state != "done" or not state.output or not path.exists():
        return None
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    with xr.open_datatree(path, engine=engine) as tree:
        groups = {name: node.to_dataset(inherit=False).load() for name, node in tree.children.items()}
        return tree.to_dataset().load(), groups


def _html_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    named = any(head)
    top = "<thead><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr></thead>" if named else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def _facts(state: RunState, small: xr.Dataset | None) -> Iterator[tuple[str, str]]:
    yield "events", str(state.events)
    if small is not None and EVENT in small.coords and small[EVENT].dtype.kind == "M" and small.sizes[EVENT] > 1:
        times = small[EVENT].values
        spent = float((times.max() - times.min()) / np.timedelta64(1, "s"))
        yield "time", f"{np.datetime_as_string(times.min(), 's')} to {np.datetime_as_string(times.max(), 's')} UTC"
        if spent > 0:
            yield "rate", f"{(times.size - 1) / spent:.1f} Hz over {spent:.1f} s"
    yield "blocks", f"{state.blocks_done} of {state.blocks}"
    if state.ended:
        when = datetime.fromtimestamp(state.ended, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield "produced", f"{when}, {state.ended - state.began:.1f} s"
    yield "output", Path(state.output).name or "none"
    versions = state.request.get("versions", {})
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _detectors_table(state: RunState) -> Iterator[str]:
    rows = []
    for name, counts in state.faults.items():
        told = ", ".join(f"{n} {fault.replace('_', ' ')}" for fault, n in counts.items())
        rows.append((name, told or "nothing is missing"))
    rows += [(name, f"not in this run: {why}") for name, why in state.skipped.items()]
    if rows:
        yield "<h2>Detectors</h2>" + _html_table(("detector", "events"), rows)


def _warnings(state: RunState, small: xr.Dataset | None) -> Iterator[str]:
    """What somebody has to look at."""
    if state.n_flagged:
        yield f"{state.n_flagged} events could not be read or computed; they are flagged and left out of averages"
    yield from (f"{text} events: their values are missing" for text in state.told_of_functions())
    if small is None:
        return
    if EVENT in small.coords and small[EVENT].dtype.kind == "M" and small.sizes[EVENT] > 2:
        steps = np.diff(small[EVENT].values).astype("timedelta64[ns]").astype(np.int64)
        usual = np.median(steps)
        dropped = int(np.round(steps[steps > _GAP * usual] / usual - 1).sum()) if usual > 0 else 0
        if dropped:
            yield f"about {dropped} shots are missing in {int((steps > _GAP * usual).sum())} gaps in time"
        if (steps < 0).any():
            yield "events are not in the order of time"
    if I0 in small.variables and small[I0].dims == (EVENT,):
        i0 = small[I0].values
        tenth = max(1, i0.size // 10)
        first, last = np.nanmean(i0[:tenth]), np.nanmean(i0[-tenth:])
        if np.isfinite([first, last]).all() and first and abs(last / first - 1) > _DRIFT:
            yield f"I0 has drifted from {first:.4g} to {last:.4g}"
        if not np.isfinite(i0).all():
            yield f"I0 is missing in {int((~np.isfinite(i0)).sum())} events"


def _short_pixels(groups: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Pixels that are used in general and lack in many events."""
    for name, group in groups.items():
        count = group.get(f"{AVERAGE}{COUNT_SUFFIX}")
        if count is not None and count.size:
            short = int(((count > 0) & (count < (1 - _TENTH) * count.max())).sum())
            if short:
                yield (
                    f"{name}: {short} pixels are left out of more than a tenth of the events: saturated, padded, "
                    "near switching, or of a segment that is missing"
                )


# ---- all runs --------------------------------------------------------------------------------------------------------

_COLUMNS: Final = ("run", "state", "events", "faults", "without", "produced", "average", "why")
_NUMBERS: Final = ("run", "events", "faults")


def _index_page(folder: Path, states: list[RunState]) -> str:
    done = sum(state.state == "done" for state in states)
    kinds = dict.fromkeys(_NUMBERS, ' class="number"')
    head = "".join(f'<th{kinds.get(name, "")}><button type="button">{name}</button></th>' for name in _COLUMNS)
    rows = "".join(_run_row(folder, state) for state in states)
    parts = [
        "<h1>Runs</h1>",
        f'<p class="soft">{done} of {len(states)} runs are done; {sum(s.events for s in states)} events.</p>',
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>',
    ]
    return _page("runs", parts, _SORT)


def _run_row(folder: Path, state: RunState) -> str:
    page = f"{stem_of(state.run)}.html"
    name = f'<a href="{page}">{state.run}</a>' if (folder / page).exists() else str(state.run)
    ended = "" if state.ended is None else datetime.fromtimestamp(state.ended, UTC).strftime("%Y-%m-%d %H:%M")
    why = html.escape(state.why.splitlines()[0] if state.why else "")
    cells = [
        (f"{state.run}", "number", name),
        (state.state, state.state, state.state),
        (f"{state.events}", "number", f"{state.events}"),
        (f"{state.n_faults}", "number", f"{state.n_faults}"),
        ("", "", html.escape(", ".join(state.skipped))),
        (ended, "", ended),
        ("", "", "".join(_thumbs(state))),
        (why, "soft", why),
    ]
    made = (f'<td class="{kind}" data-key="{html.escape(key)}">{text}</td>' for key, kind, text in cells)
    return f"<tr>{''.join(made)}</tr>"


def _thumbs(state: RunState) -> Iterator[str]:
    """Small pictures of the average of each detector."""
    from xsmall.plot.run_figures import thumbnail

    path = Path(state.output)
    if state.state != "done" or not state.output or not path.exists():
        return
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    with xr.open_datatree(path, engine=engine) as tree:
        for name, node in tree.children.items():
            group = node.to_dataset(inherit=False)
            if AVERAGE in group and bool(np.isfinite(group[AVERAGE].values).any()):
                yield f'<img class="thumb" alt="average of {html.escape(name)}" src="{_png(thumbnail(group), 60)}">'
