"""Constants of the European XFEL: HDF5 files with ``<module>/<constant>/<number>/data``, by memory cell and stage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import dask
import dask.array as da
import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.constants import check_constants, stage_labels
from xsmall.detector.types import DetectorType
from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.hdf5 import open_hdf5, read_whole
from xsmall.vocabulary import (
    DETECTOR_TYPE,
    DIMENSIONLESS,
    GAIN,
    GAIN_STAGE,
    LEFT_OUT,
    MEMORY_CELL,
    NOISE,
    PEDESTAL,
    PIXEL_DIMS,
    SEGMENT,
    SOURCE,
    STATUS,
    THRESHOLD,
    UNITS,
    UNITS_OF,
)

__all__ = ["calcat_constants", "is_calcat"]

_NAMES: Final[Mapping[str, str]] = {
    "Offset": PEDESTAL, "Noise": NOISE, "RelativeGain": GAIN, "ThresholdsDark": THRESHOLD,
}  # fmt: skip
_BAD: Final = "BadPixels"
_ENDING: Final = re.compile(r"10Hz$")
_NUMBER: Final = re.compile(r"(\d+)")
_QUADRANT: Final = re.compile(r"Q(\d)M(\d)$")
CalcatFiles = dict[str, dict[str, list[str]]]


def _our_name(constant: str) -> str | None:
    """Our name of a constant; None where it is not used."""
    return STATUS if constant.startswith(_BAD) else _NAMES.get(_ENDING.sub("", constant))


def _find_constants(file: Any) -> CalcatFiles:
    """Paths of the datasets by our name of the constant and by module."""
    found: CalcatFiles = {}
    for module in file:
        for constant in file[module] if isinstance(file[module], h5py.Group) else ():
            ours, group = _our_name(constant), file[module][constant]
            if ours is None or not isinstance(group, h5py.Group):
                continue
            numbers = sorted(n for n in group if isinstance(group[n], h5py.Group) and "data" in group[n])
            if numbers:
                found.setdefault(ours, {}).setdefault(module, []).append(f"{module}/{constant}/{numbers[-1]}/data")
    return found


def _sort_key(name: str) -> tuple[object, ...]:
    """What names of modules are sorted by: numbers count as such, 10 after 9."""
    return tuple(int(part) if part.isdigit() else part for part in _NUMBER.split(name))


def module_labels(names: Sequence[str], entry: DetectorType) -> npt.NDArray[np.int64]:
    """Positions of modules in the whole detector, by the numbers in their names.

    Parameters
    ----------
    names
        Such as ``AGIPD00`` (counted from 0), ``JNGFR01`` (from 1) or ``Q1M1`` (quadrants of four modules); in order.
    entry
        Type of the detector.

    Returns
    -------
    Labels; 0, 1, 2 ... where the names tell none.

    Examples
    --------
    >>> from xsmall.detector.types import detector_type
    >>> module_labels(["JNGFR01", "JNGFR03"], detector_type("jungfrau_euxfel")).tolist()
    [0, 2]
    """
    quadrants = [_QUADRANT.search(name) for name in names]
    last = [re.search(r"(\d+)$", name) for name in names]
    if all(quadrants):
        found = [4 * int(q[1]) + int(q[2]) - 5 for q in quadrants if q]
    elif all(last):
        first = 1 if entry.name == "jungfrau_euxfel" else 0
        found = [int(number[1]) - first for number in last if number]
    else:
        found = list(range(len(names)))
    if min(found) < 0 or len(set(found)) < len(found):
        found = list(range(len(names)))
    return np.array(found, dtype=np.int64)


def is_calcat(file: Any) -> bool:
    """Whether an open HDF5 file has constants of the European XFEL's layout."""
    return PEDESTAL in _find_constants(file)


