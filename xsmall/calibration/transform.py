"""Calibration as a transform: the tables of all segments, and the order of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast
from weakref import WeakValueDictionary

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.calibration.common_mode.mode import CommonMode
from xsmall.calibration.common_mode.plan import CommonModeTables
from xsmall.calibration.reasons import static_reasons
from xsmall.calibration.tables import CalibrationTables, pack
from xsmall.detector.types import DetectorType
from xsmall.engine.transform import FloatFrames, Transform
from xsmall.errors import DataError
from xsmall.kernels.calibrate import calibrate_plain, calibrate_stack, scale_plain, scale_stack
from xsmall.kernels.calibrate_variance import variance_plain, variance_stack
from xsmall.kernels.stack import flat_frames, flat_target
from xsmall.vocabulary import AREA, GAIN, GAIN_CONTROL, NOISE, OFFSET, PEDESTAL, STATUS, Reason

__all__ = ["Calibration", "Settings", "Untrusted", "check_untrusted", "make_calibration"]

FLOAT: Final = np.dtype(np.float32)
MASK: Final = "mask"

Untrusted: TypeAlias = Callable[[npt.NDArray[Any], int], npt.NDArray[np.bool_]]
"""A user's function of the raw words (k, row, column) and the label of the segment: True = do not trust."""


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked to do; together with the constants it determines the result.

    Attributes
    ----------
    entry
        Type of the detector.
    scale
        What a value in the gain's unit is multiplied by.
    variance
        Whether the variance of the values is wanted too.
    photon
        One photon in the unit of the data, for the variance; 0 leaves counting statistics out.
    bits
        Bits of the status words that count.
    reasons
        Reasons that make a pixel NaN.
    limits
        (code, 2): ADC values that are trusted, empty where none is checked.
    mode
        Common mode.
    segment, row, column
        Labels of the pixels.
    convention
        Who wrote the status words.
    status_flags
        Bits and names of the status words where they name them.
    user
        A user's function, or None.
    """

    entry: DetectorType
    scale: float
    variance: bool
    photon: float
    bits: int
    reasons: Reason
    limits: tuple[tuple[int, int], ...]
    mode: CommonMode
    segment: tuple[int, ...]
    row: tuple[int, ...]
    column: tuple[int, ...]
    convention: str
    status_flags: tuple[tuple[int, str], ...] = ()
    user: Untrusted | None = None


class Calibration(Transform):
    """The calibration of one detector as a transform: packed tables, shared by all threads of a process."""

    dtype = FLOAT

    def __init__(self, token: str, settings: Settings, arrays: Mapping[str, Any]) -> None:
        self.token = token
        self.settings = settings
        self.limits = np.array(settings.limits, dtype=np.int32).reshape(-1, 2)
        self.tables, good = _pack(settings, arrays)
        self.knows_variance = self.tables.variance is not None
        self.common_mode: CommonModeTables | None = None
        if settings.mode.steps:
            self.common_mode = CommonModeTables(
                settings.mode, settings.entry, settings.row, settings.column, good, arrays.get(NOISE),
                arrays.get(GAIN_CONTROL),
            )  # fmt: skip
            self._ones = np.ones_like(self.tables.factor[0])

    def __dask_tokenize__(self) -> str:
        return self.token

    def apply(
        self,
        s: int,
        raw: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Calibrate segment ``s`` of ``k`` events."""
        if raw.size == 0:
            return
        words, step = flat_frames(raw)
        target = _Target(out)
        if self.common_mode is None:
            self._convert(words, step, len(raw), self.tables.pedestal[s], self.tables.factor[s], target)
        else:
            self._convert(words, step, len(raw), self.tables.pedestal[s], self._ones, target)
            self._correct(self.common_mode, s, words, step, target)
            self._scale(words, step, len(raw), self.tables.factor[s], target)
        bad = self._untrusted(s, raw)
        target.blank(present, bad)
        if variance is not None and self.tables.variance is not None:
            spread = _Target(variance)
            self._spread(words, step, len(raw), self.tables.variance[s], target, spread)
            spread.blank(present, bad)
            spread.back()
        target.back()

    def _convert(self, words: npt.NDArray[Any], step: int, k: int, pedestal: Any, factor: Any, target: _Target) -> None:
        table = self.tables
        if words.dtype == np.uint16:
            calibrate_stack(
                words, step, k, table.plane, pedestal, factor, table.code_shift, table.code_mask, table.data_mask,
                self.limits, target.flat, target.step,
            )  # fmt: skip
        else:
            calibrate_plain(words, step, k, pedestal[0], factor[0], target.flat, target.step)

    def _scale(self, words: npt.NDArray[Any], step: int, k: int, factor: Any, target: _Target) -> None:
        table = self.tables
        if words.dtype == np.uint16:
            scale_stack(
                words, step, k, table.plane, factor, table.code_shift, table.code_mask, target.flat, target.step
            )
        else:
            scale_plain(k, factor[0], target.flat, target.step)

    def _spread(self, words: npt.NDArray[Any], step: int, k: int, dark: Any, values: _Target, spread: _Target) -> None:
        table, photon = self.tables, self.settings.photon
        if words.dtype == np.uint16:
            variance_stack(
                words, step, k, table.plane, dark, table.code_shift, table.code_mask, photon, values.flat,
                values.step, spread.flat, spread.step,
            )  # fmt: skip
        else:
            variance_plain(k, dark[0], photon, values.flat, values.step, spread.flat, spread.step)

    def _correct(self, tables: CommonModeTables, s: int, words: npt.NDArray[Any], step: int, target: _Target) -> None:
        """Subtract the common mode, event by event: each frame is contiguous even where the stack is not."""
        shape = len(self.settings.row), len(self.settings.column)
        n = shape[0] * shape[1]
        for j in range(target.k):
            frame = target.flat[j * target.step : j * target.step + n].reshape(1, *shape)
            tables.correct(s, words[j * step : j * step + n], n, frame)

    def _untrusted(self, s: int, raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        beyond = None
        if self.limits.size and raw.dtype != np.uint16:
            beyond = (raw < self.limits[0, 0]) | (raw > self.limits[0, 1])
        if self.settings.user is None:
            return beyond
        bad = check_untrusted(self.settings.user, raw, self.settings.segment[s])
        return bad if beyond is None else bad | beyond


def check_untrusted(user: Untrusted, raw: npt.NDArray[Any], segment: int) -> npt.NDArray[np.bool_]:
    """Ask a user's function, and check what it says."""
    bad: npt.NDArray[np.bool_] = np.asarray(user(raw, segment))
    if bad.dtype != bool or bad.shape != raw.shape:
        raise DataError(
            "the user's function has to say which pixels not to trust",
            found=f"{bad.dtype} {bad.shape}",
            expected=f"bool {raw.shape}, True = do not trust",
        )
    return bad


class _Target:
    """Frames to be filled through their flat view; by way of a copy where they have none."""

    def __init__(self, frames: FloatFrames) -> None:
        view = flat_target(frames)
        self.k = len(frames)
        self._frames = frames
        self._copy: FloatFrames | None = None
        if view is None:
            self._copy = np.empty(frames.shape, frames.dtype)
            view = self._copy.reshape(-1), frames[0].size
        self.flat: npt.NDArray[Any]
        self.flat, self.step = view

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


def _pack(settings: Settings, arrays: Mapping[str, Any]) -> tuple[CalibrationTables, npt.NDArray[np.bool_]]:
    """Pack the tables; returns also which pixels (segment, row, column) nothing static is held against."""
    entry = settings.entry
    shape = arrays[PEDESTAL].shape[1:]
    good = np.ones(shape, dtype=bool) if arrays.get(MASK) is None else np.asarray(arrays[MASK])
    status = arrays.get(STATUS)
    if status is not None:
        reasons = static_reasons(
            entry, status, convention=settings.convention, bits=settings.bits, named=settings.status_flags
        )
        good = good & ((reasons & np.uint32(settings.reasons)) == 0)
    usable: npt.NDArray[np.bool_] = good
    if status is not None and Reason.GAIN_STAGE_STATUS in settings.reasons:
        usable = good & ((status & np.asarray(settings.bits, dtype=status.dtype)) == 0)
    tables = pack(
        entry,
        arrays[PEDESTAL],
        gain=arrays.get(GAIN),
        offset=arrays.get(OFFSET),
        noise=arrays.get(NOISE) if settings.variance else None,
        good=usable,
        gain_control=arrays.get(GAIN_CONTROL),
        scale=settings.scale,
        area=arrays.get(AREA),
    )
    return tables, good


_READY: WeakValueDictionary[str, Calibration] = WeakValueDictionary()
"""Calibrations of this process by token: tables are packed once however often they are asked for."""


def _build(token: str, settings: Settings, arrays: Mapping[str, Any]) -> Calibration:
    ready = _READY.get(token)
    if ready is None:
        ready = _READY[token] = Calibration(token, settings, arrays)
    return ready


def make_calibration(settings: Settings, arrays: Mapping[str, Any]) -> Calibration | Delayed:
    """Build the transform, or say how to build it where a constant is still lazy."""
    names = {name: value.name if isinstance(value, da.Array) else value for name, value in arrays.items()}
    token = str(dask.base.tokenize("calibration", settings, names))
    if not any(isinstance(value, da.Array) for value in arrays.values()):
        return _build(token, settings, arrays)
    build = dask.delayed(_build, name=False, pure=False, traverse=False)
    lazy = dask.delayed(dict(arrays), name=f"constants-{token}")
    return cast("Delayed", build(token, settings, lazy, dask_key_name=f"calibration-{token}"))
