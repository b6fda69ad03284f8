"""Reductions of a recipe: which there are, what they take, and the records that are made of them.

The arguments are those of the public functions, read from their signatures: a reduction that is added to xsmall needs
one line here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import xarray as xr

from xsmall.engine.record import Record
from xsmall.errors import ParameterError
from xsmall.reductions.box import Box
from xsmall.reductions.threshold import Sigma
from xsmall.reductions.user import record as user_record
from xsmall.run.quantity import quantity, split
from xsmall.run.text import like
from xsmall.vocabulary import ADU, ELECTRONVOLT, GAIN_STAGE, KILOELECTRONVOLT, NOISE, PHOTON, RADIUS, TWO_THETA, Q

__all__ = ["FUNCTION", "KINDS", "Context", "arguments_of", "check", "function_of", "record_of"]

FUNCTION: Final = "function"
KIND: Final = "kind"
KINDS: Final[Mapping[str, str]] = {
    "roi": "xsmall.reductions.roi:roi",
    "projection": "xsmall.reductions.projection:projection",
    "lineout": "xsmall.reductions.projection:lineout",
    "azint": "xsmall.reductions.azint:azint",
    "droplet": "xsmall.reductions.droplet:droplet",
    "histogram": "xsmall.reductions.histogram:histogram",
    "rebin": "xsmall.reductions.rebin:rebin",
    "image": "xsmall.reductions.image:image",
    "peaks": "xsmall.reductions.peaks:peaks",
    "autocorrelation": "xsmall.reductions.autocorrelation:autocorrelation",
}
"""The functions that make records, by the word that a recipe says; ``function`` is the user's own."""

_NOT_IN_RECIPES: Final = ("mask", "noise", "illumination", "obj")  # mask and noise are those of the detector
_BOXES: Final = ("places", "place")
_DATA: Final = ("threshold", "threshold_low", "saturation", "sums", "of")
_OF_LENGTH: Final = ("pixel_size", "x", "y")
_HISTOGRAM: Final = "histogram"
_SIGMA: Final = "sigma"
_OF_QUANTITY: Final = {Q: "q", TWO_THETA: "angle", RADIUS: "length"}
_DATA_UNITS: Final[Mapping[str, Fraction]] = {ELECTRONVOLT: Fraction(1, 1000), KILOELECTRONVOLT: Fraction(1)}


@dataclass(frozen=True)
class Context:
    """What the arguments of a reduction are made with.

    Parameters
    ----------
    units
        Unit of the data that are reduced; None where they do not say.
    constants
        Constants of the detector, for thresholds in sigma.
    folder
        Where the files of own functions are looked for.
    """

    units: str | None
    constants: xr.Dataset | None
    folder: Path


def arguments_of(kind: str) -> tuple[str, ...]:
    """Names of the arguments that a reduction takes in a recipe."""
    if kind == FUNCTION:
        return (FUNCTION,)
    return tuple(name for name in inspect.signature(_load(KINDS[kind])).parameters if name not in _NOT_IN_RECIPES)


