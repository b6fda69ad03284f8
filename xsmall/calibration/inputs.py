"""What calibration, flags and common modes need before they begin: raw frames and constants that belong together."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.belonging import detector_of, n_segments_of
from xsmall.calibration.beside import BesideFrames, beside_frames, gain_control_of
from xsmall.calibration.constants import check_constants, select_constants
from xsmall.calibration.reasons import DEFAULT_TRUST
from xsmall.calibration.tables import Settings
from xsmall.detector.frames import Frames
from xsmall.detector.reasons import named_bits
from xsmall.detector.types import DetectorType
from xsmall.engine.flagged import DAMAGED, MISSING
from xsmall.errors import CalibrationError, ParameterError
from xsmall.frames.describe import describe
from xsmall.frames.per_pixel import Pixels, aligned, boolean_mask
from xsmall.vocabulary import (
    DAMAGE,
    GAIN_CONTROL,
    MASK,
    MEMORY_CELL,
    PRESENT,
    STATUS,
    THRESHOLD,
    Reason,
)

__all__ = [
    "CalibrationInput",
    "prepare",
]


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
    beside
        The frames, and what lies beside them.
    """

    frames: Frames
    entry: DetectorType
    constants: xr.Dataset
    n_segments: int
    mask: npt.NDArray[np.bool_] | None
    gain_control: npt.NDArray[Any] | None
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

    def usable(self, reasons: Reason) -> npt.NDArray[np.bool_] | None:
        """Mask of the segments (event, segment) that have none of the reasons; None if all may be used."""
        if self.frames.state is None:
            return None
        usable: npt.NDArray[np.bool_] = (self.frames.state & np.uint32(reasons)) == 0
        return None if usable.all() else usable

    def kinds(self, reasons: Reason, coords: Collection[Hashable]) -> int:
        """Bits of what makes segments unusable for one of the reasons, of what coordinates tell of."""
        kinds = {MISSING: (Reason.MISSING, PRESENT), DAMAGED: (Reason.DAMAGED, DAMAGE)}
        return sum(kind for kind, (reason, name) in kinds.items() if reason & reasons and name in coords)

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
            fix='.sd.calibrate(xs.dark(raw_of_a_dark_run), unit="ADU"), or constants of xs.open_constants("...")',
        )
    known = check_constants(constants)
    entry = detector_of(raw, frames, known)
    n_segments = n_segments_of(frames, known)
    mine = select_constants(known, frames.part)
    use = None if mask is None else aligned(boolean_mask(mask, reasons), frames.part, "mask")
    control = gain_control_of(raw, entry, gain_control, frames.part)
    beside = beside_frames(raw, entry, frames.part, mine, gain_stage, constants.get(THRESHOLD))
    return CalibrationInput(frames, entry, mine, n_segments, use, control, beside)
