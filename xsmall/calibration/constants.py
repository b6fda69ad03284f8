"""Constants of a detector as a Dataset: the one schema, its checks, and the choice of the part that belongs to data.

Variables over (``gain_stage``, segment, row, column): ``pedestal`` [ADU], ``noise`` [ADU], ``gain`` [ADU/keV, always
divided by], ``offset`` [ADU, added to the pedestal], ``status`` [bits, 0 = good];
value = (ADC - pedestal - offset) / gain. Labels of segment, row and column are positions in the whole detector.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.part import Part
from xsmall.detector.types import DETECTOR_TYPES, Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, ParameterError
from xsmall.vocabulary import (
    ADU,
    DETECTOR_SHAPE,
    DETECTOR_TYPE,
    DIMENSIONLESS,
    GAIN,
    GAIN_STAGE,
    LONG_NAME,
    MEMORY_CELL,
    NOISE,
    OFFSET,
    PEDESTAL,
    PIXEL_DIMS,
    RUN_RANGE,
    SEGMENT,
    SOURCE,
    STATUS,
    UNITS,
    UNITS_OF,
)

__all__ = [
    "DETECTOR_TYPES",
    "Decoding",
    "DetectorType",
    "check_constants",
    "constants",
    "detector_type",
    "gain_units",
    "select_constants",
]

_LONG_NAMES: Final[Mapping[str, str]] = {
    PEDESTAL: "ADC value without light",
    NOISE: "standard deviation without light",
    GAIN: "ADU per keV; data are divided by it",
    OFFSET: "added to the pedestal",
    STATUS: "reasons against the pixel, 0 = good",
}
VARIABLES: Final = tuple(_LONG_NAMES)
GAIN_UNITS: Final = (UNITS_OF[GAIN], DIMENSIONLESS)
"""Units that a gain may have: ADU/keV, or 1 for a relative gain, which leaves the data in ADU."""


def constants(
    detector: str,
    pedestal: npt.ArrayLike,
    *,
    noise: npt.ArrayLike | None = None,
    gain: npt.ArrayLike | None = None,
    offset: npt.ArrayLike | None = None,
    status: npt.ArrayLike | None = None,
    gain_unit: str | None = None,
    segment: npt.ArrayLike | None = None,
    run_range: tuple[int, int] | None = None,
    source: str | None = None,
) -> xr.Dataset:
    """Make the Dataset of constants from arrays.

    Parameters
    ----------
    detector
        Type of the detector, such as ``"jungfrau"``; see :data:`DETECTOR_TYPES`.
    pedestal, noise, offset
        ADU, (gain_stage, segment, row, column). Where the detector has one gain stage or one segment, that dim may be
        left out. A DataArray goes by its labels; where several have some, all are put in the order of the first.
    gain
        ADU/keV, same shape; data are divided by it.
    status
        Bits, same shape, 0 = good.
    gain_unit
        ``"ADU/keV"`` where nothing is said, or ``"1"`` for a relative gain: data are divided by it and stay in ADU.
    segment
        Which segments of the detector these are; 0, 1, 2 ... if left out.
    run_range
        First and last run that the constants are valid for.
    source
        Where they come from.

    Returns
    -------
    Dataset with the variables given, float32 (status: uint64), over (gain_stage, segment, row, column).

    Raises
    ------
    CalibrationError
        An array has a shape or dtype that the detector's constants cannot have.
    DataError
        A labelled array lacks pixels of the others.
    ParameterError
        A unit of the gain without a gain.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> dark = xs.constants("camera", np.full((4, 6), 100.0), gain=np.full((4, 6), 2.0))
    >>> dict(dark.sizes)
    {'gain_stage': 1, 'segment': 1, 'row': 4, 'column': 6}
    """
    entry = detector_type(detector)
    named = {PEDESTAL: pedestal, NOISE: noise, GAIN: gain, OFFSET: offset, STATUS: status}
    given = {name: _ordered_dims(value, entry, name) for name, value in named.items() if value is not None}
    labels = _labels_of_given(given, segment)
    arrays = {name: full_shape(_by_labels(value, labels, name), entry, name) for name, value in given.items()}
    sizes = arrays[PEDESTAL].shape
    for name, array in arrays.items():
        if array.shape != sizes:
            raise CalibrationError(
                f"the constants differ in shape: {name!r}", found=array.shape, expected=f"{sizes}, as the pedestal has"
            )
    whole = [labels.get(dim, np.arange(n)) for dim, n in zip(PIXEL_DIMS, sizes[1:], strict=True)]
    dataset = xr.Dataset(
        {name: ((GAIN_STAGE, *PIXEL_DIMS), array) for name, array in arrays.items()},
        coords={
            GAIN_STAGE: stage_labels(entry),
            **{dim: (dim, v) for dim, v in zip(PIXEL_DIMS, whole, strict=True)},
        },
        attrs={DETECTOR_TYPE: entry.name, DETECTOR_SHAPE: [int(v.max(initial=-1)) + 1 for v in whole]},
    )
    if run_range is not None:
        dataset.attrs[RUN_RANGE] = [int(r) for r in run_range]
    if source is not None:
        dataset.attrs[SOURCE] = source
    for name in arrays:
        dataset[name].attrs = {LONG_NAME: _LONG_NAMES[name]} | ({UNITS: UNITS_OF[name]} if name in UNITS_OF else {})
    if gain_unit is not None:
        if GAIN not in arrays:
            raise ParameterError("gain_unit of which gain?", found="no gain", fix="gain=... beside it")
        dataset[GAIN].attrs[UNITS] = gain_unit
    return check_constants(dataset)


def _ordered_dims(value: Any, entry: DetectorType, name: str) -> Any:
    """A labelled array with its dims and gain stages in order; bare ones as they are."""
    if not isinstance(value, xr.DataArray):
        return value
    dims = [dim for dim in (GAIN_STAGE, *PIXEL_DIMS) if dim in value.dims]
    if set(dims) != set(value.dims):
        raise CalibrationError(
            f"{name!r} has other dims than constants", found=value.dims, expected=(GAIN_STAGE, *PIXEL_DIMS)
        )
    ordered = value.transpose(*dims)
    if GAIN_STAGE in dims and GAIN_STAGE in value.coords:
        stages = list(range(entry.n_stages))
        if sorted(value.coords[GAIN_STAGE].values.tolist()) != stages:
            raise CalibrationError(
                f"{name!r} lacks gain stages of {entry.name!r}, or has others",
                found=value.coords[GAIN_STAGE].values.tolist(),
                expected=f"{stages}: {', '.join(entry.stages)}",
            )
        ordered = ordered.isel({GAIN_STAGE: np.argsort(value.coords[GAIN_STAGE].values)})
    return ordered


def _labels_of_given(
    given: Mapping[str, Any], segment: npt.ArrayLike | None
) -> dict[str, npt.NDArray[np.integer[Any]]]:
    """Labels of the pixels along each dim, as far as they are said: those of the first labelled array."""
    out = {} if segment is None else {SEGMENT: np.asarray(segment)}
    for value in given.values():
        if isinstance(value, xr.DataArray):
            out = {dim: np.atleast_1d(value.coords[dim].values) for dim in PIXEL_DIMS if dim in value.coords} | out
    return out


def _by_labels(value: Any, labels: Mapping[str, npt.NDArray[np.integer[Any]]], name: str) -> Any:
    """Values of the pixels with these labels; of arrays or dims without labels as they come."""
    for dim in PIXEL_DIMS:
        if isinstance(value, xr.DataArray) and dim in value.coords:
            wanted, known = (_along(dim, np.atleast_1d(along)) for along in (labels[dim], value.coords[dim].values))
            at = getattr(wanted.match(known, name), dim)  # raises where a pixel has no value
            value = value.isel({dim: list(at)}) if dim in value.dims else value
    return value


def _along(dim: str, labels: Any) -> Part:
    """Labels along one dim alone."""
    return Part(**{name: labels if name == dim else () for name in PIXEL_DIMS})


def stage_labels(entry: DetectorType) -> xr.Variable:
    """The coordinate ``gain_stage``: 0, 1, 2 ... with the names of the stages as CF flags."""
    numbers = np.arange(entry.n_stages, dtype=np.int8)
    return xr.Variable(GAIN_STAGE, numbers, {"flag_values": numbers, "flag_meanings": " ".join(entry.stages)})


def full_shape(value: npt.ArrayLike, entry: DetectorType, name: str) -> npt.NDArray[Any]:
    """Return constants as (gain_stage, segment, row, column) with the dtype of the schema."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise CalibrationError(
            f"{name!r} has a dtype that constants cannot have", found=array.dtype, expected="numbers"
        )
    shape = array.shape
    if array.ndim in (2, 3) and entry.n_stages == 1:
        array = array.reshape((1,) * (4 - array.ndim) + shape)
    elif array.ndim == 3 and shape[0] == entry.n_stages:
        array = array[:, None]
    if array.ndim != 4 or array.shape[0] != entry.n_stages:
        raise CalibrationError(
            f"{name!r} does not have the shape of constants of {entry.name!r}",
            found=shape,
            expected=f"(gain_stage={entry.n_stages}, segment, row, column), stages " + ", ".join(entry.stages),
            fix="one plane of constants for each gain stage, in this order",
        )
    if name == STATUS:
        if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
            raise CalibrationError("status has to be bits", found=array.dtype, expected="whole numbers")
        return array.astype(np.uint64)
    return array.astype(np.float32)


