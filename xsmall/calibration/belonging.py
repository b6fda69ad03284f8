"""Frames and constants that belong together: of one run, of the same modules, of a detector of one size."""

from __future__ import annotations

from typing import Final

import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.part import Labels
from xsmall.errors import CalibrationError
from xsmall.frames.describe import serial_numbers
from xsmall.vocabulary import DETECTOR_SHAPE, EXPERIMENT, PIXEL_DIMS, RUN_RANGE, SEGMENT

__all__ = ["check_belonging", "n_segments_of"]

_OPEN_END: Final = 9999  # as psana writes that a range has no end; there are runs beyond


def check_belonging(frames: Frames, constants: xr.Dataset) -> None:
    """Raise where frames and checked constants say that they are of different runs, modules or sizes."""
    _check_run(frames, constants)
    _check_modules(frames, constants)
    for dim, labels, whole in zip(PIXEL_DIMS, frames.part, frames.whole_shape, strict=True):
        _check_size(frames, constants.sizes[dim], dim, labels, whole)


def n_segments_of(frames: Frames, constants: xr.Dataset) -> int:
    """Segments of the whole detector, as far as frames and constants know."""
    said = int(constants.attrs.get(DETECTOR_SHAPE, (0,))[0])
    return max(len(frames.segment), constants.sizes[SEGMENT], frames.whole_shape[0] or 0, said)


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
    for segment in frames.segment:
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
