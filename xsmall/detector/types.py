"""The one table of detector types: how a raw word is decoded and which gain stages its constants have.

Adding a detector is one entry of :data:`DETECTOR_TYPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from xsmall.errors import CalibrationError, alike

__all__ = ["DETECTOR_TYPES", "Decoding", "DetectorType", "detector_type"]


class Decoding(Enum):
    """What tells the gain stage of a pixel."""

    FIXED = "fixed"
    """Nothing: there is one stage."""
    CODE = "code"
    """Bits of the raw word."""
    CONTROL = "control"
    """Bits of the configuration of each pixel (``gain_control``) together with a bit of the raw word."""
    BESIDE = "beside"
    """An array beside the frames, of their shape: gain stages, or an analogue gain."""


@dataclass(frozen=True)
class DetectorType:
    """How the raw words of a detector are read, and what its constants look like.

    Attributes
    ----------
    name
        The word that stands in ``attrs["detector_type"]`` of raw data and constants.
    stages
        Names of the gain stages, in the order of the constants' ``gain_stage``.
    decoding
        What tells the gain stage of a pixel.
    aliases
        Other names of the type, as sources spell it; compared in lower case.
    code_shift, code_bits
        The gain code is ``(raw >> code_shift) & (2**code_bits - 1)``.
    stage_of_code
        Gain stage of each code for `Decoding.CODE` and `Decoding.BESIDE`, -1 for a code that a working pixel never has.
    control
        For `Decoding.CONTROL`: rows of (mask, value, stage, stage after switching). A pixel whose configuration bits
        under the mask have the value is in the first stage until the bit of its raw word is set, then in the second;
        later rows win.
    data_shift, data_bits
        The ADC value is ``(raw >> data_shift) & (2**data_bits - 1)``.
    segment_shape
        Rows and columns of a segment, or None where they vary.
    status_stages
        Stages whose status bits are merged into the constant mask.
    status_bits
        Bits of the status word that make a pixel bad. The upper ones describe it (wide pixel, module edge).
    status_convention
        Who writes the status words: a key of ``STATUS_CONVENTIONS``.
    nominal_gain
        Gain of each stage in ADU/keV, where the maker or the community states one; else empty.
    saturation
        (gain code, ADC value, sign): the value at which a pixel of this code is saturated, and +1 where signal raises
        the value, -1 where it lowers it. Empty where it is not known.
    common_mode_scale
        What ADU of each stage are multiplied by while a common mode is estimated and subtracted, so that all stages are
        in ADU of the first; powers of two, which round nothing. Empty: stages are not compared.
    memory_cell
        The constants may have the dim ``memory_cell``, and their status is that of a cell and stage; frames say which
        cell they used.
    """

    name: str
    stages: tuple[str, ...]
    decoding: Decoding = Decoding.FIXED
    aliases: tuple[str, ...] = ()
    code_shift: int = 0
    code_bits: int = 0
    stage_of_code: tuple[int, ...] = (0,)
    control: tuple[tuple[int, int, int, int], ...] = ()
    data_shift: int = 0
    data_bits: int = 16
    segment_shape: tuple[int, int] | None = None
    status_stages: tuple[int, ...] = (0,)
    status_bits: int = 0xFFFF
    status_convention: str = "psana2"
    nominal_gain: tuple[float, ...] = ()
    saturation: tuple[tuple[int, int, int], ...] = ()
    common_mode_scale: tuple[float, ...] = ()
    memory_cell: bool = False

    def __post_init__(self) -> None:
        if self.memory_cell and self.decoding is Decoding.CONTROL:
            raise ValueError(f"{self.name}: no kernel reads configured gain stages by memory cell")
        if self.common_mode_scale and (self.memory_cell or self.decoding is not Decoding.CODE):
            raise ValueError(f"{self.name}: stages are brought to one scale by the code in the word alone")

    @property
    def n_stages(self) -> int:
        """Number of gain stages."""
        return len(self.stages)

    @property
    def n_codes(self) -> int:
        """Number of gain codes of a raw word."""
        return 1 << self.code_bits

    @property
    def adc_max(self) -> int:
        """Greatest ADC value."""
        return (1 << self.data_bits) - 1

    @property
    def data_mask(self) -> int:
        """Bits of the raw word that hold the ADC value."""
        return self.adc_max << self.data_shift


_EPIX10KA_STAGES: Final = ("FH", "FM", "FL", "AHL_H", "AML_M", "AHL_L", "AML_L")
_EPIXUHR_STAGES: Final = (
    "FHG", "FMG", "FLG1", "FLG2", "AHLG1", "AHLG2", "AMLG1", "AMLG2",
    "AHLG1_L", "AHLG2_L", "AMLG1_L", "AMLG2_L",
)  # fmt: skip
_EPIX10KA_CONTROL: Final = ((28, 28, 0, 0), (28, 12, 1, 1), (12, 8, 2, 2), (28, 16, 3, 5), (28, 0, 4, 6))
_EPIXUHR_CONTROL: Final = (  # injection does not matter, and medium gain does not where low gain is fixed
    (0o63, 1, 2, 2), (0o63, 33, 3, 3), (0o73, 32, 0, 0), (0o73, 40, 1, 1),
    (0o73, 16, 4, 8), (0o73, 48, 5, 9), (0o73, 24, 6, 10), (0o73, 56, 7, 11),
)  # fmt: skip
_EUXFEL_BITS: Final = 0xFFFFFFFF & ~(1 << 22)  # bit 22 says that a pixel is of another size, which is no fault
_EPIX10KA_GAIN: Final = (16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164)
_EPIXHR_GAIN: Final = (41.0, 13.7, 0.512, 41.0, 13.7, 0.512, 0.512)


def _fixed(
    name: str,
    *aliases: str,
    segment_shape: tuple[int, int] | None = None,
    full_scale: int | None = None,
    gain: float | None = None,
) -> DetectorType:
    """A detector of one gain whose raw word is the ADC value; ``full_scale`` where the ADC's width is known."""
    saturation = () if full_scale is None else ((0, full_scale, 1),)
    nominal = () if gain is None else (gain,)
    return DetectorType(
        name, ("G0",), aliases=aliases, segment_shape=segment_shape, nominal_gain=nominal, saturation=saturation
    )


