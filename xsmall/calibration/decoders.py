"""Decoders: where the gain code of a pixel lies, and which kernels read it from there.

A code stands in the raw word (alone, or together with the configuration of the pixel), there is none, or it lies
beside the frames. What a detector needs is its row of :mod:`xsmall.detector.types`; the rest of the calibration does
not ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from xsmall.calibration.tables import FlagTables, ValueTables
from xsmall.detector.types import Decoding, DetectorType
from xsmall.kernels.calibrate import calibrate_plain, calibrate_stack
from xsmall.kernels.calibrate_cells import (
    calibrate_cells,
    flag_cells,
    participation_cells,
    scale_cells,
    stages_of_gain,
    subtract_cells,
    variance_cells,
)
from xsmall.kernels.calibrate_variance import variance_plain, variance_stack
from xsmall.kernels.common_mode import StepTables
from xsmall.kernels.common_mode_tiles import calibrate_tiles
from xsmall.kernels.gain_code import participation_stack, scale_codes
from xsmall.kernels.scale import scale_plain, scale_stack
from xsmall.kernels.stack import flat_frames
from xsmall.kernels.trust import flags_stack
from xsmall.vocabulary import Reason

__all__ = ["NO_VALUE_BIT", "STATUS_BIT", "Decoder", "Flat", "Numbers", "Stack", "decoder_of"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

Flat: TypeAlias = tuple[Array, int]
"""Frames as one flat array, and the step from one frame to the next."""

STATUS_BIT: Final = 1
NO_VALUE_BIT: Final = 2
_ANY: Final = (-(2**31), 2**31 - 1)


class Stack(NamedTuple):
    """Frames (k, row, column) of one segment, as the kernels read them."""

    frames: Array
    words: Flat
    cell: npt.NDArray[np.int64]
    """Position of the memory cell of each frame among those of the tables."""
    codes: Flat
    """Gain codes uint8 that lie beside the frames, flat; empty where they do not."""

    @property
    def k(self) -> int:
        """Number of frames."""
        return len(self.frames)


_NO_CODES: Final[Flat] = (np.empty(0, np.uint8), 0)


class Decoder(ABC):
    """Reads gain stages of one kind of detector: picks the kernels that do it.

    Parameters
    ----------
    entry
        Type of the detector.
    limits
        (gain code, 2), or of flags (gain code, 4): ADC values that are trusted; no rows where none is checked.
    """

    scales: Floats | None = None
    """For each gain code, what brings its ADU to those of the first stage; None where stages are not compared."""

    has_tiles = False
    """Whether :meth:`GainWords.calibrate_tiles` does all steps of a calibration at once."""

    def __init__(self, entry: DetectorType, limits: npt.NDArray[np.int64]) -> None:
        self.entry = entry
        self.limits: Array = limits
        self.plane = np.asarray(entry.stage_of_code or (0, 1), dtype=np.int64)

    def stack(self, raw: Any, threshold: Floats | None) -> Stack:
        """Take apart what the engine hands to a transform: frames, or a tuple of frames and what lies beside them."""
        del threshold
        frames, cell = raw if isinstance(raw, tuple) else (raw, np.zeros(len(raw)))
        return Stack(frames, flat_frames(frames), np.array(cell, dtype=np.int64), _NO_CODES)

    @abstractmethod
    def calibrate(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        """Fill values: (ADC - pedestal) * factor, NaN beyond the limits."""

    @abstractmethod
    def subtract(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        """Fill ADU: pedestals off; :meth:`scale` does the rest once a common mode is off, too."""

    @abstractmethod
    def scale(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        """Multiply ADU by the factors, in place."""

    @abstractmethod
    def variance(self, stack: Stack, dark: Floats, photon: float, values: Flat, out: Flat) -> None:
        """Fill the variance of values."""

    @abstractmethod
    def use(self, stack: Stack, takes: Codes, good: Array) -> Codes:
        """Say which pixels take part in the estimate of a common mode, uint8 (k, pixel); one row stands for all.

        ``takes`` says which gain codes or stages do, ``good`` which pixels may: both as
        :mod:`xsmall.calibration.common_mode.plan` makes them.
        """

    @abstractmethod
    def flag(self, stack: Stack, table: FlagTables, out: Flat) -> None:
        """Fill flags: those of the run, the reasons of the plane of each pixel, bad codes, and limits."""

    def to_one_scale(self, stack: Stack, j: int, frame: Floats, *, back: bool = False) -> None:
        """Bring frame ``j`` in ADU to ADU of the first gain stage, or back, where the detector's stages differ."""
        if self.scales is not None:
            words, step = stack.words
            factor = np.float32(1) / self.scales if back else self.scales
            entry = self.entry
            scale_codes(
                words[j * step :], step, 1, factor, entry.code_shift, entry.n_codes - 1, frame.reshape(-1), frame.size
            )


