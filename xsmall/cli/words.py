"""What the shell says: errors and warnings in its own words, and where a picture lies."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["in_words_of_the_shell", "save_picture", "with_warnings_told"]

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


def save_picture(figure: Any, path: Path, what: str = "picture") -> None:
    """Write a figure and say where it lies."""
    figure.savefig(path, dpi=120)
    print(f"{what}: {path}")
