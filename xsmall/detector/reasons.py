"""Reasons against pixels by name: from names to bits, and from words that carry the names of their bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.errors import ParameterError, alike
from xsmall.vocabulary import FLAG_MASKS, FLAG_MEANINGS, Reason, reason_names

__all__ = ["named_bits", "named_reasons", "reason_bits"]

_NO_GROUPS: Mapping[str, Reason] = {}


def reason_bits(names: Iterable[str | Reason] | str | Reason, groups: Mapping[str, Reason] = _NO_GROUPS) -> Reason:
    """Turn names of reasons into their bits.

    Parameters
    ----------
    names
        Names in lower case, such as ``"dead"``, or reasons; one or several.
    groups
        Names that stand for several reasons.

    Raises
    ------
    ParameterError
        A reason that does not exist.

    Examples
    --------
    >>> from xsmall.detector.reasons import reason_bits
    >>> int(reason_bits(["dead", "edge"]))
    17
    """
    bits = Reason(0)
    for name in [names] if isinstance(names, str | Reason) else names:
        if isinstance(name, Reason):
            bits |= name
        elif name in groups:
            bits |= groups[name]
        elif name in reason_names(~0):
            bits |= Reason[name.upper()]
        else:
            known = (*groups, *reason_names(~0))
            near = alike(str(name), known)
            fix = f'"{near[0]}"' if near else None
            raise ParameterError("unknown reason", found=repr(name), expected=", ".join(known), fix=fix)
    return bits


def named_bits(attrs: Mapping[Any, Any]) -> tuple[tuple[int, str], ...]:
    """Bits and the names of their reasons, of words that carry them (CF flags); empty where they do not."""
    if FLAG_MASKS not in attrs or FLAG_MEANINGS not in attrs:
        return ()
    bits = [int(bit) for bit in np.atleast_1d(attrs[FLAG_MASKS])]
    return tuple(zip(bits, str(attrs[FLAG_MEANINGS]).split(), strict=True))


def named_reasons(
    words: npt.NDArray[Any], named: Iterable[tuple[int, str]], bits: int | None = None
) -> npt.NDArray[np.uint32]:
    """Reasons of words whose bits have names; a bit without a name, or with one that is no reason, is other status.

    Parameters
    ----------
    words
        Integers, 0 = nothing against the pixel.
    named
        Bits and their names, as :func:`named_bits` reads them.
    bits
        Bits that count; None means all.
    """
    known = {str(r.name).lower(): r for r in Reason}
    left = words.astype(np.uint64) if bits is None else words.astype(np.uint64) & np.uint64(bits)
    counted = left.copy()
    out = np.zeros(words.shape, dtype=np.uint32)
    for bit, name in named:
        out[(counted & np.uint64(bit)) != 0] |= np.uint32(known.get(name, Reason.OTHER_STATUS))
        left &= ~np.uint64(bit)
    out[left != 0] |= np.uint32(Reason.OTHER_STATUS)
    return out
