"""Which events of a run belong together: event variables, delay, selections and bins as a recipe says them.

All of it follows from values of events, which are known before a frame is read: whoever needs it makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.binning import Binning
from xsmall.cube.bins import bins, categories, edges, quantiles, steps
from xsmall.cube.sorting import bins_of_events
from xsmall.errors import DataError, ParameterError
from xsmall.events.delay import delay
from xsmall.events.join import positions
from xsmall.events.names import event_variables
from xsmall.events.select import cut, select
from xsmall.events.shots import shots_are_dropped
from xsmall.run.quantity import KINDS, split
from xsmall.run.tables import CubeRecipe, RunRecipe
from xsmall.run.text import like
from xsmall.vocabulary import AVERAGE, DIMENSIONLESS, EVENT, EVENTS_NODE, UNITS

__all__ = ["AVERAGED", "accumulations", "bins_for", "cube_key", "cuts_of", "event_table", "selected", "shape_of_cube"]

Index = npt.NDArray[np.int64]
AVERAGED: Final = AVERAGE


def cube_key(name: str) -> str:
    """Name of the accumulation that a cube's images are made of."""
    return f"cube-{name}"


def event_table(recipe: RunRecipe, tree: xr.DataTree) -> xr.Dataset:
    """The event variables of a run: those of the hutch under their common names, and the delay.

    Raises
    ------
    XsmallError
        A stage or a rule that the run does not have.
    """
    named: dict[str, Any] = dict(recipe.event_variables or {})
    found: xr.Dataset = tree[EVENTS_NODE].to_dataset() if EVENTS_NODE in tree.children else xr.Dataset()
    if recipe.event_variables is not None:
        found = event_variables(tree, named.pop("hutch", None), table=named.pop("table", None), **named)
    if recipe.delay is not None:
        found = delay(found, **recipe.delay.model_dump(exclude_none=True))
    return found


def selected(events: xr.Dataset, recipe: RunRecipe, name: str | None) -> xr.Dataset:
    """Keep the events that pass a selection of the recipe; all of them where it names none."""
    return events if name is None else select(events, **cuts_of(events, recipe, name))


def cuts_of(events: xr.Dataset, recipe: RunRecipe, name: str | None) -> dict[str, Any]:
    """The cuts of a selection of the recipe as :func:`xsmall.select` takes them; none where it names none."""
    given = {} if name is None else recipe.selections[name]
    return {key: _cut_of_table(key, one, events) for key, one in given.items()}


def bins_for(events: xr.Dataset, name: str, given: CubeRecipe) -> dict[str, Binning]:
    """The bins of a cube as the functions of cubes take them, in the units of the variables."""
    return {variable: _binning(f"bins of cube {name!r}", variable, one, events) for variable, one in given.bins.items()}


def accumulations(recipe: RunRecipe, tree: xr.DataTree, detector: str, raw: xr.DataArray) -> dict[str, Index]:
    """Say which frames of a detector are added up together: for each sum the bin of each of its events, -1 for none.

    Parameters
    ----------
    recipe
        What is meant for the run.
    tree
        The run.
    detector
        Name of the detector.
    raw
        Its frames.
    """
    out: dict[str, Index] = {}
    if recipe.detectors[detector].average:
        lit = shots_are_dropped(raw)
        out[AVERAGED] = np.zeros(raw.sizes[EVENT], np.int64) if lit is None else np.where(lit, -1, 0).astype(np.int64)
    wanted = {name: one for name, one in recipe.cubes.items() if detector in one.images}
    events = event_table(recipe, tree) if wanted else xr.Dataset()
    for name, one in wanted.items():
        chosen = selected(events, recipe, one.select)
        index = bins_of_events(chosen, bins_for(events, name, one), weights=one.weights)[2]
        at = positions(chosen, raw, detector)
        dropped = shots_are_dropped(raw)
        own = np.where(at >= 0, np.append(index, -1)[at], -1)
        out[cube_key(name)] = own if dropped is None else np.where(dropped, -1, own)
    return out


