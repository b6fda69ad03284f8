"""Exceptions of xsmall: one base, a few leaves, one form of message.

Every message says what was found, what was expected and what to type. Build it with the
keywords of :class:`XsmallError`, so that no part is forgotten.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Final

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
]


def alike(word: str, known: Iterable[str]) -> list[str]:
    """Known words that a mistyped one may stand for, at most three, the most like it first."""
    plain: dict[str, str] = {}
    for one in known:
        plain.setdefault(one.lower(), one)
    meant = word.lower()
    for other in _OTHERS_VALUES.get(meant, ()):
        if other in plain and meant not in plain:
            return [plain[other]]
    near = difflib.get_close_matches(meant, list(plain), n=3, cutoff=0.6)
    begun = [one for one in plain if len(meant) > 2 and one.startswith(f"{meant}_")]
    return [plain[one] for one in near or begun[:3]]


_OTHERS_VALUES: Final = {
    "2theta": ("two_theta",), "2th": ("two_theta",), "tth": ("two_theta",), "chi": ("azimuth",), "phi": ("azimuth",),
    "bbox": ("box",), "avg": ("mean", "average"), "average": ("mean",), "mean": ("average",),
}  # fmt: skip
"""Words of pyFAI and hasty fingers for values that we name otherwise."""


_QUOTED: Final = re.compile(r"""'(\w+)'|"(\w+)\"""")
_LIST: Final = re.compile(r"(?:one of )?\w+(?:, \w+)*,? or \w+|(?:one of )?\w+(?:, \w+)+")
_SMALL_WORDS: Final = frozenset({"one", "of", "or"})


def _offered(expected: str) -> list[str]:
    """Words that a message offers: those in quotes, or of a plain list; words of a sentence are none."""
    quoted = [a or b for a, b in _QUOTED.findall(expected)]
    if quoted or not _LIST.fullmatch(expected):
        return quoted
    return [word for word in re.findall(r"\w+", expected) if word not in _SMALL_WORDS]


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
        if fix is None and isinstance(found, str) and isinstance(expected, str):
            near = alike(found.strip("'"), _offered(expected))
            fix = f"give {near[0]!r}" if near else None
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
