"""Exceptions of xsmall: one base, a few leaves, one form of message.

Every message says what was found, what was expected and what to type. Build it with the
keywords of :class:`XsmallError`, so that no part is forgotten.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

__all__ = [
    "ArgumentError",
    "CalibrationError",
    "DamagedDataError",
    "DamagedDataWarning",
    "DataError",
    "FileFormatError",
    "GainBitsWarning",
    "GeometryError",
    "KeptConstantsWarning",
    "MissingDependency",
    "ParameterError",
    "PlanError",
    "UnusedMaskWarning",
    "WriteError",
    "XsmallError",
    "alike",
    "check_call",
    "tells_its_names",
]

T = TypeVar("T")


def alike(word: str, known: Iterable[str]) -> list[str]:
    """Known words that a mistyped one may stand for, at most three, the most like it first."""
    return difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)


class XsmallError(ValueError):
    """Base of every exception that xsmall raises on purpose.

    Parameters
    ----------
    what
        One line: the thing that is wrong.
    found, expected, fix
        What was found, what was expected, what to type instead. Each becomes a line of its own.
    """

    def __init__(self, what: str, *, found: object = None, expected: object = None, fix: str | None = None) -> None:
        lines = [what]
        if found is not None:
            lines.append(f"  found:    {found}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if fix is not None:
            lines.append(f"  do this:  {fix}")
        super().__init__("\n".join(lines))


class ParameterError(XsmallError):
    """An invalid argument: wrong range, wrong order, wrong unit, unknown name."""


class ArgumentError(ParameterError, TypeError):
    """An argument that the call does not know, or one that it needs and did not get."""


class DataError(XsmallError):
    """Data that do not have the dims, shape, dtype or coordinates that the call needs."""


class GeometryError(XsmallError):
    """A geometry that is missing, malformed or of another detector."""


class CalibrationError(XsmallError):
    """Constants that are missing, malformed or of another detector."""


class FileFormatError(XsmallError):
    """A file that cannot be read as what it is said to be; the message names path and offset."""


class DamagedDataError(FileFormatError):
    """A part of a file that cannot be read, while the rest can; the message names file and part.

    Readers raise it where single frames are asked for. What walks over a run (reductions, cubes, averages, darks)
    takes the frames of that part as missing, goes on, and warns with :class:`DamagedDataWarning`.
    """


class GainBitsWarning(UserWarning):
    """Raw words whose upper bits are the gain are reduced as if they were numbers."""


class UnusedMaskWarning(UserWarning):
    """Frames whose file brings a mask are reduced without it."""


class DamagedDataWarning(UserWarning):
    """A part of a file could not be read, and the result was made without its events."""


class KeptConstantsWarning(UserWarning):
    """A database of constants does not answer, and what it answered before was taken."""


class PlanError(XsmallError):
    """A computation that would not fit into the memory it may use, or whose cluster does not go on."""


class WriteError(XsmallError):
    """A file that could not be written: a full disk, a read-only folder, a path that another job is writing to."""


class MissingDependency(XsmallError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> "MissingDependency":
        """Build the error for ``package``, which ``pip install 'xsmall[extra]'`` brings."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed",
            fix=f"python -m pip install 'xsmall[{extra}]'",
        )


def check_call(
    call: str,
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    others: Mapping[str, str] | None = None,
    fix: str | None = None,
) -> inspect.BoundArguments:
    """Bind the arguments of a call; refuse those that the function does not have, or lacks, and say which may be meant.

    Parameters
    ----------
    call
        How the function is called, such as ``xs.open_run``.
    signature, args, kwargs
        Its signature, and what it was given.
    others
        Words of other programs for its arguments.
    fix
        What to do where no argument looks like the wrong one.

    Raises
    ------
    ArgumentError
        The call does not fit.
    """
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        known = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        unknown = [word for word in kwargs if word not in known]
        fix = fix or f"help({call})"
        if unknown:
            other = (others or {}).get(unknown[0])
            near = [other] if other in known else alike(unknown[0], known)
            fix = f"{call}({near[0]}=...)" if near else fix
        elif "too many positional" in str(error):
            named = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY][:2]
            fix = f"{call}({', '.join(f'{n}=...' for n in named)})" if named else fix
        raise ArgumentError(
            f"{call} cannot be called like this", found=f"{error}", expected=_names_of(call, signature), fix=fix
        ) from None


def tells_its_names(cls: type[T]) -> type[T]:
    """Let a class say which of its arguments is meant by one that it does not have."""
    signature, make = inspect.signature(cls), cls.__init__

    @wraps(make)
    def checked(self: T, *args: Any, **kwargs: Any) -> None:
        check_call(f"xs.{cls.__name__}", signature, args, kwargs)
        make(self, *args, **kwargs)

    cls.__init__ = checked  # type: ignore[method-assign, assignment]
    return cls


def _names_of(call: str, signature: inspect.Signature) -> str:
    """Write a call with the names of its arguments: with types and defaults it fills half a screen."""
    empty = inspect.Parameter.empty
    names = [p.replace(annotation=empty, default=empty) for p in signature.parameters.values()]
    name = call.rpartition(".")[2]
    return name + str(signature.replace(parameters=names, return_annotation=empty))