def shape_of_cube(events: xr.Dataset, recipe: RunRecipe, name: str) -> dict[str, int]:
    """How many bins a cube has along each variable; what is binned is an event variable."""
    given = recipe.cubes[name]
    bins = bins_for(events, name, given)
    shape = bins_of_events(selected(events, recipe, given.select), bins, weights=given.weights)[1]
    return dict(zip(bins, shape, strict=True))


# ---- words of recipes ------------------------------------------------------------------------------------------------


def _number_with_unit(what: str, variable: str, given: Any, events: xr.Dataset) -> float:
    """A number in the unit of an event variable; where that has a unit, it has to be said."""
    units = events[variable].attrs.get(UNITS) if variable in events.variables else None
    if isinstance(given, int | float) and not isinstance(given, bool):
        if units in (None, DIMENSIONLESS, ""):
            return float(given)
        raise ParameterError(
            f"{what}: a number for {variable!r} without its unit", found=repr(given), fix=f'"{given} {units}"'
        )
    number, unit = split(given, f"{what}: {variable}", [str(units or "")])
    if unit == units:
        return float(number)
    for family in KINDS.values():
        if unit in family and str(units) in family:
            factor, own = family[unit], family[str(units)]
            exact = isinstance(factor, Fraction) and isinstance(own, Fraction)
            return float(number * factor / own) if exact else float(number) * float(factor) / float(own)
    raise ParameterError(
        f"{what}: another unit than that of {variable!r}", found=repr(given), expected=f"a number with {units}"
    )


def _cut_of_table(name: str, given: Any, events: xr.Dataset) -> Any:
    """A cut: true, false, a text, ``[low, high]``, or a table of low, high, equals, robust, variable, laser_off."""
    what = f"selection by {name}"
    if isinstance(given, bool | str):
        return given
    if isinstance(given, list):
        if len(given) != 2:
            raise ParameterError(what, found=repr(given), expected="[low, high]", fix=f"{name} = {{low = 0.5}}")
        return cut(name, *(_number_with_unit(what, name, x, events) for x in given))
    if not isinstance(given, Mapping):
        raise ParameterError(what, found=repr(given), expected="[low, high], true, false, a text, or a table")
    known = ("variable", "low", "high", "equals", "robust", "laser_off")
    for key in given:
        if key not in known:
            near = like(key, known)
            raise ParameterError(
                f"{what}: unknown key", found=key, expected=", ".join(known), fix=f"{near} = ..." if near else None
            )
    variable = str(given.get("variable", name))
    limits: dict[str, Any] = {
        key: _number_with_unit(what, variable, given[key], events) for key in ("low", "high") if key in given
    }
    limits |= {key: given[key] for key in ("equals", "robust", "laser_off") if key in given}
    return cut(variable, **limits)


def _binning(what: str, variable: str, given: Any, events: xr.Dataset) -> Binning:
    if variable not in events.variables:
        known = [str(n) for n in events.variables if n != EVENT]
        near = like(variable, known)
        raise DataError(
            f"{what}: {variable!r} is no event variable of the run",
            expected=", ".join(known) or "event variables",
            fix=f"{near} = ..." if near else "bins by results of reductions: xsmall cube, once the small data are made",
        )

    def number(value: Any) -> float:
        return _number_with_unit(what, variable, value, events)

    if isinstance(given, list):
        return edges([number(x) for x in given])
    kind = given["kind"]
    if kind == "bins":
        more: dict[str, Any] = {key: given[key] for key in ("n", "log") if key in given}
        more |= {"width": number(given["width"])} if "width" in given else {}
        return bins(number(given["start"]), number(given["stop"]), **more)
    if kind == "steps":
        at = {"at": [number(x) for x in given["at"]]} if "at" in given else {}
        return steps(tolerance=number(given["tolerance"]), **at)
    if kind == "quantiles":
        return quantiles(given["n"])
    return categories(given.get("labels"))
