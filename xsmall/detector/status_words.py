"""Status words of other programs, and the reasons their bits stand for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import Reason

__all__ = ["PIXEL_MASK_BIT", "STATUS_CONVENTIONS", "status_reasons", "status_words"]

FlagArray = npt.NDArray[np.uint32]
_HOT, _DEAD, _NOISY, _OTHER = Reason.HOT, Reason.DEAD, Reason.NOISY, Reason.OTHER_STATUS

PIXEL_MASK_BIT: Final = 1 << 14
"""Bit of ``status`` under which constants read from psana hold its ``pixel_mask``; psana's own words end below it."""

STATUS_CONVENTIONS: Final[Mapping[str, Mapping[int, Reason]]] = MappingProxyType(
    {
        # dark processing of psana2: rms high, rms low, values high, values low, mean high, mean low, bad gain code seen
        "psana2": MappingProxyType({0: _NOISY, 1: _DEAD, 2: _HOT, 3: _DEAD, 4: _HOT, 5: _DEAD, 6: _OTHER}),
        # pixel status of psana1: mean, rms, median and spread of the residuals, maximum; each low, then high
        "psana1": MappingProxyType(
            {
                **{0: _DEAD, 1: _HOT, 2: _DEAD, 3: _NOISY, 4: _OTHER, 5: _OTHER},
                **{6: _DEAD, 7: _NOISY, 8: _DEAD, 9: _HOT},
            }
        ),
        # BadPixels of the European XFEL; large pixels (bit 22) are not bad
        "euxfel": MappingProxyType(
            {1: _NOISY, 14: _DEAD, 17: _NOISY, 19: _DEAD, 22: Reason(0), 30: Reason.USER, 31: Reason.USER}
        ),
        # NXdetector pixel_mask: the upper two bytes are properties, not faults
        "nexus": MappingProxyType(
            {1: _DEAD, 3: _HOT, 4: _NOISY, 8: Reason.USER, **dict.fromkeys(range(16, 64), Reason(0))}
        ),
        # CXI: invalid, saturated, hot, dead, shadowed, in a peak, to be ignored, bad, resolution, missing, noisy,
        # corrected for histogram, in a bad row, in a peak of psana, corrected for common mode
        "cxi": MappingProxyType(
            {
                **{1: Reason.SATURATED, 2: _HOT, 3: _DEAD, 4: Reason.SHADOW, 5: Reason(0), 6: Reason.USER},
                **{9: Reason.MISSING, 10: _NOISY, 11: Reason(0), 13: Reason(0), 14: Reason(0)},
            }
        ),
        "any": MappingProxyType({}),
    }
)
"""What the bits of a status word mean, by the program that wrote it; bits not named here are ``other_status``."""


def status_reasons(
    status: npt.NDArray[Any], *, convention: str, bits: int | None = None, stage_axis: int | None = None
) -> FlagArray:
    """Turn status words into reasons.

    Parameters
    ----------
    status
        Integer status words, 0 = nothing against the pixel.
    convention
        Key of :data:`STATUS_CONVENTIONS`: who wrote the words; ``"any"`` calls every bit ``other_status``.
    bits
        Bits of the status word that count; None means all of them.
    stage_axis
        Axis of the gain stages; a pixel that is bad in one of them is bad. None: there is none.

    Returns
    -------
    uint32 reasons, without the axis of the stages.

    Raises
    ------
    DataError
        Status words that are not integers.
    ParameterError
        An unknown convention.

    Examples
    --------
    >>> import numpy as np
    >>> from xsmall.vocabulary import reason_names
    >>> reason_names(int(status_reasons(np.array([5]), convention="psana2")[0]))
    ('hot', 'noisy')
    """
    meanings = _status_meanings(convention)
    if status.dtype.kind not in "ui":
        raise DataError(
            "status words are integers", found=status.dtype, expected="an integer dtype", fix="status.astype('uint64')"
        )
    merged = status if stage_axis is None else np.bitwise_or.reduce(status, axis=stage_axis)
    words = merged.astype(np.uint64)
    if bits is not None:
        words = words & np.uint64(bits)
    reasons = np.zeros(words.shape, dtype=np.uint32)
    left = int(np.bitwise_or.reduce(words, axis=None))  # bits that some pixel has: mostly few, often none
    for bit, reason in meanings.items():
        if left >> bit & 1:
            reasons[(words & np.uint64(1 << bit)) != 0] |= np.uint32(reason)
            left &= ~(1 << bit)
    if left:
        reasons[(words & np.uint64(left)) != 0] |= np.uint32(Reason.OTHER_STATUS)
    return reasons


def _status_meanings(convention: str) -> Mapping[int, Reason]:
    try:
        return STATUS_CONVENTIONS[convention]
    except KeyError:
        raise ParameterError(
            "unknown convention of status words",
            found=convention,
            expected=", ".join(map(repr, STATUS_CONVENTIONS)),
            fix="status_convention='any' where it does not matter which reason it was",
        ) from None


_WRITTEN: Final[Mapping[str, Mapping[Reason, int]]] = MappingProxyType(
    {
        "nexus": MappingProxyType({_DEAD: 1, _HOT: 3, _NOISY: 4}),
        "euxfel": MappingProxyType({_NOISY: 1, _DEAD: 19}),
        "cxi": MappingProxyType(
            {Reason.SATURATED: 1, _HOT: 2, _DEAD: 3, Reason.SHADOW: 4, Reason.USER: 6, Reason.MISSING: 9, _NOISY: 10}
        ),
    }
)
_USER_BIT: Final = MappingProxyType({"nexus": 8, "euxfel": 30, "cxi": 7})


def status_words(reasons: npt.NDArray[Any], *, convention: str) -> FlagArray:
    """Turn reasons into the words of another program.

    Parameters
    ----------
    reasons
        uint32 reasons.
    convention
        ``"nexus"``, ``"euxfel"`` or ``"cxi"``.

    Returns
    -------
    uint32 words; reasons that the other program has no bit for become its user bit (CXI: its bit of bad pixels).

    Raises
    ------
    ParameterError
        A convention that is only read.

    Examples
    --------
    >>> import numpy as np
    >>> status_words(np.array([0, 1, 16], dtype=np.uint32), convention="nexus").tolist()
    [0, 2, 256]
    """
    if convention not in _WRITTEN:
        raise ParameterError(
            "status words of this convention are read, not written", found=convention, expected=", ".join(_WRITTEN)
        )
    words = np.zeros(reasons.shape, dtype=np.uint32)
    rest = reasons.astype(np.uint32)
    for reason, bit in _WRITTEN[convention].items():
        words[(rest & np.uint32(reason)) != 0] |= np.uint32(1 << bit)
        rest = rest & ~np.uint32(reason)
    words[rest != 0] |= np.uint32(1 << _USER_BIT[convention])
    return words
