"""Calibration and flags by memory cell and gain stage: AGIPD and JUNGFRAU of the European XFEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.types import DetectorType
from xsmall.errors import CalibrationError, DataError
from xsmall.kernels.calibrate_cells import calibrate_cells, flag_cells, stages_of_gain, variance_cells
from xsmall.reductions.calibration_input import CalibrationInput
from xsmall.reductions.frames import data_of
from xsmall.vocabulary import (
    EVENT,
    GAIN,
    GAIN_STAGE,
    MEMORY_CELL,
    NOISE,
    OFFSET,
    PEDESTAL,
    PIXEL_DIMS,
    SEGMENT,
    STATUS,
    THRESHOLD,
    Reason,
)

__all__ = ["CellQuestion", "calibrated_cells", "flagged_cells", "variance_of_cells"]

Frames: TypeAlias = Any  # NumPy or dask array of frames
Wanted: TypeAlias = Literal["values", "flags", "variance"]
_VALUES: Final = "values"
_FLAGS: Final = "flags"
_VARIANCE: Final = "variance"
_BAD_CODE: Final = np.uint32(Reason.BAD_GAIN_CODE)


@dataclass(frozen=True)
class CellQuestion:
    """What is asked of the frames; together with constants and frames it determines the result.

    ``photon`` is one photon in the unit of the data, for the variance; 0 leaves counting statistics out.
    """

    entry: DetectorType
    scale: float
    divide: bool
    bits: int
    reasons: Reason
    photon: float = 0.0


def calibrated_cells(
    raw: xr.DataArray,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    question: CellQuestion,
    state: npt.NDArray[np.uint32] | None,
) -> Frames:
    """Calibrate frames; ``state`` are the reasons of whole segments, of which any makes NaN."""
    return _per_segment(raw, given, constants, gain, question, state, _VALUES)


def variance_of_cells(
    raw: xr.DataArray,
    values: Frames,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    question: CellQuestion,
) -> Frames:
    """Variance of the ``values`` that :func:`calibrated_cells` made of ``raw``: NaN where they are."""
    return _per_segment(raw, given, constants, gain, question, None, _VARIANCE, values)


def flagged_cells(
    raw: xr.DataArray,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    question: CellQuestion,
    state: npt.NDArray[np.uint32] | None,
) -> Frames:
    """Flag frames: status of their own memory cell and stage, bad gain codes, and the reasons of whole segments."""
    return _per_segment(raw, given, constants, gain, question, state, _FLAGS)


def _per_segment(
    raw: xr.DataArray,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    question: CellQuestion,
    state: npt.NDArray[np.uint32] | None,
    wanted: Wanted,
    values: Frames | None = None,
) -> Frames:
    """Work out what is ``wanted`` of the raw frames, or of the calibrated ``values`` in their place."""
    cell = _cells(raw, given.constants)
    names = (GAIN, NOISE) if wanted == _VARIANCE else (PEDESTAL, OFFSET, GAIN, STATUS)
    table = _with_cells(given.constants[[name for name in names if name in given.constants]], constants, given)
    beside = _gain_frames(raw, gain)
    if beside.dtype != np.uint8 and THRESHOLD not in table:
        raise CalibrationError(
            "an analogue gain needs thresholds to make gain stages of it",
            found=f"gain of dtype {beside.dtype}, no {THRESHOLD!r} in the constants",
            expected=f"{THRESHOLD!r} (memory_cell, ..., segment, row, column), or gain stages as uint8",
        )
    frames = data_of(raw) if values is None else values
    lazy = any(isinstance(a, da.Array) for a in (frames, beside, *(table[name].data for name in table)))
    if not lazy:
        parts = [
            _segment(
                frames[:, s], beside[:, s], cell, _part(table, given, s), question,
                None if state is None else state[:, s], wanted,
            )
            for s in range(raw.sizes[SEGMENT])
        ]  # fmt: skip
        return np.stack(parts, axis=1)
    dtype = np.dtype(np.uint32 if wanted == _FLAGS else np.float32)
    whole = da.asarray(frames).rechunk({1: 1, 2: -1, 3: -1})
    codes = da.asarray(beside).rechunk(whole.chunks)
    columns = []
    for s in range(raw.sizes[SEGMENT]):
        tables = dask.delayed(_part(table, given, s), traverse=True)
        blocks = [whole.blocks[:, s], codes.blocks[:, s]]
        places = da.from_array(np.arange(raw.sizes[EVENT]), chunks=(whole.chunks[0],))[:, None, None, None]
        columns.append(
            da.map_blocks(
                _block, *blocks, places, cell=cell, tables=tables, question=question,
                state=None if state is None else state[:, s], wanted=wanted, dtype=dtype,
                chunks=(whole.chunks[0], (1,), *whole.chunks[2:]), meta=np.empty((0, 0, 0, 0), dtype),
            )
        )  # fmt: skip
    return da.concatenate(columns, axis=1)


def _block(
    raw: npt.NDArray[Any],
    codes: npt.NDArray[Any],
    places: npt.NDArray[np.integer[Any]],
    *,
    cell: npt.NDArray[np.int64],
    tables: Mapping[str, npt.NDArray[Any]],
    question: CellQuestion,
    state: npt.NDArray[np.uint32] | None,
    wanted: Wanted,
) -> npt.NDArray[Any]:
    at = places.reshape(-1)
    of_these = None if state is None else state[at]
    return _segment(raw[:, 0], codes[:, 0], cell[at], tables, question, of_these, wanted)[:, None]


def _segment(
    raw: npt.NDArray[Any],
    beside: npt.NDArray[Any],
    cell: npt.NDArray[np.int64],
    tables: Mapping[str, npt.NDArray[Any]],
    question: CellQuestion,
    state: npt.NDArray[np.uint32] | None,
    wanted: Wanted,
) -> npt.NDArray[Any]:
    """Calibrate or flag the frames (k, row, column) of one segment; for the variance they are calibrated already."""
    flat = np.ascontiguousarray(raw.reshape(len(raw), -1))
    codes = np.ascontiguousarray(beside.reshape(len(raw), -1))
    held = {name: np.asarray(t).reshape(*t.shape[:-2], -1) for name, t in tables.items()}
    if codes.dtype != np.uint8:  # the analogue gain
        found = np.empty(codes.shape, dtype=np.uint8)
        stages_of_gain(codes, cell, np.ascontiguousarray(held[THRESHOLD], dtype=np.float32), found)
        codes = found
    plane = np.asarray(question.entry.stage_of_code, dtype=np.int64)
    if wanted == _VARIANCE:
        dark = np.square(held[NOISE].astype(np.float32) * _factor(held, question, held[NOISE].shape))
        spread = np.empty(flat.shape, dtype=np.float32)
        variance_cells(flat, codes, cell, plane, dark, question.photon, spread)
        return spread.reshape(raw.shape)
    reasons = _reasons(codes, cell, plane, held, question)
    if state is not None:
        missing = (state & np.uint32(Reason.MISSING)) != 0
        reasons[missing] &= np.uint32(Reason.USER)
        reasons |= state[:, None]
    if wanted == _FLAGS:
        return reasons.reshape(raw.shape)
    pedestal, factor = _tables(held, question)
    out = np.empty(flat.shape, dtype=np.float32)
    calibrate_cells(flat, codes, cell, plane, pedestal, factor, out)
    out[(reasons & np.uint32(question.reasons)) != 0] = np.nan
    return out.reshape(raw.shape)


def _tables(
    held: Mapping[str, npt.NDArray[Any]], question: CellQuestion
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    pedestal = held[PEDESTAL].astype(np.float32)
    if OFFSET in held:
        pedestal = pedestal + held[OFFSET].astype(np.float32)
    return pedestal, _factor(held, question, pedestal.shape)


def _factor(
    held: Mapping[str, npt.NDArray[Any]], question: CellQuestion, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """What differences in ADU are multiplied by; NaN where the gain is 0."""
    if GAIN not in held or not question.divide:
        return np.full(shape, question.scale, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(held[GAIN] == 0, np.nan, question.scale / held[GAIN])
    return factor.astype(np.float32)


def _reasons(
    codes: npt.NDArray[np.uint8],
    cell: npt.NDArray[np.int64],
    plane: npt.NDArray[np.int64],
    held: Mapping[str, npt.NDArray[Any]],
    question: CellQuestion,
) -> npt.NDArray[np.uint32]:
    out = np.empty(codes.shape, dtype=np.uint32)
    status = np.zeros(held[PEDESTAL].shape, dtype=np.uint32)
    if STATUS in held:
        status[(held[STATUS].astype(np.uint64) & np.uint64(question.bits)) != 0] = np.uint32(Reason.MEMORY_CELL_STATUS)
    flag_cells(codes, cell, plane, status, _BAD_CODE, out)
    if "mask" in held:
        out[:, ~held["mask"]] |= np.uint32(Reason.USER)
    return out


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
    at = known.get_indexer(raw.coords[MEMORY_CELL].to_numpy())
    if (at < 0).any():
        lacking = sorted(set(raw.coords[MEMORY_CELL].to_numpy()[at < 0].tolist()))
        raise CalibrationError(
            "there are no constants for some memory cells",
            found=f"cells {lacking[:10]}",
            expected=f"{list(known)[:10]}",
        )
    position: npt.NDArray[np.int64] = at.astype(np.int64)
    return position


def _with_cells(selected: xr.Dataset, constants: xr.Dataset, given: CalibrationInput) -> xr.Dataset:
    """Constants of the pixels of the data, with the thresholds of the analogue gain, all with a memory cell."""
    out = selected if MEMORY_CELL in selected.dims else selected.expand_dims(MEMORY_CELL)
    out = out.transpose(MEMORY_CELL, GAIN_STAGE, *PIXEL_DIMS)
    if THRESHOLD not in constants:
        return out
    threshold = constants[THRESHOLD]
    if MEMORY_CELL not in threshold.dims:
        threshold = threshold.expand_dims(MEMORY_CELL)
    number = next(str(d) for d in threshold.dims if d not in (MEMORY_CELL, *PIXEL_DIMS))
    threshold = threshold.assign_coords(
        {d: np.arange(threshold.sizes[d]) for d in PIXEL_DIMS if d not in threshold.coords}
    )
    part = threshold.sel({d: given.place[d] for d in PIXEL_DIMS}).transpose(MEMORY_CELL, number, *PIXEL_DIMS)
    return out.assign({THRESHOLD: part.variable})


def _gain_frames(raw: xr.DataArray, gain: xr.DataArray | None) -> Frames:
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
    return data_of(beside)


def _part(table: xr.Dataset, given: CalibrationInput, s: int) -> dict[str, Any]:
    """Constants of one segment."""
    out: dict[str, Any] = {str(name): table[name].isel({SEGMENT: s}).data for name in table}
    if given.mask is not None:
        out["mask"] = given.mask[s]
    return out
