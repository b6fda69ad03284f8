"""Constants from files and databases of others, brought to the one schema on reading.

What another program means by its gain (multiply or divide, per keV or relative) is settled here and never later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.constants import check_constants, constants, full_shape
from xsmall.detector.types import DETECTOR_TYPES, DetectorType, detector_type
from xsmall.errors import CalibrationError, FileFormatError, ParameterError, alike
from xsmall.io.constants.calcat import calcat_constants, is_calcat
from xsmall.io.constants.of_run import asked_of_database, constants_of_database, is_of_database
from xsmall.io.constants.psana import folder_constants, known_arrays, read_text_array
from xsmall.io.constants.psana_database import LAST_RUN
from xsmall.io.files import names_its_file
from xsmall.io.hdf5 import open_hdf5, read_whole
from xsmall.io.sources.hdf5_run import hdf5_groups
from xsmall.io.sources.stored import whole_dataset
from xsmall.io.sources.zarr_run import zarr_groups
from xsmall.io.stores.place import settle
from xsmall.vocabulary import (
    DIMENSIONLESS,
    EXPERIMENT,
    GAIN,
    NOISE,
    OFFSET,
    PEDESTAL,
    RUN_RANGE,
    SEGMENT,
    SEGMENT_IDS,
    SOURCE,
    STATUS,
    UNITS_OF,
)

__all__ = ["open_constants"]

GainMeaning = Literal["divide", "multiply", "divide_relative", "nominal"]
_SMALL_DATA: Final = {"ped": "pedestals", "rms": "pixel_rms", "gain": "pixel_gain", "statusMask": "pixel_mask"}
_OF_OTHERS: Final = {
    "dark": PEDESTAL, "ped": PEDESTAL, "rms": NOISE, "pixel_rms": NOISE, "pixel_gain": GAIN, "pixel_offset": OFFSET,
    "pixel_status": STATUS, "statusMask": STATUS,
}  # fmt: skip
"""What others call constants."""
_USER_DATA: Final = "UserDataCfg"
_OURS: Final = (PEDESTAL, NOISE, GAIN, OFFSET, STATUS)


@names_its_file
def open_constants(
    source: Any,
    *,
    detector: str | None = None,
    run: int | None = None,
    detector_type: str | None = None,
    gain: GainMeaning | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 # as open_run calls it
) -> xr.Dataset:
    """Open constants of a detector, wherever they come from.

    Parameters
    ----------
    source
        One of

        - a calibration folder of psana (``.../calib``), with ``detector`` (its source) and ``run``;
        - frames of an LCLS-II run (``run["jungfrau/raw"]``): what psana's database has for their detector and run;
        - ``"exp=mfx101332224,run=7"``, with ``detector``: the same without opening the run. What was read is kept on
          this computer (in ``~/.cache/xsmall``, or where ``XSMALL_CACHE`` says);
        - a psana detector object (``run.Detector("jungfrau")``) or its ``calibconst``;
        - ``{"pedestal": "ped.npy", "gain": "gain.txt", ...}``: arrays, or files (.npy, text) with one array each;
        - an HDF5 file: small data of smalldata_tools (constants in ``UserDataCfg``), constants of the European XFEL
          (``<module>/<constant>/0/data``), or one with datasets of our names;
        - constants saved by :func:`xsmall.save` (Zarr, netCDF), which stay lazy.
    detector
        Name of the detector in the source, where there are several. Of psana's database also the long name (type and
        serial numbers), for which the files of the run need not be there.
    run
        Number of the run: it chooses among constants that depend on it, and has to lie in the range of saved ones. Of
        frames the default is their own.
    detector_type
        Such as ``"jungfrau"``, where the source does not say.
    gain
        What the gain of the source means: ``"divide"`` (ADU/keV), ``"multiply"`` (a relative factor that data are
        multiplied by), ``"divide_relative"``, or ``"nominal"`` (take the maker's values in place of any). Left out
        where the source settles it: psana divides data of Jungfrau and ePix10ka by ADU/keV, psana1 multiplies those
        of all other detectors, psana2 divides.
    dir
        Where the files of ``exp=...,run=...`` are; as in :func:`open_run`.

    Returns
    -------
    Dataset of constants, ``attrs["source"]`` and, where known, ``attrs["run_range"]``.

    Raises
    ------
    FileFormatError
        A file that is not what it should be; the message names it.
    CalibrationError, ParameterError
        The source does not say which detector it is, or what its gain means; it is for other runs; an option that it
        does not use; a database that does not answer.

    Warns
    -----
    KeptConstantsWarning
        psana's database does not answer, and what it named before for this run is taken.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> dark = xs.open_constants({"pedestal": np.full((4, 6), 100.0)}, detector_type="camera")
    >>> dark["pedestal"].dims
    ('gain_stage', 'segment', 'row', 'column')
    """
    options = {"detector": detector, "run": run, "detector_type": detector_type, "gain": gain, "dir": dir}
    given = [name for name, value in options.items() if value is not None and name != "run"]
    if hasattr(source, "calibconst"):
        _check_used(given, "detector_type", "gain")
        return _constants_from_psana(source.calibconst, detector_type or _dettype(source), gain, "psana")
    if is_of_database(source):
        asked = asked_of_database(source, detector, run, dir)
        kind = detector_type or asked.detector_type or _guess(asked.detector)
        return _constants_from_psana(constants_of_database(asked), kind, gain, "psana database")
    if isinstance(source, Mapping):
        _check_used(given, "detector_type", "gain")
        if any(isinstance(value, tuple) for value in source.values()):
            return _constants_from_psana(source, detector_type, gain, "psana")
        return _from_files(source, detector_type, gain)
    if not isinstance(source, str | os.PathLike):
        raise ParameterError(
            "constants are opened from a path, frames of a run, or arrays by name",
            found=type(source).__name__,
            fix='xs.open_constants({"pedestal": ...}, detector_type="camera")',
        )
    path = Path(source)
    settle(path)
    if not path.exists():
        raise FileFormatError(f"{path}: there is no such file or folder", fix="check the path")
    if path.is_dir() and not ((path / "zarr.json").exists() or (path / ".zgroup").exists()):
        _check_used(given, "detector", "gain")
        return _from_folder(path, detector, run, gain)
    if not path.is_dir() and h5py.is_hdf5(path):
        return _from_hdf5(path, detector, detector_type, gain, run, given)
    return _ours(path, run, given)


def _check_used(given: Sequence[str], *used: str) -> None:
    """Refuse options that a source makes no use of."""
    for name in given:
        if name not in used:
            raise ParameterError(
                f"{name} says nothing about constants of this source",
                found=f"{name}=...",
                expected=" and ".join(used) or "no options: saved constants say all themselves",
                fix=f"leave {name} out",
            )


def _ours(path: Path, run: int | None, given: Sequence[str]) -> xr.Dataset:
    """Constants that :func:`xsmall.save` wrote, lazily."""
    _check_used(given)
    if not path.is_dir() and not h5py.is_hdf5(path):
        raise FileFormatError(f"{path}: these are not constants", found="neither HDF5 nor Zarr")
    with (zarr_groups if path.is_dir() else hdf5_groups)(path) as groups:
        found = whole_dataset(groups)
    checked = check_constants(found)
    first, last = found.attrs.get(RUN_RANGE, (0, LAST_RUN))
    if run is not None and not first <= min(run, LAST_RUN) <= last:
        raise CalibrationError(
            f"{path}: these constants are for other runs",
            found=f"run {run}",
            expected=f"runs {first} to {last}",
            fix="leave run out to open them all the same",
        )
    return checked.assign_attrs({SOURCE: str(path), **found.attrs})


def _from_folder(path: Path, detector: str | None, run: int | None, gain: GainMeaning | None) -> xr.Dataset:
    found = folder_constants(path, detector, run)
    entry = detector_type(found.detector_type)
    meaning = gain or ("divide" if entry.name in ("jungfrau", "epix10ka") else "multiply")
    arrays = known_arrays(found.arrays, entry.name)
    return _assemble_constants(entry, arrays, meaning, found.source, found.run_range)


def _constants_from_psana(
    found: Mapping[str, Any], kind: str | None, gain: GainMeaning | None, source: str
) -> xr.Dataset:
    """Constants of psana2, {type: (array, metadata)}: the gain divides."""
    pairs = {name: value for name, value in found.items() if isinstance(value, tuple) and len(value) == 2}
    about: Mapping[str, Any] = pairs["pedestals"][1] if "pedestals" in pairs else {}
    entry = detector_type(kind or _guess(about.get("detector") or about.get("dettype")))
    arrays = {name: value[0] for name, value in pairs.items() if isinstance(value[0], np.ndarray)}
    if "pedestals" not in arrays:
        raise CalibrationError(
            "psana has no pedestals for this detector and run",
            found=sorted(arrays) or "nothing",
            expected="pedestals",
            fix="the experiment and run of the frames, or xs.dark(raw) of a dark run",
        )
    begin, end = about.get("run"), about.get("run_end")
    last = LAST_RUN if end in (None, "end") else int(str(end))
    run_range = None if not isinstance(begin, int) else (begin, last)
    out = _assemble_constants(entry, known_arrays(arrays, entry.name), gain or "divide", source, run_range)
    return out.assign_attrs(_identity_of_detector(about, out.sizes[SEGMENT]))


def _identity_of_detector(about: Mapping[str, Any], n_segments: int) -> dict[str, str]:
    """What psana's metadata say of the detector: serial numbers of its segments, and the experiment."""
    attrs = {EXPERIMENT: str(about[EXPERIMENT])} if about.get(EXPERIMENT) else {}
    ids = str(about.get("longname") or "").split("_")[1:]  # <type>_<segment 0>_<segment 1> ...
    if len(ids) == n_segments:
        attrs[SEGMENT_IDS] = json.dumps(dict(enumerate(ids)))
    return attrs


def _from_files(files: Mapping[str, Any], kind: str | None, gain: GainMeaning | None) -> xr.Dataset:
    unknown = sorted(set(files) - set(_OURS))
    if unknown or PEDESTAL not in files:
        meant = {name: _OF_OTHERS.get(str(name)) or next(iter(alike(str(name), _OURS)), "") for name in unknown}
        names = [meant.get(name, name) for name in files]
        fix = ", ".join(f'"{name}": ...' for name in names)
        raise ParameterError(
            "these are not names of constants",
            found=sorted(files),
            expected="pedestal, and some of " + ", ".join(_OURS),
            fix=f"xs.open_constants({{{fix}}})" if PEDESTAL in names and all(names) else None,
        )
    entry = detector_type(_need_type(kind))
    arrays = {name: _loaded_array(value) for name, value in files.items()}
    named = ", ".join(str(v) for v in files.values() if isinstance(v, str | Path))
    return _assemble_constants(entry, arrays, _meaning(gain, arrays), named or "arrays", None)


def _loaded_array(value: Any) -> npt.NDArray[Any]:
    if not isinstance(value, str | Path):
        return np.asarray(value)
    path = Path(value)
    if path.suffix != ".npy":
        return read_text_array(path)
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # says so if there is less than it declares
        return np.array(mapped)
    except Exception as error:  # of NumPy and of Python's own parser, which reads the header, in many forms
        raise FileFormatError(f"{path}: not an array", found=f"{type(error).__name__}: {error}") from error


def _from_hdf5(
    path: Path,
    detector: str | None,
    kind: str | None,
    gain: GainMeaning | None,
    run: int | None,
    given: Sequence[str],
) -> xr.Dataset:
    with open_hdf5(path) as file:
        if _USER_DATA in file:
            _check_used(given, "detector", "detector_type", "gain")
            return _from_small_data(file[_USER_DATA], path, detector, kind, gain)
        calcat = is_calcat(file)
        saved = "xsmall_layout" in file.attrs or "xsmall_provenance" in file.attrs or PEDESTAL in file
        plain = {name: read_whole(file[name], path) for name in _OURS if name in file and (kind or not saved)}
    if kind is None and saved and not calcat:
        return _ours(path, run, given)
    _check_used(given, "detector_type", "gain")
    if calcat:
        return calcat_constants(path, detector_type(_need_type(kind)), cast("Any", gain))
    if not plain:
        raise FileFormatError(
            f"{path}: no constants in this file",
            expected=f"datasets {', '.join(_OURS)}, a group {_USER_DATA}, or <module>/<constant>/0/data",
        )
    return _from_files(plain, kind, gain).assign_attrs({SOURCE: str(path)})


def _from_small_data(
    group: Any, path: Path, detector: str | None, kind: str | None, gain: GainMeaning | None
) -> xr.Dataset:
    """Constants that smalldata_tools wrote beside its results."""
    names = [name for name in group if isinstance(group[name], h5py.Group) and "ped" in group[name]]
    if detector is None and len(names) == 1:
        detector = names[0]
    if detector not in names:
        raise FileFormatError(
            f"{path}: which detector?",
            found=f"detector={detector!r}",
            expected="one of " + ", ".join(names) if names else f"{_USER_DATA}/<detector>/ped",
            fix=f"xs.open_constants(..., detector={(alike(detector or '', names) or names)[0]!r})" if names else None,
        )
    entry = detector_type(kind or _guess(detector))
    held = {
        theirs: read_whole(group[detector][ours], path)
        for ours, theirs in _SMALL_DATA.items()
        if ours in group[detector]
    }
    if "pixel_mask" not in held and "mask" in group[detector]:
        held["pixel_mask"] = read_whole(group[detector]["mask"], path)
    arrays = known_arrays(held, entry.name)
    if gain is None and entry.name in ("jungfrau", "epix10ka"):
        gain = "divide"
    return _assemble_constants(entry, arrays, _meaning(gain, arrays), f"{path}:/{_USER_DATA}/{detector}", None)


def _meaning(gain: GainMeaning | None, arrays: Mapping[str, npt.NDArray[Any]]) -> GainMeaning:
    """What a gain means that its source does not explain; all ones mean nothing at all."""
    if gain is not None:
        return gain
    if GAIN not in arrays or (np.asarray(arrays[GAIN]) == 1).all():
        return "divide_relative"
    raise ParameterError(
        "programs differ in what their gain means: data are multiplied by it, or divided",
        found="a gain that the source does not explain",
        expected='gain="divide" (ADU/keV), "multiply" or "divide_relative" (no unit)',
        fix='xs.open_constants(..., gain="divide")',
    )


def _assemble_constants(
    entry: DetectorType,
    arrays: Mapping[str, npt.NDArray[Any]],
    meaning: GainMeaning,
    source: str,
    run_range: tuple[int, int] | None,
) -> xr.Dataset:
    """Make the Dataset, the gain as what data are divided by."""
    held = dict(arrays)
    unit = UNITS_OF[GAIN] if meaning in ("divide", "nominal") else DIMENSIONLESS
    if meaning == "nominal":
        if not entry.nominal_gain:
            raise ParameterError(f"no nominal gain is known for {entry.name!r}", fix='gain="divide", and your own gain')
        nominal = np.asarray(entry.nominal_gain, dtype=np.float32).reshape(-1, 1, 1, 1)
        shape = full_shape(held[PEDESTAL], entry, PEDESTAL).shape
        held[GAIN] = np.broadcast_to(nominal, shape)
    elif meaning == "multiply" and GAIN in held:
        with np.errstate(divide="ignore"):
            held[GAIN] = np.where(held[GAIN] == 0, np.nan, 1.0 / np.asarray(held[GAIN], dtype=np.float64))
    elif meaning not in ("divide", "multiply", "divide_relative"):
        raise ParameterError("unknown meaning of the gain", found=meaning, expected='"divide", "multiply" ...')
    return constants(
        entry.name,
        held[PEDESTAL],
        **{name: held[name] for name in (NOISE, GAIN, OFFSET, STATUS) if name in held},
        gain_unit=unit if GAIN in held else None,
        run_range=run_range,
        source=source,
    )


def _dettype(detector: Any) -> str | None:
    kind = getattr(detector, "_dettype", None) or getattr(getattr(detector, "raw", None), "_dettype", None)
    return None if kind is None else str(kind)


def _guess(name: object) -> str:
    """Detector type from a name that begins with it, such as jungfrau1M or epix10ka_000001."""
    word = str(name or "").lower()
    fits = sorted((kind for kind in DETECTOR_TYPES if word.startswith(kind)), key=len)
    if not fits:
        raise CalibrationError(
            "the source does not say which detector this is",
            found=f"the name {name!r}",
            expected="a name that begins with a known type",
            fix='xs.open_constants(..., detector_type="jungfrau")',
        )
    return fits[-1]


def _need_type(kind: str | None) -> str:
    if kind is None:
        raise ParameterError("this source needs detector_type", fix='xs.open_constants(..., detector_type="jungfrau")')
    return kind
