"""What detectors need whose constants depend on the memory cell, and whose gain lies beside the frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.inputs import CalibrationInput
from xsmall.calibration.reasons import CONSTANT
from xsmall.detector.types import DetectorType
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.frames.describe import data_of
from xsmall.kernels.calibrate_cells import stages_of_gain
from xsmall.kernels.stack import flat_frames
from xsmall.vocabulary import EVENT, GAIN_STAGE, MEMORY_CELL, PIXEL_DIMS, THRESHOLD, Reason, reason_names

__all__ = ["CellInput", "cell_input", "cell_reasons", "codes_of", "planes", "typed_limits"]

_STATUS: Final = Reason.DEAD | Reason.HOT | Reason.NOISY | Reason.OTHER_STATUS | Reason.GAIN_STAGE_STATUS


@dataclass(frozen=True)
class CellInput:
    """Frames, what lies beside them, and which memory cells they use.

    Attributes
    ----------
    frames, gain
        (event, segment, row, column): ADC values, and gain codes (uint8) or the analogue gain; both lazy or neither.
    cell
        (event) position of the memory cell of each event among ``cells``.
    cells
        Positions of the memory cells in the constants.
    arrays
        The constants, with a memory cell in front; thresholds of the analogue gain where there is one.
    """

    frames: npt.NDArray[Any] | da.Array
    gain: npt.NDArray[Any] | da.Array
    cell: npt.NDArray[np.int64]
    cells: tuple[int, ...]
    arrays: Mapping[str, Any]


def cell_input(
    raw: xr.DataArray,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    arrays: Mapping[str, Any],
) -> CellInput:
    """Check and put together what goes with the frames; ``arrays`` are constants and whatever else is per pixel."""
    cells, cell = np.unique(_cells(raw, given.constants), return_inverse=True)
    frames, beside = _alike(data_of(raw), data_of(_gain_frames(raw, gain)))
    known = dict(arrays)
    if MEMORY_CELL not in given.constants.dims:
        known = {name: a[None] if name in given.constants else a for name, a in known.items()}
    if beside.dtype != np.uint8:
        known[THRESHOLD] = _thresholds(constants, given, beside.dtype)
    return CellInput(frames, beside, cell.reshape(-1).astype(np.int64), tuple(cells.tolist()), known)


def cell_reasons(entry: DetectorType, reasons: Reason) -> Reason:
    """Translate the reasons that were asked for: ``"constant"`` is the status of the event's own cell and stage."""
    if CONSTANT & ~reasons == Reason(0):
        return reasons | Reason.MEMORY_CELL_STATUS
    if reasons & _STATUS:
        raise ParameterError(
            f"the status of {entry.name!r} is that of the memory cell and gain stage of each value, as a whole",
            found=", ".join(reason_names(reasons & _STATUS)),
            expected='"memory_cell_status"',
        )
    return reasons


def planes(entry: DetectorType) -> npt.NDArray[np.int64]:
    """Stage of each gain code, as the kernels want it: the last entry stands for all codes that no stage has."""
    return np.array([*entry.stage_of_code, -1], dtype=np.int64)


