"""Frames and constants that belong together: of one run, of the same modules, of a detector of one size."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.part import Labels
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, DataError
from xsmall.frames.describe import serial_numbers
from xsmall.vocabulary import ADU, DETECTOR_SHAPE, DETECTOR_TYPE, EXPERIMENT, PIXEL_DIMS, RUN_RANGE, SEGMENT

__all__ = ["check_belonging", "detector_of", "n_segments_of"]

_UHR_ASIC: Final = (168, 192)
_OPEN_END: Final = 9999  # as psana writes that a range has no end; there are runs beyond


def detector_of(raw: xr.DataArray, frames: Frames, constants: xr.Dataset) -> DetectorType:
    """Type of the detector of raw frames and checked constants; raises where they do not belong together."""
    entry = _same_detector(frames, constants)
    _check_raw(frames, entry)
    _check_frame_labels(raw, constants)
    check_belonging(frames, constants)
    return entry


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
            "these frames are calibrated already", found=f"units {frames.units!r}", expected=f"raw frames in {ADU!r}",
            fix="go on with them as they are, .sd.azint(...); what begins at the raw words is raw.sd.calibrate(...)",
        )  # fmt: skip
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


def _check_frame_labels(raw: xr.DataArray, constants: xr.Dataset) -> None:
    """Refuse frames without labels that are not the whole detector: which part they are nobody knows."""
    for dim in PIXEL_DIMS:
        if dim not in raw.coords and raw.sizes[dim] != constants.sizes[dim]:
            raise CalibrationError(
                f"data and constants differ in {dim!r}",
                found=f"{raw.sizes[dim]} in the data, {constants.sizes[dim]} in the constants",
                expected="data of the whole detector, or labels that say which part they are",
                fix=f"raw.assign_coords({dim}=[...])  # positions in the whole detector, before slicing",
            )


def check_belonging(frames: Frames, constants: xr.Dataset) -> None:
    """Raise where frames and checked constants say that they are of different runs, modules or sizes."""
    _check_run(frames, constants)
    _check_modules(frames, constants)
    for dim, labels, whole in zip(PIXEL_DIMS, frames.part, frames.whole_shape, strict=True):
        _check_size(frames, constants.sizes[dim], dim, labels, whole)


def n_segments_of(frames: Frames, constants: xr.Dataset) -> int:
    """Segments of the whole detector, as far as frames and constants know."""
    said = int(constants.attrs.get(DETECTOR_SHAPE, (0,))[0])
    return max(len(frames.part.segment), constants.sizes[SEGMENT], frames.whole_shape[0] or 0, said)


def _check_run(frames: Frames, constants: xr.Dataset) -> None:
    """Raise where the data say of which run they are and the constants are for other runs of the experiment."""
    valid = constants.attrs.get(RUN_RANGE)
    experiments = {frames.experiment, constants.attrs.get(EXPERIMENT)} - {None}
    if valid is None or len(experiments) > 1:
        return  # psana takes a detector's constants of other experiments, too, where there are no own ones
    first, last = (int(r) for r in valid)
    outside = [run for run in frames.runs if run < first or last < min(run, _OPEN_END)]
    if outside:
        raise CalibrationError(
            "the constants are not valid for this run",
            found=f"run {', '.join(map(str, outside))}, constants for runs {first} to {last}",
            expected="constants whose range holds the run",
            fix="open the constants of this run; where they are known to be good, "
            'constants.attrs.pop("run_range") says so',
        )


def _check_modules(frames: Frames, constants: xr.Dataset) -> None:
    """Raise where serial numbers say that a segment of the frames is another module than that of the constants."""
    of_frames, of_constants = dict(frames.serial_numbers), dict(serial_numbers(constants.attrs))
    for segment in frames.part.segment:
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


def _check_size(frames: Frames, n_constants: int, dim: str, labels: Labels, whole: int | None) -> None:
    """Refuse constants of a larger detector: segments 0 to n - 1 are as likely a whole smaller one as a part."""
    n = len(labels)
    if n_constants <= n or (whole is not None and n_constants <= whole):
        return
    inner = labels != range(n)  # these labels say themselves that there are others
    if inner and (whole is None or (dim == SEGMENT and frames.geometry is None)):  # a file may hold some segments
        return
    raise CalibrationError(
        "these are constants of a larger detector, or the frames are its first part",
        found=f"{n_constants} {dim}s in the constants, {dim} {_first_to_last(labels)} in the frames",
        expected=f"as many {dim}s as the frames have, {n if whole is None else whole}",
        fix=f"the constants of this very detector; constants.sel({dim}=raw.{dim}) for frames that are a part of it",
    )


def _first_to_last(values: Labels) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
