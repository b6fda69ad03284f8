"""Reasons against every pixel of every event, as flags: what may be trusted, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import Delayed

from xsmall.calibration.calibrate import status_flags
from xsmall.calibration.cells_trust import flags_of_cells
from xsmall.calibration.inputs import Pixels, aligned, prepare, segment_state, settled
from xsmall.calibration.reasons import adc_limits, stage_reasons, static_reasons, status_convention
from xsmall.calibration.transform import Untrusted, check_untrusted
from xsmall.detector.types import Decoding, DetectorType
from xsmall.engine.transform import per_chunk
from xsmall.frames.describe import data_of
from xsmall.frames.mask import flag_attrs
from xsmall.kernels.stack import flat_frames, flat_target
from xsmall.kernels.trust import flags_stack
from xsmall.vocabulary import (
    DETECTOR_TYPE,
    FLAG_MASKS,
    GAIN,
    GAIN_CONTROL,
    GAIN_STAGE,
    OFFSET,
    PEDESTAL,
    REASONS,
    SEGMENT,
    STATUS,
    Reason,
)

__all__ = ["trust"]

FLAGS: Final = np.dtype(np.uint32)
_CONSTANTS: Final = (STATUS, PEDESTAL, OFFSET, GAIN)
_EVENT_REASONS: Final = np.array([Reason.SATURATED, Reason.NEAR_SWITCHING, Reason.BAD_GAIN_CODE], dtype=np.uint32)


def trust(
    raw: xr.DataArray,
    constants: xr.Dataset,
    *,
    mask: Pixels | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
    status_bits: int | None = None,
    saturation: Mapping[str, int] | None = None,
    switching: Mapping[str, tuple[int, int]] | None = None,
    user: Untrusted | None = None,
) -> xr.DataArray:
    """Say for each pixel of each event what speaks against its value.

    Parameters
    ----------
    raw
        Raw frames (event, segment, row, column), gain bits included; a slice is fine.
    constants
        Of the same detector; their ``status`` gives the reasons of the whole run and those of a gain stage.
    mask
        Boolean (segment, row, column), True = use the pixel, which flags the others ``user``; or flags of reasons as
        :func:`xsmall.mask` makes them, which are added.
    gain_control
        Configuration bits (segment, row, column) for detectors that need them; left out, the coordinate of the data.
    gain_stage
        For detectors whose gain lies beside the frames, as for :func:`xsmall.calibrate`; their status is that of the
        event's own memory cell and stage, ``memory_cell_status``.
    status_bits
        Bits of ``status`` that count; left out, those of the detector type.
    saturation
        ADC value at which a stage saturates, by the name of the stage, in place of the detector type's own; without
        either nothing is flagged ``saturated``.
    switching
        Range of ADC values that is far from the switching point, by the name of the stage; without it nothing is
        flagged ``near_switching``.
    user
        A function of the raw words (k, row, column) and the label of their segment that returns a boolean array of
        their shape, True where a pixel is not to be trusted; flagged ``user``.

    Returns
    -------
    uint32 DataArray (event, segment, row, column) of :class:`~xsmall.vocabulary.Reason` bits with CF ``flag_masks``
    and ``flag_meanings``, 0 where nothing speaks against the value; lazy where ``raw`` is. :func:`xsmall.usable` makes
    a boolean mask of the reasons that count.

    Raises
    ------
    CalibrationError, DataError, ParameterError
        As :func:`xsmall.calibration.calibrate.calibrate`.

    Notes
    -----
    Cost: that of calibrating. ``calibrate(..., trust=[...])`` turns the chosen reasons into NaN in its own pass and
    needs no flags.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> flags = trust(sim.run["jungfrau"]["raw"], sim.constants)
    >>> flags.dims, str(flags.dtype)
    (('event', 'segment', 'row', 'column'), 'uint32')
    """
    added: xr.DataArray | None = None
    if isinstance(mask, xr.DataArray) and FLAG_MASKS in mask.attrs:
        mask, added = None, mask
    raw = settled(raw)
    given = prepare(raw, constants, mask, gain_control)
    bits = given.entry.status_bits if status_bits is None else int(status_bits)
    attrs = flag_attrs() | {DETECTOR_TYPE: given.entry.name}
    arrays = {name: given.constants[name].data for name in _CONSTANTS if name in given.constants} | {
        GAIN_CONTROL: given.gain_control,
        "mask": given.mask,
        REASONS: None if added is None else aligned(added, given.place, "mask"),
    }
    asked = Question(
        entry=given.entry,
        bits=bits,
        limits=_limits(given.entry, saturation, switching, raw.dtype),
        shape=tuple(len(labels) for labels in given.place.values()),
        segment=tuple(given.place[SEGMENT].tolist()),
        status_flags=status_flags(given.constants),
        user=user,
    )
    known = {name: array for name, array in arrays.items() if array is not None}
    if given.entry.decoding is Decoding.GIVEN:
        data = flags_of_cells(raw, given, constants, gain_stage, asked, known)
    else:
        data = _flags(data_of(raw), segment_state(raw), asked, known)
    coords = raw.drop_vars(GAIN_STAGE, errors="ignore").coords
    return xr.DataArray(xr.Variable(raw.dims, data, attrs), coords=coords, name=REASONS)


@dataclass(frozen=True)
class Question:
    """What is asked; together with the arrays it determines the flags."""

    entry: DetectorType
    bits: int
    limits: tuple[tuple[int, int, int, int], ...]
    shape: tuple[int, ...]
    segment: tuple[int, ...]
    status_flags: tuple[tuple[int, str], ...]
    user: Untrusted | None


class Flagging:
    """Tables of the flags of one detector, and their use on a stack of whole frames."""

    def __init__(self, question: Question, arrays: Mapping[str, Any]) -> None:
        entry, status = question.entry, arrays.get(STATUS)
        static = np.zeros(question.shape, dtype=np.uint32)
        if status is not None:
            static |= static_reasons(
                entry, status, convention=status_convention(entry), bits=question.bits, named=question.status_flags
            )
        if "mask" in arrays:
            static[~arrays["mask"]] |= np.uint32(Reason.USER)
        if REASONS in arrays:
            static |= arrays[REASONS].astype(np.uint32)
        unusable = ~np.isfinite(arrays[PEDESTAL])
        if OFFSET in arrays:
            unusable |= ~np.isfinite(arrays[OFFSET])
        if GAIN in arrays:
            unusable |= ~np.isfinite(arrays[GAIN]) | (arrays[GAIN] == 0)
        of_stage = stage_reasons(entry, status, unusable, arrays.get(GAIN_CONTROL), bits=question.bits)
        self.question = question
        self.static = static.reshape(len(static), -1)
        by_segment = np.ascontiguousarray(of_stage.reshape(*of_stage.shape[:2], -1).swapaxes(0, 1))
        self.always = by_segment | self.static[:, None]
        self.plane = np.asarray(entry.stage_of_code or (0, 1), dtype=np.int64)
        self.limits = np.array(question.limits, dtype=np.int32)

    def flags(self, raw: npt.NDArray[Any], state: npt.NDArray[np.uint32] | None) -> npt.NDArray[np.uint32]:
        """Flag whole frames (event, segment, row, column); ``state`` are the reasons of whole segments."""
        out = np.empty(raw.shape, dtype=FLAGS)
        entry = self.question.entry
        for s in range(raw.shape[1]) if raw.size else ():
            here = out[:, s]
            target = flat_target(here)  # a view: frames of a fresh array are contiguous
            if raw.dtype == np.uint16 and target is not None:
                words, step = flat_frames(raw[:, s])
                flags_stack(
                    words, step, len(raw), self.static[s], self.plane, self.always[s], entry.code_shift,
                    entry.n_codes - 1, entry.data_mask, self.limits, _EVENT_REASONS, *target,
                )  # fmt: skip
            else:
                always = self.always[s, 0].reshape(here.shape[1:])
                np.bitwise_or(self._of_values(raw[:, s]), always, out=here)
            if self.question.user is not None:
                bad = check_untrusted(self.question.user, raw[:, s], self.question.segment[s])
                here[bad] |= np.uint32(Reason.USER)
            if state is not None:
                self._of_segments(here, state[:, s], s)
        return out

    def _of_values(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        flags = np.zeros(raw.shape, dtype=FLAGS)
        for (low, high), reason in zip(self.limits[0].reshape(2, 2), _EVENT_REASONS[:2], strict=True):
            flags[(raw < low) | (raw > high)] |= reason
        if raw.dtype.kind == "f":
            flags[~np.isfinite(raw)] = np.uint32(Reason.NOT_FINITE)
        return flags

    def _of_segments(self, here: npt.NDArray[np.uint32], state: npt.NDArray[np.uint32], s: int) -> None:
        """Add the reasons of whole segments; of a missing one the words say nothing."""
        missing = (state & np.uint32(Reason.MISSING)) != 0
        here[missing] = self.static[s].reshape(here.shape[1:])
        here |= state[:, None, None]


def _limits(
    entry: DetectorType,
    saturation: Mapping[str, int] | None,
    switching: Mapping[str, tuple[int, int]] | None,
    dtype: np.dtype[Any],
) -> tuple[tuple[int, int, int, int], ...]:
    """Ranges of each gain code outside which a value is saturated, and outside which it is near switching."""
    everything = tuple((-(2**31), 2**31 - 1) for _ in range(entry.n_codes))
    full = entry.saturation or saturation is not None
    saturated = adc_limits(entry, Reason.SATURATED, saturation, dtype=dtype) if full else ()
    near = adc_limits(entry, Reason.NEAR_SWITCHING, None, switching, dtype=dtype) if switching is not None else ()
    return tuple((*a, *b) for a, b in zip(saturated or everything, near or everything, strict=True))


def _flags(
    data: npt.NDArray[Any] | da.Array,
    state: npt.NDArray[np.uint32] | None,
    question: Question,
    arrays: Mapping[str, Any],
) -> npt.NDArray[np.uint32] | da.Array:
    lazy = any(isinstance(value, da.Array) for value in arrays.values())
    if not isinstance(data, da.Array):
        held = dask.compute(dict(arrays))[0] if lazy else arrays
        return Flagging(question, held).flags(data, state)
    names = {name: value.name if isinstance(value, da.Array) else value for name, value in arrays.items()}
    token = dask.base.tokenize(data.name, state, question, names)
    tables: Delayed = dask.delayed(Flagging, name=False, pure=False, traverse=False)(
        question, dask.delayed(dict(arrays), name=f"status-{token}"), dask_key_name=f"flagging-{token}"
    )
    whole = data.rechunk({1: -1, 2: -1, 3: -1})
    return da.map_blocks(
        _flag_block,
        whole,
        per_chunk(cast("Any", state), whole.chunks[0], f"state-{token}")[:, None, None, None],
        tables=tables,
        dtype=FLAGS,
        chunks=whole.chunks,
        meta=np.empty((0, 0, 0, 0), dtype=FLAGS),
        name=f"trust-{token}",
    )


def _flag_block(raw: npt.NDArray[Any], state: npt.NDArray[np.object_], *, tables: Flagging) -> npt.NDArray[np.uint32]:
    return tables.flags(raw, state.item())
