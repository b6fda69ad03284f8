"""Reasons against pixels: from status words to flags, names to bits, and the ADC values that are to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from xsmall.detector.reasons import named_reasons, reason_bits
from xsmall.detector.status_words import status_reasons
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import Reason, reason_names

__all__ = [
    "ALWAYS",
    "CONSTANT",
    "DEFAULT_TRUST",
    "OF_STATUS",
    "Untrusted",
    "adc_limits",
    "check_untrusted",
    "chosen_reasons",
    "own_reasons",
    "static_reasons",
]

Untrusted: TypeAlias = Callable[[npt.NDArray[Any], int], npt.NDArray[np.bool_]]
"""A user's function of the raw words (k, row, column) and the label of the segment: True = do not trust."""

CONSTANT: Final = Reason(0xFFFF)
"""All reasons that hold for the whole run."""
ALWAYS: Final = Reason.BAD_GAIN_CODE | Reason.MISSING | Reason.NOT_FINITE | Reason.USER
"""Reasons that leave no value: these pixels are NaN whatever is asked for."""
DEFAULT_TRUST: Final = CONSTANT | ALWAYS | Reason.DAMAGED | Reason.PADDED
"""What makes a calibrated pixel NaN unless something else is asked for."""

_GROUPS: Final[Mapping[str, Reason]] = {"constant": CONSTANT, "default": DEFAULT_TRUST}


def chosen_reasons(names: Iterable[str | Reason] | str | None) -> Reason:
    """Turn names of reasons into their bits.

    Parameters
    ----------
    names
        Names in lower case, such as ``"saturated"``; ``"constant"`` is all that hold for the whole run, ``"default"``
        is :data:`DEFAULT_TRUST`; None is the default.

    Raises
    ------
    ParameterError
        A reason that does not exist.

    Examples
    --------
    >>> from xsmall.vocabulary import Reason
    >>> chosen_reasons(["default", "saturated"]) == DEFAULT_TRUST | Reason.SATURATED
    True
    """
    if names is None:
        return DEFAULT_TRUST
    return ALWAYS | reason_bits(names, _GROUPS)


OF_STATUS: Final = Reason.DEAD | Reason.HOT | Reason.NOISY | Reason.OTHER_STATUS | Reason.GAIN_STAGE_STATUS
"""Reasons that words of status give, of detectors without memory cells."""


def own_reasons(entry: DetectorType, reasons: Reason) -> Reason:
    """Translate the reasons that were asked for to those that a detector has.

    With memory cells ``"constant"`` is the status of the event's own cell and stage.

    Raises
    ------
    ParameterError
        A reason that this detector never has.
    """
    if not entry.memory_cell:
        if Reason.MEMORY_CELL_STATUS in reasons:
            raise ParameterError(
                f"{entry.name!r} has no memory cells",
                found='"memory_cell_status"',
                expected='"gain_stage_status", or "constant" for the status of all stages',
            )
        return reasons
    if CONSTANT & ~reasons == Reason(0):
        return reasons | Reason.MEMORY_CELL_STATUS
    if reasons & OF_STATUS:
        raise ParameterError(
            f"the status of {entry.name!r} is that of the memory cell and gain stage of each value, as a whole",
            found=", ".join(reason_names(reasons & OF_STATUS)),
            expected='"memory_cell_status"',
        )
    return reasons


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


def static_reasons(
    entry: DetectorType,
    status: npt.NDArray[Any],
    *,
    bits: int,
    named: tuple[tuple[int, str], ...] = (),
) -> npt.NDArray[np.uint32]:
    """Reasons that hold for the whole run, from status words of every gain stage.

    Parameters
    ----------
    entry
        Type of the detector: says which stages count, and who wrote the words.
    status
        (gain_stage, ...) words.
    bits
        Bits that count.
    named
        Bits and the names of their reasons, where the words carry them.

    Returns
    -------
    uint32 (...) reasons.
    """
    chosen = list(entry.status_stages)
    if not named:
        return status_reasons(status[chosen], convention=entry.status_convention, bits=bits, stage_axis=0)
    return named_reasons(np.bitwise_or.reduce(status[chosen], axis=0), named, bits)


