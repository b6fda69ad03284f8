"""Numbers with a unit, as recipes write them: ``"9.5 keV"``, ``"92.5 mm"``, ``"5 sigma"``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import pi
from typing import Final

from xsmall.errors import ParameterError

__all__ = ["KINDS", "quantity", "split"]

KINDS: Final[Mapping[str, Mapping[str, Fraction | float]]] = {
    "energy": {"eV": Fraction(1), "keV": Fraction(1000), "MeV": Fraction(10**6)},
    "length": {"m": Fraction(1), "cm": Fraction(1, 100), "mm": Fraction(1, 1000), "um": Fraction(1, 10**6)},
    "angle": {"degree": Fraction(1), "deg": Fraction(1), "rad": 180 / pi, "mrad": 0.18 / pi},
    "q": {
        "angstrom-1": Fraction(1), "1/angstrom": Fraction(1), "nm-1": Fraction(1, 10), "1/nm": Fraction(1, 10),
    },
    "time": {
        "ps": Fraction(1), "fs": Fraction(1, 1000), "ns": Fraction(1000), "us": Fraction(10**6), "ms": Fraction(10**9),
        "s": Fraction(10**12),
    },
}  # fmt: skip
"""Units that a recipe may use, by what is measured; the first of each is that of xsmall, the factor leads to it."""

_TEXT: Final = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*")


def split(given: object, what: str, units: Iterable[str]) -> tuple[Fraction, str]:
    """Part a quantity into its number and its unit; ``units`` are such as may be meant.

    Raises
    ------
    ParameterError
        A bare number, whose unit would have to be guessed, or no quantity at all.
    """
    found = (
        _TEXT.fullmatch(str(given)) if isinstance(given, str | int | float) and not isinstance(given, bool) else None
    )
    if found is None or found[2] is None:
        number = "1" if found is None else str(given).strip()
        choices = [f'"{number} {unit}"' for unit in units]
        raise ParameterError(
            f"{what} needs a number and a unit" if found is None else f"{what} has no unit",
            found=repr(given),
            expected="text of a number and its unit",
            fix=" or ".join(choices),
        )
    return Fraction(found[1]), found[2]


def quantity(given: object, kind: str, what: str) -> float:
    """Read a quantity and give it in the unit of xsmall, rounded once.

    Parameters
    ----------
    given
        Text of a number and its unit.
    kind
        What is measured: a key of :data:`KINDS`.
    what
        Name of the value, for errors.

    Returns
    -------
    The number, in eV, m, degree, 1/angstrom or ps.

    Raises
    ------
    ParameterError
        No unit, a unit of something else, or no number.

    Examples
    --------
    >>> from xsmall.run.quantity import quantity
    >>> quantity("92.5 mm", "length", "distance"), quantity("9.5 keV", "energy", "photon_energy")
    (0.0925, 9500.0)
    """
    units = KINDS[kind]
    number, unit = split(given, what, units)
    if unit not in units:
        raise ParameterError(
            f"{what} is not in a unit of {kind}", found=repr(given), expected=f"a number with {', '.join(units)}"
        )
    factor = units[unit]
    return float(number * factor) if isinstance(factor, Fraction) else float(number) * factor
