"""What the shell says: errors and warnings in its own words, and pictures by the endings that can be drawn."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from xsmall.errors import ParameterError

__all__ = ["in_words_of_the_shell", "save_picture", "with_ending_of_a_picture", "with_warnings_told"]

_OPTIONS: Final = re.compile(r"\b(overwrite|resume|join)=True(?: \(--\1\))?")
_ONE_OF_MANY: Final = re.compile(r"\.isel\((\w+)=(\d+)\)\.sd\.plot\([^)]*\)")


def in_words_of_the_shell(text: str) -> str:
    """Say what is to be typed as options of a command, where it is said as arguments of a function."""
    return _ONE_OF_MANY.sub(r"--at \1=\2", _OPTIONS.sub(r"--\1", text))


@contextmanager
def with_warnings_told(command: str) -> Iterator[None]:
    """Tell warnings as errors are told, without lines of code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"xsmall {command}: warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def with_ending_of_a_picture(path: Path) -> Path:
    """Return the path of a picture that can be drawn, before anything is computed for it.

    Raises
    ------
    ParameterError
        Another ending.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ParameterError(
            "the ending of the path says the format of a picture",
            found=path.name,
            expected=" ".join(f".{ending}" for ending in known),
            fix=f"{path.stem}.png",
        )
    return path


def save_picture(figure: Any, path: Path, what: str = "picture") -> None:
    """Write a figure and say where it lies."""
    figure.savefig(path, dpi=120)
    print(f"{what}: {path}")
