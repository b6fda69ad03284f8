"""What calibration and trust flags need before they begin: raw frames and constants that belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.constants import check_constants, select_constants
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.frames.describe import check_frames, labels, presence
from xsmall.frames.pixels import geometry_of
from xsmall.vocabulary import (
    ADU,
    COLUMN,
    DAMAGE,
    DETECTOR_SHAPE,
    DETECTOR_TYPE,
    EVENT,
    EXPERIMENT,
    GAIN_CONTROL,
    MEMORY_CELL,
    PHOTON_ENERGY,
    PIXEL_DIMS,
    PRESENT,
    ROW,
    RUN,
    RUN_RANGE,
    SEGMENT,
    SEGMENT_IDS,
    UNITS,
    Reason,
)

__all__ = [
    "CalibrationInput",
    "Pixels",
    "aligned",
    "check_belonging",
    "n_segments_of",
    "prepare",
    "segment_state",
    "settled",
    "sound_presence",
]

Pixels: TypeAlias = xr.DataArray | npt.NDArray[Any]
Place: TypeAlias = Mapping[str, npt.NDArray[Any]]


_UHR_ASIC: Final = (168, 192)
_OPEN_END: Final = 9999  # as psana writes that a range has no end; there are runs beyond
_SMALL: Final = (PRESENT, DAMAGE, PHOTON_ENERGY, GAIN_CONTROL, MEMORY_CELL, RUN)


@dataclass(frozen=True)
class CalibrationInput:
    """Constants of the pixels of some raw frames, checked.

    Attributes
    ----------
    entry
        Type of the detector.
    constants
        Those of the pixels of the frames, in their order.
    place
        Labels of the frames along segment, row and column.
    n_segments
        Segments of the whole detector.
    mask
        Boolean (segment, row, column), True = use, or None.
    gain_control
        Configuration bits (segment, row, column) where the type needs them, else None.
    """

    entry: DetectorType
    constants: xr.Dataset
    place: Place
    n_segments: int
    mask: npt.NDArray[np.bool_] | None
    gain_control: npt.NDArray[Any] | None


def prepare(
    raw: xr.DataArray, constants: xr.Dataset, mask: Pixels | None, gain_control: Pixels | None
) -> CalibrationInput:
    """Check that frames and constants belong together; nothing is computed."""
    check_frames(raw)
    known = check_constants(constants)
    entry = _same_detector(raw, known)
    _check_raw(raw, entry)
    place = {dim: _pixel_labels(raw, dim, known.sizes[dim]) for dim in PIXEL_DIMS}
    check_belonging(raw, known)
    mine = select_constants(known, place)
    control = _control(raw, gain_control, place) if entry.decoding is Decoding.CONTROL else None
    return CalibrationInput(entry, mine, place, n_segments_of(raw, known), _static_mask(mask, place), control)


def settled(raw: xr.DataArray) -> xr.DataArray:
    """Bring the small coordinates that calibration asks into memory, where chunking the frames has made them lazy.

    They are some bytes per event or pixel, and were in memory before: not worth a scheduler.
    """
    lazy = {
        name: coord.copy(data=coord.data.compute(scheduler="synchronous"))
        for name in _SMALL
        if name in raw.coords and (coord := raw.coords[name].variable).chunks is not None
    }
    return raw.assign_coords(lazy) if lazy else raw


def _same_detector(raw: xr.DataArray, constants: xr.Dataset) -> DetectorType:
    of_constants = detector_type(constants.attrs[DETECTOR_TYPE])
    said = raw.attrs.get(DETECTOR_TYPE)
    if said is None:
        raise CalibrationError(
            "the data do not say which detector they come from",
            found="no detector_type in the attributes",
            expected=f"{of_constants.name!r}, as the constants say",
            fix=f"raw.assign_attrs(detector_type={of_constants.name!r})",
        )
    of_data = detector_type(said)
    if of_data.name != of_constants.name:
        raise CalibrationError(
            "these are constants of another detector",
            found=f"constants of {of_constants.name!r}, data of {of_data.name!r}",
            expected=f"constants of {of_data.name!r}",
        )
    return of_data


def _check_raw(raw: xr.DataArray, entry: DetectorType) -> None:
    unit = raw.attrs.get(UNITS)
    if unit not in (None, ADU):
        raise DataError(
            "these frames are calibrated already", found=f"units {unit!r}", expected=f"raw frames in {ADU!r}"
        )
    if entry.decoding in (Decoding.CODE, Decoding.CONTROL) and raw.dtype != np.uint16:
        raise DataError(
            f"raw words of {entry.name!r} carry the gain code in their upper bits",
            found=f"dtype {raw.dtype}",
            expected="uint16, as the detector wrote them",
            fix='raw.astype("uint16") where only the order of the bytes differs' if raw.dtype == ">u2" else None,
        )
    said = str(raw.attrs[DETECTOR_TYPE]).lower()
    if said == "epixuhr35khz" or (said == "epixuhr" and raw.shape[-2:] == _UHR_ASIC):
        raise DataError(
            "psana gives the words of the ePixUHR of single ASICs in another layout: their gain bit is bit 11",
            found=f"detector_type {said!r}, {raw.sizes[ROW]} x {raw.sizes[COLUMN]} pixels",
            expected="words of the ePixUHR 3x2: the gain in bit 0, the ADC value in bits 1 to 11",
            fix='((raw & 0x7FF) << 1 | (raw >> 11) & 1).astype("uint16").assign_attrs(detector_type="epixuhr3x2")',
        )


def check_belonging(raw: xr.DataArray, constants: xr.Dataset) -> None:
    """Raise where frames and checked constants say that they are of different runs, modules or sizes."""
    _check_run(raw, constants)
    _check_modules(raw, constants)
    for axis, dim in enumerate(PIXEL_DIMS):
        _check_size(raw, constants, dim, _whole_size(raw, dim, axis))


def n_segments_of(raw: xr.DataArray, constants: xr.Dataset) -> int:
    """Segments of the whole detector, as far as frames and constants know."""
    said = (x.attrs.get(DETECTOR_SHAPE, (0,))[0] for x in (raw, constants))
    return max(raw.sizes[SEGMENT], constants.sizes[SEGMENT], *map(int, said))


def _check_run(raw: xr.DataArray, constants: xr.Dataset) -> None:
    """Raise where the data say of which run they are and the constants are for other runs of the experiment."""
    valid = constants.attrs.get(RUN_RANGE)
    said: Any = raw.coords[RUN].to_numpy() if RUN in raw.coords else raw.attrs.get(RUN)
    experiments = {x.attrs[EXPERIMENT] for x in (raw, constants) if EXPERIMENT in x.attrs}
    if said is None or valid is None or len(experiments) > 1:
        return  # psana takes a detector's constants of other experiments, too, where there are no own ones
    first, last = (int(r) for r in valid)
    runs = np.unique(said)
    outside = runs[(runs >= 0) & ((runs < first) | ((runs > last) & (last < _OPEN_END)))]
    if outside.size:
        raise CalibrationError(
            "the constants are not valid for this run",
            found=f"run {', '.join(map(str, outside.tolist()))}, constants for runs {first} to {last}",
            expected="constants whose range holds the run",
            fix="open the constants of this run; where they are known to be good, "
            'constants.attrs.pop("run_range") says so',
        )


def _check_modules(raw: xr.DataArray, constants: xr.Dataset) -> None:
    """Raise where serial numbers say that a segment of the frames is another module than that of the constants."""
    of_frames, of_constants = (json.loads(x.attrs.get(SEGMENT_IDS, "{}")) for x in (raw, constants))
    for segment in map(str, labels(raw, SEGMENT)):
        mine, known = of_frames.get(segment), of_constants.get(segment)
        if mine is None or known is None or mine == known:
            continue
        place = next((label for label, name in of_constants.items() if name == mine), None)
        raise CalibrationError(
            "these are constants of another detector" if place is None else "the segments are in another order",
            found=f"segment {segment} of the frames is module {mine}, of the constants {known}"
            + ("" if place is None else f"; its constants are those of segment {place}"),
            expected="the constants of each module under the label that its frames have",
            fix="open the constants of this detector and run"
            if place is None
            else "constants.assign_coords(segment=[...]) with the labels that the frames have",
        )


def _whole_size(raw: xr.DataArray, dim: str, axis: int) -> int | None:
    """Size of the whole detector along a pixel dim, as far as the frames know: by geometry, source or type."""
    geometry = geometry_of(raw)
    if geometry is not None:
        return geometry.shape[axis]
    if DETECTOR_SHAPE in raw.attrs:
        return max(int(raw.attrs[DETECTOR_SHAPE][axis]), max(labels(raw, dim), default=-1) + 1)
    shape = detector_type(raw.attrs[DETECTOR_TYPE]).segment_shape if DETECTOR_TYPE in raw.attrs else None
    return shape[axis - 1] if shape is not None and dim != SEGMENT else None


def _check_size(raw: xr.DataArray, constants: xr.Dataset, dim: str, whole: int | None) -> None:
    """Refuse constants of a larger detector: segments 0 to n - 1 are as likely a whole smaller one as a part."""
    n, n_constants = raw.sizes[dim], constants.sizes[dim]
    if n_constants <= n or (whole is not None and n_constants <= whole):
        return
    inner = n == 0 or labels(raw, dim) != tuple(range(n))  # these labels say themselves that there are others
    if inner and (whole is None or (dim == SEGMENT and geometry_of(raw) is None)):  # a file may hold some segments
        return
    raise CalibrationError(
        "these are constants of a larger detector, or the frames are its first part",
        found=f"{n_constants} {dim}s in the constants, {dim} {_span(labels(raw, dim))} in the frames",
        expected=f"as many {dim}s as the frames have, {n if whole is None else whole}",
        fix=f"the constants of this very detector; constants.sel({dim}=raw.{dim}) for frames that are a part of it",
    )


def _span(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _pixel_labels(raw: xr.DataArray, dim: str, n_constants: int) -> npt.NDArray[np.integer[Any]]:
    if dim not in raw.coords and raw.sizes[dim] != n_constants:
        raise CalibrationError(
            f"data and constants differ in {dim!r}",
            found=f"{raw.sizes[dim]} in the data, {n_constants} in the constants",
            expected="data of the whole detector, or labels that say which part they are",
            fix=f"raw.assign_coords({dim}=[...])  # positions in the whole detector, before slicing",
        )
    return np.asarray(labels(raw, dim))


def _static_mask(mask: Pixels | None, place: Place) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    values = aligned(mask, place, "mask")
    if values.dtype != bool:
        raise ParameterError(
            "a mask has to be boolean: 0 and 1 mean opposite things in different programs",
            found=f"dtype {values.dtype}",
            expected="bool, True = use the pixel",
            fix="xs.usable(flags) of flags of reasons; mask == 1 where 1 is good; mask == 0 where 0 is good",
        )
    return values


def _control(
    raw: xr.DataArray,
    given: Pixels | None,
    place: Place,
) -> npt.NDArray[Any] | None:
    if given is None and GAIN_CONTROL in raw.coords:
        given = raw.coords[GAIN_CONTROL]
    if given is None:
        raise CalibrationError(
            "the gain of this detector depends on the configuration of each pixel, which is not there",
            found="no gain_control",
            expected="gain_control (segment, row, column): bits 4 (g), 8 (ga), 16 (trbit)",
            fix='calibrate(raw, constants, gain_control=run["..."]["config"]["gain_control"])',
        )
    values = aligned(given, place, GAIN_CONTROL)
    if values.dtype.kind not in "iu":
        raise ParameterError(
            "gain_control has to be bits", found=f"dtype {values.dtype}", expected="integers, one per pixel"
        )
    return values


def aligned(given: Pixels, place: Place, name: str) -> npt.NDArray[Any]:
    """Values over (segment, row, column) of the data: by labels where there are some, else by shape."""
    shape = tuple(len(place[dim]) for dim in PIXEL_DIMS)
    values: npt.NDArray[Any]
    if isinstance(given, xr.DataArray):
        lacking = [dim for dim in PIXEL_DIMS if dim not in given.dims]
        if lacking or len(given.dims) != len(PIXEL_DIMS):
            raise ParameterError(f"{name} has other dims than pixels", found=given.dims, expected=PIXEL_DIMS)
        ordered = given.transpose(*PIXEL_DIMS)
        try:
            ordered = ordered.sel({dim: place[dim] for dim in PIXEL_DIMS if dim in ordered.indexes})
        except KeyError as error:
            raise ParameterError(f"{name} does not cover every pixel of the data", found=str(error)) from None
        values = ordered.to_numpy()
    else:
        values = np.asarray(given)
    if values.shape != shape:
        raise ParameterError(f"{name} has another shape than the data", found=values.shape, expected=shape)
    return values


def sound_presence(raw: xr.DataArray, *, damaged: bool = True) -> npt.NDArray[np.bool_] | None:
    """Which segments of which events are there and, with ``damaged``, not damaged; None where all are."""
    here = presence(raw)
    if not damaged or DAMAGE not in raw.coords:
        return here
    sound: npt.NDArray[np.bool_] = raw.coords[DAMAGE].transpose(EVENT, SEGMENT).to_numpy() == 0
    if sound.all():
        return here
    return sound if here is None else here & sound


def segment_state(
    raw: xr.DataArray, reasons: Reason = Reason.MISSING | Reason.DAMAGED
) -> npt.NDArray[np.uint32] | None:
    """Reasons of whole segments (event, segment) among ``reasons``, None where there are none."""
    sound = sound_presence(raw, damaged=Reason.DAMAGED in reasons)
    if sound is None:
        return None
    present = sound_presence(raw, damaged=False)
    here = np.ones_like(sound) if present is None else present
    state = np.zeros(sound.shape, dtype=np.uint32)
    state[~here] = np.uint32(Reason.MISSING)
    state[here & ~sound] = np.uint32(Reason.DAMAGED)
    return state
