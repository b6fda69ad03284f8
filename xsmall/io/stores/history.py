"""How a result was made, to be read by people: the steps that its parameters tell, oldest first."""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import xarray as xr

from xsmall.engine.asked import ASKED
from xsmall.errors import DataError
from xsmall.io.stores.provenance import attributes_of
from xsmall.vocabulary import LOST, PARAMETERS, PROVENANCE, SOURCE

__all__ = ["History", "history"]

_FUNCTION: Final = "function"
_UNSAID: Final = re.compile(r"(?:, )?\b\w+=(?:None|False|\(\))(?=[,)])")
_WIDTH: Final = 100


@dataclass(frozen=True, repr=False)
class History:
    """The steps of a result, oldest first; its repr is a table, in a notebook one that folds.

    Attributes
    ----------
    steps
        A name and what was said to it, a line each: ``(("calibrate", {"unit": "keV", ...}), ...)``.
    """

    steps: tuple[tuple[str, Mapping[str, str]], ...]

    def __repr__(self) -> str:
        lines = ["<history of a result, oldest step first>"]
        for function, said in self.steps:
            lines.append(f"{function}")
            for name, value in said.items():
                lines += textwrap.wrap(f"{name}: {value}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for function, said in self.steps:
            pairs = "".join(
                f"<tr><td style='text-align:left;vertical-align:top'>{html.escape(name)}</td>"
                f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
                for name, value in said.items()
            )
            rows.append(
                f"<details open><summary><b>{html.escape(function)}</b></summary><table>{pairs}</table></details>"
            )
        return "".join(rows)


def history(obj: xr.Dataset | xr.DataArray | xr.DataTree) -> History:
    """Tell how a result was made, step by step, whether it was saved or not.

    Parameters
    ----------
    obj
        Calibrated frames, small data, a cube, or what was opened from a file that :func:`xsmall.save` wrote.

    Returns
    -------
    The steps, oldest first, each with what was said to it; arguments that nobody gave are left out. It prints as a
    table. :func:`xsmall.provenance` has all of it as a dict, with versions and times.

    Raises
    ------
    DataError
        Nothing is known about how this was made.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(1, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> [step for step, said in xs.history(cal.sd.roi(xs.Box(segment=0, row=(4, 12), column=(8, 24)))).steps]
    ['calibrate', 'reduce']
    """
    attrs = attributes_of(obj)
    saved = json.loads(attrs[PROVENANCE]) if PROVENANCE in attrs else {}
    told = attrs.get(PARAMETERS) or saved.get("parameters")
    if told is None and not saved and SOURCE not in attrs:
        raise DataError(
            "nothing is said about how this was made",
            found=f"no attribute {PARAMETERS!r}, {PROVENANCE!r} or {SOURCE!r}",
            expected="what calibrate, reduce, cube or xs.save returned",
            fix="xr.set_options(keep_attrs=True) keeps attributes in arithmetic",
        )
    steps: list[tuple[str, Mapping[str, str]]] = []
    source = attrs.get(SOURCE) or saved.get("input")
    if source:
        steps.append(("open", {SOURCE: str(source)}))
    lost = attrs.get(LOST) or saved.get(LOST)
    if lost:
        steps.append(("lost in the source", {"counts": _value_text(lost)}))
    steps += _flat_steps(json.loads(told) if isinstance(told, str) else told)
    steps += [("save", _written(past)) for past in (*saved.get("history", ()), saved) if past]
    return History(tuple(steps))


def _flat_steps(told: Any) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Flatten the steps, those before first; what is no step before is an argument."""
    if not isinstance(told, Mapping):
        return
    said: dict[str, str] = {}
    for name, value in told.items():
        if name == ASKED:  # the same once more, for recipes
            continue
        if isinstance(value, Mapping) and _FUNCTION in value:
            yield from _flat_steps(value)
        elif isinstance(value, Mapping) and any(isinstance(v, Mapping) and _FUNCTION in v for v in value.values()):
            for step in value.values():
                yield from _flat_steps(step)
            said[name] = ", ".join(map(str, value))
        elif isinstance(value, Mapping):
            said |= {f"{name}.{key}": _value_text(part) for key, part in value.items()}
        elif name != _FUNCTION and value not in (None, False):
            said[name] = _value_text(value)
    if said or _FUNCTION in told:
        yield str(told.get(_FUNCTION, "made")), said


def _value_text(value: Any) -> str:
    """A value without the arguments that nobody gave."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_value_text, value))
    text = str(value)
    return _UNSAID.sub("", text).replace("(, ", "(") if "(" in text else text


def _written(saved: Mapping[str, Any]) -> dict[str, str]:
    packages = ", ".join(f"{name} {version}" for name, version in (saved.get("packages") or {}).items() if version)
    return {"time": str(saved.get("time")), "xsmall": str(saved.get("xsmall")), "with": packages}
