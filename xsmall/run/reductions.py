"""Reductions of a recipe: which there are, what they take, and the records that are made of them.

The arguments are those of the public functions, read from their signatures: a reduction that is added to xsmall needs
one line here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from xsmall.engine.record import Record
from xsmall.errors import ParameterError
from xsmall.reductions.user import UserRecord
from xsmall.reductions.user import record as user_record
from xsmall.run.arguments import BESIDE, Context, converted, has_sigma, noise_of
from xsmall.run.elsewhere import ELSEWHERE
from xsmall.run.text import like
from xsmall.vocabulary import NOISE

__all__ = ["FUNCTION", "KIND", "KINDS", "arguments_of", "check", "file_of", "function_of", "record_of", "steps_of"]

FUNCTION: Final = "function"
KIND: Final = "kind"
KINDS: Final[Mapping[str, str]] = {
    "roi": "xsmall.reductions.roi:roi",
    "projection": "xsmall.reductions.projection:projection",
    "lineout": "xsmall.reductions.projection:lineout",
    "azint": "xsmall.reductions.azint:azint",
    "anisotropy": "xsmall.reductions.anisotropy:anisotropy",
    "droplet": "xsmall.reductions.droplet:droplet",
    "photon": "xsmall.reductions.photon:photon",
    "histogram": "xsmall.reductions.histogram:histogram",
    "straighten": "xsmall.reductions.straight:straighten",
    "rebin": "xsmall.reductions.rebin:rebin",
    "image": "xsmall.reductions.image:image",
    "peaks": "xsmall.reductions.peaks:peaks",
    "edge": "xsmall.reductions.edge:edge",
    "sums": "xsmall.reductions.sums:sums",
    "sparse": "xsmall.reductions.sparse:sparse",
    "waveform_integral": "xsmall.reductions.waveform:waveform_integral",
    "waveform_hits": "xsmall.reductions.waveform:waveform_hits",
    "autocorrelation": "xsmall.reductions.autocorrelation:autocorrelation",
}
"""The functions that make records, by the word that a recipe says; ``function`` is the user's own."""

_NOT_IN_RECIPES: Final = ("noise", "illumination", "reference", "obj", "frames")  # noise is that of the constants
_OF_FUNCTIONS: Final = (FUNCTION, "variance", "batch", BESIDE)


def arguments_of(kind: str) -> tuple[str, ...]:
    """Names of the arguments that a reduction takes in a recipe."""
    if kind == FUNCTION:
        return _OF_FUNCTIONS
    return tuple(
        name for name in inspect.signature(_load_function(KINDS[kind])).parameters if name not in _NOT_IN_RECIPES
    )


def _load_function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def steps_of(given: Any) -> list[Mapping[str, Any]]:
    """The tables of a reduction: one, or one after the other where it is a chain."""
    return list(given) if isinstance(given, list | tuple) else [given]


def check(name: str, given: Any) -> None:
    """Check what can be told without data: the kind, the names of arguments, and that what needs a unit has one.

    Raises
    ------
    ParameterError
        An unknown kind or argument, or a number without its unit.
    """
    steps = steps_of(given)
    made = [_checked_step(name, step) for step in steps]
    if not steps:
        raise ParameterError(f"reduction {name!r}: an empty list", expected="one step at least")
    if all(one is not None for one in made):
        functools.reduce(operator.or_, made)  # what cannot follow raises


def _checked_step(name: str, given: Mapping[str, Any]) -> Record | None:
    """The record of one step as far as it can be made without data."""
    kind = given.get(KIND)
    known = (*KINDS, FUNCTION)
    if kind in ELSEWHERE:
        made_of, fix = ELSEWHERE[str(kind)]
        raise ParameterError(
            f"reduction {name!r}: {kind} is made of {made_of}, not of the frames of a detector",
            found=f'kind = "{kind}"',
            expected=", ".join(known),
            fix=fix,
        )
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
    if kind == FUNCTION:
        if FUNCTION not in given:
            raise ParameterError(f"reduction {name!r}: which function?", fix='function = "mymodule:myfunction"')
        if BESIDE in given:
            converted(name, BESIDE, given[BESIDE], given, None)
        return None
    made = {key: converted(name, key, value, given, None) for key, value in given.items() if key != KIND}
    parameters = inspect.signature(_load_function(KINDS[str(kind)])).parameters.values()
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in made]
    if missing:
        raise ParameterError(f"reduction {name!r}: {kind} needs {missing[0]}", fix=f"{missing[0]} = ...")
    if has_sigma(made) and not _is_of_waves(str(kind)):
        return None
    record: Record = _load_function(KINDS[str(kind)])(**made)  # what is invalid whatever the data raises here
    return record


def record_of(name: str, given: Any, context: Context) -> Record:
    """Make the record of a reduction.

    Parameters
    ----------
    name
        Its name in the recipe.
    given
        Its table, ``kind`` and the arguments; or several, for a chain.
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
    made: Record = functools.reduce(operator.or_, (_record_of(name, step, context) for step in steps_of(given)))
    return made


def _record_of(name: str, given: Mapping[str, Any], context: Context) -> Record:
    if given[KIND] == FUNCTION:
        function = function_of(str(given[FUNCTION]), context.folder)
        options: Any = {key: bool(value) for key, value in given.items() if key not in (KIND, FUNCTION, BESIDE)}
        beside = converted(name, BESIDE, given[BESIDE], given, context) if BESIDE in given else None
        if not isinstance(function, Record):
            own: Record = user_record(function, beside=beside, **options)
            return own
        said = [key for key in given if key not in (KIND, FUNCTION)]
        if said and (said != [BESIDE] or not isinstance(function, UserRecord)):
            raise ParameterError(
                f"reduction {name!r}: a record says already what it does", found=", ".join(said),
                expected="these in @xs.record(...) of the function", fix=f"leave {said[0]} out",
            )  # fmt: skip
        taken: Record = replace(function, given=beside) if isinstance(function, UserRecord) and beside else function
        return taken
    made = {key: converted(name, key, value, given, context) for key, value in given.items() if key != KIND}
    if has_sigma(made) and not _is_of_waves(str(given[KIND])):  # the noise of waveforms is that of their background
        made[NOISE] = noise_of(name, context)
    record: Record = _load_function(KINDS[str(given[KIND])])(**made)
    return record


def _is_of_waves(kind: str) -> bool:
    return kind.startswith("waveform_")


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
    except (Exception, SystemExit) as error:
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
