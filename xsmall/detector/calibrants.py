"""Powders whose rings are known: spacing and lattice of calibrants, and the q of their rings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import ParameterError, alike

__all__ = ["CALIBRANTS", "calibrant_q"]

Floats = npt.NDArray[np.float64]

CALIBRANTS: Final[Mapping[str, tuple[float, str]]] = MappingProxyType(
    {
        "AgBh": (58.380, "layers"),
        "LaB6": (4.156826, "primitive"),
        "CeO2": (5.411651, "face-centred"),
        "Si": (5.431179, "diamond"),
    }
)
"""Lattice constant in angstrom and lattice of calibrants (silver behenate: spacing of its layers)."""


def calibrant_q(name: str, q_max: float = 10.0) -> Floats:
    """q of the powder rings of a calibrant.

    Parameters
    ----------
    name
        "AgBh", "LaB6", "CeO2" or "Si".
    q_max
        Up to where, in 1/angstrom.

    Returns
    -------
    q in 1/angstrom, increasing: float64 (ring,).

    Raises
    ------
    ParameterError
        For an unknown calibrant.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.calibrant_q("LaB6", 3).round(4)
    array([1.5115, 2.1376, 2.6181])
    """
    if name not in CALIBRANTS:
        near = alike(name, CALIBRANTS)
        fix = f'"{near[0]}"' if near else "the q of its rings as numbers"
        raise ParameterError("unknown calibrant", found=repr(name), expected=", ".join(CALIBRANTS), fix=fix)
    spacing, lattice = CALIBRANTS[name]
    n_max = int(q_max * spacing / (2 * np.pi)) + 1
    if lattice == "layers":
        orders = np.arange(1, n_max + 1, dtype=np.float64)
    else:
        h, k, m = np.meshgrid(*[np.arange(n_max + 1)] * 3, indexing="ij")
        allowed = np.ones(h.shape, dtype=bool)
        if lattice != "primitive":
            allowed = ((h + k) % 2 == 0) & ((k + m) % 2 == 0)
        if lattice == "diamond":
            allowed &= (h % 2 == 1) | ((h + k + m) % 4 == 0)
        orders = np.sqrt(np.unique((h**2 + k**2 + m**2)[allowed])[1:].astype(np.float64))
    q = 2 * np.pi * orders / spacing
    within: Floats = q[q <= q_max]
    return within
