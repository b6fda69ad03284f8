"""The folder of a user's computer in which xsmall keeps what was costly to learn: indices of runs, constants.

``XSMALL_CACHE`` names another folder, ``XSMALL_CACHE=0`` keeps nothing. Whatever is there can be deleted at any time.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["keep_file", "kept_folder"]


def kept_folder(name: str) -> Path | None:
    """Say where files of one kind are kept; None where that is switched off."""
    named = os.environ.get("XSMALL_CACHE")
    if named == "0":
        return None
    if named:
        return Path(named).expanduser() / name
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "xsmall" / name


def keep_file(place: Path, write: Callable[[BinaryIO], object], most: int) -> None:
    """Keep a file, whole or not at all, and of files with its ending only the newest.

    Parameters
    ----------
    place
        Its path.
    write
        Called with the open file.
    most
        How many files with this ending may be in the folder.
    """
    part = place.with_name(f"{place.name}.{os.getpid()}.{threading.get_ident()}.part")
    with suppress(OSError):  # where nothing can be kept, it is learnt again
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
        part.replace(place)
        for old in sorted(place.parent.glob(f"*{place.suffix}"), key=lambda p: p.stat().st_mtime)[:-most]:
            old.unlink()
