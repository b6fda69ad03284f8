"""Small things about text: the known word that a mistyped one is like, and run numbers as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from xsmall.errors import ParameterError, alike

__all__ = ["like", "runs_of"]

_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")
_MOST_RUNS: Final = 100_000


def like(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like ``word``; None where none is."""
    return next(iter(alike(word, known)), None)


def runs_of(runs: str | int | Iterable[int]) -> tuple[int, ...]:
    """Read numbers of runs: ``"10-20, 25"`` is 10 to 20, both included, and 25; so is ``[*range(10, 21), 25]``.

    Raises
    ------
    ParameterError
        Something else, a range that falls, or a run twice.

    Examples
    --------
    >>> from xsmall.run.text import runs_of
    >>> runs_of("8-10, 3")
    (8, 9, 10, 3)
    """
    one = not isinstance(runs, Iterable) or isinstance(runs, str | bytes) or getattr(runs, "ndim", None) == 0
    text = str(runs) if one else ", ".join(map(str, runs))  # type: ignore[arg-type]  # mypy does not follow ``one``
    found: dict[int, None] = {}
    for piece in text.split(","):
        match = _RANGE.fullmatch(piece.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or last < first or last - first > _MOST_RUNS:
            raise ParameterError(
                "these are no numbers of runs", found=repr(text), expected="numbers and ranges", fix='"10-20, 25"'
            )
        for run in range(first, last + 1):
            if run in found:
                raise ParameterError("a run is named twice", found=f"{run} in {text!r}", fix="name it once")
            found[run] = None
    return tuple(found)
