"""Calls as they are typed: which argument is meant by one that a function does not have, and whose line a call is."""

import functools
import inspect
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from types import FrameType, ModuleType
from typing import Any, Final, TypeVar, cast

from xsmall.errors import ArgumentError, alike
from xsmall.vocabulary import EVENT, FRAME_DIMS

__all__ = [
    "MAKES_A_RECORD",
    "Written",
    "check_call",
    "method_of_this_name",
    "tells_its_names",
    "warn_user",
    "with_signature",
    "written_signature",
]

C = TypeVar("C", bound=Callable[..., Any])

_OTHERS_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "npt": ("bins", "n"),
    "n_bins": ("bins", "n"),
    "unit": ("quantity",),
    "radial_range": ("range",),
    "npt_azim": ("azimuth_bins",),
    "thresholdLow": ("threshold_low",),
    "threshold_high": ("threshold",),
    "wavelength": ("photon_energy",),
    "energy": ("photon_energy",),
    "min_snr": ("snr",),
    "adc_threshold": ("threshold",),
    "local_bg_radius": ("background_radius",),
    "dist": ("distance",),
    "center_x": ("center",),
    "step": ("width",),
    "num": ("n", "bins"),
    "geom": ("geometry",),
    "const": ("constants",),
}
"""Words of pyFAI, smalldata_tools and hasty fingers for our arguments."""

_OTHERS_VALUES: Final = frozenset({"unit", "wavelength", "center_x"})
"""Those whose values are others, too."""

_RESUMED: Final = (
    'cube = small.sd.cube(bins, images={"jungfrau": cal}, store=xs.lane_store("parts")), then xs.save(cube, path): '
    "after a kill the same lines go on"
)
_ELSEWHERE: Final[Mapping[tuple[str, str], str]] = {
    ("xs.save", "resume"): _RESUMED,
    (".sd.cube", "resume"): _RESUMED,
}
"""What is wanted of a call and done by another: a cube knows its lanes before it is saved."""

MAKES_A_RECORD: Final = "makes_a_record"
"""What a door says of its function."""
_LETTERS: Final = "abcdefgh"
_FLAGS: Final = frozenset({"bool", "bool_"})
_BETWEEN: Final = frozenset(
    {"xsmall", "xarray", "dask", "distributed", "numpy", "matplotlib", "concurrent", "threading", "queue"}
)
"""Packages that stand between a line of the user and ours."""


