"""Event variables by one name, whatever a hutch calls them: ``i0``, ``laser_on``, ``xray_on``, ``delay`` and others."""

from __future__ import annotations

import errno
import json
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.detector.geometry.text import refuse_special
from xsmall.errors import ParameterError, WriteError, alike
from xsmall.events.name_rules import NUMBERS, NameRule, Unknown, Variables, rules_of

__all__ = ["event_variables", "save_hutch_table"]

BUILT_IN: Final = Path(__file__).with_name("hutches.toml")
ANY: Final = "any"
"""The table that holds for every hutch; it is asked first."""
NAMES: Final = (v.XRAY_ON, v.LASER_ON, *NUMBERS)
_LONG_NAMES: Final = {
    v.I0: "intensity of the x-ray pulse",
    v.XRAY_ON: "whether the x-ray pulse was let through",
    v.LASER_ON: "whether the laser was on the sample",
    v.DELAY: "nominal delay of the laser, without what the time tool says",
    v.TT_POSITION: "delay that the time tool measured, NaN where it found no edge",
}


def event_variables(
    run: xr.Dataset | xr.DataTree,
    /,
    hutch: str | None = None,
    *,
    table: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    **rules: Any,
) -> xr.Dataset:
    """Add the event variables of a run under one name each: ``i0``, ``laser_on``, ``tt_position`` and others.

    Parameters
    ----------
    run
        What :func:`xsmall.open_run` or :func:`xsmall.open_smalldata` opened, or its event variables alone.
    hutch
        Such as ``"xpp"``: its table says which event codes, diodes and time tools are meant. Default: the first three
        letters of the experiment, where the run names one.
    table
        File of your own tables, or a dict of them, in the place of those of the package; see
        :func:`xsmall.save_hutch_table`.
    **rules
        A rule for one variable, in the place of the table's: the address of a field (``i0="ipm3.sum"``), event codes
        (``laser_on={"off": [91]}``; ``on`` and ``off``, ``of="evr"`` for LCLS-I), a destination
        (``xray_on={"destination": 4}``), a field with a unit (``delay={"source": "scan.lxt", "unit": "s"}``) or with
        ``scale`` and ``offset``, values of your own (event), or None to leave it out. Names of your own work too.

    Returns
    -------
    The event variables with these beside them: ``i0`` (unit of the source), ``xray_on``, ``laser_on`` (bool; float64
    with NaN where some events do not tell it), ``delay``, ``tt_position`` (ps), ``tt_amplitude``, ``tt_fwhm`` (ps),
    ``photon_energy`` (eV), float64 (event), NaN where missing or damaged, and where the time tool found no edge. What
    was there under such a name stays, unless a rule is given. ``attrs["source"]`` of each says what it was made of.
    ``attrs["missing_variables"]`` says in JSON, for each that the run cannot give, why: nothing is guessed.

    Raises
    ------
    ParameterError
        No such hutch or table, an invalid rule, or a rule given here that the run does not answer.
    DataError
        The field of a rule has a unit that cannot be that of the variable.

    Notes
    -----
    Nothing is computed; what is lazy stays lazy. ``delay`` is nominal: what the time tool measured is not in it.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset(
    ...     {
    ...         "ipm2_sum": ("event", [1.0, 2.0]),
    ...         "lightStatus_laser": ("event", [1, 0]),
    ...         "tt_FLTPOS": ("event", [410.0, 0.0]),
    ...         "tt_FLTPOS_PS": ("event", [0.25, 0.1]),
    ...     }
    ... )
    >>> named = xs.event_variables(small, "xpp")
    >>> named.laser_on.values.tolist(), named.tt_position.values.tolist()
    ([True, False], [0.25, nan])
    >>> named.i0.attrs["source"], "xray_on" in named
    ('ipm2.sum', False)
    """
    data = _variables_of_run(run)
    mine = {name: rule for name, rule in rules.items() if rule is not None}
    found: dict[str, xr.Variable] = {}
    for name, given in mine.items():
        found[name] = _variable_given(name, given, data)
    listed = _rules(_hutch_name(hutch, data, run), table)
    missing: dict[str, str] = {}
    for name in dict.fromkeys((*NAMES, *listed)):
        if name in rules or name in data.events.variables:
            continue
        try:
            found[name] = _by_first_rule(name, listed.get(name, ()), data)
        except Unknown as why:
            missing[name] = str(why)
    events = data.events.drop_vars([n for n in found if n in data.events.coords]).assign(found)
    attrs = {k: x for k, x in events.attrs.items() if k != v.MISSING_VARIABLES}
    return events.assign_attrs(attrs | ({v.MISSING_VARIABLES: json.dumps(missing)} if missing else {}))


def save_hutch_table(path: str | os.PathLike[str]) -> Path:
    """Write the tables of all hutches to a file that you can change, and hand to :func:`xsmall.event_variables`.

    Parameters
    ----------
    path
        Where to write it, such as ``"mine.toml"``; a file that is there is not replaced.

    Returns
    -------
    The path.

    Raises
    ------
    WriteError
        The file is there, or cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> mine = xs.save_hutch_table(pathlib.Path(tempfile.mkdtemp()) / "mine.toml")
    >>> text = mine.read_text().replace("off = [91]", "off = [92]")
    >>> _ = mine.write_text(text)
    """
    target = Path(path)
    try:
        with target.open("xb", buffering=0) as file:
            text = BUILT_IN.read_bytes()
            try:
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                target.unlink()
                raise
    except FileExistsError:
        raise WriteError(f"{target}: is there already", fix="another name, or remove it first") from None
    except OSError as error:
        raise WriteError(f"{target}: cannot be written", found=error.strerror, fix="another folder") from error
    return target


