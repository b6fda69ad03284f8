"""Beams from elsewhere: pyFAI's .poni files and the parameters of smalldata_tools' azimuthal integration."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import numpy as np

from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.panel import Floats
from xsmall.detector.geometry.rotation import euler_angles
from xsmall.detector.geometry.text import read_text
from xsmall.errors import FileFormatError, ParameterError

__all__ = ["Poni", "beam_from_poni", "beam_from_smalldata", "poni_of"]

# pyFAI's axes are (1, 2, 3) = (y, x, z): 1 up, 2 to the left when looking along the beam (its orientation 3)
SWAP: Final = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
STRAIGHT = 1e-3  # cosine between beam and detector normal below which the beam meets the detector nowhere useful


@dataclass(frozen=True)
class Poni:
    """Pose of a detector in the words of pyFAI.

    Parameters
    ----------
    dist, poni1, poni2
        In m: distance along the normal of the detector, and where that normal meets it, along axis 1 and axis 2.
    rot1, rot2, rot3
        In radians.
    wavelength
        In m, where known.
    """

    dist: float
    poni1: float
    poni2: float
    rot1: float = 0.0
    rot2: float = 0.0
    rot3: float = 0.0
    wavelength: float | None = None

    def rotation(self) -> Floats:
        """Rotation from detector to laboratory in pyFAI's axes (1, 2, 3): float64 (3, 3)."""
        c1, c2, c3 = (np.cos(r) for r in (self.rot1, self.rot2, self.rot3))
        s1, s2, s3 = (np.sin(r) for r in (self.rot1, self.rot2, self.rot3))
        about_1 = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
        about_2 = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
        about_3 = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
        turned: Floats = about_3 @ about_2 @ about_1
        return turned

    @classmethod
    def read(cls, source: str | Path) -> "Poni":
        """Read a .poni file or its text; the last value of each key counts, as in pyFAI.

        Raises
        ------
        FileFormatError
            Where a value is missing or is no number, naming file and line.
        """
        text, name = read_text(source)
        values: dict[str, float] = {}
        for number, line in enumerate(text.splitlines(), 1):
            key, colon, value = line.partition(":")
            key = key.strip().lower()
            if line.lstrip().startswith("#") or not colon or key not in _KEYS:
                continue
            if value.strip().lower() in ("none", ""):
                continue
            try:
                values[_KEYS[key]] = float(value)
            except ValueError:
                values[_KEYS[key]] = float("nan")
            if not isfinite(values[_KEYS[key]]):
                raise FileFormatError(f"{name}, line {number}: {key} is not a finite number", found=value.strip()[:80])
        lacking = [key for key in ("dist", "poni1", "poni2") if key not in values]
        if lacking:
            raise FileFormatError(
                f"{name} is not a .poni file", found=f"no {', '.join(lacking)}", expected="Distance: 0.1"
            )
        return cls(**values)

    def beam(self) -> Beam:
        """Beam for a geometry whose frame is that of the pyFAI detector, with axis 3 at its mean z.

        Raises
        ------
        ParameterError
            Where the beam does not meet the plane of the detector, or a value is outside the range of its unit.
        """
        turn = SWAP @ self.rotation() @ SWAP
        foot = np.array([self.poni2, self.poni1])
        energy = (
            None if self.wavelength is None else HC / (max(self.wavelength, 1e-300) * 1e10)
        )  # 0 is out of range too
        return _beam_of_rotation(turn, foot, self.dist, energy)


_KEYS: Final[Mapping[str, str]] = {
    "distance": "dist",
    "poni1": "poni1",
    "poni2": "poni2",
    "poni 1": "poni1",
    "poni 2": "poni2",
    "rot1": "rot1",
    "rot2": "rot2",
    "rot3": "rot3",
    "wavelength": "wavelength",
}


def beam_from_poni(source: str | Path) -> Beam:
    """Beam of a .poni file that was refined with a detector made by our :func:`to_pyfai`.

    Such a detector has the frame of our geometry. For .poni files with a detector of pyFAI's own use
    :func:`~xsmall.detector.geometry.formats.pyfai.from_poni`, which brings geometry and beam.

    Parameters
    ----------
    source
        Path of the file, or its text.

    Returns
    -------
    Photon energy (where the file has a wavelength), distance along the beam, centre and tilts.

    Raises
    ------
    FileFormatError
        For a file that is not a .poni file.
    ParameterError
        Where the beam does not meet the detector, or a value is outside the range of its unit.

    Notes
    -----
    With R the rotation of pyFAI in our axes, the beam meets the detector at the distance dist / R_zz along the beam.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "Distance: 0.1" + chr(10) + "Poni1: 0.002" + chr(10) + "Poni2: 0.001" + chr(10) + "Wavelength: 1.3e-10"
    >>> beam = xs.beam_from_poni(text)
    >>> beam.center, beam.distance
    ((0.001, 0.002), 0.1)
    """
    return Poni.read(source).beam()