def typed_limits(limits: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Limits of ADC values in a dtype in which they compare with frames of ``dtype`` exactly."""
    if dtype == np.uint16:
        return np.clip(limits, 0, 0xFFFF).astype(np.uint16)
    return limits.astype(np.float64)


def codes_of(
    gain: npt.NDArray[Any], cell: npt.NDArray[np.int64], threshold: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.uint8], int]:
    """Gain codes of the frames (k, row, column) of a segment, flat, and the step from one frame to the next."""
    flat, step = flat_frames(gain)
    if threshold is None:
        return flat, step
    found = np.empty((len(gain), gain[0].size), dtype=np.uint8)
    stages_of_gain(flat, step, cell, threshold, found)
    return flat_frames(found)


def _cells(raw: xr.DataArray, constants: xr.Dataset) -> npt.NDArray[np.int64]:
    """Position in the constants of the memory cell of each event."""
    if MEMORY_CELL not in constants.dims:
        return np.zeros(raw.sizes[EVENT], dtype=np.int64)
    known = constants.indexes[MEMORY_CELL]
    if MEMORY_CELL not in raw.coords:
        if len(known) == 1:
            return np.zeros(raw.sizes[EVENT], dtype=np.int64)
        raise CalibrationError(
            "the constants depend on the memory cell of each frame, which the data do not say",
            found=f"{len(known)} memory cells in the constants, no coordinate {MEMORY_CELL!r}",
            expected=f"a coordinate {MEMORY_CELL!r} (event)",
            fix=f'raw.assign_coords({MEMORY_CELL}=("event", cells))',
        )
    said = np.broadcast_to(raw.coords[MEMORY_CELL].to_numpy(), raw.sizes[EVENT])
    at = known.get_indexer(said)
    if (at < 0).any():
        lacking = sorted(set(said[at < 0].tolist()))
        raise CalibrationError(
            "there are no constants for some memory cells",
            found=f"cells {lacking[:10]}",
            expected=f"{list(known)[:10]}",
        )
    position: npt.NDArray[np.int64] = at.astype(np.int64)
    return position


def _gain_frames(raw: xr.DataArray, gain: xr.DataArray | None) -> xr.DataArray:
    """Gain codes (uint8) or analogue gain of every pixel of every event."""
    beside = raw.coords[GAIN_STAGE] if gain is None and GAIN_STAGE in raw.coords else gain
    if beside is None:
        raise CalibrationError(
            "the gain of this detector lies beside its frames, and is not there",
            found="no gain_stage",
            expected="gain_stage (event, segment, row, column): uint8 stages, or the analogue gain",
            fix="calibrate(raw, constants, gain_stage=gain)",
        )
    if beside.dims != raw.dims or beside.shape != raw.shape:
        raise DataError(
            "gain and frames differ in shape", found=f"{beside.dims} {beside.shape}", expected=f"{raw.dims} {raw.shape}"
        )
    return beside


def _alike(
    frames: npt.NDArray[Any] | da.Array, gain: npt.NDArray[Any] | da.Array
) -> tuple[npt.NDArray[Any] | da.Array, npt.NDArray[Any] | da.Array]:
    """Both lazy where one of them is."""
    if isinstance(frames, da.Array) and not isinstance(gain, da.Array):
        gain = da.from_array(gain, chunks=frames.chunks)
    elif isinstance(gain, da.Array) and not isinstance(frames, da.Array):
        frames = da.from_array(frames, chunks=gain.chunks)
    return frames, gain


def _thresholds(constants: xr.Dataset, given: CalibrationInput, dtype: np.dtype[Any]) -> Any:
    """Thresholds (memory_cell, number, segment, row, column) between the stages, of the pixels of the data."""
    if THRESHOLD not in constants:
        raise CalibrationError(
            "an analogue gain needs thresholds to make gain stages of it",
            found=f"gain of dtype {dtype}, no {THRESHOLD!r} in the constants",
            expected=f"{THRESHOLD!r} (memory_cell, ..., segment, row, column), or gain stages as uint8",
        )
    threshold = constants[THRESHOLD]
    if MEMORY_CELL not in threshold.dims:
        threshold = threshold.expand_dims({MEMORY_CELL: max(1, given.constants.sizes.get(MEMORY_CELL, 1))})
    number = next(str(d) for d in threshold.dims if d not in (MEMORY_CELL, *PIXEL_DIMS))
    threshold = threshold.assign_coords(
        {d: np.arange(threshold.sizes[d]) for d in PIXEL_DIMS if d not in threshold.coords}
    )
    part = threshold.sel({d: given.place[d] for d in PIXEL_DIMS}).transpose(MEMORY_CELL, number, *PIXEL_DIMS)
    return part.data
