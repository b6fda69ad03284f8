"""Constants as psana keeps them: calibration folders with text files, and the constants of a psana detector object.

A calibration folder holds ``<group>/<source>/<type>/<first run>-<last run>.data``. For a run the file is taken whose
first run is the latest, and of several with the same first run the one that ends first, as psana does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from dask.utils import format_bytes

from xsmall.detector.status_words import PIXEL_MASK_BIT
from xsmall.errors import CalibrationError, FileFormatError
from xsmall.io.constants.psana_database import LAST_RUN
from xsmall.vocabulary import GAIN, NOISE, OFFSET, PEDESTAL, STATUS

__all__ = ["FolderConstants", "folder_constants", "known_arrays", "read_text_array", "run_file"]

TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"pedestals": PEDESTAL, "pixel_rms": NOISE, "pixel_gain": GAIN, "pixel_offset": OFFSET, "pixel_status": STATUS}
)
"""psana's names of the types of constants, and ours."""
MAX_TEXT_BYTES: Final = 4 << 30
"""Seven stages of 16.8 million pixels with 20 characters each are 2.3 GB."""
MASKED: Final = PIXEL_MASK_BIT  # pixel_mask of psana: 0 = bad
EXTRA: Final = 1 << 15  # any bit of status_extra or status_data

_GROUPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CsPad": "cspad", "CsPad2x2": "cspad2x2", "PNCCD": "pnccd", "Epix": "epix100", "Epix100a": "epix100",
        "Epix10ka": "epix10ka", "Epix10ka2M": "epix10ka", "Epix10kaQuad": "epix10ka", "Jungfrau": "jungfrau",
        "Camera": "camera", "Princeton": "camera", "Andor": "camera", "Andor3d": "camera", "Pimax": "camera",
        "Pixis": "camera", "Fli": "camera", "Uxi": "camera",
    }
)  # fmt: skip
_RANGE: Final = re.compile(r"^(\d+)-(\d+|end)$")


@dataclass(frozen=True)
class FolderConstants:
    """What a calibration folder holds for one detector and run."""

    detector_type: str
    arrays: Mapping[str, npt.NDArray[Any]]
    run_range: tuple[int, int]
    source: str


def folder_constants(folder: Path, detector: str | None, run: int | None) -> FolderConstants:
    """Read the constants of one detector and run from a calibration folder.

    Parameters
    ----------
    folder
        The calibration folder, a group in it, or the folder of one source.
    detector
        Source such as ``"XcsEndstation.0:Epix100a.1"``, or a part of its name that only one has.
    run
        Number of the run; None is allowed where each type has one file only.

    Raises
    ------
    FileFormatError
        No such source, no file for the run, or a file that is not what it should be.
    """
    source = _source_folder(folder, detector)
    group = source.parent.name.split("::")[0]
    if group not in _GROUPS:
        raise FileFormatError(
            f"{source}: no area detector is known by this group", found=group, expected=", ".join(sorted(_GROUPS))
        )
    arrays, ranges = {}, []
    for name in (*TYPES, "pixel_mask", "status_extra", "status_data"):
        found = run_file(source / name, run)
        if found is not None:
            path, begin, end = found
            arrays[name] = read_text_array(path)
            ranges.append((begin, end))
    if "pedestals" not in arrays:
        raise FileFormatError(
            f"{source}: no pedestals for this run", found=f"run {run}", expected="pedestals/<first>-<last>.data"
        )
    valid = max(r[0] for r in ranges), min(r[1] for r in ranges)
    return FolderConstants(_GROUPS[group], arrays, valid, str(source))


def _source_folder(folder: Path, detector: str | None) -> Path:
    sources = [folder] if (folder / "pedestals").is_dir() else sorted({p.parent for p in folder.glob("*/pedestals")})
    if not sources:
        sources = sorted({p.parent for p in folder.glob("*/*/pedestals")})
    exact = [s for s in sources if s.name == detector]
    chosen = exact or [s for s in sources if detector is None or detector.lower() in s.name.lower()]
    if len(chosen) != 1:
        raise FileFormatError(
            f"{folder}: which detector?" if chosen else f"{folder}: no such detector",
            found=f"detector={detector!r}",
            expected="one of " + ", ".join(s.name for s in sources) if sources else "<group>/<source>/pedestals/*.data",
            fix=f"xs.open_constants(..., detector={sources[0].name!r})" if sources else None,
        )
    return chosen[0]


