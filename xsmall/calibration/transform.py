"""Calibration as a transform: the tables of each segment, and the order of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.calibration.common_mode.plan import CommonModeTables, pixels_of_estimates
from xsmall.calibration.decoders import Flat, decoder_of
from xsmall.calibration.reasons import check_untrusted
from xsmall.calibration.segment_tables import SegmentTables
from xsmall.calibration.tables import Settings, ValueTables, pack
from xsmall.detector.padded import are_padded
from xsmall.engine.transform import FloatFrames, Transform
from xsmall.kernels.stack import flat_target
from xsmall.vocabulary import Reason

__all__ = ["FLOAT", "Calibration"]

FLOAT: Final = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class _TablesOfSegment:
    """Tables of a segment: of its values, and of the common mode where one is corrected."""

    values: ValueTables
    common_mode: CommonModeTables | None


class Calibration(SegmentTables[_TablesOfSegment], Transform):
    """The calibration of one detector as a transform, shared by all threads of a process."""

    dtype = FLOAT

    def __init__(self, token: str, arrays: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(token, arrays, settings)
        self.settings = settings
        self.knows_variance = settings.variance
        self.decoder = decoder_of(settings.entry, settings.dtype, settings.limits)

    def pack(self, held: Mapping[str, Any]) -> _TablesOfSegment:
        """Pack the constants of a segment."""
        settings = self.settings
        values = pack(settings, held, self.whole)
        if not settings.mode.steps:
            return _TablesOfSegment(values, None)
        good = pixels_of_estimates(settings, held, values)
        return _TablesOfSegment(values, CommonModeTables(settings, settings.mode, held, good))

    def apply(
        self,
        s: int,
        raw: Any,
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Calibrate segment ``s`` of ``k`` events; ``raw`` are frames, or a tuple of them and what lies beside."""
        if out.size == 0:
            return
        table, decoder = self.of_segment(s), self.decoder
        stack = decoder.stack(raw, table.values.threshold)
        target = _FloatTarget(out)
        if table.common_mode is None:
            decoder.calibrate(stack, table.values, target.flat)
        else:
            table.common_mode.calibrate(decoder, stack, table.values, target.flat)
        user = self.settings.user
        if Reason.PADDED in self.settings.reasons:
            present = present & ~are_padded(stack.frames, self.settings.entry, present)
        bad = None if user is None else check_untrusted(user, stack.frames, self.settings.part.segment[s])
        target.blank(present, bad)
        if variance is not None and table.values.dark is not None:
            variances = _FloatTarget(variance)
            decoder.variance(stack, table.values.dark, self.settings.photon, target.flat, variances.flat)
            variances.blank(present, bad)
            variances.back()
        target.back()


class _FloatTarget:
    """Frames to be filled through their flat view; by way of a copy where they have none."""

    def __init__(self, frames: FloatFrames) -> None:
        view = flat_target(frames)
        self._frames = frames
        self._copy: FloatFrames | None = None
        if view is None:
            self._copy = np.empty(frames.shape, frames.dtype)
            view = self._copy.reshape(-1), frames[0].size
        self.flat: Flat = view

    def blank(self, present: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_] | None) -> None:
        """NaN where there is nothing, and where a pixel is not trusted."""
        filled = self._frames if self._copy is None else self._copy
        if not present.all():
            filled[~present] = np.nan
        if bad is not None:
            filled[bad] = np.nan

    def back(self) -> None:
        """Finish: into the frames where a copy was filled."""
        if self._copy is not None:
            self._frames[...] = self._copy
