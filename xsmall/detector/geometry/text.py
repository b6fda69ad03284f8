"""Small text files: read from a path, or given as they are."""

from pathlib import Path

from xsmall.errors import FileFormatError

__all__ = ["read_text"]

MAX_BYTES = 1 << 24


def read_text(source: str | Path) -> tuple[str, str]:
    """Text and name of a small text file, or of the text itself where ``source`` has a line break."""
    if isinstance(source, str) and "\n" in source:
        return source, "text"
    if not isinstance(source, str | Path):
        raise FileFormatError("not a text file", found=type(source).__name__, expected="a path, or the text itself")
    path = Path(source)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileFormatError(f"{path} is too large for a geometry", found=f"{size} bytes")
        return path.read_text(encoding="utf-8", errors="replace"), str(path)
    except (OSError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{str(source)[:200]} cannot be read", found=error, expected="a text file") from None