def run_file(folder: Path, run: int | None) -> tuple[Path, int, int] | None:
    """Find the file of a run among ``<first>-<last>.data``: the latest first run, then the narrowest range.

    Parameters
    ----------
    folder
        Folder of one type of constants.
    run
        Number of the run; those above 9999 count as 9999. None: the only file there is.

    Returns
    -------
    Path, first and last run; None where no file covers the run.

    Raises
    ------
    CalibrationError
        No run was given and there are several files.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("0-end", "10-end", "10-20"):
    ...     (folder / f"{name}.data").touch()
    >>> run_file(folder, 15)[0].name, run_file(folder, 21)[0].name, run_file(folder, 9)[0].name
    ('10-20.data', '10-end.data', '0-end.data')
    """
    files = []
    for path in folder.glob("*.data"):
        match = _RANGE.match(path.stem)
        if match:
            last = LAST_RUN if match[2] == "end" else min(int(match[2]), LAST_RUN)
            files.append((int(match[1]), -last, path))
    files.sort()
    if run is None:
        if len(files) > 1:
            raise CalibrationError(
                f"{folder}: there are constants for several ranges of runs",
                found=", ".join(sorted(p.name for _, _, p in files)),
                expected="the number of the run",
                fix=f"xs.open_constants(..., run={files[-1][0]})",
            )
        run = files[0][0] if files else 0
    wanted = min(int(run), LAST_RUN)
    for begin, minus_end, path in reversed(files):
        if begin <= wanted <= -minus_end:
            return path, begin, -minus_end
    return None


def read_text_array(path: Path) -> npt.NDArray[np.float64]:
    """Read an array from psana's text: ``# NDIM``, ``# DIM:n`` in the header, numbers row by row.

    Parameters
    ----------
    path
        The file; without a header the shape is that of the text.

    Raises
    ------
    FileFormatError
        The file cannot be read, or holds another number of values than its header says.
    """
    shape, empty = [], True
    _check_text(path)
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if not line.startswith("#"):
                    if line.strip():
                        empty = False
                        break
                    continue
                words = line[1:].split()
                if len(words) >= 2 and words[0].startswith("DIM:"):
                    shape.append(int(words[1]))
        values = np.empty((0, 0)) if empty else np.loadtxt(path, comments="#", ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: this is not an array as psana writes it", found=str(error)) from error
    if empty:
        raise FileFormatError(f"{path}: there are no numbers in it", found="nothing but a header, if that")
    if shape and int(np.prod(shape)) != values.size:
        raise FileFormatError(
            f"{path}: header and numbers disagree", found=f"{values.size} values", expected=f"shape {tuple(shape)}"
        )
    return values.reshape(shape) if len(shape) > 2 else values  # else the text shows it, as to psana


def _check_text(path: Path) -> None:
    """Refuse what is no text, or too much of it, before a line is looked for in it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            binary = b"\0" in file.read(4096)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read", found=str(error)) from error
    if binary or size > MAX_TEXT_BYTES:
        raise FileFormatError(
            f"{path}: this is not an array as psana writes it",
            found="bytes that are no text" if binary else format_bytes(size),
            expected=f"text of at most {format_bytes(MAX_TEXT_BYTES)}",
        )


def known_arrays(arrays: Mapping[str, npt.NDArray[Any]], kind: str) -> dict[str, npt.NDArray[Any]]:
    """Bring psana's arrays to the names and the order of axes of the schema.

    Masks (0 = bad) and the further status words become bits 14 and 15 of ``status``.
    """
    held = {name: _all_stages(_daq_order(np.asarray(value), kind), kind) for name, value in arrays.items()}
    out = {ours: held[theirs] for theirs, ours in TYPES.items() if theirs in held}
    shape = out[PEDESTAL].shape
    for name in ("pixel_status", "pixel_mask", "status_extra", "status_data"):
        if name in held and held[name].shape not in (shape, shape[1:], shape[2:]):
            raise CalibrationError(
                f"psana's {name} has another shape than its pedestals",
                found=held[name].shape,
                expected=f"{shape}, or that without gain stages",
                fix=f"deploy {name} of every gain stage, or give the files you mean: {{'pedestal': ..., 'gain': ...}}",
            )
    status = out.pop(STATUS).astype(np.uint64) if STATUS in out else np.zeros(shape, dtype=np.uint64)
    status = np.broadcast_to(status, shape).copy() if status.shape != shape else status
    if "pixel_mask" in held:
        status |= np.where(np.broadcast_to(held["pixel_mask"], shape) == 0, np.uint64(MASKED), np.uint64(0))
    for extra in ("status_extra", "status_data"):
        if extra in held:
            status |= np.where(np.broadcast_to(held[extra], shape) != 0, np.uint64(EXTRA), np.uint64(0))
    if {"pixel_status", "pixel_mask", "status_extra", "status_data"} & set(held):
        out[STATUS] = status
    return out


def _daq_order(array: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """CSPAD2x2 constants lie as the detector is read out, (185, 388, 2)."""
    if kind == "cspad2x2" and array.shape == (185, 388, 2):
        return np.ascontiguousarray(np.moveaxis(array, 2, 0))
    return array


def _all_stages(array: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """Of an ePixUHR psana measures 8 stages and lets the 4 that are reached by switching be like the fixed low ones."""
    if kind == "epixuhr" and array.ndim == 4 and len(array) == 8:
        return array[[*range(8), 2, 3, 2, 3]]
    return array
