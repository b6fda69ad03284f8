"""What a file can hold: checks, attributes, and values in the form in which they are stored."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError
from xsmall.events.ragged import is_ragged

__all__ = ["check", "is_text", "storable_attrs", "times_in_ns"]

_HELD: Final = "biufMUSTO"
_MOST_BYTES: Final = 8
"""Bytes of the largest number that both formats hold."""


def check(where: str, node: xr.Dataset) -> None:
    """Refuse what no file can hold.

    Raises
    ------
    DataError
        Complex numbers, objects, an index of several levels.
    """
    for name, variable in node.variables.items():
        held = variable.dtype.kind in _HELD and (
            variable.dtype.kind not in "biuf" or _is_storable_dtype(variable.dtype)
        )
        if not held or (variable.dtype.kind == "O" and not is_ragged(variable) and not is_text(variable)):
            raise DataError(
                f"{_at(where, name)} cannot be saved",
                found=variable.dtype,
                expected="numbers, times or text",
                fix=f".drop_vars({name!r}), or numbers",
            )
        if type(node.xindexes.get(name)).__name__ == "PandasMultiIndex":
            raise DataError(f"the index of {_at(where, name)} cannot be saved", fix=f".reset_index({name!r})")


def _at(where: str, name: Any) -> str:
    return repr(name) if where == "/" else f"{name!r} in {where}"


def _is_storable_dtype(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize <= _MOST_BYTES and dtype != np.float16


def is_text(variable: xr.Variable) -> bool:
    """Whether all elements are text."""
    return all(isinstance(value, str) for value in np.asarray(variable.values).ravel())


def storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as both formats hold them: truth as 0 and 1, dicts and nested lists as JSON, none that say nothing."""
    out: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if value is None or (isinstance(value, list | tuple | dict) and not value):
            continue
        if isinstance(value, bool | np.bool_):
            value = int(value)
        elif isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, dict) or (isinstance(value, list | tuple) and not _is_flat(value)):
            value = json.dumps(value, default=str)
        out[str(name)] = value
    return out


def _is_flat(values: Any) -> bool:
    return len({type(v) for v in values}) == 1 and isinstance(values[0], str | int | float) and values[0] is not True


def times_in_ns(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Times of any resolution as nanoseconds since 1970.

    Raises
    ------
    DataError
        Times before 1677 or after 2262, which 64 bits of nanoseconds do not reach.
    """
    ns = values.astype("M8[ns]")
    if ((ns.astype(values.dtype) != values) & ~np.isnat(values)).any():
        raise DataError("times that nanoseconds do not reach", found=values.dtype, expected="years 1678 to 2261")
    return ns.view(np.int64)