def decoder_of(entry: DetectorType, dtype: np.dtype[Any], limits: tuple[tuple[int, ...], ...] = ()) -> Decoder:
    """Choose the decoder of frames of a detector."""
    table = np.array(limits, dtype=np.int64).reshape(len(limits), -1) if limits else np.empty((0, 2), np.int64)
    kind: type[Decoder]
    if entry.decoding is Decoding.BESIDE:
        kind = CodesBeside
    elif entry.memory_cell:
        kind = SplitWords
    else:
        kind = GainWords if dtype.newbyteorder("=") == np.uint16 else Numbers
    return kind(entry, table)


class GainWords(Decoder):
    """Words of 16 bits whose upper bits, or lowest, are the gain code; or that have none."""

    def __init__(self, entry: DetectorType, limits: npt.NDArray[np.int64]) -> None:
        super().__init__(entry, limits)
        self.limits = limits.astype(np.int32)
        self._code = entry.code_shift, entry.n_codes - 1
        self._ones = np.empty((0, 0), np.float32)
        self._lift = 1 << entry.data_shift
        self.has_tiles = self._lift == 1 and not entry.common_mode_scale
        if entry.common_mode_scale:
            of_code = np.asarray(entry.common_mode_scale)[self.plane]
            self.scales = np.where(self.plane < 0, 1, of_code).astype(np.float32)

    def calibrate(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        self._convert(stack, table.pedestal[0], table.factor[0], out)

    def subtract(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        self._convert(stack, table.pedestal[0], self._ones_like(table), out)

    def _ones_like(self, table: ValueTables) -> Floats:
        if self._ones.shape != table.pedestal.shape[1:]:
            self._ones = np.full(table.pedestal.shape[1:], 1 / self._lift, np.float32)
        return self._ones

    def _convert(self, stack: Stack, pedestal: Floats, factor: Floats, out: Flat) -> None:
        calibrate_stack(
            *stack.words, stack.k, self.plane, pedestal, factor, *self._code, self.entry.data_mask, self.limits, *out
        )

    def calibrate_tiles(
        self, stack: Stack, table: ValueTables, takes: Codes, good: Codes, plan: StepTables, shape: tuple[int, int],
        tile: tuple[int, int], out: Flat,
    ) -> None:  # fmt: skip
        """Do what :meth:`subtract`, the steps of a common mode and :meth:`scale` do, tile by tile."""
        calibrate_tiles(
            *stack.words, stack.k, self.plane, table.pedestal[0], self._ones_like(table), table.factor[0], *self._code,
            self.entry.data_mask, self.limits, takes, good, plan.steps, plan.limits, shape, tile, *out,
        )  # fmt: skip

    def scale(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        if self._lift != 1:  # the factors are for values in their place in the word
            _frames_of(out, stack.frames.shape)[...] *= np.float32(self._lift)
        scale_stack(*stack.words, stack.k, self.plane, table.factor[0], *self._code, *out)

    def variance(self, stack: Stack, dark: Floats, photon: float, values: Flat, out: Flat) -> None:
        variance_stack(*stack.words, stack.k, self.plane, dark[0], *self._code, photon, *values, *out)

    def use(self, stack: Stack, takes: Codes, good: Array) -> Codes:
        if self.entry.n_codes == 1:
            return good[None]
        use = np.empty((stack.k, good.size), np.uint8)
        participation_stack(*stack.words, stack.k, takes, good, *self._code, use)
        return use

    def flag(self, stack: Stack, table: FlagTables, out: Flat) -> None:
        names = np.array([Reason.SATURATED, Reason.NEAR_SWITCHING, Reason.BAD_GAIN_CODE], np.uint32)
        limits = self.limits if self.limits.size else np.array([_ANY * 2] * self.entry.n_codes, np.int32)
        flags_stack(
            *stack.words, stack.k, table.static, self.plane, table.of_plane[0], *self._code, self.entry.data_mask,
            limits, names, *out,
        )  # fmt: skip


class Numbers(Decoder):
    """Numbers of any other dtype, of detectors of one gain: there is no code."""

    def calibrate(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        calibrate_plain(*stack.words, stack.k, table.pedestal[0, 0], table.factor[0, 0], *out)
        self._blank_beyond(stack, out)

    def subtract(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        calibrate_plain(*stack.words, stack.k, table.pedestal[0, 0], np.ones_like(table.factor[0, 0]), *out)

    def scale(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        scale_plain(stack.k, table.factor[0, 0], *out)
        self._blank_beyond(stack, out)

    def _blank_beyond(self, stack: Stack, out: Flat) -> None:
        if self.limits.size:
            low, high = self.limits[0]
            beyond = (stack.frames < low) | (stack.frames > high)
            _frames_of(out, beyond.shape)[beyond] = np.nan

    def variance(self, stack: Stack, dark: Floats, photon: float, values: Flat, out: Flat) -> None:
        variance_plain(stack.k, dark[0, 0], photon, *values, *out)

    def use(self, stack: Stack, takes: Codes, good: Array) -> Codes:
        del stack, takes
        return good[None]

    def flag(self, stack: Stack, table: FlagTables, out: Flat) -> None:
        raw, flags = stack.frames, _frames_of(out, stack.frames.shape)
        flags[...] = 0
        for limits, reason in zip(self.limits[:1].reshape(-1, 2), _OF_VALUES, strict=False):
            flags[(raw < limits[0]) | (raw > limits[1])] |= np.uint32(reason)
        if raw.dtype.kind == "f":
            flags[~np.isfinite(raw)] = np.uint32(Reason.NOT_FINITE)
        flags |= table.of_plane[0, 0].reshape(raw.shape[1:])


_OF_VALUES: Final = (Reason.SATURATED, Reason.NEAR_SWITCHING)


def _frames_of(flat: Flat, shape: tuple[int, ...]) -> Array:
    """Frames (k, row, column) of their flat view, to be written to."""
    values, step = flat
    item = values.itemsize
    return as_strided(values, shape, (step * item, shape[2] * item, item))


class CodesBeside(Decoder):
    """Gain codes, or an analogue gain, beside the frames; constants of the memory cell of each frame."""

    def __init__(self, entry: DetectorType, limits: npt.NDArray[np.int64]) -> None:
        super().__init__(entry, limits)
        self.plane = np.array([*entry.stage_of_code, -1], dtype=np.int64)  # the last stands for all codes beyond

    def stack(self, raw: Any, threshold: Floats | None) -> Stack:
        frames, cell, gain = raw
        return self._stack(frames, flat_frames(frames), cell, gain, threshold)

    def _stack(self, frames: Array, words: Flat, cell: Array, gain: Array, threshold: Floats | None) -> Stack:
        of_frame = np.array(cell, dtype=np.int64)
        codes = flat_frames(gain)
        if threshold is not None:
            found = np.empty((len(gain), gain[0].size), dtype=np.uint8)
            stages_of_gain(*codes, of_frame, threshold, found)
            codes = flat_frames(found)
        return Stack(frames, words, of_frame, codes)

    def _limits(self, stack: Stack) -> Array:
        """Limits in a dtype in which they compare with the words exactly."""
        if stack.words[0].dtype == np.uint16:
            return np.clip(self.limits, 0, 0xFFFF).astype(np.uint16)
        return self.limits.astype(np.float64)

    def calibrate(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        calibrate_cells(
            *stack.words, *stack.codes, stack.cell, self.plane, table.pedestal, table.factor, self._limits(stack), *out
        )

    def subtract(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        subtract_cells(*stack.words, *stack.codes, stack.cell, self.plane, table.pedestal, self._limits(stack), *out)

    def scale(self, stack: Stack, table: ValueTables, out: Flat) -> None:
        scale_cells(*stack.codes, stack.cell, self.plane, table.factor, *out)

    def variance(self, stack: Stack, dark: Floats, photon: float, values: Flat, out: Flat) -> None:
        variance_cells(*values, *stack.codes, stack.cell, self.plane, dark, photon, *out)

    def use(self, stack: Stack, takes: Codes, good: Array) -> Codes:
        use = np.empty((stack.k, good.shape[-1]), np.uint8)
        participation_cells(*stack.codes, stack.cell, self.plane, takes, good, use)
        return use

    def flag(self, stack: Stack, table: FlagTables, out: Flat) -> None:
        names = np.array([
            Reason.MEMORY_CELL_STATUS, Reason.NOT_FINITE, Reason.BAD_GAIN_CODE, Reason.SATURATED, Reason.NEAR_SWITCHING
        ], np.uint32)  # fmt: skip
        limits = self._limits(stack).reshape(-1, 4)
        flag_cells(
            *stack.words, *stack.codes, stack.cell, self.plane, table.of_plane, table.static, limits, names, *out
        )
        if stack.frames.dtype.kind == "f":
            _frames_of(out, stack.frames.shape)[~np.isfinite(stack.frames)] |= np.uint32(Reason.NOT_FINITE)


class SplitWords(CodesBeside):
    """Words with the gain code in them, of detectors with memory cells: taken apart, they lie side by side."""

    def stack(self, raw: Any, threshold: Floats | None) -> Stack:
        del threshold
        frames, cell = raw
        entry = self.entry
        if entry.n_codes == 1:
            return self._stack(frames, flat_frames(frames), cell, np.zeros(frames.shape, np.uint8), None)
        codes = ((frames >> entry.code_shift) & (entry.n_codes - 1)).astype(np.uint8)
        return self._stack(frames, flat_frames(frames & np.uint16(entry.data_mask)), cell, codes, None)