def common_variables(events: xr.Dataset) -> dict[str, xr.Variable]:
    """Give what the names of smalldata_tools say in every hutch: light status and time tool."""
    found: dict[str, xr.Variable] = {}
    data = Variables(events, {})
    for name, rules in _rules(None, None).items():
        try:
            found[name] = _by_first_rule(name, rules, data)
        except Unknown:
            continue
    return found


def _variables_of_run(run: object) -> Variables:
    if isinstance(run, xr.Dataset):
        if v.EVENT not in run.dims:
            raise ParameterError("these are no event variables", found=f"dims {tuple(run.sizes)}", expected=v.EVENT)
        return Variables(run, {})
    if not isinstance(run, xr.DataTree) or v.EVENTS_NODE not in run.children:
        raise ParameterError(
            "event variables are those of a run",
            found=type(run).__name__,
            expected="what xs.open_run or xs.open_smalldata opened, or its node 'events'",
            fix='xs.event_variables(xs.open_run("run.xtc2"), "xpp")',
        )
    events = run.children[v.EVENTS_NODE].to_dataset(inherit=False)
    labels = events.indexes.get(v.EVENT)
    nodes = {}
    for name, node in run.children.items():
        own = node.to_dataset(inherit=False)
        if name != v.EVENTS_NODE and labels is not None and labels.equals(own.indexes.get(v.EVENT)):
            nodes[name] = own
    return Variables(events, nodes)


def _hutch_name(hutch: str | None, data: Variables, run: xr.Dataset | xr.DataTree) -> str:
    if hutch is not None:
        return hutch.lower()
    experiment = data.events.attrs.get(v.EXPERIMENT) or run.attrs.get(v.EXPERIMENT)
    if not experiment:
        raise ParameterError(
            "which hutch?",
            found="a run that names no experiment",
            expected=", ".join(n for n in _hutch_tables(None) if n != ANY),
            fix='hutch="xpp"',
        )
    return str(experiment)[:3].lower()


def _rules(hutch: str | None, table: Any) -> dict[str, tuple[NameRule, ...]]:
    """Rules of each variable: those for every hutch, then those of this one."""
    tables, where = _hutch_tables(table), "the table of hutches" if table is None else str(table)[:80]
    if hutch is not None and (hutch not in tables or hutch == ANY):
        near = alike(hutch, [n for n in tables if n != ANY])
        raise ParameterError(
            "no table of this hutch",
            found=repr(hutch),
            expected=", ".join(n for n in tables if n != ANY),
            fix=f'hutch="{near[0]}"'
            if near
            else 'xs.save_hutch_table("mine.toml"), add it there, and table="mine.toml"',
        )
    result: dict[str, tuple[NameRule, ...]] = {}
    for part in (ANY, hutch):
        rules = tables.get(part, {}) if part is not None else {}
        if not isinstance(rules, Mapping):
            raise ParameterError(f"{where}: no table", found=f"{part} = {rules!r}", expected=f"[{part}]")
        for name, given in rules.items():
            result[name] = result.get(name, ()) + rules_of(name, given, f"{where}, {part}")
    return result


def _hutch_tables(table: Any) -> Mapping[str, Any]:
    if table is None:
        return _built_in()
    if isinstance(table, Mapping):
        return table
    try:
        refuse_special(table)
        return tomllib.loads(Path(table).read_text(encoding="utf-8"))
    except (OSError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ParameterError(
            f"{table}: no table of hutches", found=str(error), fix='xs.save_hutch_table("mine.toml") writes one'
        ) from error


@cache
def _built_in() -> Mapping[str, Any]:
    return tomllib.loads(BUILT_IN.read_text(encoding="utf-8"))


def _by_first_rule(name: str, rules: tuple[NameRule, ...], data: Variables) -> xr.Variable:
    """Give the variable by the first rule that the data answer."""
    why = []
    for rule in rules:
        try:
            value, words = rule.value(name, data)
        except Unknown as error:
            why.append(str(error))
            continue
        long_name = {v.LONG_NAME: _LONG_NAMES[name]} if name in _LONG_NAMES else {}
        return xr.Variable(value.dims, value.data, {**value.attrs, **long_name, v.SOURCE: words})
    raise Unknown("; ".join(why) or "the table of this hutch has no line for it")


def _variable_given(name: str, given: Any, data: Variables) -> xr.Variable:
    """Give a variable by what the user said: values, or a rule that has to be answered."""
    several = isinstance(given, list | tuple) and all(isinstance(one, str | Mapping) for one in given)
    if isinstance(given, str | Mapping) or several:
        rules = rules_of(name, given, f"{name}=")
        try:
            return _by_first_rule(name, rules, data)
        except Unknown as why:
            known = data.names()
            asked = [r.source for r in rules if r.source] or [name]
            near = alike(asked[0].replace(".", "_"), known)
            raise ParameterError(
                f"{name}: the run does not answer this rule",
                found=str(why),
                expected=", ".join(near or known[:12]) or "a variable of events",
                fix=f"{name}={near[0]!r}" if near else f"{name}=None leaves it out",
            ) from None
    if isinstance(given, xr.DataArray) and v.EVENT in given.indexes and v.EVENT in data.events.indexes:
        given = given.reindex({v.EVENT: data.events.indexes[v.EVENT]})
    values = given.data if isinstance(given, xr.DataArray) else np.asarray(given)
    if values.shape != (data.events.sizes[v.EVENT],):
        raise ParameterError(
            f"{name}: one value for each event",
            found=f"shape {values.shape}",
            expected=f"({data.events.sizes[v.EVENT]},)",
        )
    unit = v.UNITS_OF.get(name)
    return xr.Variable(v.EVENT, values, ({v.UNITS: unit} if unit else {}) | {v.SOURCE: "given"})
