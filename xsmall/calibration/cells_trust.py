"""Trust flags of detectors whose status depends on the memory cell and the gain stage of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.cells_input import cell_input, codes_of, planes, typed_limits
from xsmall.calibration.inputs import CalibrationInput, segment_state
from xsmall.calibration.segment_tables import SegmentTables, make_tables
from xsmall.calibration.transform import MASK, check_untrusted
from xsmall.engine.blocks import Batch, map_chunks
from xsmall.kernels.calibrate_cells import flag_cells
from xsmall.kernels.stack import flat_frames, flat_target
from xsmall.vocabulary import EVENT, GAIN, OFFSET, PEDESTAL, REASONS, SEGMENT, STATUS, THRESHOLD, Reason

if TYPE_CHECKING:
    from xsmall.calibration.trust import Question

__all__ = ["flags_of_cells"]

_STATUS: Final = 1
_UNUSABLE: Final = 2
_FLAGS: Final = np.array(
    [
        Reason.MEMORY_CELL_STATUS, Reason.NOT_FINITE, Reason.BAD_GAIN_CODE, Reason.SATURATED, Reason.NEAR_SWITCHING,
    ],
    dtype=np.uint32,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class FlagTables:
    """What the kernel needs of a segment.

    Attributes
    ----------
    status
        uint8 (memory cell, gain stage, pixel): bit 0 the status is bad, bit 1 a constant makes no value.
    static
        uint32 (pixel): reasons of the whole run.
    threshold
        float32 (memory cell, number, pixel) of the analogue gain, or None.
    """

    status: npt.NDArray[np.uint8]
    static: npt.NDArray[np.uint32]
    threshold: npt.NDArray[np.float32] | None


class CellFlags(SegmentTables[FlagTables]):
    """The flags of one detector: tables of each segment, and their use on whole frames."""

    def __init__(self, token: str, arrays: Mapping[str, Any], question: Question, cells: tuple[int, ...]) -> None:
        super().__init__(token, arrays, question, cells)
        self.question = question
        self.cells = cells
        self.plane = planes(question.entry)
        limits = np.array(question.limits, dtype=np.int64)
        self.limits = limits if np.unique(limits).size > 2 else limits[:0]  # the widest everywhere: none is checked

    def flags(self, batch: Batch, first: int = 0) -> npt.NDArray[np.uint32]:
        """Flag frames whose first segment is number ``first``."""
        out = np.empty(batch.frames.shape, dtype=np.uint32)
        for i in range(out.shape[1]) if out.size else ():
            here = out[:, i]
            frames, cell, gain, state = batch.segment(slice(None), i)
            table = self.of_segment(first + i)
            words, step = flat_frames(frames)
            of_event = np.array(cell, dtype=np.int64)
            target = cast("tuple[npt.NDArray[Any], int]", flat_target(here))  # frames of a fresh array are contiguous
            flag_cells(
                words, step, *codes_of(gain, of_event, table.threshold), of_event, self.plane, table.status,
                table.static, typed_limits(self.limits, words.dtype), _FLAGS, *target,
            )  # fmt: skip
            if frames.dtype.kind == "f":
                here[~np.isfinite(frames)] |= np.uint32(Reason.NOT_FINITE)
            if self.question.user is not None:
                bad = check_untrusted(self.question.user, frames, self.question.segment[first + i])
                here[bad] |= np.uint32(Reason.USER)
            missing = (state & np.uint32(Reason.MISSING)) != 0  # of these the words say nothing
            here[missing] = table.static.reshape(here.shape[1:])
            here |= state[:, None, None]
        return out

    def pack(self, held: Mapping[str, Any]) -> FlagTables:
        """Make the tables of a segment."""
        n_stages, n = self.question.entry.n_stages, held[PEDESTAL][0, 0].size
        status = np.zeros((len(self.cells), n_stages, n), dtype=np.uint8)
        for at, c in enumerate(self.cells):
            status[at][_unusable(held, c).reshape(n_stages, n)] = _UNUSABLE
            if STATUS in held:
                words = held[STATUS][c].reshape(n_stages, n)
                bits = np.asarray(self.question.bits).astype(words.dtype)
                status[at][(words & bits) != 0] |= np.uint8(_STATUS)
        static = np.zeros(n, dtype=np.uint32)
        if MASK in held:
            static[~held[MASK].reshape(-1)] |= np.uint32(Reason.USER)
        if REASONS in held:
            static |= held[REASONS].reshape(-1).astype(np.uint32)
        threshold = None
        if THRESHOLD in held:
            chosen = np.asarray(held[THRESHOLD][list(self.cells)], dtype=np.float32)
            threshold = np.ascontiguousarray(chosen.reshape(*chosen.shape[:2], -1))
        return FlagTables(status, static, threshold)


def _unusable(held: Mapping[str, Any], c: int) -> npt.NDArray[np.bool_]:
    """Where the constants of a memory cell make no value."""
    bad: npt.NDArray[np.bool_] = ~np.isfinite(held[PEDESTAL][c])
    if OFFSET in held:
        bad |= ~np.isfinite(held[OFFSET][c])
    if GAIN in held:
        bad |= ~np.isfinite(held[GAIN][c]) | (held[GAIN][c] == 0)
    return bad


def flags_of_cells(
    raw: xr.DataArray,
    given: CalibrationInput,
    constants: xr.Dataset,
    gain: xr.DataArray | None,
    question: Question,
    arrays: Mapping[str, Any],
) -> npt.NDArray[np.uint32] | da.Array:
    """Flag frames, at once or lazily, by ``arrays`` of constants, ``mask`` and other reasons."""
    known = cell_input(raw, given, constants, gain, arrays)
    state = segment_state(raw)
    if state is None:
        state = np.zeros((raw.sizes[EVENT], raw.sizes[SEGMENT]), dtype=np.uint32)
    batch = Batch(known.frames, beside=(known.cell, known.gain, state))
    tables = make_tables(CellFlags, known.arrays, question, known.cells, lazy=bool(batch.lazy()))
    if not batch.lazy():
        ready: CellFlags = tables if isinstance(tables, CellFlags) else tables.compute()
        return ready.flags(batch)
    token = dask.base.tokenize(*batch, tables)
    meta = np.empty((0, 0, 0, 0), dtype=np.uint32)
    return map_chunks(_flag_chunk, batch, name=f"trust-{token}", tables=tables, dtype=np.uint32, meta=meta)


def _flag_chunk(batch: Batch, first: int, *, tables: CellFlags) -> npt.NDArray[np.uint32]:
    return tables.flags(batch, first)