def _load(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def check(name: str, given: Mapping[str, Any]) -> None:
    """Check what can be told without data: the kind, the names of arguments, and that what needs a unit has one.

    Raises
    ------
    ParameterError
        An unknown kind or argument, or a number without its unit.
    """
    kind = given.get(KIND)
    known = (*KINDS, FUNCTION)
    if kind not in known:
        raise ParameterError(
            f"reduction {name!r}: " + ("no kind" if kind is None else "unknown kind"),
            found=repr(kind) if kind is not None else f"{name} = {dict(given)}",
            expected=", ".join(known),
            fix=f'kind = "{like(str(kind), known) or "azint"}"',
        )
    allowed = arguments_of(str(kind))
    for key in given:
        if key != KIND and key not in allowed:
            near = like(key, allowed)
            raise ParameterError(
                f"reduction {name!r}: {kind} has no argument {key!r}",
                found=key,
                expected=", ".join(allowed),
                fix=f"{near} = ..." if near else f"leave {key} out",
            )
    if kind == FUNCTION and FUNCTION not in given:
        raise ParameterError(f"reduction {name!r}: which function?", fix='function = "mymodule:myfunction"')
    made = {key: _converted(name, key, value, given, None) for key, value in given.items() if key != KIND}
    if kind != FUNCTION:
        missing = [
            p.name
            for p in inspect.signature(_load(KINDS[str(kind)])).parameters.values()
            if p.default is p.empty and p.name not in made
        ]
        if missing:
            raise ParameterError(f"reduction {name!r}: {kind} needs {missing[0]}", fix=f"{missing[0]} = ...")
        if not _has_sigma(made):
            _load(KINDS[str(kind)])(**made)  # what is invalid whatever the data raises here


def record_of(name: str, given: Mapping[str, Any], context: Context) -> Record:
    """Make the record of a reduction.

    Parameters
    ----------
    name
        Its name in the recipe.
    given
        Its table: ``kind`` and the arguments.
    context
        What the data are.

    Returns
    -------
    The record.

    Raises
    ------
    ParameterError
        A unit that the data do not have, or what the function of the record refuses.
    """
    if given[KIND] == FUNCTION:
        function = function_of(str(given[FUNCTION]), context.folder)
        return function if isinstance(function, Record) else user_record(function)
    made = {key: _converted(name, key, value, given, context) for key, value in given.items() if key != KIND}
    if _has_sigma(made):
        made[NOISE] = _noise(name, context)
    record: Record = _load(KINDS[str(given[KIND])])(**made)
    return record


def _converted(name: str, key: str, value: Any, given: Mapping[str, Any], context: Context | None) -> Any:
    """One argument as the function takes it; without a context only what needs none is told."""
    what = f"{key} of reduction {name!r}"
    if key in _BOXES:
        return _boxes(what, value)
    if key in _DATA or (key == "range" and given[KIND] == _HISTOGRAM):
        whole = isinstance(value, int) and not isinstance(value, bool) and key == "of"  # a number of bins
        return value if whole else _each(value, lambda one: _of_data(what, one, context))
    if key in _OF_LENGTH:
        return _each(value, lambda one: quantity(one, "length", what))
    if key == "polarization_plane":
        return quantity(value, "angle", what)
    if key == "azimuth_bins" and isinstance(value, list):
        return [quantity(one, "angle", what) for one in value]
    if key in ("range", "bins") and isinstance(value, list):
        kind = _OF_QUANTITY.get(str(given.get("quantity", Q)), "q")
        return _each(value, lambda one: quantity(one, kind, what))
    return tuple(value) if isinstance(value, list) else value


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    return tuple(map(convert, value)) if isinstance(value, list) else convert(value)


def _has_sigma(made: Mapping[str, Any]) -> bool:
    """Whether a threshold is a multiple of the noise."""
    flat = [one for value in made.values() for one in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(one, Sigma) for one in flat)


def _boxes(what: str, value: Any) -> Box | dict[str, Box]:
    """One box, a table of segment, row and column; or boxes by name."""
    if not isinstance(value, Mapping):
        raise ParameterError(f"{what} is no table", found=repr(value), fix="{segment = 0, row = [0, 10]}")
    if value and all(isinstance(one, Mapping) for one in value.values()):
        return {str(k): _box(f"{what}, {k!r}", one) for k, one in value.items()}
    return _box(what, value)


def _box(what: str, value: Mapping[str, Any]) -> Box:
    known = ("segment", "row", "column")
    for key in value:
        if key not in known:
            near = like(key, known)
            raise ParameterError(
                f"{what}: a box has no {key!r}", expected=", ".join(known), fix=f"{near} = ..." if near else None
            )
    made: dict[str, Any] = {k: tuple(one) if isinstance(one, list) else one for k, one in value.items()}
    return Box(**made)


def _of_data(what: str, value: Any, context: Context | None) -> float | Sigma:
    """A number in the unit of the data, or a multiple of the noise."""
    number, unit = split(value, what, "3 keV")
    if unit == _SIGMA:
        return Sigma(float(number))
    energies = tuple(_DATA_UNITS)
    if unit not in (*energies, ADU, PHOTON):
        raise ParameterError(
            f"{what} is not in a unit of pixels",
            found=repr(value),
            expected=f"a number with {', '.join((*energies, ADU, PHOTON, _SIGMA))}",
        )
    if context is None:  # whatever the data are, energies can be compared
        return float(number * _DATA_UNITS.get(unit, 1))
    if context.units == unit:
        return float(number)
    if unit in energies and context.units in energies:
        return float(number * _DATA_UNITS[unit] / _DATA_UNITS[str(context.units)])
    raise ParameterError(
        f"{what} has another unit than the data",
        found=f"{value}, data in {context.units}",
        expected=f"a number with {context.units} or sigma",
        fix=f'unit = "{unit}" of the detector' if unit in (KILOELECTRONVOLT, ADU, PHOTON) else None,
    )


def _noise(name: str, context: Context) -> xr.DataArray | xr.Dataset:
    """What the noise of a pixel follows from, in the unit of the data."""
    constants = context.constants
    if constants is None or NOISE not in constants:
        raise ParameterError(
            f"reduction {name!r}: a threshold in sigma needs the noise",
            found="no constants" if constants is None else "constants without noise",
            fix="constants = ... of the detector, or a threshold in its unit",
        )
    if context.units == ADU:
        return constants[NOISE].isel({GAIN_STAGE: 0}, drop=True).assign_attrs(units=ADU)
    return constants


def function_of(place: str, folder: Path) -> Any:
    """Import a user's function.

    Parameters
    ----------
    place
        ``"module:function"``; a file ``module.py`` beside the recipe is found first.
    folder
        Folder of the recipe.

    Returns
    -------
    The function, or the record that ``xs.record`` made of it.

    Raises
    ------
    ParameterError
        No such module or function, or a module that cannot be imported.
    """
    module, colon, name = place.partition(":")
    if not colon or not module or not name:
        raise ParameterError(
            "a function is named by its module", found=repr(place), fix='function = "mymodule:myfunction"'
        )
    file = file_of(place, folder)
    try:
        found = importlib.import_module(module) if file is None else _from_file(module, file)
    except Exception as error:
        raise ParameterError(
            f"the module {module!r} cannot be imported",
            found=f"{type(error).__name__}: {error}",
            expected=f"a file {module}.py in {folder}, or an installed module",
        ) from error
    if not _is_reduction(getattr(found, name, None)):
        known = [n for n, v in vars(found).items() if _is_reduction(v) and not n.startswith("_")]
        near = like(name, known)
        raise ParameterError(
            f"the module {module!r} has no function {name!r}",
            expected=", ".join(known) or "a function",
            fix=f'function = "{module}:{near}"' if near else None,
        )
    return getattr(found, name)


def _is_reduction(given: object) -> bool:
    return callable(given) or isinstance(given, Record)


def file_of(place: str, folder: Path) -> Path | None:
    """The file beside the recipe that holds a user's function, if there is one."""
    file = folder / Path(*place.partition(":")[0].split(".")).with_suffix(".py")
    return file if file.is_file() else None


def _from_file(module: str, file: Path) -> Any:
    """Import a file as it is now, under a name of its own: another recipe may have a module of the same name."""
    told = hashlib.sha256(f"{file.resolve()} {file.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    name = f"xsmall_recipe_{told}_{module.replace('.', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        raise
    return made
