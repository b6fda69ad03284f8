"""Values and their variance: where both are in a Dataset, and which is which."""

from __future__ import annotations

from collections.abc import Collection

import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import EVENT, FRAME_DIMS, PIXEL_DIMS, VARIANCE_SUFFIX

__all__ = ["values_and_variance"]

FRAMES = "frames"
PIXELS = "pixels"
EVENTS = "events"
_EXPECTED = {FRAMES: f"of one detector's frames {FRAME_DIMS}", PIXELS: "over pixels", EVENTS: "over events"}


def values_and_variance(
    obj: xr.DataArray | xr.Dataset, of: str = FRAMES, name: str = "these data"
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the values that are meant and, in a Dataset, their variance ``<name>_variance``.

    Parameters
    ----------
    obj
        An array, or a Dataset with one variable of values and perhaps their variance.
    of
        What the values run over: ``"frames"`` (event, segment, row, column), any ``"pixels"``, or ``"events"``.
    name
        What the error calls them.

    Raises
    ------
    DataError
        None or several variables of values; a variance of other dims than its values.
    """
    if isinstance(obj, xr.DataArray):
        return obj, None
    if not isinstance(obj, xr.Dataset):
        raise DataError(
            f"{name} are neither an array nor a Dataset",
            found=type(obj).__name__,
            expected="a DataArray, or a Dataset of values and their variance",
        )
    found = [str(v) for v in obj.data_vars if _runs_over(obj[v], of)]
    values = [v for v in found if not _is_variance(v, found)]
    if len(values) != 1:
        raise DataError(
            f"{name} have to be one variable {_EXPECTED[of]}, perhaps with its variance",
            found=f"{len(values)} such variables in the Dataset: {values[:8]}",
            expected="<name>, and perhaps <name>_variance",
            fix='choose: dataset["jungfrau"], or dataset[["jungfrau", "jungfrau_variance"]]',
        )
    variance = f"{values[0]}{VARIANCE_SUFFIX}"
    if variance not in found:
        return obj[values[0]], None
    if obj[variance].dims != obj[values[0]].dims:
        raise DataError(
            f"{variance} has other dims than its values", found=obj[variance].dims, expected=obj[values[0]].dims
        )
    return obj[values[0]], obj[variance]


def _runs_over(variable: xr.DataArray, of: str) -> bool:
    if of == FRAMES:
        return set(variable.dims) == set(FRAME_DIMS)
    return EVENT in variable.dims if of == EVENTS else bool(set(variable.dims) & set(PIXEL_DIMS))


def _is_variance(name: str, among: Collection[str]) -> bool:
    return name.endswith(VARIANCE_SUFFIX) and name.removesuffix(VARIANCE_SUFFIX) in among
