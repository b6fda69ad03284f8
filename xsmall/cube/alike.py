"""What cubes have to have in common to be added: variables, units, labels, places, and what was asked of the frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall.calls import warn_user
from xsmall.cube.pool import not_pooled
from xsmall.engine.parameters import parameters_of
from xsmall.errors import ParameterError
from xsmall.events.select import cuts_said
from xsmall.vocabulary import (
    BINNED_EVENTS,
    BOUNDS_SUFFIX,
    COUNT,
    DETECTOR_TYPE,
    GEOMETRY,
    POSITION,
    SEGMENT_IDS,
    UNITS,
    WEIGHTS,
)

__all__ = ["check_alike"]

_SAME: Final = (UNITS, DETECTOR_TYPE, SEGMENT_IDS)
"""Attributes that have to be the same."""
_CALIBRATION: Final = ("unit", "common_mode", "not_trusted")
"""What a calibration was told that changes what its values mean; constants belong to a run."""
_TABLE: Final = re.compile(r"<[^<>]*sha256 \w+>")
"""How a record says that it was given a table for each pixel."""


def check_alike(a: xr.Dataset, b: xr.Dataset, *, side_by_side: bool) -> None:
    """Refuse cubes that are not of the same thing, and name what differs.

    Raises
    ------
    ParameterError
        Cubes that differ in bins, variables, axes, labels, units, distance, photon energy, geometry or detector; or, if
        they are to be added, in what was asked of the frames.
    """
    bins = {str(d) for d in a[COUNT].dims}
    if bins != {str(d) for d in b[COUNT].dims}:
        raise ParameterError(
            "these cubes have other bins",
            found=f"{a[COUNT].dims} and {b[COUNT].dims}",
            expected="bins of the same names",
        )
    weights = [x.attrs.get(WEIGHTS) for x in (a, b)]
    if weights[0] != weights[1]:
        raise ParameterError(
            "these cubes have other weights",
            found=f"{weights[0]!r} and {weights[1]!r}",
            expected="the same in all cubes",
            fix=f'small.sd.cube(bins, weights="{weights[0] or weights[1]}") of each',
        )
    own = {of: sorted(map(str, set(x.data_vars) - set(y.data_vars))) for of, x, y in (("first", a, b), ("other", b, a))}
    if any(own.values()):
        raise ParameterError(
            "these cubes hold other variables",
            found="; ".join(f"the {of} only: {names}" for of, names in own.items() if names),
            expected="the same variables",
            fix=f"cube.drop_vars({own['first'] or own['other']!r})",
        )
    of_bins = bins | {f"{d}{BOUNDS_SUFFIX}" for d in bins}
    for name in a.data_vars:
        if set(a[name].dims) != set(b[name].dims) or any(a.sizes[d] != b.sizes[d] for d in set(a[name].dims) - bins):
            raise ParameterError(
                f"{name} has another shape in the two cubes",
                found=f"{dict(a[name].sizes)} and {dict(b[name].sizes)}",
                expected="the same but for the bins",
            )
        constant = str(name) in not_pooled(a) and not set(a[name].dims) & bins
        if constant and not a[name].variable.equals(b[name].variable):  # type: ignore[no-untyped-call]
            raise _cubes_differ(str(name), *_values_shown(a[name], b[name]))
    for name in (*a.data_vars, *a.coords):
        for key in _SAME:
            one, two = a[name].attrs.get(key), b[name].attrs.get(key) if name in b.variables else None
            if name in b.variables and _python_value(one) != _python_value(two):
                raise _cubes_differ(f"{key} of {name}", one, two)
    for name in sorted(map(str, {*a.coords, *b.coords} - of_bins - {BINNED_EVENTS})):
        if name in POSITION and GEOMETRY in a.coords and GEOMETRY in b.coords:
            continue  # they follow from the geometry and the labels
        if (name in a.coords) != (name in b.coords):
            raise _cubes_differ(name, *("there" if name in c.coords else "not there" for c in (a, b)))
        if not a[name].variable.equals(b[name].variable):  # type: ignore[no-untyped-call]
            scalar = a[name].ndim == b[name].ndim == 0 and name != GEOMETRY
            if not (scalar and side_by_side):
                raise _cubes_differ(name, *_values_shown(a[name], b[name]), scalar=scalar)
    if not side_by_side:
        _tell_cuts(a, b)
        _check_asked(dict(_asked_paths(parameters_of(a.attrs))), dict(_asked_paths(parameters_of(b.attrs))))


def _tell_cuts(a: xr.Dataset, b: xr.Dataset) -> None:
    """Warn of events that were selected otherwise, which may be right for each run; the result tells both."""
    told = {"": (a.attrs, b.attrs)} | {f" for {name}": (a[name].attrs, b[name].attrs) for name in a.data_vars}
    for where, attrs in told.items():
        one, two = map(cuts_said, attrs)
        if one == two:
            continue
        shown = [", ".join(f"{n}: {c}" for stage in said for n, c in stage.items()) or "no cut" for said in (one, two)]
        warn_user(
            f"merged cubes are of events that were selected by other cuts{where}: {shown[0]}, and {shown[1]}; the "
            f"result is of both kinds of events",
        )
        return


def _check_asked(one: dict[str, str], two: dict[str, str]) -> None:
    """Refuse what was reduced or calibrated otherwise, as far as both cubes know; tables of a run are only told."""
    for name in sorted({*one} & {*two}):
        mine, theirs = one[name], two[name]
        if _TABLE.sub("<table>", mine) != _TABLE.sub("<table>", theirs):
            raise _cubes_differ(f"what was asked of {name}", *_differing_at(mine, theirs), scalar=True)
        if mine != theirs:
            warn_user(
                f"merged cubes differ in a table for each pixel of {name}, such as a mask or the noise: "
                f"{' and '.join(_differing_at(mine, theirs))}. Sums over pixels mean the same only with the same mask",
            )


def _asked_paths(said: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What records and calibrations were told, by where they stand among the parameters."""
    if not isinstance(said, dict):
        return
    if said.get("function") == "merge_cubes":
        yield from _asked_paths(next(iter(said.get("cubes", [])), None), path)
    elif said.get("function") == "calibrate":
        yield from ((f"{path}calibrate, {key}", str(said[key])) for key in _CALIBRATION if key in said)
    else:
        records = said.get("records")
        if isinstance(records, dict):
            yield from ((f"{path}{name}", str(told)) for name, told in records.items())
        for key, step in said.items():
            if key not in ("records", "asked"):
                yield from _asked_paths(step, "" if key in ("small", "frames", "images") else f"{key}: ")


def _differing_at(one: str, two: str, around: int = 30) -> tuple[str, str]:
    """Two texts near the place where they begin to differ."""
    at = next((i for i, (p, q) in enumerate(zip(one, two, strict=False)) if p != q), min(len(one), len(two)))
    start = max(0, at - around)
    return one[start : at + around], two[start : at + around]


def _python_value(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _cubes_differ(name: str, one: object, two: object, *, scalar: bool = False) -> ParameterError:
    return ParameterError(
        f"these cubes are not of the same thing: {name} differs",
        found=f"{one} and {two}",
        expected="the same in all cubes",
        fix="xs.merge_cubes(*cubes, dim='run', labels=[...]) puts them side by side" if scalar else None,
    )


def _values_shown(a: xr.DataArray, b: xr.DataArray) -> tuple[str, str]:
    """The values that differ, the first of them."""
    if a.shape != b.shape:
        return str(a.shape), str(b.shape)
    one, two = a.values.ravel(), b.values.ravel()
    at = np.flatnonzero(one != two)[:1]
    return (str(one[at[0]]), str(two[at[0]])) if at.size else (str(a.dims), str(b.dims))
