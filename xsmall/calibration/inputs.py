"""What calibration, flags and common modes need before they begin: raw frames and constants that belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.belonging import check_belonging, n_segments_of
from xsmall.calibration.beside import BesideFrames, beside_frames, check_gain_stage
from xsmall.calibration.constants import check_constants, select_constants
from xsmall.calibration.reasons import DEFAULT_TRUST
from xsmall.calibration.tables import Settings
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.detector.reasons import named_bits
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.frames.describe import describe, of_segments, presence, small
from xsmall.frames.per_pixel import Pixels, aligned, boolean_mask
from xsmall.vocabulary import (
    ADU,
    DAMAGE,
    DETECTOR_TYPE,
    GAIN_CONTROL,
    MASK,
    MEMORY_CELL,
    PIXEL_DIMS,
    STATUS,
    THRESHOLD,
    Reason,
)

__all__ = [
    "CalibrationInput",
    "gain_control_of",
    "prepare",
    "segment_state",
    "usable_by",
]

_UHR_ASIC: Final = (168, 192)


@dataclass(frozen=True)
class CalibrationInput:
    """Frames and the constants of their pixels, checked.

    Attributes
    ----------
    frames
        What is known of the frames.
    entry
        Type of the detector.
    constants
        Those of the pixels of the frames, in their order.
    n_segments
        Segments of the whole detector.
    mask
        Boolean (segment, row, column), True = use, or None.
    gain_control
        Configuration bits (segment, row, column) where the type needs them, else None.
    state
        Reasons against whole segments, uint32 (event, segment): missing or damaged; None where there are none.
    beside
        The frames, and what lies beside them.
    """

    frames: Frames
    entry: DetectorType
    constants: xr.Dataset
    n_segments: int
    mask: npt.NDArray[np.bool_] | None
    gain_control: npt.NDArray[Any] | None
    state: npt.NDArray[np.uint32] | None
    beside: BesideFrames

    def arrays(self, names: Iterable[str]) -> dict[str, Any]:
        """Constants of these names, as far as there are any, (memory cell, gain stage, segment, row, column).

        With them the mask, the configuration and the thresholds of an analogue gain: all that tables are packed from.
        """
        mine = self.constants
        cells = MEMORY_CELL in mine.dims
        out: dict[str, Any] = {n: mine[n].data if cells else mine[n].data[None] for n in names if n in mine}
        if self.mask is not None:
            out[MASK] = self.mask
        if self.gain_control is not None:
            out[GAIN_CONTROL] = self.gain_control
        if self.beside.threshold is not None:
            out[THRESHOLD] = self.beside.threshold
        return out

    def settings(self, *, status_bits: int | None = None, **options: Any) -> Settings:
        """What a calibration of these frames is asked to do."""
        if status_bits is not None and STATUS not in self.constants:
            raise ParameterError("status_bits of which status?", found="no status in the constants")
        return Settings(
            entry=self.entry,
            dtype=self.frames.dtype,
            part=self.frames.part,
            cells=self.beside.cells,
            bits=self.entry.status_bits if status_bits is None else int(status_bits),
            status_flags=named_bits(self.constants[STATUS].attrs) if STATUS in self.constants else (),
            **options,
        )


def prepare(
    raw: xr.DataArray,
    constants: xr.Dataset | None,
    mask: Pixels | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
    *,
    reasons: Reason = DEFAULT_TRUST,
) -> CalibrationInput:
    """Check that frames and constants belong together; nothing is computed.

    The only look at the frames and at what lies beside them: all that follows is told what is found here. Of a mask of
    flags those that ``reasons`` names count.
    """
    frames = describe(raw)
    if constants is None:
        raise CalibrationError(
            "raw words need the constants of their detector",
            found="no constants",
            expected="a Dataset with at least the pedestals",
            fix='.sd.calibrate(xs.dark(raw_of_a_dark_run)), or the constants that xs.open_constants("...") reads',
        )
    known = check_constants(constants)
    entry = _same_detector(frames, known)
    _check_raw(frames, entry)
    check_gain_stage(entry, gain_stage)
    _check_labels(raw, known)
    check_belonging(frames, known)
    mine = select_constants(known, frames.part)
    return CalibrationInput(
        frames=frames,
        entry=entry,
        constants=mine,
        n_segments=n_segments_of(frames, known),
        mask=None if mask is None else aligned(boolean_mask(mask, reasons), frames.part, "mask"),
        gain_control=gain_control_of(raw, entry, gain_control, frames.part),
        state=segment_state(raw),
        beside=beside_frames(raw, entry, frames.part, mine, gain_stage, constants.get(THRESHOLD)),
    )


def _same_detector(frames: Frames, constants: xr.Dataset) -> DetectorType:
    of_constants = detector_type(constants.attrs[DETECTOR_TYPE])
    if frames.detector_type is None:
        raise CalibrationError(
            "the data do not say which detector they come from",
            found="no detector_type in the attributes",
            expected=f"{of_constants.name!r}, as the constants say",
            fix=f"raw.assign_attrs(detector_type={of_constants.name!r})",
        )
    of_data = detector_type(frames.detector_type)
    if of_data.name != of_constants.name:
        raise CalibrationError(
            "these are constants of another detector",
            found=f"constants of {of_constants.name!r}, data of {of_data.name!r}",
            expected=f"constants of {of_data.name!r}",
        )
    return of_data


def _check_raw(frames: Frames, entry: DetectorType) -> None:
    if frames.units not in (None, ADU):
        raise DataError(
            "these frames are calibrated already", found=f"units {frames.units!r}", expected=f"raw frames in {ADU!r}"
        )
    if entry.decoding in (Decoding.CODE, Decoding.CONTROL) and frames.dtype != np.uint16:
        raise DataError(
            f"raw words of {entry.name!r} carry the gain code in their upper bits",
            found=f"dtype {frames.dtype}",
            expected="uint16, as the detector wrote them",
            fix='raw.astype("uint16") where only the order of the bytes differs' if frames.dtype == ">u2" else None,
        )
    said = str(frames.detector_type).lower()
    if said == "epixuhr35khz" or (said == "epixuhr" and frames.shape[1:] == _UHR_ASIC):
        raise DataError(
            "psana gives the words of the ePixUHR of single ASICs in another layout: their gain bit is bit 11",
            found=f"detector_type {said!r}, {frames.shape[1]} x {frames.shape[2]} pixels",
            expected="words of the ePixUHR 3x2: the gain in bit 0, the ADC value in bits 1 to 11",
            fix='((raw & 0x7FF) << 1 | (raw >> 11) & 1).astype("uint16").assign_attrs(detector_type="epixuhr3x2")',
        )


def _check_labels(raw: xr.DataArray, constants: xr.Dataset) -> None:
    """Refuse frames without labels that are not the whole detector: which part they are nobody knows."""
    for dim in PIXEL_DIMS:
        if dim not in raw.coords and raw.sizes[dim] != constants.sizes[dim]:
            raise CalibrationError(
                f"data and constants differ in {dim!r}",
                found=f"{raw.sizes[dim]} in the data, {constants.sizes[dim]} in the constants",
                expected="data of the whole detector, or labels that say which part they are",
                fix=f"raw.assign_coords({dim}=[...])  # positions in the whole detector, before slicing",
            )


def gain_control_of(
    raw: xr.DataArray, entry: DetectorType, given: Pixels | None, part: Part
) -> npt.NDArray[Any] | None:
    """Configuration bits of the pixels of the data where the type needs them: given, or the coordinate of the data."""
    if entry.decoding is not Decoding.CONTROL:
        if given is not None:
            raise ParameterError(
                f"the gain of {entry.name!r} does not depend on the configuration of its pixels",
                found="gain_control",
                fix="leave gain_control out",
            )
        return None
    if given is None and GAIN_CONTROL in raw.coords:
        given = small(raw.coords[GAIN_CONTROL])
    if given is None:
        raise CalibrationError(
            f"the gain of {entry.name!r} depends on the configuration of each pixel, which is not there",
            found="no gain_control",
            expected="gain_control (segment, row, column): bits 4 (g), 8 (ga), 16 (trbit)",
            fix='raw.assign_coords(gain_control=run["..."]["config"]["gain_control"])',
        )
    values = aligned(given, part, GAIN_CONTROL)
    if values.dtype.kind not in "iu":
        raise ParameterError(
            "gain_control has to be bits", found=f"dtype {values.dtype}", expected="integers, one per pixel"
        )
    return values


def segment_state(raw: xr.DataArray) -> npt.NDArray[np.uint32] | None:
    """Reasons against whole segments (event, segment): missing, or damaged; None where there are none."""
    present, damage = presence(raw), of_segments(raw, DAMAGE)
    if present is None and (damage is None or not damage.any()):
        return None
    state = np.zeros(raw.shape[:2], dtype=np.uint32)
    if damage is not None:
        state[damage != 0] = np.uint32(Reason.DAMAGED)
    if present is not None:
        state[~present] = np.uint32(Reason.MISSING)
    return state


def usable_by(state: npt.NDArray[np.uint32] | None, reasons: Reason) -> npt.NDArray[np.bool_] | None:
    """Which segments (event, segment) none of the reasons speaks against; None where all."""
    if state is None:
        return None
    usable: npt.NDArray[np.bool_] = (state & np.uint32(reasons)) == 0
    return None if usable.all() else usable
