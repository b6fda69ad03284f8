"""The X-ray beam as it meets the detector: energy, distance, centre and tilts, with units that are checked."""

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Final

import numpy as np

from xsmall.calls import tells_its_names
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Floats
from xsmall.detector.geometry.rotation import rotation
from xsmall.errors import ParameterError
from xsmall.vocabulary import CENTER_X, CENTER_Y, DISTANCE, PHOTON_ENERGY, TILT_X, TILT_Y, TILT_Z, UNITS_OF

__all__ = ["HC", "Beam"]

HC: Final = 12398.419843320026
"""Planck's constant times the speed of light in eV angstrom (exact by the SI of 2019)."""

PHOTON_ENERGY_RANGE: Final = (100.0, 200_000.0)
DISTANCE_RANGE: Final = (1e-3, 20.0)
CENTER_RANGE: Final = (-1.0, 1.0)
TILT_RANGE: Final = (-90.0, 90.0)


@tells_its_names
@dataclass(frozen=True)
class Beam:
    """Energy of the beam and how the detector really stands to it, where the geometry does not say so already.

    A point p of the geometry lies, as seen from the sample and along the beam, at

        R (p - (center_x, center_y, mean z)) + (0, 0, distance)

    with R the rotation by ``tilt_z`` about z, then by ``tilt_y`` about y, then by ``tilt_x`` about x (R = Rx Ry Rz,
    right-handed, the order of psana's geometry files). So ``center`` is where the beam hits the detector and
    ``distance`` is measured along the beam from the sample to that point.

    Parameters
    ----------
    photon_energy
        In eV.
    distance
        In m; stands for the mean z of the geometry wherever angles are made.
    center
        (x, y) in m, in the frame of the geometry.
    tilt_x, tilt_y, tilt_z
        In degrees.
    lost
        Names of values that labelled data had and lost, so that the ones here are only defaults; whatever needs them
        raises.

    Raises
    ------
    ParameterError
        For a value outside the range that its unit allows: 9.5 eV is a photon energy in keV, 92.5 m one in mm.

    Examples
    --------
    >>> import xsmall as xs
    >>> beam = xs.Beam(photon_energy=9500, distance=0.1)
    >>> round(beam.wavelength, 4)
    1.3051
    """

    photon_energy: float | None = None
    distance: float | None = None
    center: tuple[float, float] = field(default=(0.0, 0.0))
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    tilt_z: float = 0.0
    lost: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.photon_energy is not None:
            object.__setattr__(self, "photon_energy", check_photon_energy(self.photon_energy))
        if self.distance is not None:
            object.__setattr__(self, "distance", check_distance(self.distance))
        try:
            x, y = self.center
        except (TypeError, ValueError):
            raise ParameterError(
                "center of the beam", found=self.center, expected="(x, y) in m", fix="center=(0.0, 0.0)"
            ) from None
        object.__setattr__(self, "center", (check_center(CENTER_X, x), check_center(CENTER_Y, y)))
        for name in (TILT_X, TILT_Y, TILT_Z):
            object.__setattr__(self, name, check_tilt(name, getattr(self, name)))

    @property
    def wavelength(self) -> float:
        """In angstrom."""
        return HC / self.need(PHOTON_ENERGY)

    @property
    def tilted(self) -> bool:
        """Whether any tilt is not zero."""
        return (self.tilt_x, self.tilt_y, self.tilt_z) != (0.0, 0.0, 0.0)

    def rotation(self) -> Floats:
        """R = Rx Ry Rz: float64 (3, 3)."""
        return rotation(self.tilt_x, self.tilt_y, self.tilt_z)

    def need(self, name: str) -> float:
        """Photon energy or distance, or the error that says how to give it."""
        value: float | None = getattr(self, name)
        if value is None:
            raise missing(name)
        return value

    def need_all(self) -> None:
        """Raise where centre or tilts got lost."""
        if self.lost:
            raise missing(self.lost[0])

    def align(self, geometry: Geometry) -> Geometry:
        """Put centre, distance and tilts of this beam into the panels of a geometry.

        Parameters
        ----------
        geometry
            Of the detector that the beam meets. Where the beam has no distance, its mean z stays.

        Returns
        -------
        The geometry as seen along the beam: a beam along z through the origin then gives every pixel the same angles
        as this beam gave it before. The text of psana is not kept.

        Examples
        --------
        >>> import xsmall as xs
        >>> panel = xs.Panel(origin=(0, 0, 0.3), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
        >>> geometry = xs.Geometry.from_panels([panel])
        >>> xs.Beam(distance=0.1, center=(1e-4, 0.0)).align(geometry).psf()[0, 0]
        array([-0.0001,  0.    ,  0.1   ])
        """
        self.need_all()
        turn = self.rotation()
        pivot = np.array([*self.center, geometry.distance])
        depth = np.array([0.0, 0.0, geometry.distance if self.distance is None else self.distance])
        placed = [
            replace(
                panel,
                origin=tuple(turn @ (np.array(panel.origin) - pivot) + depth),
                slow=tuple(turn @ np.array(panel.slow)),
                fast=tuple(turn @ np.array(panel.fast)),
            )
            for panel in geometry.panels
        ]
        return Geometry(tuple(placed), geometry.shape)

    def replace(self, **changes: object) -> "Beam":
        """Return a beam with some values changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def missing(name: str, *more: str) -> ParameterError:
    """The error for values of a beam that were never given, or got lost on the way."""
    examples = {PHOTON_ENERGY: "photon_energy=9500", DISTANCE: "distance=0.1"}
    center = {CENTER_X: "center=(0.0, 0.0)", CENTER_Y: "center=(0.0, 0.0)"}
    example = ", ".join(dict.fromkeys((examples | center).get(n, f"{n}=0.0") for n in (name, *more)))
    unit = UNITS_OF[name]
    return ParameterError(
        f"the {name} of the beam is not known" + "".join(f", nor the {other}" for other in more),
        found="no value that holds for all events: none was assigned, it differs from event to event, or two arrays "
        "with different values were combined (unequal scalar coordinates vanish in arithmetic)",
        expected=f"one value in {unit}",
        fix=f".sd.assign_beam({example})",
    )


def check_beam_value(name: str, value: object) -> float:
    """Refuse a value of the beam that is outside the range of its unit; ``name`` is that of its coordinate."""
    if name == PHOTON_ENERGY:
        return check_photon_energy(value)
    if name == DISTANCE:
        return check_distance(value)
    return check_center(name, value) if name in (CENTER_X, CENTER_Y) else check_tilt(name, value)


def check_photon_energy(value: object) -> float:
    """Photon energy in eV, or an error that names the unit."""
    return _in_range(PHOTON_ENERGY, value, PHOTON_ENERGY_RANGE, "eV", "9.5 keV is 9500")


def check_distance(value: object) -> float:
    """Distance in m, or an error that names the unit."""
    return _in_range(DISTANCE, value, DISTANCE_RANGE, "m", "92.5 mm is 0.0925")


def check_center(name: str, value: object) -> float:
    """One coordinate of the centre in m, or an error that names the unit."""
    return _in_range(name, value, CENTER_RANGE, "m", "5000 um is 0.005")


def check_tilt(name: str, value: object) -> float:
    """A tilt in degrees, or an error."""
    return _in_range(name, value, TILT_RANGE, "degrees", "")


def _in_range(name: str, value: object, allowed: tuple[float, float], unit: str, example: str) -> float:
    """``value`` as float if it is finite and allowed; -0.0 becomes 0.0 so that equal beams hash alike."""
    fix = f"give it in {unit}{': ' + example if example else ''}"
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError  # float() takes them, but nobody means them
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name} is not a number", found=repr(value), expected=f"a number in {unit}", fix=fix
        ) from None
    low, high = allowed
    if not isfinite(number) or not low <= number <= high:
        raise ParameterError(
            f"{name} outside the range of its unit",
            found=f"{number:g} {unit}",
            expected=f"{low:g} to {high:g} {unit}",
            fix=fix,
        )
    return number + 0.0
