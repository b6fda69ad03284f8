"""What figures share: matplotlib on use, colours that colour-blind readers tell apart, labels from attributes."""

from __future__ import annotations

from typing import Any, Final

import xarray as xr

from xsmall.errors import MissingDependency
from xsmall.vocabulary import DIMENSIONLESS, LONG_NAME, UNITS

__all__ = ["BLUE", "COLORS", "DIVERGING", "GREY", "ORANGE", "label_of", "pyplot"]

BLUE: Final = "#4477aa"
ORANGE: Final = "#ee7733"
GREY: Final = "#999999"
COLORS: Final = (BLUE, ORANGE, "#228833", "#aa3377", "#66ccee", "#ccbb44", "#cc3311")
"""In this order; lines differ in brightness too."""
DIVERGING: Final = "RdBu_r"


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, or raise the error that says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingDependency.of("matplotlib", "plot", "a figure") from None
    return plt


def label_of(array: xr.DataArray, name: str | None = None) -> str:
    """Label of an axis: the long name or the name, and the unit where it has one."""
    own = "value" if array.name is None else str(array.name)
    shown = name or str(array.attrs.get(LONG_NAME, own))
    unit = array.attrs.get(UNITS)
    return f"{shown} ({unit})" if unit and unit != DIMENSIONLESS else shown
