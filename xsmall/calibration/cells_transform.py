"""Calibration by memory cell and gain stage as a transform: AGIPD and JUNGFRAU of the European XFEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from xsmall.calibration.cells_input import codes_of, planes, typed_limits
from xsmall.calibration.segment_tables import SegmentTables
from xsmall.calibration.tables import check_usable
from xsmall.calibration.transform import FLOAT, MASK, Settings, check_untrusted
from xsmall.engine.transform import FloatFrames, Transform
from xsmall.kernels.calibrate_cells import (
    calibrate_cells,
    participation_cells,
    scale_cells,
    subtract_cells,
    variance_cells,
)
from xsmall.kernels.common_mode import Plan, apply_common_mode
from xsmall.kernels.stack import flat_frames, flat_target
from xsmall.vocabulary import AREA, GAIN, NOISE, OFFSET, PEDESTAL, STATUS, THRESHOLD, Reason

__all__ = ["CellCalibration", "CellTables"]

Table = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CellTables:
    """What the kernels need of a segment, (memory cell, gain stage, pixel) float32.

    Attributes
    ----------
    pedestal, factor
        ADU and unit/ADU; the factor is NaN where a pixel must not be used in this cell and stage.
    dark
        Dark variance in the square of the unit, or None.
    threshold
        (memory cell, number, pixel) of the analogue gain, or None.
    noise
        (memory cell, row, column) ADU, of the stage whose common mode is estimated, or None.
    """

    pedestal: Table
    factor: Table
    dark: Table | None = None
    threshold: Table | None = None
    noise: Table | None = None


class CellCalibration(SegmentTables[CellTables], Transform):
    """The calibration of a detector whose frames have a memory cell (event) and gain frames beside them."""

    dtype = FLOAT

    def __init__(self, token: str, arrays: Mapping[str, Any], settings: Settings, cells: tuple[int, ...]) -> None:
        super().__init__(token, arrays, settings, cells)
        self.settings = settings
        self.cells = cells
        self.knows_variance = settings.variance
        self.plane = planes(settings.entry)
        self.limits = np.array(settings.limits, dtype=np.int64).reshape(-1, 2)
        self.shape = len(settings.row), len(settings.column)
        self.plan = self._common_mode()

    def apply(
        self,
        s: int,
        raw: Any,
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Calibrate segment ``s`` of ``k`` events; ``raw`` is (frames, memory cells, gain frames)."""
        frames, cell, gain = raw
        if frames.size == 0:
            return
        target = flat_target(out)
        if target is None:  # frames that are not contiguous are filled by way of a copy
            self._by_copy(s, raw, present, out, variance)
            return
        words, step = flat_frames(frames)
        of_event = np.array(cell, dtype=np.int64)
        table = self.of_segment(s)
        codes = codes_of(gain, of_event, table.threshold)
        limits = typed_limits(self.limits, words.dtype)
        if self.plan is None:
            calibrate_cells(words, step, *codes, of_event, self.plane, table.pedestal, table.factor, limits, *target)
        else:
            subtract_cells(words, step, *codes, of_event, self.plane, table.pedestal, limits, *target)
            self._correct(self.plan, table, codes, of_event, target)
            scale_cells(*codes, of_event, self.plane, table.factor, *target)
        out[~present] = np.nan
        if self.settings.user is not None:
            out[check_untrusted(self.settings.user, frames, self.settings.segment[s])] = np.nan
        if variance is not None and table.dark is not None:
            spread = flat_target(variance)
            filled = np.empty(out.shape, FLOAT) if spread is None else variance
            into = cast("tuple[Table, int]", flat_target(filled))
            variance_cells(*target, *codes, of_event, self.plane, table.dark, self.settings.photon, *into)
            if filled is not variance:
                variance[...] = filled

    def _by_copy(
        self, s: int, raw: Any, present: npt.NDArray[np.bool_], out: FloatFrames, variance: FloatFrames | None
    ) -> None:
        filled = np.empty(out.shape, FLOAT)
        self.apply(s, raw, present, filled, variance)
        out[...] = filled

    def _common_mode(self) -> Plan | None:
        """The plan of the common mode; noise depends on the memory cell, and is put in event by event."""
        mode = self.settings.mode
        if not mode.steps:
            return None
        return mode.plan(self.settings.row, self.settings.column, np.zeros(self.shape, np.float32))

    def _correct(
        self,
        plan: Plan,
        table: CellTables,
        codes: tuple[npt.NDArray[np.uint8], int],
        cell: npt.NDArray[np.int64],
        target: tuple[npt.NDArray[Any], int],
    ) -> None:
        """Subtract the common mode of frames in ADU, event by event."""
        chosen = self.settings.mode.gain_stages
        stages = range(self.settings.entry.n_stages)
        takes = np.isin(stages, stages if chosen is None else chosen).astype(np.uint8)
        values, step = target
        n = table.factor.shape[2]
        use = np.empty((cell.size, n), np.uint8)
        participation_cells(*codes, cell, self.plane, takes, table.factor, use)
        corrections, counts = np.empty((1, plan.n_units), np.float32), np.empty((1, plan.n_units), np.int32)
        for j, c in enumerate(cell):
            mine = plan if table.noise is None else plan._replace(noise=table.noise[c])
            frame = values[j * step : j * step + n].reshape(1, *self.shape)
            apply_common_mode(frame, use[j].reshape(1, *self.shape), mine, corrections, counts)

    def pack(self, held: Mapping[str, Any]) -> CellTables:
        """Pack the constants of a segment, cell by cell: they are large."""
        settings, n_stages = self.settings, self.settings.entry.n_stages
        shape = len(self.cells), n_stages, self.shape[0] * self.shape[1]
        pedestal, factor = np.empty(shape, np.float32), np.empty(shape, np.float32)
        dark = np.empty(shape, np.float32) if settings.variance else None
        for at, c in enumerate(self.cells):
            of_cell = {
                name: array[c].reshape(n_stages, -1)
                for name, array in held.items()
                if name in (PEDESTAL, OFFSET, GAIN, NOISE, STATUS)
            }
            pedestal[at] = of_cell[PEDESTAL]
            if OFFSET in of_cell:
                pedestal[at] += of_cell[OFFSET].astype(np.float32)
            factor[at], good = self._factor(of_cell, held), self._good(of_cell, held)
            for name, usable in ((PEDESTAL, np.isfinite(pedestal[at])), (GAIN, np.isfinite(factor[at]))):
                for stage, label in enumerate(settings.entry.stages):
                    check_usable(name, f"{label} of the memory cell at position {c}", good[stage], usable[stage])
            factor[at][~(good & np.isfinite(pedestal[at]) & np.isfinite(factor[at]))] = np.nan
            if dark is not None:
                dark[at] = np.square(of_cell[NOISE].astype(np.float32) * factor[at])
        threshold = noise = None
        if THRESHOLD in held:
            chosen = np.asarray(held[THRESHOLD][list(self.cells)], dtype=np.float32)
            threshold = np.ascontiguousarray(chosen.reshape(*chosen.shape[:2], -1))
        if settings.mode.needs_noise:
            stage = (settings.mode.gain_stages or (0,))[0]
            noise = np.ascontiguousarray(held[NOISE][list(self.cells), stage], dtype=np.float32)
        return CellTables(pedestal, factor, dark, threshold, noise)

    def _factor(self, of_cell: Mapping[str, Any], held: Mapping[str, Any]) -> Table:
        """What differences in ADU are multiplied by, (stage, pixel); NaN where the gain cannot be divided by."""
        settings = self.settings
        factor = np.full(of_cell[PEDESTAL].shape, settings.scale, np.float32)
        if GAIN in of_cell:
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = (settings.scale / of_cell[GAIN]).astype(np.float32)
            factor[np.isinf(of_cell[GAIN]) | (of_cell[GAIN] == 0)] = np.nan  # an infinite gain would make zeros
        if AREA in held:
            factor = (factor / held[AREA].reshape(-1)).astype(np.float32)
        return factor

    def _good(self, of_cell: Mapping[str, Any], held: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        """Where mask and, if it counts, the status of cell and stage let a pixel be used, (stage, pixel)."""
        good = np.ones(of_cell[PEDESTAL].shape, bool)
        if MASK in held:
            good &= held[MASK].reshape(-1)
        if STATUS in of_cell and Reason.MEMORY_CELL_STATUS in self.settings.reasons:
            words = of_cell[STATUS]
            good &= (words & np.asarray(self.settings.bits).astype(words.dtype)) == 0
        return good
