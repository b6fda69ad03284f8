"""q, phi, polarization and geometry factor of azimuthal integration in smalldata_tools, from its formulas."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import xsmall as xs
from xsmall.detector.geometry.pixel import pixel_array

pytestmark = pytest.mark.validation

CENTER, DISTANCE, ENERGY = (500.0, -300.0), 90.0, 9.5  # um, mm, keV
THEIR_HC = 2e-6  # they have 12398.4 eV angstrom


class Theirs(NamedTuple):
    q: npt.NDArray[np.float64]
    phi: npt.NDArray[np.float64]
    polarization: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # Pplane 0 and 1
    geometry: npt.NDArray[np.float64]


def smalldata(detector: xs.Geometry, tx: float, ty: float) -> Theirs:
    """The formulas as smalldata_tools documents them, in mm and psana's frame."""
    at = detector.positions()
    x, y, z = -at[..., 1] * 1e3, -at[..., 0] * 1e3, -at[..., 2] * 1e3
    xc, yc = (c / 1e3 for c in CENTER)
    tx, ty = np.radians(tx), np.radians(ty)
    depth = DISTANCE + z.mean() - z
    A, B, C = -np.sin(ty) * np.cos(tx), -np.sin(tx), -np.cos(ty) * np.cos(tx)
    a, b, c = xc + depth * np.tan(ty), yc - depth * np.tan(tx), depth
    r = np.sqrt((x - a) ** 2 + (y - b) ** 2 + c**2)
    along = A * (x - a) + B * (y - b) - C * c
    theta = np.arccos(along / r)
    top = (A**2 + C**2) * (y - b) - A * B * (x - a) + B * C * c
    phi = np.arccos(np.clip(top / np.sqrt((A**2 + C**2) * (r**2 - along**2)), -1, 1))
    phi = np.where(x < xc, 2 * np.pi - phi, phi)
    up, sideways = 1 - (np.sin(phi) * np.sin(theta)) ** 2, 1 - (np.cos(phi) * np.sin(theta)) ** 2
    q = 4 * np.pi / (12398.4 / (1e3 * ENERGY)) * np.sin(theta / 2)
    return Theirs(q, np.degrees(phi), (up, sideways), (depth / r) ** 3)


@pytest.mark.parametrize(
    ("detector", "tilts"),
    [(name, (0, 0)) for name in ("cspad", "epix10kaquad", "jungfrau4M")]  # the first two have panels at other depths
    + [("jungfrau4M", tilts) for tilts in ((0, 3), (3, 0), (3, -4), (10, 10))],
)
def test_q_phi_and_polarization_are_those_of_smalldata_tools(
    shared: Path, detector: str, tilts: tuple[float, float]
) -> None:
    geometry = xs.Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    theirs = smalldata(geometry, *tilts)
    beam = xs.beam_from_smalldata(CENTER, DISTANCE, ENERGY, *tilts)
    np.testing.assert_allclose(pixel_array(geometry, beam, "q"), theirs.q, rtol=THEIR_HC)
    turned = (pixel_array(geometry, beam, "azimuth") - theirs.phi) % 360
    np.testing.assert_allclose(turned, 180, atol=1e-4)
    for plane, factor in ((90, theirs.polarization[0]), (0, theirs.polarization[1])):
        ours = pixel_array(geometry, beam, "polarization", plane=plane, fraction=1.0)
        np.testing.assert_allclose(ours, factor, atol=1e-6)


def test_the_geometry_factor_is_the_relative_solid_angle_of_a_flat_detector_across_the_beam(shared: Path) -> None:
    geometry = xs.Geometry.from_psana(shared / "data/geometry/geometry-def-jungfrau4M.data")
    beam = xs.beam_from_smalldata(CENTER, DISTANCE, ENERGY)
    relative = pixel_array(geometry, beam, "solid_angle") * beam.need("distance") ** 2 / geometry.areas()
    np.testing.assert_allclose(relative, smalldata(geometry, 0, 0).geometry, rtol=1e-9)


def test_with_tilts_and_panels_at_other_depths_they_differ_by_what_their_formulas_neglect(shared: Path) -> None:
    """They put the beam elsewhere for each depth: a pixel is seen depth * tan(tilt) beside its place."""
    geometry = xs.Geometry.from_psana(shared / "data/geometry/geometry-def-epix10kaquad.data")
    beam = xs.beam_from_smalldata(CENTER, DISTANCE, ENERGY, 3, -4)
    theirs = smalldata(geometry, 3, -4)
    depth = abs(geometry.positions()[..., 2] - geometry.distance)
    beside = depth.max() * np.hypot(np.tan(np.radians(3)), np.tan(np.radians(4)))
    per_metre = 2 * np.pi * beam.need("photon_energy") / 12398.4 / beam.need("distance")
    assert abs(pixel_array(geometry, beam, "q") / theirs.q - 1).max() > 1e-4
    assert abs(pixel_array(geometry, beam, "q") - theirs.q).max() < 1.5 * beside * per_metre
