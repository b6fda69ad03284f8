"""Classes of shots: with X-rays or without, with laser or without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError, ParameterError, alike
from xsmall.vocabulary import EVENT, LASER_ON, RAGGED_DIM, XRAY_ON

__all__ = ["flag_of", "laser_is_off", "number_per_event", "one_per_event", "shots_are_dropped", "variables_per_event"]

Flags = npt.NDArray[np.bool_]


def shots_are_dropped(obj: xr.Dataset | xr.DataArray) -> Flags | None:
    """Tell which events had no X-rays: ``xray_on`` false or 0; what is not known (NaN) counts as lit.

    None where nobody says. Cost: computes ``xray_on`` where it is lazy.

    Raises
    ------
    DataError
        ``xray_on`` that is not one true/false per event.
    """
    return _is_false(obj, XRAY_ON)


def laser_is_off(obj: xr.Dataset | xr.DataArray) -> Flags | None:
    """Tell which events had no laser: ``laser_on`` false or 0; as :func:`shots_are_dropped`."""
    return _is_false(obj, LASER_ON)


def _is_false(obj: xr.Dataset | xr.DataArray, name: str) -> Flags | None:
    flag = flag_of(obj, name)
    return None if flag is None else np.asarray(flag.values == 0)


def flag_of(obj: xr.Dataset | xr.DataArray, name: str) -> xr.Variable | None:
    """Give what says true or false of each event, lazy where it is; None where nobody says.

    Raises
    ------
    DataError
        What is not one true/false per event.
    """
    known = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    if name not in known or EVENT not in obj[name].dims:
        return None
    flag: xr.Variable = obj[name].variable
    if flag.dims != (EVENT,) or flag.dtype.kind not in "biuf":
        raise DataError(
            f"{name} has to be one true or false per event",
            found=f"{flag.dtype} over {flag.dims}",
            fix=f"data.assign({name}=('event', ...)) with true/false, or .drop_vars({name!r})",
        )
    return flag


def number_per_event(obj: xr.Dataset | xr.DataArray, name: str, *, or_flag: bool = False) -> xr.Variable:
    """Give the variable (event) of a name as :func:`one_per_event`, which has to be a number, or true/false.

    Raises
    ------
    ParameterError
        No such variable, or one with several values per event.
    DataError
        One that is no number: true/false, text, or a time.
    """
    variable = one_per_event(obj, name)
    if variable.dtype.kind in ("biuf" if or_flag else "iuf"):
        return variable
    raise DataError(
        f"{name!r} is no number",
        found=str(variable.dtype),
        expected=f"a number per event, one of {[k for k in variables_per_event(obj) if obj[k].dtype.kind in 'iuf']}",
        fix=f'small.assign({name}=small["{name}"] / np.timedelta64(1, "ps"))' if variable.dtype.kind == "m" else None,
    )


def one_per_event(obj: xr.Dataset | xr.DataArray, name: str) -> xr.Variable:
    """Give the variable (event) of a name; dims of length 1, such as that of a single region, do not matter.

    Raises
    ------
    ParameterError
        No such variable, or one with several values per event.
    """
    if not isinstance(name, str):  # users are not typed
        raise ParameterError("a variable of events is given by its name", found=type(name).__name__, fix='"i0"')
    there = obj.variables if isinstance(obj, xr.Dataset) else {str(k): c.variable for k, c in obj.coords.items()}
    if name not in there or EVENT not in there[name].dims:
        known = variables_per_event(obj)
        near = alike(name, known)
        raise ParameterError(
            f"{name!r} is no variable of events, one value each",
            found=name,
            expected=f"one of {known}",
            fix=f"give {near[0]!r}" if near else None,
        )
    variable: xr.Variable = there[name]
    if RAGGED_DIM in variable.attrs:
        raise ParameterError(
            f"{name!r} has a list per event",
            found=f"lists along {variable.attrs[RAGGED_DIM]!r}",
            expected="one value per event",
            fix=f'small.assign(one=("event", [max(x, default=np.nan) for x in small["{name}"].values])), and use "one"',
        )
    others = [d for d in variable.dims if d != EVENT]
    if all(variable.sizes[d] == 1 for d in others):
        return variable.isel(dict.fromkeys(others, 0))
    raise ParameterError(
        f"{name!r} has several values per event",
        found=f"dims {dict(variable.sizes)}",
        expected="one value per event",
        fix=f"small.assign(one=small[{name!r}].isel({others[0]}=0)), and use 'one'",
    )


def variables_per_event(obj: xr.Dataset | xr.DataArray) -> list[str]:
    """Names of the variables that have one value per event; a list per event is none."""
    there = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    return sorted(str(k) for k, x in there.items() if x.dims == (EVENT,) and k != EVENT and RAGGED_DIM not in x.attrs)
