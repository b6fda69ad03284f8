"""Finished parts of an output that is still being made: files of arrays, each with a note that holds its checksum.

A note is written after its file, both appear under their names when they are on the disk. So whatever is killed when,
a block is there whole, or is not there; one that was damaged since is found by its checksum, and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.events.ragged import counts_of, object_array
from xsmall.io.stores.place import sync

__all__ = ["BlockStore", "write_text"]

_MANIFEST: Final = "manifest.json"
_CHECKSUM: Final = "sha256"
_OF_NOTE: Final = "note_sha256"
_COUNTS: Final = ":counts"
_DRAFT: Final = ".draft"


class BlockStore:
    """A folder of finished blocks.

    Parameters
    ----------
    folder
        Where they lie; it is made when the first thing is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> dict[str, Any] | None:
        """What was asked for when the folder was begun; None where nothing can be read."""
        return _json(self.folder / _MANIFEST)

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Empty the folder and write down what its blocks are made of."""
        self.remove()
        self.folder.mkdir(parents=True)
        write_text(self.folder / _MANIFEST, json.dumps(manifest, indent=1))

    def remove(self) -> None:
        """Remove the folder with all its blocks."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def write(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], note: Mapping[str, Any]) -> dict[str, Any]:
        """Write a block; returns its note."""
        flat: dict[str, Any] = {}
        for key, values in arrays.items():
            if values.dtype == object:
                flat[key + _COUNTS] = counts_of(values)
                flat[key] = np.concatenate(list(values)) if values.size else np.empty(0)
            else:
                flat[key] = values
        draft = self.folder / f"{name}.{uuid4().hex[:8]}{_DRAFT}"
        try:
            with draft.open("wb") as file:
                np.savez(file, **flat)
                file.flush()
                os.fsync(file.fileno())
            told = {**note, _CHECKSUM: _checksum(draft)}
            draft.replace(self._file(name))
        finally:
            draft.unlink(missing_ok=True)
        write_text(self._note(name), json.dumps({**told, _OF_NOTE: _of_note(told)}))
        return told

    def note(self, name: str, *, verify: bool = False) -> dict[str, Any] | None:
        """Return the note of a finished block; None where there is none, or, to ``verify``, where it is damaged."""
        note = _json(self._note(name))
        if note is None or note.pop(_OF_NOTE, None) != _of_note(note) or not self._file(name).is_file():
            return None
        return None if verify and _checksum(self._file(name)) != note.get(_CHECKSUM) else note

    def read(self, name: str, key: str) -> npt.NDArray[Any]:
        """Read one array of a block; lists come as an array of objects.

        Raises
        ------
        FileFormatError
            The block cannot be read any more.
        """
        try:
            with self._file(name).open("rb") as file, np.load(file, allow_pickle=False) as held:
                values: npt.NDArray[Any] = held[key]
                counts = held.get(key + _COUNTS)
        except Exception as error:  # of zipfile, zlib and numpy, in many forms
            raise FileFormatError(
                f"{self._file(name)}: a finished block cannot be read", found=error, fix="the same command again"
            ) from error
        return values if counts is None else object_array(np.split(values, np.cumsum(counts)[:-1]))[: counts.size]

    def keys(self, name: str) -> frozenset[str]:
        """Keys of the arrays of a block."""
        with np.load(self._file(name), allow_pickle=False) as file:
            return frozenset(file.files)

    def drop(self, name: str) -> None:
        """Forget a block, so that it is made again."""
        self._note(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed job has left half written."""
        for draft in self.folder.glob(f"*{_DRAFT}"):
            draft.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step: it has the old text or the new one, after any kill."""
    draft = path.with_name(f"{path.name}.{uuid4().hex[:8]}{_DRAFT}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _of_note(note: Mapping[str, Any]) -> str:
    return hashlib.new(_CHECKSUM, json.dumps(note, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _CHECKSUM).hexdigest()