class Written(str):
    """An annotation that is shown as it was written, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


@functools.lru_cache(maxsize=512)
def written_signature(function: Callable[..., Any], skip: int = 0) -> inspect.Signature:
    """Signature whose annotations are shown as they are written in the source, without the first ``skip`` arguments."""
    signature = inspect.signature(function)
    said = [p.replace(annotation=_as_written(p.annotation)) for p in list(signature.parameters.values())[skip:]]
    return signature.replace(parameters=said, return_annotation=_as_written(signature.return_annotation))


def _as_written(annotation: Any) -> Any:
    return Written(annotation) if isinstance(annotation, str) else annotation


def check_call(
    call: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Bind the arguments of a call; refuse those that the function does not have, or lacks, and say which may be meant.

    Parameters
    ----------
    call
        How the function is called, such as ``xs.open_run``, or ``.sd.azint`` for a method of any object.
    signature, args, kwargs
        Its signature, and what it was given.

    Returns
    -------
    What it was given by the names of its arguments; flags given as 0 or 1 are False or True.

    Raises
    ------
    ArgumentError
        The call does not fit.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = [word for word in kwargs if word not in signature.parameters]
        told = str(error)
        if unknown and "missing" in told:
            told = f"got an unexpected keyword argument {unknown[0]!r}"
        fix = _what_is_meant(call, signature, args, kwargs)
        raise ArgumentError(
            f"{call} cannot be called like this", found=told, expected=_names_of(call, signature), fix=fix
        ) from None
    _check_flags(call, bound, args, kwargs)
    return bound


def _name_in(value: Any) -> str:
    """The name that an argument without one begins with, as "i0 > 0.5" or an array does."""
    text = value if isinstance(value, str) else getattr(value, "name", None)
    found = re.match(r"[^\W\d]\w*", text) if isinstance(text, str) else None
    return found[0] if found else "name"


def _what_is_meant(call: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    parameters = signature.parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [word for word in kwargs if word not in known and not anything]
    typed, named, without = args[: len(places)], dict(kwargs), ""
    if len(args) > len(typed) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        many = _many(places[0], args) if places else None
        if many is not None:
            typed = [many]
        else:
            free = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in kwargs]
            free = free[: min(2, len(args) - len(typed))] or [_name_in(args[len(typed)])] * anything
            named = dict.fromkeys(free, ...) | named
    elif unknown and (call, unknown[0]) in _ELSEWHERE:
        return _ELSEWHERE[call, unknown[0]]
    elif unknown:
        value = named.pop(unknown[0])
        free = [name for name in known if name not in signature.bind_partial(*args).arguments and name not in named]
        near = free[0] if len(known) == len(free) == 1 else next(iter(_words_for(unknown[0], free)), None)
        if near is not None:
            named[near] = ... if unknown[0] in _OTHERS_VALUES else value
        elif call.startswith(".") and unknown[0] in FRAME_DIMS:
            return f"data.isel({unknown[0]}={_kept(value)}){_call_written(call, places, typed, named)}"
        else:
            without = f"without {unknown[0]}=: "
    elif len(typed) > 0 and any(p.name in named for p in places[: len(typed)]):
        named = {word: value for word, value in named.items() if word not in [p.name for p in places[: len(typed)]]}
    lacking = [p for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY and p.name not in named]
    return without + _call_written(call, places, typed, named | {p.name: ... for p in lacking})


def _words_for(word: str, known: Sequence[str]) -> Sequence[str]:
    """Arguments that a word may stand for which is none, the likeliest first."""
    others = [other for other in _OTHERS_WORDS.get(word, ()) if other in known]
    return others or alike(word, known)


def _many(parameter: inspect.Parameter, args: Sequence[Any]) -> list[Any] | dict[str, Any] | None:
    """What several arguments are as one, where the first argument of a function can be several things."""
    if parameter.name == "places":
        return dict(zip(_LETTERS, args, strict=False))
    asked = str(parameter.annotation)
    return list(args) if "Sequence[" in asked and "int |" not in asked else None


def _kept(value: Any) -> str:
    """Write a place along a dim so that the dim is kept."""
    if isinstance(value, Integral):
        return f"[{value}]"
    return _spelled(value) if isinstance(value, list | tuple | slice) else "[0]"


def _call_written(
    call: str, places: Sequence[inspect.Parameter], typed: Sequence[Any], named: Mapping[str, Any]
) -> str:
    """Write a call as it was typed: what is too long by the name of its argument, what is needed and lacks too."""
    given = [_spelled(value, p.name) for value, p in zip(typed, places, strict=False)]
    given += [p.name for p in places[len(typed) :] if p.default is p.empty and p.name not in named]
    return f"{call}({', '.join([*given, *(f'{word}={_spelled(value)}' for word, value in named.items())])})"


def _spelled(value: Any, name: str = "...") -> str:
    """Write a number, a text or a few of them as they are typed, anything else by a name."""
    if isinstance(value, dict) and len(value) <= len(_LETTERS):
        return f"{{{', '.join(f'{word!r}: {_spelled(one)}' for word, one in value.items())}}}"
    if isinstance(value, list | tuple) and len(value) <= len(_LETTERS):
        inner = [_spelled(one, letter) for one, letter in zip(value, _LETTERS, strict=False)]
        comma = "," if isinstance(value, tuple) and len(inner) == 1 else ""
        return ("[{}]" if isinstance(value, list) else "({}{})").format(", ".join(inner), comma)
    if isinstance(value, slice):
        return f"slice({_spelled(value.start)}, {_spelled(value.stop)})"
    return repr(value) if isinstance(value, str | bool | int | float | None) and len(repr(value)) <= 40 else name


def _check_flags(call: str, bound: inspect.BoundArguments, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what is neither true nor false where a flag is asked: any text would be taken for True."""
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].annotation not in ("bool", bool) or type(value).__name__ in _FLAGS:
            continue
        if isinstance(value, Integral) and value in (0, 1):
            bound.arguments[name] = bool(value)
            continue
        places = [p for p in bound.signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        typed = args[: [*bound.arguments].index(name)]
        fix = f"{_call_written(call, places, typed, {**kwargs, name: True})}, or {name}=False"
        raise ArgumentError(f"{call}: {name} is a flag", found=repr(value)[:80], expected="True or False", fix=fix)


def _refuse_data(call: str, args: Sequence[Any]) -> None:
    """Refuse frames or events that are handed to what makes a record: the method of the same name takes them."""
    if args and EVENT in getattr(args[0], "dims", ()):
        name = call.rpartition(".")[2]
        raise ArgumentError(
            f"{call} makes a record, and was given the data themselves",
            found=f"{type(args[0]).__name__} over {tuple(args[0].dims)}",
            expected="arguments of the record; the method of the same name takes the data",
            fix=f"data.sd.{name}(...)",
        )


def _names_of(call: str, signature: inspect.Signature) -> str:
    """Write a call with the names of its arguments: with types and defaults it fills half a screen."""
    empty = inspect.Parameter.empty
    names = [p.replace(annotation=empty, default=empty) for p in signature.parameters.values()]
    name = call.rpartition(".")[2]
    return name + str(signature.replace(parameters=names, return_annotation=empty))


def tells_its_names(what: C, makes_a_record: bool = False, folder: str = "") -> C:
    """Let a public class or function say which of its arguments is meant by one that it does not have.

    A class stays what it is. A function comes back behind a door, ``xs.name``, which is what is pickled, unless it
    is typed with a ``folder`` before its name: ``tutorial.``.
    """
    call, signature, door = f"xs.{folder}{what.__name__}", written_signature(what), cast(Any, what)
    behind, first = (door.__init__, 1) if inspect.isclass(what) else (what, 0)

    @functools.wraps(behind)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if makes_a_record:
            _refuse_data(call, args)
        bound = check_call(call, signature, args[first:], kwargs)
        return behind(*args[:first], *bound.args, **bound.kwargs)

    if inspect.isclass(what):
        door.__init__ = checked
        return what
    if not folder:
        checked.__module__ = "xsmall"
    checked.__dict__[MAKES_A_RECORD] = makes_a_record
    return cast(C, with_signature(checked, signature))


class _Folder(ModuleType):
    """A folder of the package that has the name of a method: called, it says what to type."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        raise ArgumentError(
            f"xs.{name} is a folder of the package, and no function",
            found=f"xs.{name}(...)",
            expected="the method of this name",
            fix=f"{self.__dict__['METHOD']}(...)",
        )


def method_of_this_name(folder: str, method: str) -> None:
    """Let a folder of the package say which method is meant where it is called.

    Parameters
    ----------
    folder
        Its ``__name__``.
    method
        How the method is called, such as ``small.sd.cube``.
    """
    module = sys.modules[folder]
    module.__dict__["METHOD"] = method
    module.__class__ = _Folder


def with_signature(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Show a function with this signature."""
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def warn_user(text: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user: the one outside of xsmall and of what runs it, whichever thread this is met in.

    A warning at a line of ours would be shown once in a notebook: Python takes the same call in a later cell for it.
    """
    frame = _line_of_the_user(sys._getframe(1))
    place, names = frame.f_code.co_filename, frame.f_globals
    told = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, kind, place, frame.f_lineno, module=names.get("__name__"), registry=told)


def _line_of_the_user(here: FrameType) -> FrameType:
    """Frame of the user's line; in a thread of dask's, of the line that waits for it."""
    found = _outside(here)
    if found is not None:
        return found
    running, main = sys._current_frames(), threading.main_thread().ident
    for thread in sorted(running, key=lambda ident: ident != main):
        found = _outside(running[thread])
        if found is not None and _computes(running[thread]):
            return found
    return here


def _outside(frame: FrameType | None) -> FrameType | None:
    while frame is not None and _module(frame) in _BETWEEN:
        frame = frame.f_back
    return frame


def _computes(frame: FrameType | None) -> bool:
    """Whether a thread waits for what dask computes."""
    while frame is not None and _module(frame) in _BETWEEN:
        if _module(frame) == "dask":
            return True
        frame = frame.f_back
    return False


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
