"""The beam on labelled data: coordinates, scalar or per event."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.beam import PHOTON_ENERGY_RANGE, Beam, check_beam_value
from xsmall.errors import ParameterError
from xsmall.events.join import of_the_events
from xsmall.events.labels import Labelled
from xsmall.frames.small import small
from xsmall.vocabulary import (
    CENTER_X,
    CENTER_Y,
    DISTANCE,
    EVENT,
    GEOMETRY,
    PHOTON_ENERGY,
    TILT_X,
    TILT_Y,
    TILT_Z,
    UNITS,
    UNITS_OF,
)

__all__ = [
    "ALWAYS",
    "BEAM_COORDS",
    "assign_beam",
    "beam_moves",
    "beam_of",
    "check_range",
    "event_energies",
    "measured_energies",
    "one_value",
]

PerEvent: TypeAlias = float | npt.NDArray[np.floating[Any]] | xr.DataArray
"""One number, or one per event."""
SAME_UNIT = {"m": ("metre", "meter"), "degree": ("degrees", "deg"), "eV": ("ev",)}
"""Other spellings of our units."""
ALWAYS = (CENTER_X, CENTER_Y, TILT_X, TILT_Y, TILT_Z)
BEAM_COORDS = (PHOTON_ENERGY, DISTANCE, *ALWAYS)


def assign_beam(
    obj: Labelled,
    beam: Beam | None = None,
    *,
    photon_energy: float | npt.ArrayLike | xr.DataArray | None = None,
    distance: PerEvent | None = None,
    center: tuple[PerEvent, PerEvent] | None = None,
    tilt_x: PerEvent | None = None,
    tilt_y: PerEvent | None = None,
    tilt_z: PerEvent | None = None,
) -> Labelled:
    """Say what the beam is; values that are not given stay as they are.

    Parameters
    ----------
    obj
        DataArray or Dataset.
    beam
        All values at once; single ones given beside it win.
    photon_energy
        In eV, one number, or one per event (array along ``event``). An event whose energy cannot be one, such as the 0
        of a monitor that saw nothing, has none (NaN): what needs an energy leaves it out and counts it.
    distance
        In m, sample to the point where the beam hits the detector; replaces the mean z of the geometry. One number, or
        one per event, as centre and tilts: :func:`pixel` then answers per event, and reductions that need one beam for
        all events raise.
    center
        (x, y) in m where the beam hits the detector, in the frame of the geometry.
    tilt_x, tilt_y, tilt_z
        In degrees, see :class:`~xsmall.detector.geometry.beam.Beam` for axes and order.
    Returns
    -------
    The same data with scalar coordinates (``photon_energy`` along ``event`` where it is per event), units in attrs.
    Centre and tilts are always written, as 0 where nothing else was said, so that their loss can be seen later: two
    arrays of different centres lose them when they are added. Nothing is computed.

    Raises
    ------
    ParameterError
        Where a value is outside the range of its unit (of energies per event: most of them), or says to be in
        another unit; or nothing is given.
    DataError
        Where labelled values per event do not have all events of ``obj``; their order does not matter.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> xs.assign_beam(xr.DataArray(0.0), photon_energy=9500, distance=0.1).photon_energy.attrs["units"]
    'eV'
    """
    if beam is not None and not isinstance(beam, Beam):
        raise ParameterError(
            "not a beam", found=type(beam).__name__, expected="xs.Beam(...), or values by their names",
            fix=".sd.assign_beam(photon_energy=9500, distance=0.1)",
        )  # fmt: skip
    given: dict[str, Any] = _values_of(beam) if beam is not None else {}
    if photon_energy is not None:
        given[PHOTON_ENERGY] = photon_energy
    if center is not None:
        given[CENTER_X], given[CENTER_Y] = _two(center)
    named = {DISTANCE: distance, TILT_X: tilt_x, TILT_Y: tilt_y, TILT_Z: tilt_z}
    given |= {name: value for name, value in named.items() if value is not None}
    if not given:
        raise ParameterError("no value of the beam was given", fix=".sd.assign_beam(photon_energy=9500, distance=0.1)")
    for name in ALWAYS:
        if name not in given and name not in obj.coords:
            given[name] = 0.0
    coords = {name: _beam_coord(obj, name, value) for name, value in given.items()}
    placed = obj.coords.get(GEOMETRY)
    out = obj.assign_coords(coords)
    # the token of the geometry last: titles of plots and the first lines of a repr then say what a reader knows
    return out if placed is None else out.drop_vars(GEOMETRY).assign_coords({GEOMETRY: placed.variable})


def beam_of(obj: xr.DataArray | xr.Dataset) -> Beam | None:
    """Beam that an array carries, None where no value of it is known.

    A photon energy per event counts where all events have the same; otherwise the beam has none. A centre or tilt that
    was assigned and got lost, or that differs from event to event, stands in ``lost``.

    Examples
    --------
    >>> import xarray as xr
    >>> from xsmall.frames.beam import assign_beam, beam_of
    >>> beam_of(assign_beam(xr.DataArray(0.0), distance=0.1)).distance
    0.1
    """
    values = {name: one_value(obj, name) for name in BEAM_COORDS if name in obj.coords}
    known = {name: value for name, value in values.items() if value is not None}
    if not values:
        return None
    assigned = any(name in values for name in (DISTANCE, *ALWAYS))
    lost = tuple(name for name in ALWAYS if name not in known) if assigned else ()
    if not known and not lost:
        return None
    center = (known.pop(CENTER_X, 0.0), known.pop(CENTER_Y, 0.0))
    return Beam(center=center, lost=lost, **known)


def _values_of(beam: Beam) -> dict[str, Any]:
    beam.need_all()
    values: dict[str, Any] = {CENTER_X: beam.center[0], CENTER_Y: beam.center[1]}
    values |= {name: getattr(beam, name) for name in (PHOTON_ENERGY, DISTANCE, TILT_X, TILT_Y, TILT_Z)}
    return {name: value for name, value in values.items() if value is not None}


def _two(center: Any) -> tuple[Any, Any]:
    try:
        x, y = center
    except (TypeError, ValueError):
        raise ParameterError(
            "center of the beam", found=center, expected="(x, y) in m", fix="center=(0.0, 0.0)"
        ) from None
    return x, y


def _beam_coord(obj: xr.DataArray | xr.Dataset, name: str, value: Any) -> xr.Variable:
    attrs = {UNITS: UNITS_OF[name]}
    if np.ndim(value) == 0:
        if isinstance(value, xr.DataArray):
            check_unit(value, name)
        return xr.Variable((), check_beam_value(name, value), attrs)
    if isinstance(value, xr.DataArray):
        check_unit(value, name)
        if value.dims != (EVENT,):
            raise ParameterError(f"{name} has other dims", found=value.dims, expected=(EVENT,))
        value = of_the_events(value, obj, name)
    values = np.asarray(value, dtype=np.float64)
    if EVENT not in obj.dims or values.shape != (obj.sizes[EVENT],):
        raise ParameterError(
            f"{name} per event does not fit the events",
            found=values.shape,
            expected=(obj.sizes.get(EVENT, "no events"),),
        )
    if name == PHOTON_ENERGY:
        measured = _known_energies(values)
        if 2 * np.isfinite(measured).sum() >= np.isfinite(values).sum():  # else it is no monitor, but the unit
            return xr.Variable((EVENT,), measured, attrs)
    check_range(name, values)
    return xr.Variable((EVENT,), values, attrs)


def event_energies(obj: xr.DataArray | xr.Dataset) -> npt.NDArray[np.float64] | None:
    """Photon energy of each event in eV, NaN where none was measured; None where one holds for all or none is known."""
    coord = obj.coords.variables.get(PHOTON_ENERGY)
    if coord is None or coord.dims != (EVENT,):
        return None
    values = measured_energies(coord.compute(scheduler="synchronous"))
    return values if np.unique(values).size > 1 else None


def measured_energies(coord: xr.DataArray | xr.Variable) -> npt.NDArray[np.float64]:
    """Photon energies of events in eV, NaN where none was measured: a monitor that saw nothing gives 0 or next to it.

    Raises
    ------
    ParameterError
        Energies in another unit.
    """
    check_unit(coord, PHOTON_ENERGY)
    return _known_energies(np.asarray(coord.values, dtype=np.float64))


def _known_energies(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = PHOTON_ENERGY_RANGE
    with np.errstate(invalid="ignore"):
        return np.where((values >= low) & (values <= high), values, np.nan)


def check_unit(coord: xr.DataArray | xr.Variable, name: str) -> None:
    """Refuse a value of the beam that says to be in another unit than ours."""
    unit = coord.attrs.get(UNITS)
    if unit not in (None, UNITS_OF[name], *SAME_UNIT.get(UNITS_OF[name], ())):
        raise ParameterError(
            f"{name} in another unit",
            found=f"units {unit!r}",
            expected=f"{UNITS_OF[name]!r}",
            fix=f".assign_attrs(units={UNITS_OF[name]!r}) of values that were brought to {UNITS_OF[name]}",
        )


def check_range(name: str, values: npt.NDArray[np.float64]) -> None:
    """Refuse values of events in another unit; NaN means that it is not known for an event."""
    for number in (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else ():
        check_beam_value(name, number)


def one_value(obj: xr.DataArray | xr.Dataset, name: str) -> float | None:
    """The value of a beam coordinate if it is one number."""
    coord = small(obj.coords.variables[name])  # an array with all that belongs to it costs much more than its values
    check_unit(coord, name)
    values = np.asarray(coord.values, dtype=np.float64)
    value = float(values.flat[0]) if values.size else math.nan
    if not math.isfinite(value) or (values.ndim and (values != value).any()):
        return None
    if coord.ndim and name == PHOTON_ENERGY and not PHOTON_ENERGY_RANGE[0] <= value <= PHOTON_ENERGY_RANGE[1]:
        return None  # a monitor that measured nothing; it must not stop what needs no energy
    return value


def beam_moves(obj: xr.DataArray | xr.Dataset) -> bool:
    """Whether distance, centre or tilts differ from event to event."""
    return any(
        name in obj.coords and obj.coords[name].dims == (EVENT,) and one_value(obj, name) is None
        for name in (DISTANCE, *ALWAYS)
    )
