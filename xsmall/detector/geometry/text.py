"""Small text files: read from a path, or given as they are."""

import os
import stat
from pathlib import Path
from typing import Final

from xsmall.errors import FileFormatError

__all__ = ["read_text", "refuse_special"]

MAX_BYTES = 1 << 24
_SPECIAL: Final = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Refuse what might be waited for, or read, without end; whether there is a file at all is not asked here.

    Raises
    ------
    FileFormatError
        A pipe, a device or a socket.
    """
    try:
        mode = os.stat(os.path.expanduser(path)).st_mode
    except (OSError, ValueError):
        return
    special = next((word for test, word in _SPECIAL if test(mode)), None)
    if special:
        raise FileFormatError(f"{os.fspath(path)}: this is no file", found=special, expected="a file or a folder")


def read_text(source: str | Path) -> tuple[str, str]:
    """Text and name of a small text file, or of the text itself where ``source`` has a line break."""
    if isinstance(source, str) and "\n" in source:
        return source, "text"
    if not isinstance(source, str | Path):
        raise FileFormatError("not a text file", found=type(source).__name__, expected="a path, or the text itself")
    path = Path(source)
    refuse_special(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileFormatError(f"{path} is too large for a geometry", found=f"{size} bytes")
        return path.read_text(encoding="utf-8", errors="replace"), str(path)
    except (OSError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{str(source)[:200]} cannot be read", found=error, expected="a text file") from None