def _epix10ka(name: str, *aliases: str, shape: tuple[int, int], shift: int, gain: tuple[float, ...]) -> DetectorType:
    return DetectorType(
        name,
        _EPIX10KA_STAGES,
        Decoding.CONTROL,
        aliases=aliases,
        code_shift=shift,
        code_bits=1,
        stage_of_code=(),
        control=_EPIX10KA_CONTROL,
        data_bits=14,
        segment_shape=shape,
        status_stages=(0, 1, 2, 3, 4),  # the switched low stages are derived, not measured
        nominal_gain=gain,
        saturation=((0, 0x3FFF, 1), (1, 0x3FFF, 1)),
    )


_TABLE: Final = (
    DetectorType(
        "jungfrau",
        ("G0", "G1", "G2"),
        Decoding.CODE,
        code_shift=14,
        code_bits=2,
        stage_of_code=(0, 1, -1, 2),
        data_bits=14,
        segment_shape=(512, 1024),
        status_stages=(0, 1, 2),
        saturation=((0, 0x3FFF, 1), (3, 0, -1)),
    ),
    _epix10ka(
        "epix10ka", "epix10k", "epix10kaquad", "epix10ka2m", shape=(352, 384), shift=14, gain=_EPIX10KA_GAIN
    ),
    _epix10ka("epixhr2x2", "epixhr", shape=(288, 384), shift=15, gain=_EPIXHR_GAIN),
    _epix10ka("epixhr1x4", "epixhremu", shape=(144, 768), shift=15, gain=_EPIXHR_GAIN),
    DetectorType(
        "epixm320",
        ("AHL", "SH", "SL"),
        Decoding.CODE,
        aliases=("epixm",),
        code_shift=15,
        code_bits=1,
        stage_of_code=(0, 1),
        data_bits=15,
        segment_shape=(192, 384),
        status_stages=(0, 1),
        saturation=((0, 0x7FFF, 1), (1, 0x7FFF, 1)),
    ),
    DetectorType(
        "epixuhr",
        _EPIXUHR_STAGES,
        Decoding.CONTROL,
        aliases=("epixuhr3x2", "epixuhr35khz"),
        code_shift=0,
        code_bits=1,
        stage_of_code=(),
        control=_EPIXUHR_CONTROL,
        data_shift=1,
        data_bits=11,
        segment_shape=(336, 576),
        status_stages=tuple(range(8)),
        saturation=((0, 0x7FF, 1), (1, 0x7FF, 1)),
    ),
    _fixed("epix100", "epix", "epix100a", segment_shape=(704, 768), full_scale=0x3FFF, gain=1 / 0.06),
    _fixed("cspad", segment_shape=(185, 388), full_scale=0x3FFF),
    _fixed("cspad2x2", "cspad140k", segment_shape=(185, 388), full_scale=0x3FFF),
    _fixed("pnccd", segment_shape=(512, 512)),
    # The upper two bits of a word are the gain, the lower 13 the ADC value; value times 1, 4, 8 is on one scale: psana
    # (Detector/include/NDArrProducerCamera.h). Code 2 has no meaning there (and counts as 1); bit 13 is not read.
    DetectorType(
        "fccd960",
        ("G8", "G2", "G1"),
        Decoding.CODE,
        code_shift=14,
        code_bits=2,
        stage_of_code=(0, 1, -1, 2),
        data_bits=13,
        segment_shape=(960, 960),
        status_stages=(0, 1, 2),
        saturation=((0, 0x1FFF, 1), (1, 0x1FFF, 1), (3, 0x1FFF, 1)),
        common_mode_scale=(1, 4, 8),
    ),
    _fixed("archon", gain=1000 / 3.65),
    _fixed(
        "camera", "opal", "opal1000", "opal2000", "opal4000", "zyla", "rayonix", "orca", "andor", "andor3d", "istar",
        "alvium", "princeton", "pimax", "pixis", "fccd", "fli", "tm6740", "quartz", "streak", "piranha4", "icarus",
        "uxi",
    ),
    DetectorType(
        "jungfrau_euxfel",
        ("G0", "G1", "G2"),
        Decoding.BESIDE,
        stage_of_code=(0, 1, -1, 2),
        code_bits=2,
        data_bits=14,
        segment_shape=(512, 1024),
        status_stages=(0, 1, 2),
        status_bits=_EUXFEL_BITS,
        status_convention="euxfel",
        saturation=((0, 0x3FFF, 1), (3, 0, -1)),
        memory_cell=True,
    ),
    DetectorType(
        "agipd",
        ("HG", "MG", "LG"),
        Decoding.BESIDE,
        aliases=("agipd1m", "agipd500k"),
        stage_of_code=(0, 1, 2),
        code_bits=2,
        data_bits=16,
        segment_shape=(512, 128),
        status_stages=(0, 1, 2),
        status_bits=_EUXFEL_BITS,
        status_convention="euxfel",
        memory_cell=True,
    ),
    # The lower 12 bits of a word are the ADC value, the next two the gain: not yet compared with other programs.
    DetectorType(
        "lpd",
        ("HG", "MG", "LG"),
        Decoding.CODE,
        aliases=("lpd1m", "lpdmini"),
        code_shift=12,
        code_bits=2,
        stage_of_code=(0, 1, 2, -1),
        data_bits=12,
        segment_shape=(256, 256),
        status_stages=(0, 1, 2),
        status_bits=_EUXFEL_BITS,
        status_convention="euxfel",
        saturation=((0, 0xFFF, 1), (1, 0xFFF, 1), (2, 0xFFF, 1)),
        memory_cell=True,
    ),
    DetectorType(
        "dssc",
        ("G0",),
        aliases=("dssc1m",),
        segment_shape=(128, 512),
        status_bits=_EUXFEL_BITS,
        status_convention="euxfel",
        memory_cell=True,
    ),
)  # fmt: skip


