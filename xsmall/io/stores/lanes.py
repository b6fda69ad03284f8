"""Parts of a cube that is being made, on disk: one file each, whole or not there, with checksums."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, ParameterError, WriteError
from xsmall.io.stores.place import remove, sync

__all__ = ["LaneStore", "lane_store"]

_MANIFEST = "manifest.json"
_KIND = "xsmall parts of a cube"


@dataclass(frozen=True)
class LaneStore:
    """A folder of finished parts of cubes; see :func:`lane_store`."""

    path: str

    def agree(self, name: str, manifest: Mapping[str, str]) -> None:
        """Note what the cube of some images is made of.

        Raises
        ------
        DataError
            The folder holds something else, or parts that were made of something else.
        WriteError
            The folder cannot be written.
        """
        place = Path(self.path) / name / _MANIFEST
        self._check_others()
        known = self._read_manifest(place)
        if known is None:
            text = json.dumps({"kind": _KIND, **manifest}, indent=1)
            self._write(place, lambda file: file.write(text.encode()))
            return
        differ = [k for k in sorted({*known, *manifest} - {"kind"}) if known.get(k) != manifest.get(k)]
        if differ:
            shown = [f"{k}: {_shortened(known.get(k))} -> {_shortened(manifest.get(k))}" for k in differ]
            raise DataError(
                f"{place.parent} keeps parts of another cube",
                found="; ".join(shown),
                expected="the same input, bins, calibration and version as when it was begun",
                fix=f"another folder, or xs.lane_store({self.path!r}).clear() to begin again",
            )

    def _check_others(self) -> None:
        """Refuse a file, and a folder in which anything but cubes lies, such as a Zarr store of something else."""
        folder = Path(self.path)
        if folder.exists() and not folder.is_dir():
            raise self._foreign(folder)
        for part in folder.iterdir() if folder.is_dir() else ():
            if not part.is_dir():
                raise self._foreign(folder)
            self._read_manifest(part / _MANIFEST)

    def _read_manifest(self, place: Path) -> dict[str, Any] | None:
        folder = place.parent
        if not folder.exists():
            return None
        if not place.exists():
            if _is_blank(folder):
                return None
            raise self._foreign(folder)
        try:
            known = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._foreign(folder) from error
        if not isinstance(known, dict) or known.get("kind") != _KIND:
            raise self._foreign(folder)
        return known

    def _foreign(self, folder: Path) -> DataError:
        return DataError(
            f"{folder} is no folder of parts of a cube",
            found="something else, or a manifest that cannot be read",
            expected="a new or empty folder, or one that a cube has begun",
            fix="another folder",
        )

    def get(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        """Arrays of a part; None where it is not there, or damaged: then it is made once more."""
        try:
            with self._file(name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}  # the checksums are compared here
        except Exception:  # of zipfile, zlib and numpy, in many forms
            return None

    def has(self, name: str) -> bool:
        """Whether a part is there, damaged or not."""
        return self._file(name).exists()

    def put(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a part.

        Raises
        ------
        WriteError
            A full disk, or a folder that cannot be written.
        """
        self._write(self._file(name), lambda file: np.savez(file, allow_pickle=False, **arrays))

    def drop(self, names: Sequence[str]) -> None:
        """Remove parts."""
        for name in names:
            self._file(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything: what is in the folder is no longer needed, or another cube is to be begun there.

        Raises
        ------
        DataError
            The folder holds something else.
        """
        folder = Path(self.path)
        inside = list(folder.iterdir()) if folder.is_dir() else []
        for part in inside:
            if not part.is_dir():
                raise self._foreign(folder)
            self._read_manifest(part / _MANIFEST)
        if folder.exists():
            remove(folder)

    def _file(self, name: str) -> Path:
        return Path(self.path) / f"{name}.npz"

    def _write(self, target: Path, write: Callable[[BinaryIO], object]) -> None:
        """Write beside, bring to the disk, and rename: after a kill the file is whole or not there."""
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
                sync(target.parent)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(
                f"{target} could not be written", found=str(error), expected="room on the disk, and the right to write",
                fix="another folder: what is finished stays, so make room and run the same again",
            ) from error  # fmt: skip


def lane_store(path: str | os.PathLike[str]) -> LaneStore:
    """Name a folder in which a cube keeps what is finished, so that an interrupted one goes on where it was.

    Parameters
    ----------
    path
        A folder: new, empty, or one that the same cube has begun. On a cluster all workers have to reach it.

    Returns
    -------
    What ``cube(..., store=)`` takes. ``clear()`` removes it when the cube is saved.

    Raises
    ------
    DataError
        When the cube is built: the folder holds something else, or parts of a cube of other input, bins, calibration or
        version; what differs is named.

    Notes
    -----
    Kept are the accumulators of finished lanes of events and groups of lanes, at most some sixteen times bins x pixels
    x 20 bytes, less in a step scan; without a cluster, or with few workers. Of many workers each lane is kept, up to 64
    of them. A part that is damaged is made again.

    Examples
    --------
    >>> import tempfile, xsmall as xs
    >>> sim = xs.simulate(300, shape=(1, 16, 16), seed=1)
    >>> events, cal = sim.run["events"].to_dataset(), sim.run["jungfrau/raw"].sd.calibrate(sim.constants)
    >>> store = xs.lane_store(tempfile.mkdtemp())
    >>> cube = events.sd.cube({"laser_on": xs.categories()}, images={"jungfrau": cal}, store=store)
    >>> cube = cube.compute()  # killed? the same lines go on
    >>> store.clear()
    """
    if not isinstance(path, str | os.PathLike):  # users are not typed
        raise ParameterError("a store of lanes is a folder", found=repr(path), fix='xs.lane_store("parts")')
    return LaneStore(str(Path(path).absolute()))


def _is_blank(folder: Path) -> bool:
    """Whether a folder holds nothing, or only the beginning of a manifest that was being written."""
    return folder.is_dir() and all(
        part.name.startswith(f".{_MANIFEST}.") and part.name.endswith(".part") for part in folder.iterdir()
    )


def _shortened(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-60:]}"
