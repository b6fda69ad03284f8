"""Events of which a whole number, a true or a false is not known: 0 stands there, since none of them can be NaN.

A function of a user that failed, or lacked what lies beside the frames, leaves 0; so does a detector that an event of a
production does not have, and a frame without a valid pixel has 0 droplets and photons. Flags beside the values say so,
and whatever averages, cuts or bins values asks here.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from xsmall.events.name_rules import where_known
from xsmall.vocabulary import (
    DIMENSIONLESS,
    ERROR,
    EVENT,
    FAILED,
    FAULT,
    FLAG_MASKS,
    FLAG_MEANINGS,
    IS_CUT,
    MISSING,
    N_ABOVE,
    N_BELOW,
    N_DROPLETS,
    N_K,
    N_PHOTONS,
    N_SEGMENTS,
    N_VALID,
    PRESENT,
    SAMPLE_DIMENSION,
    SEGMENTS_MISSING,
    UNITS,
)

__all__ = ["COUNTED", "only_known", "unknown_events"]

COUNTED: Final = {N_SEGMENTS: (N_DROPLETS, IS_CUT), N_VALID: (N_PHOTONS, N_DROPLETS, N_BELOW, N_ABOVE, N_K)}
"""Flags that say where nothing could be counted, and the counts of the same record, that which makes it one first."""


class _Told(NamedTuple):
    """Flags of events, and the variables that they tell of."""

    prefix: str
    """First part of the names of these variables."""
    unknown: xr.Variable
    """Where they have no value, (event)."""
    flags: tuple[str, ...]
    """The flags themselves, behind the prefix."""
    ends: tuple[str, ...] = ()
    """Ends of the names of others that have a value all the same: of no valid pixel there are 0."""
    only: tuple[str, ...] = ()
    """The names behind the prefix, where the flag tells of these alone."""


def unknown_events(small: xr.Dataset, name: str) -> xr.Variable | None:
    """Which events have no value of a variable (event, ...), lazy where the flags are; None where nothing tells.

    Of floats, which are NaN there, nothing is told.
    """
    if small[name].dtype.kind not in "biu" or EVENT not in small[name].dims:
        return None
    dim = small[name].attrs.get(SAMPLE_DIMENSION)  # of the length of lists: these are of the function or detector
    names = [name, *(str(k) for k, x in small.variables.items() if dim is not None and x.dims == (dim,))]
    told = [t.unknown for t in _flags(small) if any(_is_of(n, t) for n in names)]
    return functools.reduce(operator.or_, told) if told else None


def only_known(small: xr.Dataset, name: str) -> xr.Variable:
    """The variable of a name, NaN in the events that have no value of it; float64 where there may be such."""
    array: xr.Variable = small.variables[name]
    unknown = unknown_events(small, name)
    if unknown is None:
        return array
    out = where_known(array.astype(np.float64), ~unknown).transpose(*array.dims)
    out.attrs = {**array.attrs, **({UNITS: DIMENSIONLESS} if array.dtype.kind == "b" else {})}
    return out


def _is_of(name: str, told: _Told) -> bool:
    if not name.startswith(told.prefix):
        return False
    own = name.removeprefix(told.prefix)
    if told.only:
        return own in told.only
    return own not in (*told.flags, *told.ends) and not any(own.endswith(f"_{end}") for end in told.ends)


def _flags(small: xr.Dataset) -> Iterator[_Told]:
    """What tells of events without values."""
    flags = {str(k): x for k, x in small.variables.items() if x.dims == (EVENT,)}
    for name, flag in flags.items():
        for word, told in ((FAILED, _of_function), (PRESENT, _of_detector)):
            if flag.dtype.kind == "b" and (name == word or name.endswith(f"_{word}")):
                prefix = name.removesuffix(word)
                own = {key.removeprefix(prefix): x for key, x in flags.items() if key.startswith(prefix)}
                yield from told(prefix, own)
    yield from _of_counts(small)


def _of_counts(small: xr.Dataset) -> Iterator[_Told]:
    """Of droplets and photons: where there was no valid pixel to find them in."""
    for name, valid in small.variables.items():
        for word, only in COUNTED.items():
            prefix = str(name).removesuffix(word)
            is_flag = str(name).endswith(word) and EVENT in valid.dims and f"{prefix}{only[0]}" in small.variables
            if is_flag and valid.dtype.kind in "iu":
                unknown = (valid == 0).all([d for d in valid.dims if d != EVENT])
                yield _Told(prefix, unknown, (word,), only=only)


def _of_function(prefix: str, own: dict[str, xr.Variable]) -> Iterator[_Told]:
    """Of a user's function: where it failed, and where it was not called."""
    if ERROR in own and _is_text(own[ERROR]):
        unknown = own[FAILED]
        if MISSING in own and _is_text(own[MISSING]):
            unknown = unknown | (own[MISSING] != "")
        yield _Told(prefix, unknown, (FAILED, ERROR, MISSING))


def _of_detector(prefix: str, own: dict[str, xr.Variable]) -> Iterator[_Told]:
    """Of a detector of a production: where an event has nothing of it, or was not computed."""
    if FAULT not in own or FLAG_MEANINGS not in own[FAULT].attrs:
        return
    fault, attrs = own[FAULT], own[FAULT].attrs
    names, masks = str(attrs[FLAG_MEANINGS]).split(), np.atleast_1d(attrs[FLAG_MASKS]).tolist()
    faults = sum(int(m) for m, said in zip(masks, names, strict=False) if said != SEGMENTS_MISSING)
    unknown = ~own[PRESENT] | ((fault & fault.dtype.type(faults)) != 0)
    yield _Told(prefix, unknown, (PRESENT, FAULT, N_SEGMENTS), (N_VALID, FAILED))


def _is_text(flag: xr.Variable) -> bool:
    dtype: Any = flag.dtype
    return dtype.kind in "UOT"