def poni_of(beam: Beam) -> Poni:
    """Pose in the words of pyFAI: the inverse of :meth:`Poni.beam`.

    Raises
    ------
    ParameterError
        Where the beam has no distance, or does not meet the plane of the detector.
    """
    beam.need_all()
    distance = beam.need("distance")
    ours = beam.rotation()
    turn = SWAP @ ours @ SWAP
    if ours[2, 2] < STRAIGHT:
        raise ParameterError("the beam does not meet the detector", found=beam, expected="tilts well below 90 degrees")
    foot = np.array(beam.center) - distance * ours[2, :2]
    across = float(np.hypot(turn[0, 0], turn[1, 0]))
    rot2 = np.arctan2(turn[2, 0], across)
    rot1, rot3 = np.arctan2(-turn[2, 1], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    energy = beam.photon_energy
    return Poni(
        dist=float(distance * ours[2, 2]),
        poni1=float(foot[1]),
        poni2=float(foot[0]),
        rot1=float(rot1),
        rot2=float(rot2),
        rot3=float(rot3),
        wavelength=None if energy is None else HC / energy * 1e-10,
    )


def beam_from_smalldata(
    center: tuple[float, float], dis_to_sam: float, eBeam: float, tx: float = 0.0, ty: float = 0.0
) -> Beam:
    """Beam from the parameters of smalldata_tools' azimuthal integration, under their names and in their units.

    Parameters
    ----------
    center
        (x, y) in um in psana's frame.
    dis_to_sam
        In mm.
    eBeam
        In keV.
    tx, ty
        Tilts in degrees.

    Returns
    -------
    The beam with which every pixel of a flat detector gets smalldata_tools' scattering angle. With ``tx`` not zero its
    formulas put the beam elsewhere than at ``center``; the centre here is where they put it.

    Raises
    ------
    ParameterError
        Where a value is outside the range of its unit, such as the default ``dis_to_sam`` of 0.1 mm.

    Notes
    -----
    Formulas of J. Chem. Phys. 113, 9140 as in smalldata_tools: direction of the beam (A, B, -C) = (-sin ty cos tx,
    -sin tx, cos ty cos tx), foot of the normal (xc + D tan ty, yc - D tan tx), height D. Our azimuth is its phi - 180
    degrees; its ``Pplane`` of 1 is our plane 0, its 0 our 90. Panels at other depths are seen alike without tilts; with
    tilts its formulas see them depth x tan(tilt) beside their place, up to 1 % in q near the beam.

    Examples
    --------
    >>> import xsmall as xs
    >>> beam = xs.beam_from_smalldata(center=(1000, -2000), dis_to_sam=92.5, eBeam=9.5)
    >>> beam.center, beam.distance, beam.photon_energy
    ((0.002, -0.001), 0.0925, 9500.0)
    """
    try:
        x, y = (float(value) for value in center)
        numbers = (float(dis_to_sam), float(eBeam), float(tx), float(ty))
    except (TypeError, ValueError):
        found = f"center={center}, dis_to_sam={dis_to_sam}, eBeam={eBeam}, tx={tx}, ty={ty}"
        raise ParameterError("parameters of the azimuthal integration", found=found, expected="numbers") from None
    height, energy = numbers[0] / 1e3, numbers[1] * 1e3
    straight = Beam(photon_energy=energy, distance=height, center=(-y / 1e6, -x / 1e6), tilt_x=tx, tilt_y=ty)
    if not straight.tilted:
        return straight
    about_x, about_y = np.radians(numbers[2]), np.radians(numbers[3])
    psana = np.array([-np.sin(about_y) * np.cos(about_x), -np.sin(about_x), np.cos(about_y) * np.cos(about_x)])
    along = np.array([-psana[1], -psana[0], psana[2]])
    foot = np.array([-(y / 1e6 - height * np.tan(about_x)), -(x / 1e6 + height * np.tan(about_y))])
    across = np.array([1.0, 0.0, 0.0]) - along[0] * along
    across /= np.linalg.norm(across)
    return _beam_of_rotation(np.array([across, np.cross(along, across), along]), foot, height, energy)


def _beam_of_rotation(turn: Floats, foot: Floats, height: float, photon_energy: float | None) -> Beam:
    """Beam from the rotation into its frame, the foot of the normal (x, y) and the height of the sample above it."""
    if turn[2, 2] < STRAIGHT:
        raise ParameterError(
            "the beam does not meet the plane of the detector",
            found=f"angle between beam and normal of the detector {np.degrees(np.arccos(turn[2, 2])):.1f} degrees",
            expected="well below 90; a detector that stands aside belongs into the geometry",
        )
    distance = height / turn[2, 2]
    x, y = foot + distance * turn[2, :2]
    tilt_x, tilt_y, tilt_z = euler_angles(turn)
    return Beam(photon_energy, float(distance), (float(x), float(y)), tilt_x, tilt_y, tilt_z)