def _by_name(table: tuple[DetectorType, ...]) -> Mapping[str, DetectorType]:
    return MappingProxyType({name: entry for entry in table for name in (entry.name, *entry.aliases)})


DETECTOR_TYPES: Final[Mapping[str, DetectorType]] = _by_name(_TABLE)
"""Detector types by name, in lower case, aliases included."""


def detector_type(name: object) -> DetectorType:
    """Look up a detector type by its name or an alias.

    Parameters
    ----------
    name
        Such as ``"jungfrau"`` or ``"Epix100a"``; upper and lower case are the same.

    Returns
    -------
    The entry of the table.

    Raises
    ------
    CalibrationError
        The table has no such type.

    Examples
    --------
    >>> detector_type("Epix100a").name
    'epix100'
    """
    if isinstance(name, DetectorType):
        return name
    found = DETECTOR_TYPES.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        near = alike(str(name).lower(), DETECTOR_TYPES)
        raise CalibrationError(
            "this detector type is not known" if name else "it is not said which detector this is",
            found=f"detector_type {name!r}",
            expected="one of " + ", ".join(entry.name for entry in _TABLE),
            fix=f'detector_type="{near[0]}"'
            if near
            else 'raw.assign_attrs(detector_type="camera") for a camera that does not switch its gain',
        )
    return found
