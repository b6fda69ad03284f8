"""Constants packed for the kernels: for each segment and plane, pedestal and factor of every pixel.

A plane is what a gain code selects. In a detector whose stage stands in the raw word, planes are stages. Where the
configuration of a pixel takes part (ePix10ka), plane 0 is the stage that the pixel has while the bit in its raw word
is 0, plane 1 the one it has after switching: two planes stand for seven ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import CalibrationError

__all__ = ["CalibrationTables", "check_usable", "control_stages", "pack"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CalibrationTables:
    """What :func:`xsmall.kernels.calibrate.calibrate_stack` needs, per segment.

    Attributes
    ----------
    plane
        Plane of each gain code, -1 for a code without constants.
    pedestal, factor
        (segment, plane, pixel) float32; factor is NaN where a pixel must not be used.
    variance
        (segment, plane, pixel) float32: dark variance in the square of the unit, or None.
    """

    plane: npt.NDArray[np.int64]
    pedestal: FloatArray
    factor: FloatArray
    code_shift: int
    code_mask: int
    data_mask: int
    variance: FloatArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        extra = 0 if self.variance is None else self.variance.nbytes
        return self.pedestal.nbytes + self.factor.nbytes + extra


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
    if entry.name == "epixuhr":
        word, low = bits & 0o73, bits & 0o63  # injection does not matter, and medium gain not where low is fixed
        for value, stage in ((1, 2), (33, 3)):
            out[:, low == value] = stage
        for value, stage in ((32, 0), (40, 1)):
            out[:, word == value] = stage
        for value, stage in ((16, 4), (48, 5), (24, 6), (56, 7)):
            out[0, word == value], out[1, word == value] = stage, stage + 4
        return out
    control = bits & 28
    out[:, control == 28] = 0
    out[:, control == 12] = 1
    out[:, (bits & 12) == 8] = 2
    out[0, control == 16], out[1, control == 16] = 3, 5
    out[0, control == 0], out[1, control == 0] = 4, 6
    return out


def pack(
    entry: DetectorType,
    pedestal: Array,
    *,
    gain: Array | None = None,
    offset: Array | None = None,
    noise: Array | None = None,
    good: npt.NDArray[np.bool_] | None = None,
    gain_control: Array | None = None,
    scale: float = 1.0,
    area: Array | None = None,
) -> CalibrationTables:
    """Pack constants (gain_stage, segment, row, column) for the kernels.

    Parameters
    ----------
    entry
        Type of the detector.
    pedestal, gain, offset, noise
        Constants in the units of the schema; gain None leaves ADU, offset None means 0.
    good
        (segment, row, column), or with gain_stage in front: where the pixel may be used at all.
    gain_control
        (segment, row, column) bits, for detectors that need them.
    scale
        What a value in the gain's unit is multiplied by, e.g. photons per keV.
    area
        (segment, row, column) relative areas that values are divided by.

    Returns
    -------
    The tables; pixels without a usable gain or pedestal have the factor NaN.

    Raises
    ------
    CalibrationError
        A stage has no usable gain or pedestal for most of its good pixels, or ``gain_control`` is missing.

    Notes
    -----
    8 bytes per pixel and plane; ADC values above bit 0 of the word are taken into the tables exactly (powers of two).
    """
    base = np.asarray(pedestal, dtype=np.float32)
    if offset is not None:
        base = base + np.asarray(offset, dtype=np.float32)
    shape = base.shape
    usable = np.broadcast_to(np.ones(1, bool) if good is None else np.asarray(good, dtype=bool), shape)
    factor = np.full(shape, scale, dtype=np.float32)
    if gain is not None:
        divisor = np.asarray(gain, dtype=np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(_divides(divisor), np.float32(scale) / divisor, np.nan).astype(np.float32)
    if area is not None:
        factor = (factor / area).astype(np.float32)
    stage = _stages(entry, gain_control, shape)
    _check_values(entry, base, factor, usable, stage)
    factor = np.where(usable & np.isfinite(base) & np.isfinite(factor), factor, np.float32(np.nan))
    dark = None if noise is None else np.square(np.asarray(noise, dtype=np.float32) * factor)
    plane = np.asarray(entry.stage_of_code or (0, 1), dtype=np.int64)
    tables = [base, factor] + ([] if dark is None else [dark])
    if stage is not None:
        tables = _by_control(tables, stage)
    lift = np.float32(1 << entry.data_shift)
    packed = [np.ascontiguousarray(t.reshape(*t.shape[:2], -1).swapaxes(0, 1)) for t in tables]
    return CalibrationTables(
        plane=plane,
        pedestal=packed[0] * lift if entry.data_shift else packed[0],
        factor=packed[1] * np.float32(1 / lift) if entry.data_shift else packed[1],
        code_shift=entry.code_shift,
        code_mask=entry.n_codes - 1,
        data_mask=entry.data_mask,
        variance=packed[2] if noise is not None else None,
    )


def _stages(entry: DetectorType, gain_control: Array | None, shape: tuple[int, ...]) -> npt.NDArray[np.int64] | None:
    """Gain stage of each pixel before and after switching, where the configuration of the pixels says it."""
    if entry.decoding is not Decoding.CONTROL:
        return None
    if gain_control is None:
        raise CalibrationError(
            f"the gain of {entry.name!r} depends on the configuration of each pixel, which is not there",
            found="no gain_control",
            expected="gain_control (segment, row, column), bits 4 (g), 8 (ga), 16 (trbit)",
            fix='calibrate(raw, constants, gain_control=run["..."]["config"]["gain_control"])',
        )
    stage = control_stages(entry, gain_control).astype(np.int64)
    if not (stage[0] >= 0).any():
        bits = np.unique(gain_control).tolist()
        raise CalibrationError(
            f"the configuration puts no pixel of {entry.name!r} into a gain stage",
            found=f"gain_control {', '.join(map(str, bits[:8]))}",
            expected="control bits of which some pixels name one of " + ", ".join(entry.stages),
        )
    return np.broadcast_to(stage, (2, *shape[1:]))


def _divides(gain: Array) -> npt.NDArray[np.bool_]:
    """Where a gain can be divided by: by an infinite one every value would come out as 0."""
    usable: npt.NDArray[np.bool_] = np.isfinite(gain) & (gain != 0)
    return usable


def _check_values(
    entry: DetectorType, base: Array, factor: Array, usable: Array, configured: npt.NDArray[np.int64] | None
) -> None:
    """Raise where most good pixels of a stage have no usable constants; a few of them become NaN.

    Where the configuration says which stages pixels begin in, only those count. What they may switch to is not always
    known: low pedestals are derived, not measured; without one a pixel is NaN once it has switched.
    """
    for name, table in (("pedestal", base), ("gain", factor)):
        for stage, of_stage in enumerate(table):
            of_use = usable[stage] if configured is None else usable[stage] & (configured[0] == stage)
            check_usable(name, entry.stages[stage], of_use, np.isfinite(of_stage))


def check_usable(name: str, stage: str, good: npt.NDArray[np.bool_], usable: npt.NDArray[np.bool_]) -> None:
    """Raise where most of the good pixels of a gain stage have no usable constant of a name."""
    n, lacking = np.count_nonzero(good), np.count_nonzero(good & ~usable)
    if lacking * 2 > n:
        raise CalibrationError(
            f"{'no pixel has' if lacking == n else 'few pixels have'} a usable {name} in gain stage {stage}",
            found=f"NaN or 0 in {lacking} of {n} pixels that status calls good",
            expected=f"a {name} for nearly every good pixel; the few others become NaN",
            fix=f"fill constants[{name!r}], or mark the pixels in constants['status']",
        )


def _by_control(tables: list[Array], stage: npt.NDArray[np.int64]) -> list[Array]:
    """Choose for each pixel the constants of the two stages that it can have."""
    nowhere = stage < 0
    at = np.where(nowhere, 0, stage)
    chosen = [np.take_along_axis(table, at, axis=0) for table in tables]
    chosen[1] = np.where(nowhere, np.float32(np.nan), chosen[1])
    return chosen
