"""Selecting events by named cuts, and what passed them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall.errors import DataError, ParameterError, alike
from xsmall.events.borders import as_read
from xsmall.events.join import of_the_events
from xsmall.events.name_rules import where_known
from xsmall.events.shots import laser_is_off, one_per_event, shots_are_dropped, variables_per_event
from xsmall.events.unknown import unknown_events
from xsmall.vocabulary import EVENT, I0, LASER_ON, SELECTION, TT_PREFIX, XRAY_ON

__all__ = ["Cut", "cut", "cuts_said", "merged_selections", "select", "selection_lines"]

Events = TypeVar("Events", xr.Dataset, xr.DataArray)
Flags = npt.NDArray[np.bool_]
_KINDS_OF_VALUES: Final[dict[Any, str]] = {
    bool: "biuf", int | float: "biuf", str: "UOT", bytes: "SO", np.datetime64 | datetime: "M",
}  # fmt: skip
"""Kinds of variables that may equal a value of a type."""
_WITHOUT_VARIABLES: Final = f'frames.assign_coords(i0=("{EVENT}", ...)), or select from small data'
_NUMBER: Final = int | float | np.integer | np.floating
_MAD: Final = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


@dataclass(frozen=True)
class Cut:
    """What an event has to be like; made by :func:`cut`.

    Attributes
    ----------
    variable
        The variable that is looked at; the name of the cut where it is None.
    low, high
        Lowest and highest value that pass; None where there is no limit.
    equals
        The value that passes.
    robust
        How many robust standard deviations from the median pass.
    laser_off
        Whether shots without laser are judged; None: not by variables of the time tool.
    """

    variable: str | None = None
    low: float | None = None
    high: float | None = None
    equals: Any = None
    robust: float | None = None
    laser_off: bool | None = None

    def __str__(self) -> str:
        if self.equals is not None:
            return f"{self.variable} == {self.equals}"
        if self.robust is not None:
            return f"{self.variable} within {self.robust:g} robust standard deviations of its median"
        low = "" if self.low is None else f"{self.low:g} <= "
        return f"{low}{self.variable}" + ("" if self.high is None else f" <= {self.high:g}")


def cut(
    variable: str | None = None,
    low: float | None = None,
    high: float | None = None,
    *,
    equals: Any = None,
    robust: float | None = None,
    laser_off: bool | None = None,
) -> Cut:
    """Say what an event has to be like to pass.

    Parameters
    ----------
    variable
        Name of the variable (event); by default the name of the cut.
    low, high
        Lowest and highest value that pass, both included, in the unit of the variable; compared in the precision of its
        readings, so that 0.3 of float32 passes ``high=0.3``.
    equals
        The one value that passes, such as True: a number, true or false, a text, or a time.
    robust
        Largest distance from the median, in robust standard deviations: 1.4826 times the median absolute deviation of
        the events with X-rays that are judged.
    laser_off
        Whether shots without laser (``laser_on`` false) are judged. By default they are, but not by variables of the
        time tool (``tt_...``), which has nothing to measure there.

    Returns
    -------
    A cut, for :func:`select`.

    Raises
    ------
    ParameterError
        No condition, or two that exclude each other; limits out of order, or no numbers; ``equals`` of several values.

    Examples
    --------
    >>> import xsmall as xs
    >>> str(xs.cut("i0", low=0.5))
    '0.5 <= i0'
    """
    kinds = [(low, high) != (None, None), equals is not None, robust is not None]
    if sum(kinds) != 1:
        raise ParameterError(
            "a cut has one condition",
            found=f"{sum(kinds)} conditions",
            expected="limits, equals= or robust=",
            fix='xs.cut("i0", low=0.5)',
        )
    low, high, robust = (_as_limit(x) for x in (low, high, robust))
    equals = _as_value(equals)
    if low is not None and high is not None and low > high:
        raise ParameterError(f"no value lies from {low:g} to {high:g}", fix=f"({high:g}, {low:g})")
    if robust is not None and robust <= 0:
        raise ParameterError("robust is a number of standard deviations above zero", found=robust, fix="robust=5")
    return Cut(variable, low, high, equals, robust, laser_off)


def _as_limit(given: Any) -> Any:
    """A limit as a whole number or the decimal number that one writes, which compare in the precision of the values."""
    if given is None:
        return None
    if isinstance(given, bool | np.bool_) or not isinstance(given, _NUMBER) or given != given:
        raise ParameterError(
            "limits of a cut are numbers", found=repr(given), fix='xs.cut("i0", 0.5, 2), None for no limit'
        )
    if isinstance(given, int | np.integer):
        return int(given) if abs(int(given)) < 2**64 else math.inf if given > 0 else -math.inf
    return float(str(given)) if isinstance(given, np.floating) else float(given)


def _as_value(given: Any) -> Any:
    """The one value of ``equals``, in the types of Python."""
    if given is None or isinstance(given, bool | str | bytes | np.datetime64 | datetime):
        return given
    if isinstance(given, np.bool_):
        return bool(given)
    if isinstance(given, _NUMBER) and given == given:
        return _as_limit(given)
    raise ParameterError(
        "a cut compares with one value",
        found=repr(given),
        expected="a number, true or false, a text, or a time",
        fix='xs.cut("gain", equals=2); of several values true or false of your own: own=small["gain"].isin([1, 2])',
    )


def select(obj: Events, /, **cuts: Any) -> Events:
    """Keep the events that pass all cuts, and tell how many passed each.

    Parameters
    ----------
    obj
        Small data, or frames with variables of events as coordinates.
    **cuts
        By the name of the variable or, with :func:`cut`, by any name: ``i0=(0.5, 2)`` (both ends included, None for no
        limit), ``laser_on=True``, ``bright=xs.cut("i0", low=0.5)``, ``spot_sum=xs.cut(robust=5)``; or true/false of
        your own (event), which joins by label.

    Returns
    -------
    The events that pass, with all their dtypes; lazy where ``obj`` is. ``attrs["selection"]`` (JSON) has for each cut
    how many events pass it alone, how many pass it and all before it, how many fail this one only, how many have no
    value, and for how many it was waived; ``.sd`` shows it. Another selection is added to it.

    Raises
    ------
    ParameterError
        Unknown variables, a cut that has no meaning, or not one event that passes.
    DataError
        A variable that is not one value per event, or of another kind than what it is compared with; for ``robust``,
        one without spread.

    Notes
    -----
    A value that is NaN does not pass. A cut on the time tool (``tt_...``) is waived for shots without laser or without
    X-rays, ``robust`` for shots without X-rays. Those shots stay, for averages and cubes to leave out, unless another
    cut removes them. The variables of the cuts are computed at once, nothing else.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"i0": ("event", [0.1, 1.0, 1.2]), "n": ("event", [1, 2, 3])})
    >>> bright = xs.select(small, i0=(0.5, None))
    >>> bright.n.values.tolist(), str(bright.n.dtype)
    ([2, 3], 'int64')
    """
    if EVENT not in obj.dims:
        raise DataError("there are no events to select", found=f"dims {dict(obj.sizes)}", expected=f"a dim {EVENT!r}")
    if not cuts:
        raise ParameterError("nothing to select by", fix="small.sd.select(i0=(0.5, None))")
    made = {name: _as_cut(name, given, obj) for name, given in cuts.items()}
    values = _values_of_cuts(obj, made)
    dropped, off = shots_are_dropped(obj), laser_is_off(obj)
    n = obj.sizes[EVENT]
    passes: dict[str, Flags] = {}
    told: dict[str, dict[str, Any]] = {}
    so_far = np.ones(n, bool)
    for name, one in made.items():
        waived = _waived(one, n, dropped, off)
        judged = values[name]
        passed = _passes(one, judged, ~waived) | waived
        so_far &= passed
        passes[name] = passed
        told[name] = {
            "cut": f"{name}, true or false of the user" if isinstance(one, xr.DataArray) else str(one),
            "n_passed_alone": int(passed.sum()),
            "n_passed_so_far": int(so_far.sum()),
            "n_waived": int(waived.sum()),
            "n_missing": int((_is_missing(judged) & ~waived).sum()),
        }
    for name, numbers in told.items():
        others = np.ones(n, bool)
        for other, passed in passes.items():
            others &= passed if other != name else True
        numbers["n_failed_this_only"] = int((others & ~passes[name]).sum())
    if n and not so_far.any():
        raise ParameterError(
            "not one event passes the cuts",
            found=", ".join(f"{t['cut']}: {t['n_passed_alone']} of {n}" for t in told.values()),
            expected="one event at least",
            fix="limits in the units of the variables",
        )
    out: Events = obj.isel({EVENT: np.flatnonzero(so_far)})
    stage = {
        "n_events": n,
        "n_passed": int(so_far.sum()),
        **_class("n_dropped_shots", dropped, so_far),
        **_class("n_laser_off", off, so_far),
        "cuts": told,
    }
    out.attrs = {**obj.attrs, SELECTION: json.dumps([*_stages(obj.attrs), stage])}
    return out


def selection_lines(attrs: Mapping[Any, Any]) -> list[str]:
    """Lines that tell what a selection did, for ``.sd``."""
    lines = []
    for stage in _stages(attrs):
        cuts = ", ".join(f"{c['cut']}: {c['n_passed_alone']}" + (f" ({c['n_waived']} waived)" if c["n_waived"] else "")
                         for c in stage["cuts"].values())  # fmt: skip
        lines.append(f"{stage['n_passed']} of {stage['n_events']} events; " + (f"alone {cuts}" if cuts else "not cut"))
    return lines


def merged_selections(each: Sequence[Mapping[Any, Any]]) -> dict[str, str]:
    """The attribute of results that are added: numbers of the same cuts add up, other cuts stand behind each other."""
    known = [_stages(attrs) for attrs in each]
    if not any(known):
        return {}
    said = [cuts_said(attrs) for attrs in each]
    if all(one == said[0] for one in said[1:]):
        merged = [_added_stages([stages[k] for stages in known]) for k in range(len(known[0]))]
    else:
        whole = [[{"n_events": n, "n_passed": n, "cuts": {}}] for n in (int(a.get("n_events", 0)) for a in each)]
        merged = [stage for stages, all_of_it in zip(known, whole, strict=True) for stage in stages or all_of_it]
    return {SELECTION: json.dumps(merged)}


def cuts_said(attrs: Mapping[Any, Any]) -> list[dict[str, str]]:
    """The cuts that events have passed, by their names, one selection after the other."""
    return [{n: c["cut"] for n, c in stage["cuts"].items()} for stage in _stages(attrs)]


# ---- helpers ----------------------------------------------------------------------------------------------------


def _added_stages(stages: Sequence[Any]) -> Any:
    if isinstance(stages[0], dict):
        keys = dict.fromkeys(k for s in stages for k in s)
        return {k: _added_stages([s[k] for s in stages if k in s]) for k in keys}
    return sum(stages) if isinstance(stages[0], int) else stages[0]


def _stages(attrs: Mapping[Any, Any]) -> list[dict[str, Any]]:
    return list(json.loads(attrs[SELECTION])) if SELECTION in attrs else []


def _class(name: str, flags: Flags | None, passed: Flags) -> dict[str, int]:
    return {} if flags is None else {name: int(flags.sum()), f"{name}_passed": int((flags & passed).sum())}


def _as_cut(name: str, given: Any, obj: xr.Dataset | xr.DataArray) -> Cut | xr.DataArray:
    if isinstance(given, xr.DataArray):
        if given.dims != (EVENT,) or given.dtype != bool:
            raise ParameterError(
                f"{name}: a cut of your own is true or false per event", found=f"{given.dtype} over {given.dims}"
            )
        return given
    if isinstance(given, Cut):
        made = given if given.variable is not None else replace(given, variable=name)
    elif isinstance(given, bool | np.bool_ | str):
        made = cut(name, equals=given)
    elif isinstance(given, tuple | list) and len(given) == 2:
        made = cut(name, *given)
    else:
        raise ParameterError(
            f"{name}: this is no cut",
            found=repr(given),
            expected="(low, high), True, False, a text, xs.cut(...), or true/false per event",
            fix=_how_to_cut(name, given, obj),
        )
    variable = str(made.variable)
    if variable not in (obj.variables if isinstance(obj, xr.Dataset) else obj.coords):
        there = variables_per_event(obj)
        near = alike(variable, there)
        likely = I0 if I0 in there else next(iter(there), None)
        raise ParameterError(
            f"{variable!r} is no variable to select by",
            found=variable,
            expected=f"one of {there}",
            fix=f"{near[0]}=..." if near else f'{name}=xs.cut("{likely}", ...)' if likely else _WITHOUT_VARIABLES,
        )
    return made


def _how_to_cut(name: str, given: Any, obj: Any) -> str:
    if np.asarray(given).dtype == bool and np.ndim(given) == 1:
        return f'{name}=xr.DataArray({name}, dims="{EVENT}")'
    if isinstance(given, _NUMBER):
        return f"{name}=xs.cut(equals={given})"
    return f"{name}=True" if _is_boolean(obj, name) else f"{name}=(0.5, None)"


def _is_boolean(obj: Any, name: str) -> bool:
    there = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    return name in there and bool(there[name].dtype == bool)


def _values_of_cuts(
    obj: xr.Dataset | xr.DataArray, cuts: Mapping[str, Cut | xr.DataArray]
) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for name, one in cuts.items():
        if isinstance(one, xr.DataArray):
            own = of_the_events(one, obj, name)
            if own.sizes[EVENT] != obj.sizes[EVENT]:
                raise DataError(f"{name} is of other events", found=f"{own.size}, not {obj.sizes[EVENT]} events")
            found[name] = xr.Variable(EVENT, own.data)
        else:
            found[name] = _known_values(obj, str(one.variable))
    numbered = xr.Dataset({str(k): x for k, x in enumerate(found.values())}).compute()  # all of them together
    return {name: numbered[str(k)].values for k, name in enumerate(found)}


def _known_values(obj: xr.Dataset | xr.DataArray, name: str) -> xr.Variable:
    """One value per event, NaN where a whole number, a true or a false is not known."""
    values = one_per_event(obj, name)
    unknown = unknown_events(obj, name) if isinstance(obj, xr.Dataset) else None
    return values if unknown is None else where_known(values.astype(np.float64), ~unknown)


def _waived(one: Cut | xr.DataArray, n: int, dropped: Flags | None, off: Flags | None) -> Flags:
    """Events for which a cut has no meaning."""
    waived = np.zeros(n, bool)
    if isinstance(one, xr.DataArray) or one.variable in (LASER_ON, XRAY_ON):
        return waived
    of_time_tool = str(one.variable).startswith(TT_PREFIX)
    judged = one.laser_off if one.laser_off is not None else not of_time_tool
    if off is not None and not judged:
        waived |= off
    if dropped is not None and (of_time_tool or one.robust is not None):
        waived |= dropped
    return waived


def _passes(one: Cut | xr.DataArray, values: npt.NDArray[Any], judged: Flags) -> Flags:
    if isinstance(one, xr.DataArray):
        return values.astype(bool)
    if one.equals is not None:
        return _is_equal(one, values)
    if values.dtype.kind not in "iuf":
        raise DataError(
            f"{one.variable} has no limits: it is no number",
            found=str(values.dtype),
            fix=f"{one.variable}=True" if values.dtype.kind == "b" else f'{one.variable}="..."',
        )
    if one.robust is None:
        low, high = (-np.inf if one.low is None else one.low), (np.inf if one.high is None else one.high)
        read = as_read(values)  # 0.7 of float32 reaches 0.7
        return np.asarray((read >= low) & (read <= high))
    known = values[judged & np.isfinite(values)].astype(np.float64)
    if not known.size:
        return np.zeros(values.shape, bool)
    middle = np.median(known)
    sigma = _MAD * np.median(np.abs(known - middle))
    if sigma == 0:
        raise DataError(
            f"{one.variable} has no robust spread: half of its values are the same",
            found=f"{middle:g}",
            fix=f"{one.variable}=(low, high)",
        )
    return np.asarray(np.abs(values - middle) <= one.robust * sigma)


def _is_equal(one: Cut, values: npt.NDArray[Any]) -> Flags:
    wanted, kind = one.equals, values.dtype.kind
    fits = next(kinds for of, kinds in _KINDS_OF_VALUES.items() if isinstance(wanted, of))
    known = values[~_is_missing(values)]
    if kind not in fits or (isinstance(wanted, bool) and kind != "b" and not np.isin(known, (0, 1)).all()):
        raise DataError(
            f"{one.variable} cannot be {wanted!r}",
            found=f"{values.dtype}: {np.unique(known)[:5].tolist() if kind != 'O' else known[:5].tolist()}",
            expected="a value of the kind that the variable has",
            fix=f'xs.cut("{one.variable}", equals=...) with one of its values, or {one.variable}=(low, high)',
        )
    return np.asarray(as_read(values) == wanted)


def _is_missing(values: npt.NDArray[Any]) -> Flags:
    return np.asarray(pd.isna(values), bool)
