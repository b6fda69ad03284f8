"""Calls as they are typed: which argument is meant by one that a function does not have, and whose line a call is."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from xsmall.errors import ArgumentError, alike
from xsmall.vocabulary import EVENT, FRAME_DIMS

__all__ = [
    "MAKES_A_RECORD",
    "Written",
    "check_call",
    "line_of_the_user",
    "tells_its_names",
    "with_signature",
    "written_signature",
]

C = TypeVar("C", bound=Callable[..., Any])

_OTHERS_WORDS: Final[Mapping[str, str]] = {
    "npt": "bins",
    "n_bins": "bins",
    "unit": "quantity",
    "radial_range": "range",
    "npt_azim": "azimuth_bins",
    "thresholdLow": "threshold_low",
    "threshold_high": "threshold",
    "wavelength": "photon_energy",
    "energy": "photon_energy",
    "min_snr": "snr",
    "adc_threshold": "threshold",
    "local_bg_radius": "background_radius",
    "dist": "distance",
    "center_x": "center",
    "geom": "geometry",
    "const": "constants",
}
"""Words of pyFAI, smalldata_tools and hasty fingers for our arguments."""


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
_FLAGS: Final = frozenset({"bool", "bool_"})
_BETWEEN: Final = frozenset({"xsmall", "xarray", "dask", "distributed"})


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

    Raises
    ------
    ArgumentError
        The call does not fit.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        fix = _what_is_meant(call, signature, kwargs, str(error))
        raise ArgumentError(
            f"{call} cannot be called like this", found=f"{error}", expected=_names_of(call, signature), fix=fix
        ) from None
    _check_flags(call, bound)
    return bound


def _what_is_meant(call: str, signature: inspect.Signature, kwargs: Mapping[str, Any], told: str) -> str:
    parameters = signature.parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [word for word in kwargs if word not in known]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if unknown:
        if (call, unknown[0]) in _ELSEWHERE:
            return _ELSEWHERE[call, unknown[0]]
        other = _OTHERS_WORDS.get(unknown[0])
        near = [other] if other in known else alike(unknown[0], known)
        if near:
            return f"{call}({near[0]}=...)"
        if call.startswith(".") and unknown[0] in FRAME_DIMS:
            return f"data.isel({unknown[0]}=[{kwargs[unknown[0]]!r}]){call}(...)"
    elif "too many positional" in told:
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY][:2]
        if named:
            return f"{call}({', '.join(f'{n}=...' for n in named)})"
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return f"{call}(name=...)"
    if "missing" in told or unknown:
        if not needed:
            return f"{call}(...) without {unknown[0]}="
        return f"{call}({', '.join(f'{p.name}=...' if p.kind is p.KEYWORD_ONLY else p.name for p in needed)})"
    return f"help({'data' if call.startswith('.') else ''}{call})"


def _check_flags(call: str, bound: inspect.BoundArguments) -> None:
    """Refuse what is neither True nor False where a flag is asked: any text would be taken for True."""
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].annotation in ("bool", bool) and type(value).__name__ not in _FLAGS:
            said, fix = f"{call}: {name} is a flag", f"{call}({name}=True)"
            raise ArgumentError(said, found=repr(value)[:80], expected="True or False", fix=fix)


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


def tells_its_names(what: C, makes_a_record: bool = False) -> C:
    """Let a public class or function say which of its arguments is meant by one that it does not have.

    A class stays what it is. A function comes back behind a door, ``xs.name``, which is what is pickled.
    """
    call, signature, door = f"xs.{what.__name__}", written_signature(what), cast(Any, what)
    behind, first = (door.__init__, 1) if inspect.isclass(what) else (what, 0)

    @functools.wraps(behind)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if makes_a_record:
            _refuse_data(call, args)
        check_call(call, signature, args[first:], kwargs)
        return behind(*args, **kwargs)

    if inspect.isclass(what):
        door.__init__ = checked
        return what
    checked.__module__ = "xsmall"
    checked.__dict__[MAKES_A_RECORD] = makes_a_record
    return cast(C, with_signature(checked, signature))


def with_signature(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Show a function with this signature."""
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def line_of_the_user() -> int:
    """``stacklevel`` of a warning that the caller gives: the line outside of xsmall and of what runs it.

    A warning at a line of ours would be shown once in a notebook: Python takes the same call in a later cell for it.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    return level
