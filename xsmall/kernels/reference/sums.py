"""The slow twin of sums over events: rational numbers, in which nothing is rounded."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy.typing as npt

__all__ = ["statistics"]


def statistics(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Sum, mean and standard deviation (n - 1) of the finite values of one pixel."""
    known = [Fraction(float(v)) for v in values if math.isfinite(v)]
    n = len(known)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = sum(known, Fraction(0)) / n
    squares = sum(((v - mean) ** 2 for v in known), Fraction(0))
    return float(mean * n), float(mean), math.sqrt(squares / (n - 1)) if n > 1 else math.nan
