"""Choose constants: those of psana's database for frames, or for a run that is named by its number."""

import os
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from xsmall.errors import CalibrationError, FileFormatError, ParameterError
from xsmall.io.constants.psana_database import Found, psana_database
from xsmall.io.sources.source import RunSpec
from xsmall.io.sources.xtc2.dataset import detector_id, detectors_of
from xsmall.io.sources.xtc2.find import files_of_run, folder_of_experiment
from xsmall.io.sources.xtc2.run_index import run_of
from xsmall.vocabulary import DETECTOR_ID, DETECTOR_TYPE, EXPERIMENT, RUN

__all__ = ["Asked", "asked_of_database", "constants_of_database", "geometry_of_database", "is_of_database"]


class Asked(NamedTuple):
    """A detector in a run, as psana's database knows it; ``detector_type`` where the run says it."""

    detector: str
    experiment: str
    run: int
    detector_type: str | None


def is_of_database(source: Any) -> bool:
    """Whether frames are given, or ``exp=...,run=...``."""
    return isinstance(source, xr.DataArray) or (isinstance(source, str) and bool(RunSpec.of_query(source)))


def asked_of_database(
    source: Any, detector: str | None = None, run: int | None = None, folder: str | os.PathLike[str] | None = None
) -> Asked:
    """Say what the database is to be asked for.

    Parameters
    ----------
    source
        Frames as they were opened, or ``"exp=mfx101332224,run=7"``.
    detector
        Where a run is named: the name of the detector in its files, or the long name of the database, for which no
        file is needed.
    run
        Another run than that of the frames.
    folder
        Where the files of the run are; see :func:`xsmall.open_run`.

    Raises
    ------
    CalibrationError, ParameterError, FileFormatError
        Frames that do not say what they are of; no such detector; no files to find its long name in.
    """
    if isinstance(source, xr.DataArray):
        for name, given in {"detector": detector, "dir": folder}.items():
            if given is not None:
                raise ParameterError(f"frames say what they are of, {name}= is for runs by number", found=given)
        return _asked_of_frames(source, run)
    query = RunSpec.of_query(source)
    if detector is None:
        raise ParameterError("which detector?", found=source, fix=f'open_constants({source!r}, detector="jungfrau")')
    number = int(query["run"]) if query.get("run", "").isdecimal() else run
    if run is not None and number != run:
        raise ParameterError("two numbers of the run", found=f"{source} and run={run}", fix="leave run= out")
    try:
        place, number = folder_of_experiment(query, folder, run)
    except FileFormatError:
        if "_" not in detector or number is None:
            raise
        return Asked(detector, query["exp"], number, None)
    files = files_of_run([place], experiment=query["exp"], run=number, missing="flag")
    index = run_of(files)
    known = sorted({names.detector for tables in index.tables for names in tables.values()})
    if detector not in known:
        if "_" in detector:
            return Asked(detector, query["exp"], number, None)
        shown = list(detectors_of(files))
        raise ParameterError(f"{source}: no detector of this name", found=repr(detector), expected=", ".join(shown))
    kind = next(n.detector_type for tables in index.tables for n in tables.values() if n.detector == detector)
    return Asked(detector_id(index, detector), query["exp"], number, kind)


def _asked_of_frames(frames: xr.DataArray, run: int | None) -> Asked:
    attrs = frames.attrs
    number = attrs.get(RUN) if run is None else run
    lacking = [name for name in (DETECTOR_ID, EXPERIMENT) if not attrs.get(name)]
    if lacking or not isinstance(number, int | np.integer):
        raise CalibrationError(
            "these frames do not say which constants of psana's database are theirs",
            found=f"no {' and no '.join(lacking)}" if lacking else f"run {number!r}",
            expected="frames as xs.open_run gives them of an LCLS-II run",
            fix='xs.open_constants("exp=mfx101332224,run=7", detector="jungfrau")',
        )
    kind = attrs.get(DETECTOR_TYPE)
    return Asked(str(attrs[DETECTOR_ID]), str(attrs[EXPERIMENT]), int(number), None if kind is None else str(kind))


def constants_of_database(asked: Asked) -> Found:
    """Ask for the constants: arrays and texts by their type, each with its document."""
    return psana_database(asked.detector, asked.experiment, asked.run)


def geometry_of_database(asked: Asked) -> str:
    """Ask for the geometry, as psana's text.

    Raises
    ------
    CalibrationError
        There is none.
    """
    found = constants_of_database(asked)
    text = found.get("geometry", ("", {}))[0]
    if not isinstance(text, str) or not text:
        raise CalibrationError(
            f"psana's database has no geometry of {asked.detector!r} for {asked.experiment}, run {asked.run}",
            found=", ".join(found),
            expected="a document of type 'geometry'",
            fix='a file: xs.open_geometry("geometry.data")',
        )
    return text + "\n"  # a text of one line would be a path