def adc_limits(
    entry: DetectorType,
    reasons: Reason,
    saturation: Mapping[str, int] | None = None,
    switching: Mapping[str, tuple[int, int]] | None = None,
    *,
    dtype: npt.DTypeLike = np.uint16,
) -> tuple[tuple[int, int], ...]:
    """Lowest and highest ADC value to be trusted for each gain code.

    Parameters
    ----------
    entry
        Type of the detector.
    reasons
        `Reason.SATURATED` and `Reason.NEAR_SWITCHING` are looked at; others are none of this function's business.
    saturation
        ADC value at which a stage saturates, by the name of the stage, in place of those of the type.
    switching
        Lowest and highest ADC value that is far from the switching point, by the name of the stage.
    dtype
        Of the frames: other numbers than uint16 words, of cameras, may be negative and larger.

    Returns
    -------
    One pair for each gain code, or nothing where no value is untrusted.

    Raises
    ------
    ParameterError
        The saturation or the switching zone of the detector is not known and not given.
    """
    ends = [0, entry.adc_max] if np.dtype(dtype) == np.uint16 else [-(2**31), 2**31 - 1]
    out = [list(ends) for _ in range(max(entry.n_codes, 1))]
    if Reason.SATURATED in reasons:
        for code, value, sign in _saturation(entry, saturation):
            if sign > 0:
                out[code][1] = min(out[code][1], value - 1)
            else:
                out[code][0] = max(out[code][0], value + 1)
    if Reason.NEAR_SWITCHING in reasons:
        for code, (low, high) in _switching(entry, switching, ends).items():
            out[code] = [max(out[code][0], low), min(out[code][1], high)]
    if all(pair == ends for pair in out):
        return ()
    return tuple((low << entry.data_shift, high << entry.data_shift) for low, high in out)


def _codes(entry: DetectorType, stage: object) -> list[int]:
    """Gain codes of a stage that is named."""
    if stage not in entry.stages:
        raise ParameterError(f"{entry.name!r} has no such gain stage", found=stage, expected=", ".join(entry.stages))
    if entry.decoding is Decoding.CONTROL:
        raise ParameterError(
            f"the stages of {entry.name!r} share gain codes, so that limits cannot be given by stage", found=stage
        )
    position = entry.stages.index(str(stage))
    return [code for code, of_code in enumerate(entry.stage_of_code) if of_code == position]


def _saturation(entry: DetectorType, given: Mapping[str, int] | None) -> tuple[tuple[int, int, int], ...]:
    if given is not None:
        signs = {code: sign for code, _, sign in entry.saturation}
        return tuple(
            (code, int(value), signs.get(code, 1)) for stage, value in given.items() for code in _codes(entry, stage)
        )
    if not entry.saturation:
        raise ParameterError(
            f"the ADC value at which {entry.name!r} saturates is not known",
            fix=f'saturation={{"{entry.stages[0]}": 4095}}  # of a 12-bit camera',
        )
    return entry.saturation


def _switching(
    entry: DetectorType, given: Mapping[str, tuple[int, int]] | None, ends: list[int]
) -> Mapping[int, tuple[int, int]]:
    if not given:
        raise ParameterError(
            f"where {entry.name!r} switches its gain depends on its settings and is not known",
            expected="ADC values of each stage that are far from the switching point",
            fix=f'switching={{"{entry.stages[0]}": (0, 12000)}}',
        )
    out: dict[int, tuple[int, int]] = {}
    for stage, (low, high) in given.items():
        if not ends[0] <= low <= high <= ends[1]:
            raise ParameterError(
                "invalid range of ADC values",
                found=(low, high),
                expected=f"{ends[0]} <= low <= high <= {ends[1]}",
            )
        out |= {code: (int(low), int(high)) for code in _codes(entry, stage)}
    return out