def check_constants(dataset: object) -> xr.Dataset:
    """Check that a Dataset is constants of a known detector; return it with its dims in order and all labels.

    Only names, dims, labels, dtypes and attributes are looked at: nothing is computed.

    Parameters
    ----------
    dataset
        Variables ``pedestal`` and, where known, ``noise``, ``gain``, ``offset``, ``status`` over (gain_stage, segment,
        row, column); ``attrs["detector_type"]``.

    Returns
    -------
    Dataset of those variables, labelled.

    Raises
    ------
    CalibrationError
        A variable, a stage or a label is missing, or a unit is not the one of the schema.
    """
    if not isinstance(dataset, xr.Dataset) or PEDESTAL not in dataset.data_vars:
        raise CalibrationError(
            "these are not constants",
            found=list(map(str, dataset.data_vars)) if isinstance(dataset, xr.Dataset) else type(dataset).__name__,
            expected=f"a Dataset with at least {PEDESTAL!r}",
            fix=f'xs.open_constants("{dataset}")'
            if isinstance(dataset, str | PathLike)
            else 'xs.constants("jungfrau", pedestal, gain=gain) makes one from arrays',
        )
    entry = detector_type(dataset.attrs.get(DETECTOR_TYPE))
    dims: tuple[Hashable, ...] = (GAIN_STAGE, *PIXEL_DIMS)
    if MEMORY_CELL in dataset.dims and entry.memory_cell:
        dims = (MEMORY_CELL, *dims)
    known = dataset[[name for name in VARIABLES if name in dataset.data_vars]]
    for name, variable in known.data_vars.items():
        if set(variable.dims) != set(dims):
            raise CalibrationError(f"{name!r} has other dims than constants", found=variable.dims, expected=dims)
        if variable.dtype.kind not in "fiu" or (name == STATUS and variable.dtype.kind == "f"):
            raise CalibrationError(f"{name!r} has a dtype that constants cannot have", found=variable.dtype)
    _check_stages(known, entry)
    _check_unit_of_each(known)
    for dim in dims:
        if dim not in known.coords:
            known = known.assign_coords({dim: np.arange(known.sizes[dim])})
        if not known.indexes[dim].is_unique:
            raise CalibrationError(f"labels of {dim!r} are there twice", found=list(known.indexes[dim]))
    return known.transpose(*dims)


