"""Finished parts of an output that is still being made: files of arrays, each with a note that holds its checksum.

A note is written after its file, both appear under their names when they are on the disk. So whatever is killed when,
a block is there whole, or is not there; one that was damaged since is found by its checksum, and made again.

Several jobs may fill one folder. Each takes a block before it computes it, and a note names the manifest that its
block was made for: what a job of an earlier manifest writes late counts for nothing.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, FileFormatError
from xsmall.events.ragged import counts_of, lists_of_counts
from xsmall.io.stores.place import TakenError, held, holder, holders, remove, sync

__all__ = ["BlockStore", "sweep_texts", "write_text"]

_MANIFEST: Final = "manifest.json"
_CHECKSUM: Final = "sha256"
_OF_NOTE: Final = "note_sha256"
_FOR: Final = "manifest"
_COUNTS: Final = ":counts"
_DRAFT: Final = ".draft"


class BlockStore:
    """A folder of finished blocks.

    Parameters
    ----------
    folder
        Where they lie; it is made when the first thing is written.
    mark
        The manifest that the blocks are made for, by its hash; None where that does not matter.
    """

    def __init__(self, folder: Path, mark: str | None = None) -> None:
        self.folder = folder
        self.mark = mark

    def marked(self) -> BlockStore:
        """The same folder for the blocks of the manifest that it has now, and of no other."""
        return BlockStore(self.folder, self._mark())

    def _mark(self) -> str | None:
        file = self.folder / _MANIFEST
        return _file_checksum(file) if file.is_file() else None

    def manifest(self) -> dict[str, Any] | None:
        """What was asked for when the folder was begun; None where nothing can be read."""
        return _json(self.folder / _MANIFEST)

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Empty the folder and write down what its blocks are made of."""
        self.clear()
        self.folder.mkdir(parents=True)
        write_text(self.folder / _MANIFEST, json.dumps(manifest, indent=1))

    def remove(self) -> None:
        """Remove the folder with all its blocks."""
        if self.folder.exists():
            remove(self.folder)

    def clear(self) -> None:
        """Remove the folder, unless a job is at work in it.

        Raises
        ------
        TakenError
            A job computes a block of it, as one does that has joined another one.
        """
        busy = holders(self.folder)
        if busy:
            raise TakenError(
                f"{self.folder}: another job still computes a block of it",
                found=next(iter(busy.values())),
                fix="wait until it is done, or end it",
            )
        self.remove()

    def take(self, name: str, job: str) -> AbstractContextManager[None]:
        """Take a block to compute it; several processes may work for one job.

        Raises
        ------
        TakenError
            Another job has taken it.
        """
        return held(self.folder / name, job)

    def is_taken(self, name: str) -> bool:
        """Whether a job that is alive computes a block."""
        return holder(self.folder / name) is not None

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
            told = {**note, _FOR: self.mark, _CHECKSUM: _file_checksum(draft)}
            self._check_mark()
            draft.replace(self._file(name))
        finally:
            draft.unlink(missing_ok=True)
        write_text(self._note(name), json.dumps({**told, _OF_NOTE: _of_note(told)}))
        return told

    def _check_mark(self) -> None:
        if self.mark is not None and self.mark != self._mark():
            raise DataError(f"{self.folder}: another job has begun it anew", fix="wait until it is done, or end it")

    def note(self, name: str, *, verify: bool = False) -> dict[str, Any] | None:
        """Return the note of a finished block; None where there is none, or, to ``verify``, where it is damaged."""
        note = _json(self._note(name))
        if note is None or note.pop(_OF_NOTE, None) != _of_note(note) or not self._file(name).is_file():
            return None
        if self.mark is not None and self.mark != note.get(_FOR):
            return None
        return None if verify and _file_checksum(self._file(name)) != note.get(_CHECKSUM) else note

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
        return values if counts is None else lists_of_counts(values, counts)

    def joined(self, names: Sequence[str], key: str) -> npt.NDArray[Any]:
        """Read one array of some blocks, one after the other."""
        parts = [self.read(name, key) for name in names]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def keys(self, name: str) -> frozenset[str]:
        """Keys of the arrays of a block."""
        with np.load(self._file(name), allow_pickle=False) as file:
            return frozenset(file.files)

    def sweep(self) -> None:
        """Remove what killed jobs have left half written, and their locks; those that are alive keep theirs."""
        alive = holders(self.folder)
        for draft in self.folder.glob(f"*{_DRAFT}"):
            if not any(draft.name.startswith(f"{name}.") for name in alive):
                draft.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step: it has the old text or the new one, after any kill."""
    while not _in_one_step(path, text):  # another job has swept the draft away
        pass
    sync(path.parent)


def _in_one_step(path: Path, text: str) -> bool:
    draft = path.with_name(f"{path.name}.{uuid4().hex[:8]}{_DRAFT}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def sweep_texts(folder: Path, stem: str) -> None:
    """Remove what killed jobs have left of small files ``stem``.*; a job that is alive writes its own again."""
    for draft in folder.glob(f"{glob.escape(stem)}.*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _of_note(note: Mapping[str, Any]) -> str:
    return hashlib.new(_CHECKSUM, json.dumps(note, sort_keys=True).encode()).hexdigest()


def _file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _CHECKSUM).hexdigest()
