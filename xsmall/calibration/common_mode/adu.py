"""Frames in ADU with what their common modes need: raw words with the pedestal taken off, or floats as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.belonging import check_belonging, n_segments_of
from xsmall.calibration.beside import gain_control_of
from xsmall.calibration.common_mode.mode import CommonMode, UnitGrid
from xsmall.calibration.common_mode.numbers import CommonModeLike, resolve_common_mode
from xsmall.calibration.common_mode.plan import CommonModeTables, pixels_of_estimates
from xsmall.calibration.constants import check_constants, select_constants
from xsmall.calibration.decoders import Numbers, Stack, decoder_of
from xsmall.calibration.inputs import prepare
from xsmall.calibration.reasons import DEFAULT_TRUST, own_reasons
from xsmall.calibration.segment_tables import SegmentTables, make_tables
from xsmall.calibration.tables import Settings, ValueTables, control_stages, good_of_run, looked_at, of_cell, pack
from xsmall.detector.padded import are_padded
from xsmall.detector.part import Part
from xsmall.detector.reasons import named_bits
from xsmall.detector.types import detector_type
from xsmall.engine.blocks import Batch, map_chunks
from xsmall.engine.record import GROUP
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.frames.describe import data_of, describe
from xsmall.frames.per_pixel import Pixels, aligned, boolean_mask
from xsmall.vocabulary import ADU, DETECTOR_TYPE, GAIN_CONTROL, MASK, MEMORY_CELL, NOISE, OFFSET, PEDESTAL, STATUS

__all__ = ["AduFrames", "AduTables"]

_NO_LIMITS = np.empty((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class _AduTablesOfSegment:
    """Tables of a segment: its pedestals where frames are raw words, and those of each common mode."""

    values: ValueTables | None
    modes: tuple[CommonModeTables, ...]


class AduTables(SegmentTables[_AduTablesOfSegment]):
    """Common modes of one detector: tables of each segment, and their use on frames."""

    def __init__(
        self, token: str, arrays: Mapping[str, Any], settings: Settings, modes: tuple[CommonMode, ...], of_words: bool
    ) -> None:
        super().__init__(token, arrays, settings, modes, of_words)
        self.settings, self.of_words = settings, of_words
        entry = settings.entry
        self.decoder = decoder_of(entry, settings.dtype) if of_words else Numbers(entry, _NO_LIMITS)
        self._modes = modes
        self.n_modes = len(modes)

    @property
    def n_units(self) -> int:
        """Units of the first mode."""
        return self.n_units_of(0)

    def n_units_of(self, m: int) -> int:
        """Units of all steps of mode ``m``."""
        part = self.settings.part
        return sum(grid.shape[0] * grid.shape[1] for grid in self._modes[m].grids(part.row, part.column))

    def pack(self, held: Mapping[str, Any]) -> _AduTablesOfSegment:
        """Make the tables of a segment."""
        settings = self.settings
        values = pack(settings, held, self.whole) if self.of_words else None
        if values is not None:
            good = pixels_of_estimates(settings, held, values)
        else:
            known = {name: array for name, array in of_cell(held, 0).items() if name != NOISE}
            good = np.ascontiguousarray(good_of_run(settings, known, (settings.n_pixels,)), dtype=np.uint8)
        of_modes = (
            CommonModeTables(settings, mode, held, self._of_stages(mode, held, good), of_words=self.of_words)
            for mode in self._modes
        )
        return _AduTablesOfSegment(values, tuple(of_modes))

    def _of_stages(self, mode: CommonMode, held: Mapping[str, Any], good: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of floats, pixels that are configured for the stages of the mode: which have switched nobody knows."""
        if self.of_words or GAIN_CONTROL not in held or mode.gain_stages is None:
            return good
        stage = control_stages(self.settings.entry, held[GAIN_CONTROL].reshape(-1))[0]
        return np.ascontiguousarray(good * np.isin(stage, mode.gain_stages).astype(np.uint8))

    def stacks(self, batch: Batch) -> Iterator[tuple[int, slice, Stack, npt.NDArray[np.bool_]]]:
        """Yield the frames of each segment, a few events at a time: segment, events, frames, and which are usable."""
        n, n_segments = batch.frames.shape[:2]
        for start in range(0, n, GROUP):
            group = slice(start, min(start + GROUP, n))
            for s in range(n_segments):
                values = self.of_segment(s).values
                stack = self.decoder.stack(batch.segment(group, s), None if values is None else values.threshold)
                here = batch.here(group, s)
                if self.of_words:
                    here = here & ~are_padded(stack.frames, self.settings.entry, here)
                if here.any():
                    yield s, group, stack, here

    def in_adu(self, s: int, stack: Stack) -> npt.NDArray[np.float32]:
        """Frames (k, row, column) in ADU, contiguous: the pedestal taken off raw words."""
        out = np.empty(stack.frames.shape, np.float32)
        values = self.of_segment(s).values
        if values is None:
            np.copyto(out, stack.frames, casting="same_kind")
        else:
            self.decoder.subtract(stack, values, (out.reshape(-1), out[0].size))
        return out

    def correct(
        self,
        s: int,
        m: int,
        stack: Stack,
        adu: npt.NDArray[np.float32],
        corrections: npt.NDArray[np.float32] | None = None,
        counts: npt.NDArray[np.int32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Correct frames in ADU by mode ``m``, in place, and return them; :meth:`CommonModeTables.correct`."""
        tables = self.of_segment(s).modes[m]
        tables.correct(self.decoder, stack, (adu.reshape(-1), adu[0].size), corrections, counts)
        return adu

    def use(self, s: int, stack: Stack) -> npt.NDArray[np.uint8]:
        """Which pixels take part in the first mode, uint8 (frame, row, column); one frame may stand for all."""
        return self.of_segment(s).modes[0].use(self.decoder, stack)


class AduFrames:
    """Frames, and what their common modes need of constants and masks: checked, and looked at once."""

    def __init__(
        self,
        frames: xr.DataArray,
        constants: xr.Dataset | None,
        mask: Pixels | None,
        gain_control: Pixels | None,
        gain_stage: xr.DataArray | None,
    ) -> None:
        self.of_words = frames.dtype.kind in "iu"
        if self.of_words:
            self._from_words(frames, constants, mask, gain_control, gain_stage)
        else:
            if gain_stage is not None:
                raise ParameterError(
                    "the gain stages of floats are not looked at", found="gain_stage", fix="leave gain_stage out"
                )
            self._from_floats(frames, constants, mask, gain_control)
        self.part: Part = self._settings.part
        self.has_noise = NOISE in self._arrays

    def _from_words(
        self,
        frames: xr.DataArray,
        constants: xr.Dataset | None,
        mask: Pixels | None,
        gain_control: Pixels | None,
        gain_stage: xr.DataArray | None,
    ) -> None:
        if constants is None:
            raise CalibrationError(
                "the common mode is subtracted after the pedestal",
                found="raw words and no constants",
                expected="constants with the pedestals, or floats in ADU with the pedestal subtracted",
                fix="common_mode(raw, mode, constants)",
            )
        given = prepare(frames, constants, mask, gain_control, gain_stage)
        self.entry, self.name, self.n_segments = given.entry, given.frames.detector_type, given.n_segments
        self._arrays = given.arrays((PEDESTAL, OFFSET, STATUS, NOISE))
        reasons = own_reasons(given.entry, DEFAULT_TRUST)
        self._settings = looked_at(given.settings(reasons=reasons), self._arrays)
        self._batch = Batch(
            given.beside.frames, given.frames.usable, beside=given.beside.arrays, kinds=given.frames.kinds
        )

    def _from_floats(
        self, frames: xr.DataArray, constants: xr.Dataset | None, mask: Pixels | None, gain_control: Pixels | None
    ) -> None:
        known = describe(frames)
        if known.units not in (None, ADU):
            raise DataError(
                "the common mode is subtracted before the gain is divided out",
                found=f"frames in {known.units!r}",
                expected=f"raw words, or floats in {ADU!r}",
                fix="common_mode(raw, mode, constants), or calibrate(raw, constants, common_mode=...)",
            )
        checked = None if constants is None else check_constants(constants)
        self.name = known.detector_type or (None if checked is None else checked.attrs[DETECTOR_TYPE])
        self.entry = detector_type(self.name or "camera")
        self.n_segments = len(known.part.segment)
        self._arrays = {}
        named: tuple[tuple[int, str], ...] = ()
        if checked is not None:
            check_belonging(known, checked)
            self.n_segments = n_segments_of(known, checked)
            mine = select_constants(checked, known.part)
            cells = MEMORY_CELL in mine.dims
            names = [name for name in (STATUS, NOISE) if name in mine]
            self._arrays = {n: mine[n].data if cells else mine[n].data[None] for n in names}
            named = named_bits(mine[STATUS].attrs) if STATUS in mine else ()
        if mask is not None:
            self._arrays[MASK] = aligned(boolean_mask(mask), known.part, "mask")
        control = gain_control_of(frames, self.entry, gain_control, known.part)
        if control is not None:
            self._arrays[GAIN_CONTROL] = control
        self._settings = Settings(self.entry, known.dtype, known.part, bits=self.entry.status_bits, status_flags=named)
        self._batch = Batch(data_of(frames), known.usable, kinds=known.kinds)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Chunks of lazy frames as :meth:`map` hands them over: whole events."""
        whole: tuple[tuple[int, ...], ...] = self._batch.frames.rechunk({1: -1, 2: -1, 3: -1}).chunks
        return whole

    def resolve(self, mode: CommonModeLike) -> CommonMode:
        """Return the record of a mode of this detector."""
        chosen = resolve_common_mode(mode, self.name, n_segments=self.n_segments)
        if chosen.raw:
            raise ParameterError("mode -1 is raw data: there is no common mode to look at")
        return chosen

    def grids(self, mode: CommonMode) -> tuple[UnitGrid, ...]:
        """Units of a mode on these pixels."""
        return mode.grids(self.part.row, self.part.column)

    def map(self, function: Callable[[Batch, AduTables], Any], modes: tuple[CommonMode, ...], label: str) -> Any:
        """Call ``function`` with all frames; where they are lazy make a dask array with an object for each chunk."""
        if not self.has_noise and any(mode.needs_noise for mode in modes):
            raise CalibrationError(
                "this common mode compares pixels with their dark noise",
                found="no noise in the constants",
                expected="noise [ADU] (gain_stage, segment, row, column)",
                fix="constants with noise, as xs.dark makes them",
            )
        lazy = bool(self._batch.lazy())
        tables = make_tables(AduTables, self._arrays, self._settings, modes, self.of_words, lazy=lazy)
        if not lazy:
            ready = tables if isinstance(tables, AduTables) else tables.compute()
            return function(self._batch, ready)
        token = dask.base.tokenize(*self._batch, tables)
        return map_chunks(
            _in_cell, self._batch, name=f"{label}-{token}", whole_events=True, task=function, tables=tables,
            dtype=object, meta=np.empty(0, object),
        )  # fmt: skip


def _in_cell(
    batch: Batch, first: int, *, task: Callable[[Batch, AduTables], Any], tables: AduTables
) -> npt.NDArray[np.object_]:
    del first
    cell = np.empty(1, object)
    cell[0] = task(batch, tables)
    return cell