def calcat_constants(
    path: Path, entry: DetectorType, gain: Literal["divide", "divide_relative", "multiply"] | None
) -> xr.Dataset:
    """Read the constants of a file lazily, module by module.

    Parameters
    ----------
    path
        HDF5 file with ``<module>/<constant>/<number>/data``; each array (fast, slow, memory cell, gain stage), or
        (slow, fast, ...) where that is another shape; detectors of one gain need no stage. Modules become segments in
        the order of the numbers in their names, which label them: where a module is missing, its label is.
    entry
        Type of the detector.
    gain
        What a relative gain means.

    Returns
    -------
    Dataset over (memory_cell, gain_stage, segment, row, column): ``pedestal``, and where there are such ``noise``,
    ``gain``, ``status`` (the OR of all kinds of bad pixels), ``threshold`` (of the analogue gain, between stages).
    ``attrs["left_out"]`` names constants that are not used, such as flat fields.

    Raises
    ------
    FileFormatError
        A module lacks a constant, or an array has another shape.
    ParameterError
        There is a gain and it is not said what it means.
    """
    with open_hdf5(path) as file:
        found = _find_constants(file)
        modules = sorted(found[PEDESTAL], key=_sort_key)
        shapes = {p: file[p].shape for by_module in found.values() for ps in by_module.values() for p in ps}
        unused = sorted({name for m in modules for name in file[m] if _our_name(name) is None})
    if GAIN in found and gain is None:
        raise ParameterError(
            f"{path}: what does its relative gain mean?",
            expected='gain="multiply" or "divide_relative", or "divide" if it is in ADU/keV',
        )
    variables = {}
    for name, by_module in found.items():
        if sorted(by_module, key=_sort_key) != modules:
            lacking = ", ".join(sorted(set(modules) - set(by_module)))
            raise FileFormatError(f"{path}: {name!r} is not there for every module", found=f"none for {lacking}")
        variables[name] = _constant_variable(path, entry, name, [by_module[m] for m in modules], shapes, gain)
    left_out = {LEFT_OUT: "; ".join(f"{name}: not used" for name in unused)} if unused else {}
    out = xr.Dataset(variables, attrs={DETECTOR_TYPE: entry.name, SOURCE: str(path), **left_out})
    out = out.assign_coords({GAIN_STAGE: stage_labels(entry), SEGMENT: module_labels(modules, entry)})
    out.coords[SEGMENT].attrs["modules"] = " ".join(modules)
    thresholds = out.get(THRESHOLD)
    checked = check_constants(out)
    return checked if thresholds is None else checked.assign({THRESHOLD: thresholds})


def _constant_variable(
    path: Path, entry: DetectorType, name: str, paths: list[list[str]], shapes: Mapping[str, tuple[int, ...]], gain: Any
) -> xr.Variable:
    blocks = []
    for of_module in paths:
        shape = shapes[of_module[0]]
        swapped = _is_swapped(path, entry, of_module[0], shape)
        rows, columns = (shape[1], shape[0]) if swapped else shape[:2]
        sizes = (shape[2], shape[3] if len(shape) == 4 else 1, rows, columns)
        dtype = np.dtype(np.uint64 if name == STATUS else np.float32)
        read = dask.delayed(_read_constant, pure=True)(
            str(path), tuple(of_module), swapped, dtype, _inverse(name, gain)
        )
        blocks.append(da.from_delayed(read, sizes, dtype))
    stage = f"{THRESHOLD}_number" if name == THRESHOLD else GAIN_STAGE
    unit = UNITS_OF.get(name, DIMENSIONLESS) if name != GAIN or gain == "divide" else DIMENSIONLESS
    return xr.Variable((MEMORY_CELL, stage, *PIXEL_DIMS), da.stack(blocks, axis=2), {UNITS: unit})


def _is_swapped(path: Path, entry: DetectorType, name: str, shape: tuple[int, ...]) -> bool:
    """Whether an array is (fast, slow, cell, stage), as the catalogue has them, rather than (slow, fast, ...)."""
    expected = entry.segment_shape or shape[:2]
    if len(shape) == 4 or (len(shape) == 3 and entry.n_stages == 1):
        if entry.segment_shape is not None and shape[1::-1] == expected:
            return True  # what is square, too
        if shape[:2] == expected:
            return False
    rows, columns = expected
    raise FileFormatError(
        f"{path}:/{name} has another shape than a constant of {entry.name!r}",
        found=shape,
        expected=f"({columns}, {rows}, memory cells, gain stages)",
    )


def _inverse(name: str, gain: Any) -> bool:
    return name == GAIN and gain == "multiply"


def _read_constant(
    path: str, names: tuple[str, ...], swapped: bool, dtype: np.dtype[Any], inverse: bool
) -> npt.NDArray[Any]:
    """Read a constant of a module as (memory cell, gain stage, row, column); several of them are ORed."""
    out: npt.NDArray[Any] | None = None
    with open_hdf5(path) as file:
        for name in names:
            stored = read_whole(file[name], path)
            stored = stored[..., None] if stored.ndim == 3 else stored
            values = stored.transpose((2, 3, 1, 0) if swapped else (2, 3, 0, 1))
            part = values.astype(dtype)
            out = part if out is None else out | part
    if out is None:
        raise FileFormatError(f"{path}: nothing to read")
    if inverse:
        with np.errstate(divide="ignore"):
            out = np.where(out == 0, np.nan, 1 / out).astype(dtype)
    return np.ascontiguousarray(out)