def _check_stages(dataset: xr.Dataset, entry: DetectorType) -> None:
    n = dataset.sizes[GAIN_STAGE]
    labels = list(range(n)) if GAIN_STAGE not in dataset.coords else dataset.coords[GAIN_STAGE].values.tolist()
    if labels != list(range(entry.n_stages)):
        raise CalibrationError(
            f"gain stages of {entry.name!r} are missing or out of order",
            found=labels,
            expected=f"{list(range(entry.n_stages))}: {', '.join(entry.stages)}",
            fix="constants of every stage, in this order",
        )


def _check_unit_of_each(dataset: xr.Dataset) -> None:
    for name, variable in dataset.data_vars.items():
        unit = variable.attrs.get(UNITS)
        allowed = GAIN_UNITS if name == GAIN else (UNITS_OF.get(str(name), DIMENSIONLESS),)
        if unit is not None and unit not in allowed:
            raise CalibrationError(
                f"{name!r} is in another unit than constants have",
                found=unit,
                expected=" or ".join(allowed),
                fix="gain = 1 / factor where data were to be multiplied by a factor" if name == GAIN else None,
            )


def gain_units(dataset: xr.Dataset) -> str | None:
    """Unit of the gain: "ADU/keV", "1" for a relative gain, None where there is no gain."""
    if GAIN not in dataset:
        return None
    return str(dataset[GAIN].attrs.get(UNITS, UNITS_OF[GAIN]))


def select_constants(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Take the part of checked constants that belongs to data with these labels.

    Parameters
    ----------
    dataset
        What :func:`check_constants` returned.
    part
        The pixels of the data.

    Returns
    -------
    Dataset whose pixel dims are those of the data, in their order.

    Raises
    ------
    CalibrationError
        The constants have no such segment, row or column.
    """
    positions = {}
    for dim, wanted in zip(PIXEL_DIMS, part, strict=True):
        values = np.asarray(wanted)
        index = dataset.indexes[dim]
        if len(index) == len(values) and np.array_equal(index.to_numpy(), values):
            continue
        at = index.get_indexer(values)
        if (at < 0).any():
            lacking = values[at < 0]
            raise CalibrationError(
                f"the constants do not have every {dim} of the data",
                found=f"{dim} {_brief(index.to_numpy())} in the constants, {_brief(values)} in the data",
                expected=f"constants of {dim} {_brief(lacking)} too",
                fix="constants of this very detector; label the segments of data and constants by their place in it",
            )
        positions[dim] = at
    return dataset.isel(positions) if positions else dataset


def _brief(values: npt.NDArray[Any]) -> str:
    numbers = values.tolist()
    if len(numbers) > 6:
        return f"{numbers[0]} ... {numbers[-1]} ({len(numbers)})"
    return ", ".join(map(str, numbers))


def data_unit(dataset: xr.Dataset) -> str:
    """Unit of data that were calibrated with these constants: keV where the gain is known in it, else ADU."""
    return "keV" if gain_units(dataset) == UNITS_OF[GAIN] else ADU
