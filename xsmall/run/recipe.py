"""Recipes: what is to be made of every run, as a TOML file that is checked before anything is read."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from xsmall.errors import ParameterError, XsmallError
from xsmall.io.files import names_its_file
from xsmall.run import reductions
from xsmall.run.tables import PSANA, TABLES, CubeRecipe, Delay, DetectorRecipe, RunRecipe
from xsmall.run.text import like, runs_of

__all__ = ["Recipe", "as_json", "open_recipe", "recipe_schema"]

_OVERRIDE: Final = "override"
_RUNS: Final = "runs"


class Recipe:
    """What is to be made of runs; made by :func:`open_recipe`.

    Parameters
    ----------
    given
        The tables of a recipe.
    folder
        The folder that relative paths of the recipe start from.
    name
        What errors call it.

    Raises
    ------
    ParameterError
        An unknown key, a value without its unit, or runs for which two overrides say the same.
    """

    def __init__(self, given: Mapping[str, Any], folder: Path, name: str = "the recipe") -> None:
        self.folder = folder
        self.name = name
        self.given = {k: v for k, v in given.items() if k != _OVERRIDE}
        self.overrides = [
            self._override(i, one) for i, one in enumerate(_override_tables(given.get(_OVERRIDE, []), name))
        ]
        _validated(self.given, name)
        self._check_overrides()

    def __repr__(self) -> str:
        detectors = ", ".join(self.detector_names) or "no detector"
        return f"<recipe {self.name}: {detectors}; {len(self.overrides)} overrides>"

    @cached_property
    def detector_names(self) -> tuple[str, ...]:
        """Detectors that the recipe names for any run."""
        places = [self.given, *(one for _, one in self.overrides)]
        return tuple(dict.fromkeys(name for one in places for name in one.get("detectors", {})))

    def for_run(self, run: int | None) -> RunRecipe:
        """Resolve the recipe for one run and check it; paths become absolute.

        Parameters
        ----------
        run
            Its number; None for what holds where no override does.
        """
        return _validated(self.tables(run), self._where(run))

    def tables(self, run: int | None) -> dict[str, Any]:
        """Give the tables for one run as they are written, units and all; paths are complete."""
        tables: dict[str, Any] = self.given
        for runs, override in self.overrides:
            if run in runs:
                tables = _merged_tables(tables, override)
        return _with_paths(tables, self.folder, run, self._where(run))

    def _where(self, run: int | None) -> str:
        return self.name if run is None else f"{self.name}, run {run}"

    def _override(self, i: int, table: Mapping[str, Any]) -> tuple[frozenset[int], dict[str, Any]]:
        if _RUNS not in table:
            raise ParameterError(f"{self.name}: override {i + 1} does not say for which runs", fix='runs = "10-20"')
        return frozenset(runs_of(table[_RUNS])), {k: v for k, v in table.items() if k != _RUNS}

    def _check_overrides(self) -> None:
        for i, (runs, override) in enumerate(self.overrides):
            _validated(_merged_tables(self.given, override), f"{self.name}, override {i + 1}")
            self._check_detectors(i, override)
            for earlier, other in self.overrides[:i]:
                both, same = runs & earlier, set(_in_both(override, other))
                if both and same:
                    raise ParameterError(
                        f"{self.name}: two overrides say the same for one run",
                        found=f"{'.'.join(min(same))} for run {min(both)}",
                        expected="one value for each run",
                        fix="let the ranges of runs not overlap",
                    )

    def _check_detectors(self, i: int, override: Mapping[str, Any]) -> None:
        """Refuse a table of a detector that says nothing by itself and is nearly called as another one."""
        known = self.given.get("detectors", {})
        for name, table in override.get("detectors", {}).items():
            near = None if name in known or table.get("reductions") else like(name, known)
            if near is not None:
                raise ParameterError(
                    f"{self.name}, override {i + 1}: the recipe has no detector {name!r} elsewhere",
                    expected=", ".join(known),
                    fix=f"detectors.{near}; or give it reductions here",
                )


@names_its_file
def open_recipe(source: str | os.PathLike[str] | Mapping[str, Any] | Recipe) -> Recipe:
    """Open a recipe and check it.

    Parameters
    ----------
    source
        Path of a TOML file, or the same tables as a dict, whose relative paths start from the working directory.

    Returns
    -------
    The recipe: ``for_run(12)`` gives the settings of run 12.

    Raises
    ------
    ParameterError
        No such file, text that is no TOML, an unknown key (the message names the nearest one), a value of another type,
        a number without its unit, or overrides that say two things for one run.

    Examples
    --------
    >>> import xsmall as xs
    >>> recipe = xs.open_recipe(
    ...     {
    ...         "detectors": {"jungfrau": {"reductions": {"rows": {"kind": "projection", "onto": "row"}}}},
    ...         "override": [{"runs": "12-14", "detectors": {"jungfrau": {"average": False}}}],
    ...     }
    ... )
    >>> recipe.for_run(11).detectors["jungfrau"].average, recipe.for_run(12).detectors["jungfrau"].average
    (True, False)
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Mapping):
        return Recipe(source, Path.cwd())
    path = Path(source).expanduser()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(
            f"{path}: the recipe cannot be read", found=error.strerror, fix="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: this is no TOML", found=error, fix='text needs quotes: unit = "keV"') from error
    folder = path.absolute().parent  # one name, from wherever the recipe is called
    return Recipe(tables, folder.resolve() if ".." in folder.parts else folder, str(path))


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, with which editors complete and check them.

    Examples
    --------
    >>> from xsmall.run.recipe import recipe_schema
    >>> sorted(recipe_schema()["properties"])
    ['cubes', 'delay', 'detectors', 'event_variables', 'events', 'format', 'override', 'selections', 'source']
    """
    schema = RunRecipe.model_json_schema()
    kinds = [
        {
            "properties": {reductions.KIND: {"const": kind}, **{k: {} for k in reductions.arguments_of(kind)}},
            "required": [reductions.KIND],
            "additionalProperties": False,
        }
        for kind in (*reductions.KINDS, reductions.FUNCTION)
    ]
    found = schema["$defs"]["DetectorRecipe"]["properties"]["reductions"]
    one = {"type": "object", "oneOf": kinds}
    found["additionalProperties"] = {"anyOf": [one, {"type": "array", "items": one}]}
    runs = {"type": "string", "description": "runs that these values are for", "examples": ["10-20, 25"]}
    properties = {_RUNS: runs, **schema["properties"]}
    override = {"type": "object", "properties": properties, "required": [_RUNS], "additionalProperties": False}
    schema["properties"] = {**schema["properties"], _OVERRIDE: {"type": "array", "items": override}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of xsmall"}


# ---- tables ----------------------------------------------------------------------------------------------------------


def _override_tables(given: object, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise ParameterError(f"{name}: overrides are tables", found=repr(given)[:80], fix="[[override]]")
    return given


def _merged_tables(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Put the values of one table over those of another, key by key in all depths."""
    out = dict(base)
    for key, value in over.items():
        deep = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merged_tables(out[key], value) if deep else value
    return out


