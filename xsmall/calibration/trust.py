"""Reasons against every pixel of every event, as flags: what may be trusted, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.decoders import NO_VALUE_BIT, STATUS_BIT, decoder_of
from xsmall.calibration.inputs import prepare
from xsmall.calibration.reasons import Untrusted, adc_limits, check_untrusted, static_reasons
from xsmall.calibration.segment_tables import SegmentTables, make_tables
from xsmall.calibration.tables import (
    FlagTables,
    Settings,
    by_plane,
    lacking,
    of_cell,
    stages_of,
    status_is_bad,
    thresholds,
)
from xsmall.detector.padded import are_padded
from xsmall.detector.types import Decoding, DetectorType
from xsmall.engine.blocks import Batch, map_chunks
from xsmall.frames.mask import flag_attrs
from xsmall.frames.per_pixel import Pixels, aligned
from xsmall.kernels.stack import flat_target
from xsmall.vocabulary import (
    DETECTOR_TYPE,
    FLAG_MASKS,
    GAIN,
    GAIN_STAGE,
    MASK,
    OFFSET,
    PEDESTAL,
    REASONS,
    STATUS,
    Reason,
)

__all__ = ["trust"]

FLAGS: Final = np.dtype(np.uint32)
_WIDEST: Final = (-(2**31), 2**31 - 1)


def trust(
    raw: xr.DataArray,
    constants: xr.Dataset | None = None,
    *,
    mask: Pixels | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
    status_bits: int | None = None,
    saturation: Mapping[str, int] | None = None,
    switching: Mapping[str, tuple[int, int]] | None = None,
    user: Untrusted | None = None,
) -> xr.DataArray:
    """Flag the reasons not to trust the value of each pixel of each event.

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
    and ``flag_meanings``, 0 where the value can be trusted; lazy where ``raw`` is. :func:`xsmall.usable` makes
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
    >>> flags = xs.trust(sim.run["jungfrau"]["raw"], sim.constants)
    >>> flags.dims, str(flags.dtype)
    (('event', 'segment', 'row', 'column'), 'uint32')
    """
    added: xr.DataArray | None = None
    if isinstance(mask, xr.DataArray) and FLAG_MASKS in mask.attrs:
        mask, added = None, mask
    given = prepare(raw, constants, mask, gain_control, gain_stage)
    arrays = given.arrays((STATUS, PEDESTAL, OFFSET, GAIN))
    if added is not None:
        arrays[REASONS] = aligned(added, given.frames.part, "mask")
    limits = _adc_ranges(given.entry, saturation, switching, given.frames.dtype)
    settings = given.settings(status_bits=status_bits, limits=limits, user=user)
    state = np.zeros(given.beside.frames.shape[:2], dtype=FLAGS) if given.frames.state is None else given.frames.state
    data = _flags_of_batch(Batch(given.beside.frames, beside=(*given.beside.arrays, state)), settings, arrays)
    coords = raw.drop_vars(GAIN_STAGE, errors="ignore").coords
    attrs = flag_attrs() | {DETECTOR_TYPE: given.entry.name}
    return xr.DataArray(xr.Variable(raw.dims, data, attrs), coords=coords, name=REASONS)


def _adc_ranges(
    entry: DetectorType,
    saturation: Mapping[str, int] | None,
    switching: Mapping[str, tuple[int, int]] | None,
    dtype: np.dtype[Any],
) -> tuple[tuple[int, ...], ...]:
    """Ranges of each gain code outside which a value is saturated, and outside which it is near switching."""
    full = entry.saturation or saturation is not None
    saturated = adc_limits(entry, Reason.SATURATED, saturation, dtype=dtype) if full else ()
    near = adc_limits(entry, Reason.NEAR_SWITCHING, None, switching, dtype=dtype) if switching is not None else ()
    if not saturated and not near:
        return ()
    widest = (_WIDEST,) * entry.n_codes
    return tuple((*a, *b) for a, b in zip(saturated or widest, near or widest, strict=True))


class SegmentFlags(SegmentTables[FlagTables]):
    """The flags of one detector: tables of each segment, and their use on whole frames."""

    def __init__(self, token: str, arrays: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(token, arrays, settings)
        self.settings = settings
        self.decoder = decoder_of(settings.entry, settings.dtype, settings.limits)

    def flags(self, batch: Batch, first: int = 0) -> npt.NDArray[np.uint32]:
        """Flag frames whose first segment is number ``first``."""
        out = np.empty(batch.frames.shape, dtype=FLAGS)
        for i in range(out.shape[1]) if out.size else ():
            *raw, state = batch.segment(slice(None), i)
            self._of_segment(first + i, tuple(raw) if len(raw) > 1 else raw[0], state, out[:, i])
        return out

    def _of_segment(self, s: int, raw: Any, state: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]) -> None:
        table = self.of_segment(s)
        stack = self.decoder.stack(raw, table.threshold)
        target = flat_target(out)
        assert target is not None  # frames of a fresh array are contiguous
        self.decoder.flag(stack, table, target)
        if self.settings.user is not None:
            bad = check_untrusted(self.settings.user, stack.frames, self.settings.part.segment[s])
            out[bad] |= np.uint32(Reason.USER)
        missing = (state & np.uint32(Reason.MISSING)) != 0
        padded = are_padded(stack.frames, self.settings.entry, ~missing)
        out[missing | padded] = table.static.reshape(out.shape[1:])  # of these the words say nothing
        out[padded] |= np.uint32(Reason.PADDED)
        out |= state[:, None, None]

    def pack(self, held: Mapping[str, Any]) -> FlagTables:
        """Make the tables of a segment."""
        settings, entry = self.settings, self.settings.entry
        control = stages_of(entry, held, flat=True)
        static = self._static(held)
        planes = []
        for c in settings.cells:
            known = of_cell(held, c)
            bits = np.zeros(known[PEDESTAL].shape, np.uint8)
            for bad in lacking(known).values():
                bits[bad] = NO_VALUE_BIT
            if STATUS in known:
                bits[status_is_bad(settings, known[STATUS])] |= np.uint8(STATUS_BIT)
            planes.append(bits)
        of_plane: npt.NDArray[Any] = np.stack(planes)
        if entry.decoding is not Decoding.BESIDE and not entry.memory_cell:
            reasons = np.array([0, Reason.GAIN_STAGE_STATUS, Reason.NOT_FINITE, 0], np.uint32)
            reasons[STATUS_BIT | NO_VALUE_BIT] = reasons[STATUS_BIT] | reasons[NO_VALUE_BIT]
            of_plane = by_plane(reasons[of_plane[0]], control, np.uint32(Reason.BAD_GAIN_CODE))[None] | static
        return FlagTables(static, of_plane, thresholds(settings, held))

    def _static(self, held: Mapping[str, Any]) -> npt.NDArray[np.uint32]:
        """Reasons of the whole run (pixel); of memory cells the status is none of them."""
        settings, known = self.settings, of_cell(held, 0)
        static = np.zeros(known[PEDESTAL].shape[1], dtype=FLAGS)
        if STATUS in known and not settings.entry.memory_cell:
            static |= static_reasons(settings.entry, known[STATUS], bits=settings.bits, named=settings.status_flags)
        if MASK in known:
            static[~known[MASK]] |= np.uint32(Reason.USER)
        return static | known[REASONS].astype(FLAGS) if REASONS in known else static


def _flags_of_batch(batch: Batch, settings: Settings, arrays: Mapping[str, Any]) -> npt.NDArray[np.uint32] | da.Array:
    """Flag frames, at once or lazily."""
    tables = make_tables(SegmentFlags, arrays, settings, lazy=bool(batch.lazy()))
    if not batch.lazy():
        ready: SegmentFlags = tables if isinstance(tables, SegmentFlags) else tables.compute()
        return ready.flags(batch)
    token = dask.base.tokenize(*batch, tables)
    meta = np.empty((0, 0, 0, 0), dtype=FLAGS)
    return map_chunks(_flag_chunk, batch, name=f"trust-{token}", tables=tables, dtype=FLAGS, meta=meta)


def _flag_chunk(batch: Batch, first: int, *, tables: SegmentFlags) -> npt.NDArray[np.uint32]:
    return tables.flags(batch, first)
