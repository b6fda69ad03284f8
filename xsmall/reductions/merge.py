"""Azimuthal integrals of several detectors on one axis."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xsmall.engine.pairs import check_small, paired
from xsmall.engine.parameters import parameters_of
from xsmall.errors import DataError, ParameterError
from xsmall.reductions.azint import azint
from xsmall.vocabulary import BOUNDS, EVENT, INTENSITY, N_VALID, NORM, UNITS, VARIANCE_SUFFIX

__all__ = ["merge_azint"]

_VARIANCE = f"{INTENSITY}{VARIANCE_SUFFIX}"


def merge_azint(*parts: xr.Dataset, weights: Sequence[float] | None = None) -> xr.Dataset:
    """Merge the azimuthal integrals of several detectors, which have the same bins, to one.

    Parameters
    ----------
    *parts
        What ``xs.azint(..., norm=True)`` returned for each detector, or without ``norm``, then ``n_valid`` takes its
        place. Intensities have to be on one scale: divided by the signal that each detector gives for the same light.
    weights
        A number for each part that its pixels count for, such as one over the variance of a pixel; all alike without.

    Returns
    -------
    Dataset over the events that all parts have, joined by label: ``intensity``, the mean of the parts weighted by
    weight times norm, ``n_valid`` and ``norm``, their sums, and where all parts have it ``intensity_variance``. A bin
    that one part does not cover is that of the others. ``n_events_left_out`` in the attributes says how many events
    not all parts have. Lazy where the parts are.

    Raises
    ------
    DataError
        Parts of other bins, units, corrections or photon energies, without intensity, or without a common event.
    ParameterError
        No part, weights that are not positive, or of another number.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> det = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    >>> halves = [det.isel(segment=[s]).sd.azint(bins=[0.02, 0.06, 0.1]) for s in (0, 1)]
    >>> both, whole = xs.merge_azint(*halves), det.sd.azint(bins=[0.02, 0.06, 0.1])
    >>> bool(abs(both.intensity - whole.intensity).max() < 1e-9)
    True
    """
    each = (1.0,) * len(parts) if weights is None else tuple(float(w) for w in weights)
    if not parts or len(each) != len(parts) or not all(np.isfinite(w) and w > 0 for w in each):
        raise ParameterError(
            "merge_azint takes results, and a weight for each",
            found=f"{len(parts)} results, weights {weights}",
            expected="one or more, with positive weights",
            fix="xs.merge_azint(front, back, weights=[1.0, 0.5])",
        )
    for part in parts:
        _check_integral(part, parts[0])
    try:
        aligned = xr.align(*parts, join="inner", exclude=[str(d) for d in parts[0].sizes if d != EVENT])
    except ValueError as error:
        raise DataError("events of these parts cannot be joined", found=str(error).splitlines()[0]) from error
    if aligned[0].sizes[EVENT] == 0 and all(part.sizes[EVENT] for part in parts):
        raise DataError("the parts have no event in common", expected="integrals of the same run")
    pairs = list(zip(aligned, each, strict=True))
    norms = [part[NORM] if NORM in part else part[N_VALID].astype(float) for part in aligned]
    shares = [w * n for (_, w), n in zip(pairs, norms, strict=True)]
    total = _sum_of_arrays(shares)
    signal = _sum_of_arrays([s * part[INTENSITY].fillna(0) for s, (part, _) in zip(shares, pairs, strict=True)])
    out = aligned[0][[]].assign({INTENSITY: (signal / total.where(total > 0)).assign_attrs(parts[0][INTENSITY].attrs)})
    out[N_VALID] = _sum_of_arrays([part[N_VALID] for part in aligned]).assign_attrs(parts[0][N_VALID].attrs)
    out[NORM] = _sum_of_arrays(norms)
    if all(_VARIANCE in part for part in parts):
        for part in parts:
            check_small(part, INTENSITY)
        known = [part[_VARIANCE].where(s > 0, 0) for s, (part, _) in zip(shares, pairs, strict=True)]
        variances = _sum_of_arrays([s**2 * v for s, v in zip(shares, known, strict=True)])
        out[_VARIANCE] = (variances / total.where(total > 0) ** 2).assign_attrs(parts[0][_VARIANCE].attrs)
    events = max(part.sizes[EVENT] for part in parts)
    return paired(out).assign_attrs({**parts[0].attrs, "n_events_left_out": events - out.sizes[EVENT]})


def _parameter_at(*path: str) -> Callable[[xr.Dataset], Any]:
    """What the parameters of an integral say at a place; None where they say nothing."""

    def of(part: xr.Dataset) -> Any:
        said = parameters_of(part.attrs)
        for key in path:
            said = said.get(key) if isinstance(said, dict) else None
        return said

    return of


def _corrected(part: xr.Dataset) -> dict[str, Any] | None:
    """The corrections of the one integral that the parameters tell of."""
    records = _parameter_at("asked", "records")(part)
    if not isinstance(records, dict) or len(records) != 1:
        return None
    asked = next(iter(records.values()))
    return {key: asked.get(key, default) for key, default in _CORRECTIONS.items()} if isinstance(asked, dict) else None


_CORRECTIONS = {
    key: inspect.signature(azint).parameters[key].default
    for key in ("solid_angle", "polarization_plane", "polarization_fraction", "statistic")
}
"""Arguments that change what an intensity means, and their values where they were not given."""
_MEANING: dict[str, tuple[Callable[[xr.Dataset], Any], str]] = {
    "unit": (lambda part: part[INTENSITY].attrs.get(UNITS), 'calibrate(..., unit="{}") for each detector'),
    "photon energy": (_parameter_at("beam", "photon_energy"), ".sd.assign_beam(photon_energy={}) for each detector"),
    "correction": (_corrected, "the same solid_angle, polarization and statistic in xs.azint for each detector"),
}
"""What intensities that are added have in common, as far as it is known, and how to get there."""


def _sum_of_arrays(arrays: list[xr.DataArray]) -> xr.DataArray:
    return functools.reduce(operator.add, arrays)


def _check_integral(part: Any, first: xr.Dataset) -> None:
    """Raise unless a part is an integral over the bins of the first one."""
    if not isinstance(part, xr.Dataset) or not {INTENSITY, N_VALID} <= set(part) or EVENT not in part.dims:
        raise DataError(
            "not an azimuthal integral",
            found=", ".join(map(str, part)) if isinstance(part, xr.Dataset) else type(part).__name__,
            expected=f"{INTENSITY} and {N_VALID} over events",
            fix="what .sd.azint(...) returns",
        )
    if part[INTENSITY].dims != first[INTENSITY].dims:
        raise DataError("integrals of other dims", found=part[INTENSITY].dims, expected=first[INTENSITY].dims)
    for name, (of, fix) in _MEANING.items():
        one, other = of(first), of(part)
        if one is not None and other is not None and one != other:
            raise DataError(
                f"integrals of another {name}",
                found=f"{other}",
                expected=f"{one}",
                fix=fix.format(one),
            )
    for dim in first[INTENSITY].dims[1:]:
        name = first[dim].attrs.get(BOUNDS, dim)
        if name not in part or not np.array_equal(part[name], first[name]):
            raise DataError(
                f"integrals over other bins of {dim}",
                found=f"{part.sizes[dim]} bins from {float(part[dim][0]):.6g} to {float(part[dim][-1]):.6g}",
                expected=f"{first.sizes[dim]} bins from {float(first[dim][0]):.6g} to {float(first[dim][-1]):.6g}",
                fix="xs.azint(np.linspace(0.5, 4, 351)) for each detector",
            )