def _leaf_paths(table: Mapping[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaf_paths(value, *above, key)
        else:
            yield (*above, key)


def _in_both(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Places that two tables both say, also where one says a table there and the other a value."""
    places = list(_leaf_paths(other))
    for mine in _leaf_paths(one):
        for theirs in places:
            shorter = min(len(mine), len(theirs))
            if mine[:shorter] == theirs[:shorter]:
                yield mine[:shorter]


def _with_paths(tables: Mapping[str, Any], folder: Path, run: int | None, where: str) -> dict[str, Any]:
    """Complete the paths of a recipe: the number of the run put in, and from its folder."""
    out = dict(tables)
    if isinstance(out.get("source"), str):
        out["source"] = _path(out["source"], folder, run, f"{where}: source")
    detectors = out.get("detectors")
    if not isinstance(detectors, Mapping):
        return out
    out["detectors"] = {}
    for name, given in detectors.items():
        detector = dict(given) if isinstance(given, Mapping) else given
        for what in ("constants", "geometry", "mask"):
            value = detector.get(what) if isinstance(detector, dict) else None
            if isinstance(value, str):
                detector[what] = _path(value, folder, run, f"{where}: {what}")
            elif isinstance(value, Mapping) and isinstance(value.get("path"), str):
                detector[what] = {**value, "path": _path(value["path"], folder, run, f"{where}: {what}.path")}
        made = detector.get("reductions") if isinstance(detector, dict) else None
        if isinstance(made, Mapping):
            detector["reductions"] = {k: _with_mask(x, folder, run, f"{where}: {k}.mask") for k, x in made.items()}
        out["detectors"][name] = detector
    return out


def _with_mask(given: Any, folder: Path, run: int | None, where: str) -> Any:
    """A reduction, or the steps of one, whose masks have complete paths."""
    if isinstance(given, list):
        return [_with_mask(one, folder, run, where) for one in given]
    if isinstance(given, Mapping) and isinstance(given.get("mask"), str):
        return {**given, "mask": _path(given["mask"], folder, run, where)}
    return given


def _path(text: str, folder: Path, run: int | None, what: str) -> str:
    if "{" in text and run is None:
        raise ParameterError(f"{what} depends on the number of the run", found=text, fix="say the run: run=12")
    try:
        text = text.format(run=run)
    except (KeyError, IndexError, ValueError) as error:
        raise ParameterError(f"{what}: this cannot be filled in", found=text, expected="{run} or {run:04d}") from error
    if text == PSANA or ("=" in text.split("/")[0] and not (folder / text).exists()):  # a database, or exp=..,run=..
        return text
    return str(folder / Path(text).expanduser())


# ---- errors ----------------------------------------------------------------------------------------------------------


def _validated(tables: Mapping[str, Any], where: str) -> RunRecipe:
    try:
        return RunRecipe.model_validate(dict(tables))
    except ValidationError as error:
        raise _first_problem(error, tables, where) from error


def _first_problem(error: ValidationError, tables: Mapping[str, Any], where: str) -> ParameterError:
    """The first thing that is wrong, in the form of all errors; the others are counted."""
    placed = _deepest((_place_of(problem, tables), problem) for problem in error.errors())
    unknown = [one for one in placed if one[1]["type"] == "extra_forbidden"]
    place, problem = (unknown or placed)[0]
    key = ".".join(place)
    others = len({tuple(one) for one, _ in placed}) - 1
    more = f" (and {others} more)" if others and not unknown else ""
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, XsmallError):
        return ParameterError(f"{where}: {key}{more}\n  {own}")
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(place)
        near = like(place[-1], known)
        return ParameterError(
            f"{where}: unknown key{more}",
            found=key,
            expected=", ".join(known),
            fix=f"{near} = ..." if near else f"leave {place[-1]} out",
        )
    said = dict.fromkeys(p["msg"].removeprefix("Input should be ") for one, p in placed if one == place)
    return ParameterError(
        f"{where}: invalid value of {key}{more}", found=repr(problem["input"])[:80], expected=" or ".join(said)
    )


_ProblemAt = tuple[list[str], Any]
"""A problem, and its place in the recipe."""


def _deepest(placed: Iterable[_ProblemAt]) -> list[_ProblemAt]:
    """The problems, without those of alternatives that are not meant: others lie deeper in the same table."""
    known = list(placed)
    return [one for one in known if not any(len(p) > len(one[0]) and p[: len(one[0])] == one[0] for p, _ in known)]


def _place_of(problem: Any, tables: Any) -> list[str]:
    """Place of a problem, without what names the alternative that was tried, which the recipe does not have."""
    place, kept = [str(part) for part in problem["loc"]], []
    for i, part in enumerate(place):
        last = i == len(place) - 1 and problem["type"] == "missing"
        if isinstance(tables, Mapping) and (part in tables or last):
            kept.append(part)
            tables = tables.get(part)
        elif isinstance(tables, list) and part.isdigit():
            kept.append(part)
            tables = tables[int(part)]
    return kept


def _keys_beside(place: list[str]) -> tuple[str, ...]:
    """Keys that the table of a place has."""
    if len(place) == 1:
        return (*RunRecipe.model_fields, _OVERRIDE)
    model: Any = None
    if place[0] == "delay":
        model = Delay
    elif place[0] == "cubes":
        model = CubeRecipe
    elif place[0] == "detectors":
        model = TABLES.get(place[2]) if len(place) == 4 else DetectorRecipe if len(place) == 3 else None
    return tuple(model.model_fields) if model is not None else ()


def as_json(recipe: RunRecipe) -> str:
    """The recipe of a run as text that two equal recipes share."""
    return json.dumps(recipe.model_dump(exclude_defaults=True), sort_keys=True)
