"""Numbers per pixel that follow from geometry and beam: angles, q, solid angle, polarization."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.geometry.beam import HC, Beam, missing
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.errors import ParameterError
from xsmall.vocabulary import (
    AREA,
    AZIMUTH,
    DISTANCE,
    PHOTON_ENERGY,
    POLARIZATION,
    POSITION,
    RADIUS,
    SOLID_ANGLE,
    TWO_THETA,
    Q,
    X,
    Y,
    Z,
)

__all__ = ["QUANTITIES", "corner_array", "pixel_array", "position_array"]

QUANTITIES: Final = (X, Y, Z, RADIUS, AZIMUTH, TWO_THETA, Q, SOLID_ANGLE, POLARIZATION, AREA)
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        TWO_THETA: (DISTANCE,),
        Q: (DISTANCE, PHOTON_ENERGY),
        SOLID_ANGLE: (DISTANCE,),
        POLARIZATION: (DISTANCE,),
    }
)


def pixel_array(
    geometry: Geometry,
    beam: Beam | None,
    name: str,
    *,
    plane: float | None = None,
    fraction: float | None = None,
) -> Floats:
    """One number per pixel of the whole detector.

    Parameters
    ----------
    geometry
        Where the pixels are.
    beam
        What ``radius`` and ``azimuth`` take centre and tilts from, ``two_theta``, ``solid_angle`` and ``polarization``
        the distance too, and ``q`` the photon energy too. None means a beam along z through the origin.
    name
        ``x``, ``y``, ``z`` (m), ``radius`` (m, from the beam axis), ``azimuth`` (degrees, -180 to 180, from +x towards
        +y), ``two_theta`` (degrees), ``q`` (1/angstrom), ``solid_angle`` (sr), ``polarization`` (factor),
        ``area`` (m2).
    plane, fraction
        For ``polarization``, both needed: direction of the electric field in degrees from +x towards +y, and the
        fraction of the intensity polarized along it (1 fully, 0.5 not at all).

    Returns
    -------
    float64 (segment, row, column), read-only, NaN where no panel is. Cost: some 20 ns per pixel the first time; kept
    for the process within :data:`xsmall.detector.cache.CACHE`.

    Raises
    ------
    ParameterError
        For an unknown name, or where the beam lacks what the quantity needs.

    Notes
    -----
    q = 4 pi / wavelength * sin(two_theta / 2). Solid angle = area * cos(angle of incidence) / r**2, which for a flat
    detector across the beam is area / distance**2 * cos(two_theta)**3. Polarization factor = fraction * (1 -
    (k e)**2) + (1 - fraction) * (1 - (k f)**2), with k the scattered direction, e along the plane and f across it.

    Examples
    --------
    >>> import xsmall as xs
    >>> from xsmall.detector.geometry.geometry import Panel
    >>> from xsmall.detector.geometry.pixel import pixel_array
    >>> panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-2, 0), fast=(1e-2, 0, 0), shape=(2, 3))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> pixel_array(geometry, xs.Beam(photon_energy=10_000, distance=0.1), "q")[0, 0].round(3)
    array([0.   , 0.505, 0.999])
    """
    if name not in QUANTITIES:
        raise ParameterError("unknown quantity of a pixel", found=repr(name), expected=", ".join(QUANTITIES))
    given = (plane is not None, fraction is not None)
    if not all(given) if name == POLARIZATION else any(given):
        raise ParameterError(
            "polarization needs its plane and its fraction, and nothing else takes them",
            found=f"name={name!r}, plane={plane}, fraction={fraction}",
            fix=".sd.pixel('polarization', plane=0, fraction=0.99): field along x, degrees from +x towards +y",
        )
    if fraction is not None and not 0 <= fraction <= 1:
        raise ParameterError("fraction of polarization", found=fraction, expected="0 to 1")
    if plane is not None and not -360 <= plane <= 360:
        raise ParameterError("plane of polarization", found=plane, expected="degrees, -360 to 360")
    seen_by = _relevant(beam or Beam(), name)
    key = ("pixel", geometry.token, seen_by, name, plane, fraction)
    return CACHE.get(
        key, lambda: _make_array(geometry, seen_by, name, plane or 0.0, 1.0 if fraction is None else fraction)
    )


def pixel_array_once(
    geometry: Geometry, beam: Beam, name: str, plane: float | None = None, fraction: float | None = None
) -> Floats:
    """Make what :func:`pixel_array` returns without keeping it: for beams that hold for one event."""
    return _make_array(geometry, _relevant(beam, name), name, plane or 0.0, 1.0 if fraction is None else fraction)


def position_array(geometry: Geometry, name: str) -> npt.NDArray[np.float32]:
    """x, y or z of all pixels as float32 (segment, row, column), read-only, made once per process.

    The float64 form is not kept beside it; what needs that asks :func:`pixel_array`.
    """
    key = ("position", geometry.token, name)
    return CACHE.get(key, lambda: _make_array(geometry, Beam(), name, 0.0, 1.0).astype(np.float32))


def _relevant(beam: Beam, name: str) -> Beam:
    """The beam without what does not change ``name``, so that it is made once."""
    if name in POSITION or name == AREA:
        return Beam()
    beam.need_all()
    needs = _NEEDS.get(name, ())
    if lacking := [value for value in needs if getattr(beam, value) is None]:
        raise missing(*lacking)
    return beam.replace(
        distance=beam.distance if DISTANCE in needs else None,
        photon_energy=beam.photon_energy if PHOTON_ENERGY in needs else None,
    )


def _make_array(geometry: Geometry, beam: Beam, name: str, plane: float, fraction: float) -> Floats:
    """Panel by panel, so that no temporary is larger than a panel."""
    out = np.full(geometry.shape, np.nan)
    for panel in geometry.panels:
        if name == AREA:
            values = panel.areas()
        elif name in POSITION:
            values = panel.positions()[..., POSITION.index(name)]
        elif name == SOLID_ANGLE:
            values = _solid_angle(panel, beam, geometry.distance)
        elif name == POLARIZATION:
            values = _polarization(in_beam(panel, beam, geometry.distance), plane, fraction)
        else:
            values = _OF_POSITION[name](in_beam(panel, beam, geometry.distance), beam)
        out[panel.memory] = values
    return out


def corner_array(geometry: Geometry, beam: Beam | None, name: str) -> Floats:
    """One number at each corner of each pixel, going round: float64 (segment, row, column, 4), NaN where no panel is.

    ``name`` is one of ``x``, ``y``, ``z``, ``radius``, ``azimuth``, ``two_theta``, ``q``; as :func:`pixel_array` else.
    """
    seen_by = _relevant(beam or Beam(), name)
    out = np.full((*geometry.shape, 4), np.nan)
    for panel in geometry.panels:
        at = panel.corners()
        if name in POSITION:
            out[panel.memory] = at[..., POSITION.index(name)]
        else:
            out[panel.memory] = _OF_POSITION[name](in_beam(panel, seen_by, geometry.distance, at), seen_by)
    return out


def in_beam(panel: Panel, beam: Beam, mean_z: float, at: Floats | None = None) -> Floats:
    """Pixels, or other points ``at``, as seen from the sample along the beam: float64 (row, column, ..., 3), m."""
    beam.need_all()
    at = panel.positions() if at is None else at
    shift = np.array([*beam.center, 0.0])
    if beam.distance is not None:
        shift[2] = mean_z - beam.distance
    at -= shift
    if beam.tilted:
        pivot = np.array([0.0, 0.0, mean_z if beam.distance is None else beam.distance])
        at = (at - pivot) @ beam.rotation().T + pivot
    return at


def _radius(at: Floats, beam: Beam) -> Floats:  # noqa: ARG001
    return np.hypot(at[..., 0], at[..., 1])


def _azimuth(at: Floats, beam: Beam) -> Floats:  # noqa: ARG001
    return np.degrees(np.arctan2(at[..., 1], at[..., 0]))


def _two_theta(at: Floats, beam: Beam) -> Floats:
    return np.degrees(np.arctan2(_radius(at, beam), at[..., 2]))


def _q(at: Floats, beam: Beam) -> Floats:
    theta = np.arctan2(_radius(at, beam), at[..., 2]) / 2
    return 4 * np.pi * beam.need(PHOTON_ENERGY) / HC * np.sin(theta)


_OF_POSITION: Final[Mapping[str, Callable[[Floats, Beam], Floats]]] = MappingProxyType(
    {RADIUS: _radius, AZIMUTH: _azimuth, TWO_THETA: _two_theta, Q: _q}
)


def _solid_angle(panel: Panel, beam: Beam, mean_z: float) -> Floats:
    at = in_beam(panel, beam, mean_z)
    normal = beam.rotation() @ panel.normal
    facing = np.abs(at @ normal)
    squared: Any = np.einsum("rci,rci->rc", at, at)
    with np.errstate(divide="ignore", invalid="ignore"):
        seen: Floats = panel.areas() * facing / squared**1.5
    return seen


def _polarization(at: Floats, plane: float, fraction: float) -> Floats:
    angle = np.radians(plane)
    along = np.array([np.cos(angle), np.sin(angle), 0.0])
    across = np.array([-np.sin(angle), np.cos(angle), 0.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = at / np.linalg.norm(at, axis=-1, keepdims=True)
    factor: Floats = fraction * (1 - (unit @ along) ** 2) + (1 - fraction) * (1 - (unit @ across) ** 2)
    return factor
