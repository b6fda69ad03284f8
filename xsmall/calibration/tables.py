"""Constants packed for the kernels: for each memory cell and plane, pedestal and factor of every pixel of a segment.

A plane is what a gain code selects. Where the code stands in the raw word or beside it, planes are stages. Where the
configuration of a pixel takes part (ePix10ka), plane 0 is the stage that the pixel has while the bit in its raw word
is 0, plane 1 the one it has after switching: two planes stand for seven ranges.

Detectors whose constants do not depend on a memory cell have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.calibration.common_mode.mode import CommonMode
from xsmall.calibration.reasons import DEFAULT_TRUST, Untrusted, static_reasons
from xsmall.detector.part import Part
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import CalibrationError
from xsmall.vocabulary import AREA, GAIN, GAIN_CONTROL, MASK, NOISE, OFFSET, PEDESTAL, STATUS, THRESHOLD, Reason

__all__ = [
    "FlagTables",
    "Settings",
    "ValueTables",
    "by_plane",
    "check_values",
    "control_stages",
    "good_of_run",
    "lacking",
    "looked_at",
    "of_cell",
    "pack",
    "stages_of",
    "status_is_bad",
    "thresholds",
    "usable_by_stage",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_OF_STAGES: Final = (PEDESTAL, OFFSET, GAIN, NOISE, STATUS)


@dataclass(frozen=True)
class Settings:
    """What a calibration, or its flags, are asked to do; together with the constants it determines the result.

    Attributes
    ----------
    entry
        Type of the detector.
    dtype
        Of the raw frames.
    part
        The pixels.
    cells
        Positions, in the constants, of the memory cells that the frames use.
    bits
        Bits of the status words that count.
    status_flags
        Bits and names of the status words where they name them.
    limits
        For each gain code the ADC values that are trusted (lowest, highest), of flags also those that are far from
        switching; empty where none is checked.
    user
        A user's function, or None.
    reasons
        Reasons that make a pixel NaN.
    scale
        What a value in the gain's unit is multiplied by.
    variance
        Whether the variance of the values is wanted too.
    photon
        One photon in the unit of the data, for the variance; 0 leaves counting statistics out.
    mode
        Common mode.
    checked
        Whether the constants were looked at already, so that packing them need not.
    """

    entry: DetectorType
    dtype: np.dtype[Any]
    part: Part
    cells: tuple[int, ...] = (0,)
    bits: int = 0xFFFF
    status_flags: tuple[tuple[int, str], ...] = ()
    limits: tuple[tuple[int, ...], ...] = ()
    user: Untrusted | None = None
    reasons: Reason = DEFAULT_TRUST
    scale: float = 1.0
    variance: bool = False
    photon: float = 0.0
    mode: CommonMode = field(default_factory=CommonMode)
    checked: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frames."""
        return self.part.shape[1:]

    @property
    def n_pixels(self) -> int:
        """Pixels of a segment."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, eq=False)
class ValueTables:
    """What the kernels need of a segment to make values.

    Attributes
    ----------
    pedestal, factor
        (memory cell, plane, pixel) float32, ADU and unit/ADU; the factor is NaN where a pixel must not be used. Where
        the ADC value does not begin at bit 0 of the word, both are for the value in its place.
    dark
        Dark variance in the square of the unit, of the same shape, or None.
    threshold
        (memory cell, number, pixel) float32 between the stages of an analogue gain, or None.
    """

    pedestal: Floats
    factor: Floats
    dark: Floats | None
    threshold: Floats | None


@dataclass(frozen=True, eq=False)
class FlagTables:
    """What the kernels need of a segment to make flags.

    Attributes
    ----------
    static
        uint32 (pixel): reasons of the whole run.
    of_plane
        (memory cell, plane, pixel): the reasons against a pixel in a plane. Where codes lie beside the frames uint8:
        bit 0 the status is bad, bit 1 the constants make no value; else uint32 reasons, the static ones among them.
    threshold
        As in :class:`ValueTables`.
    """

    static: npt.NDArray[np.uint32]
    of_plane: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    threshold: Floats | None


def control_stages(entry: DetectorType, gain_control: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int8]:
    """Gain stage of each pixel before and after the bit of its raw word is set, from its configuration bits.

    Parameters
    ----------
    entry
        A type whose decoding is `Decoding.CONTROL`.
    gain_control
        Configuration bits of each pixel, any shape. ePix10ka and ePixHR: 4 (g), 8 (ga), 16 (trbit). ePixUHR: its
        control word.

    Returns
    -------
    int8 array (2, ...): positions in ``entry.stages``, -1 where the bits name no stage.
    """
    bits = np.asarray(gain_control).astype(np.int64)
    out = np.full((2, *bits.shape), -1, dtype=np.int8)
    for mask, value, before, after in entry.control:
        chosen = (bits & mask) == value
        out[0, chosen], out[1, chosen] = before, after
    return out


def pack(settings: Settings, held: Mapping[str, Array], whole: Callable[[int], Mapping[str, Array]]) -> ValueTables:
    """Pack the constants of a segment, cell by cell: they may be large.

    Parameters
    ----------
    settings
        What is asked.
    held
        ``pedestal`` and, as far as they are known or wanted, ``gain``, ``offset``, ``noise``, ``status`` (memory cell,
        gain stage, row, column), ``threshold`` (memory cell, number, row, column); ``mask``, ``area``,
        ``gain_control`` (row, column).
    whole
        Gives what is held of one memory cell for all segments: asked where a segment lacks values.

    Raises
    ------
    CalibrationError
        A stage of the detector has no usable pedestal or gain for most of its good pixels, unless the settings say
        that this was looked at.

    Notes
    -----
    8 bytes per pixel, plane and cell, 12 with a variance.
    """
    entry, cells = settings.entry, settings.cells
    control = stages_of(entry, held, flat=True)
    shape = len(cells), 2 if control is not None else entry.n_stages, settings.n_pixels
    pedestal, factor = np.empty(shape, np.float32), np.empty(shape, np.float32)
    dark = np.empty(shape, np.float32) if settings.variance else None
    for at, c in enumerate(cells):
        known = of_cell(held, c)
        usable = usable_by_stage(settings, known)
        if not settings.checked:
            _check_constants(settings, known, usable, c, whole)
        base, scale = _base(known), _factor(settings, known)
        scale[~(usable & np.isfinite(base) & np.isfinite(scale))] = np.nan
        pedestal[at], factor[at] = by_plane(base, control), by_plane(scale, control, np.float32(np.nan))
        if dark is not None:
            squared = np.square(known[NOISE].astype(np.float32) * scale)
            dark[at] = by_plane(squared, control)
    if entry.data_shift:  # powers of two: exact
        lift = np.float32(1 << entry.data_shift)
        pedestal *= lift
        factor *= np.float32(1 / lift)
    return ValueTables(pedestal, factor, dark, thresholds(settings, held))


def of_cell(held: Mapping[str, Array], c: int) -> dict[str, Array]:
    """Arrays of one memory cell, (gain stage, pixel), and those of all cells, (pixel); thresholds are left out."""
    out = {name: array[c].reshape(len(array[c]), -1) for name, array in held.items() if name in _OF_STAGES}
    return out | {name: array.reshape(-1) for name, array in held.items() if name not in (*_OF_STAGES, THRESHOLD)}


def thresholds(settings: Settings, held: Mapping[str, Array]) -> Floats | None:
    """Thresholds of an analogue gain, (memory cell, number, pixel); None where there are none."""
    if THRESHOLD not in held:
        return None
    chosen = np.asarray(held[THRESHOLD][list(settings.cells)], dtype=np.float32)
    return np.ascontiguousarray(chosen.reshape(*chosen.shape[:2], -1))


def _base(known: Mapping[str, Array]) -> Floats:
    """Pedestal and offset (gain stage, pixel)."""
    base = np.asarray(known[PEDESTAL], dtype=np.float32)
    return base + known[OFFSET].astype(np.float32) if OFFSET in known else base


def _factor(settings: Settings, known: Mapping[str, Array]) -> Floats:
    """What differences in ADU are multiplied by, (gain stage, pixel); NaN where the gain cannot be divided by."""
    factor = np.full(known[PEDESTAL].shape, settings.scale, np.float32)
    if GAIN in known:
        gain = np.asarray(known[GAIN], dtype=np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(_can_divide(gain), np.float32(settings.scale) / gain, np.float32(np.nan))
    if AREA in known:
        factor = (factor / known[AREA]).astype(np.float32)
    return factor


def _can_divide(gain: Array) -> Bools:
    """Where a gain can be divided by: by an infinite one every value would come out as 0."""
    usable: Bools = np.isfinite(gain) & (gain != 0)
    return usable


def lacking(known: Mapping[str, Array]) -> dict[str, Bools]:
    """Where a pedestal (with its offset) or a gain makes no value, by its name."""
    no_pedestal = ~np.isfinite(known[PEDESTAL])
    if OFFSET in known:
        no_pedestal |= ~np.isfinite(known[OFFSET])
    return {PEDESTAL: no_pedestal} | ({GAIN: ~_can_divide(known[GAIN])} if GAIN in known else {})


def status_is_bad(settings: Settings, status: Array) -> Bools:
    """Where a status word has a bit that counts."""
    bad: Bools = (status & np.asarray(settings.bits).astype(status.dtype)) != 0
    return bad


def good_of_run(settings: Settings, known: Mapping[str, Array], shape: tuple[int, ...]) -> Bools:
    """Pixels with nothing against them in the whole run: by the mask and, but for memory cells, by the status."""
    good = np.asarray(known[MASK]) if MASK in known else np.ones(shape, bool)
    if STATUS not in known or settings.entry.memory_cell:
        return good
    reasons = static_reasons(settings.entry, known[STATUS], bits=settings.bits, named=settings.status_flags)
    out: Bools = good & ((reasons & np.uint32(settings.reasons)) == 0)
    return out


def usable_by_stage(settings: Settings, known: Mapping[str, Array]) -> Bools:
    """Pixels that may be used in each gain stage; ``known`` are arrays (gain stage, ...) of a memory cell."""
    shape = known[PEDESTAL].shape
    usable: Bools = np.broadcast_to(good_of_run(settings, known, shape[1:]), shape)
    own = Reason.MEMORY_CELL_STATUS if settings.entry.memory_cell else Reason.GAIN_STAGE_STATUS
    if STATUS in known and own in settings.reasons:
        usable = usable & ~status_is_bad(settings, known[STATUS])
    return usable


def _check_constants(
    settings: Settings, known: Mapping[str, Array], usable: Bools, c: int, whole: Callable[[int], Mapping[str, Array]]
) -> None:
    """Raise where the constants of the whole detector are unusable; one bad segment of many becomes NaN."""
    try:
        check_values(settings.entry, known, usable)
    except CalibrationError:
        of_all = of_cell(whole(c), 0)
        cell = c if len(settings.cells) > 1 else None
        check_values(settings.entry, of_all, usable_by_stage(settings, of_all), cell=cell)


def check_values(entry: DetectorType, known: Mapping[str, Array], usable: Bools, *, cell: int | None = None) -> None:
    """Raise where most good pixels of a stage have no usable constants; a few of them become NaN.

    Where the configuration says which stages pixels begin in, only those count. What they may switch to is not always
    known: low pedestals are derived, not measured; without one a pixel is NaN once it has switched.
    """
    control = stages_of(entry, known)
    of_which = "" if cell is None else f" of the memory cell at position {cell}"
    for name, bad in lacking(known).items():
        for stage, label in enumerate(entry.stages):
            good = usable[stage] if control is None else usable[stage] & (control[0] == stage)
            n, n_bad = np.count_nonzero(good), np.count_nonzero(good & bad[stage])
            if n_bad * 2 > n:
                raise CalibrationError(
                    f"{'no pixel has' if n_bad == n else 'few pixels have'} a usable {name} in gain stage "
                    f"{label}{of_which}",
                    found=f"NaN or 0 in {n_bad} of {n} pixels that status calls good",
                    expected=f"a {name} for nearly every good pixel; the few others become NaN",
                    fix=f"fill constants[{name!r}], or mark the pixels in constants['status']",
                )


def looked_at(settings: Settings, arrays: Mapping[str, Any]) -> Settings:
    """Check constants that are in memory now, before anything is computed; others where their tables are packed.

    Those of many memory cells are checked there, too: they are large.
    """
    check_control(settings.entry, arrays.get(GAIN_CONTROL))
    if settings.entry.memory_cell or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        return settings
    known = {name: array[0] if name in _OF_STAGES else array for name, array in arrays.items()}
    check_values(settings.entry, known, usable_by_stage(settings, known))
    return replace(settings, checked=True)


def check_control(entry: DetectorType, bits: npt.NDArray[Any] | None) -> None:
    """Raise where the configuration puts no pixel into a gain stage."""
    if bits is not None and not (control_stages(entry, bits)[0] >= 0).any():
        raise CalibrationError(
            f"the configuration puts no pixel of {entry.name!r} into a gain stage",
            found=f"gain_control {', '.join(map(str, np.unique(bits).tolist()[:8]))}",
            expected="control bits of which some pixels name one of " + ", ".join(entry.stages),
        )


def stages_of(entry: DetectorType, known: Mapping[str, Array], *, flat: bool = False) -> npt.NDArray[np.int64] | None:
    """Gain stage of each pixel before and after switching, where the configuration of the pixels says it."""
    if entry.decoding is not Decoding.CONTROL:
        return None
    bits = known[GAIN_CONTROL]
    return control_stages(entry, bits.reshape(-1) if flat else bits).astype(np.int64)


def by_plane(table: Array, control: npt.NDArray[np.int64] | None, nowhere: Any = None) -> Array:
    """Choose for each pixel the constants of the planes that it can have, of a table (gain stage, pixel).

    ``nowhere`` is what a pixel gets whose configuration names no stage.
    """
    if control is None:
        return table
    chosen: Array = np.take_along_axis(table, np.maximum(control, 0), axis=0)
    return chosen if nowhere is None else np.where(control < 0, nowhere, chosen)
