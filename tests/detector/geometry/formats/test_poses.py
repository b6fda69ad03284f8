"""Beams from .poni files and from smalldata_tools' parameters, against their formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.geometry.formats.poses import Poni, beam_from_poni, beam_from_smalldata, poni_of
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import FileFormatError, ParameterError, XsmallError

FLAT = Geometry.from_panels([Panel(origin=(-8e-3, -6e-3, 0.3), slow=(0, 1e-3, 0), fast=(1e-3, 0, 0), shape=(12, 16))])
PONI = """# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis
poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 0.0001, "pixel2": 0.0001, "max_shape": [4, 4], "orientation": 3}
Distance: 0.1
Poni1: 0.003
Poni2: -0.002
Rot1: 0.01
Rot2: -0.02
Rot3: 0.5
Wavelength: 1e-10
"""


def smalldata_angles(
    center: tuple[float, float], distance: float, tx: float, ty: float
) -> tuple[np.ndarray, np.ndarray]:
    """theta and phi of smalldata_tools in degrees for the pixels of FLAT, written down from its formulas (mm)."""
    at = FLAT.positions() * 1e3
    x, y = -at[..., 1], -at[..., 0]
    xc, yc = (c / 1e3 for c in center)
    tx, ty = np.radians(tx), np.radians(ty)
    A, B, C = -np.sin(ty) * np.cos(tx), -np.sin(tx), -np.cos(ty) * np.cos(tx)
    a, b, c = xc + distance * np.tan(ty), yc - distance * np.tan(tx), distance
    r = np.sqrt((x - a) ** 2 + (y - b) ** 2 + c**2)
    theta = np.arccos(np.clip((A * (x - a) + B * (y - b) - C * c) / r, -1, 1))
    top = (A**2 + C**2) * (y - b) - A * B * (x - a) + B * C * c
    with np.errstate(all="ignore"):  # a pixel in the beam has no phi
        bottom = np.sqrt((A**2 + C**2) * (r**2 - (A * (x - a) + B * (y - b) - C * c) ** 2))
        phi = np.arccos(np.clip(top / bottom, -1, 1))
    return np.degrees(theta), np.degrees(np.where(x < xc, 2 * np.pi - phi, phi))


@settings(max_examples=40)
@given(st.floats(-5000, 5000), st.floats(-5000, 5000), st.floats(-20, 20), st.floats(-20, 20))
def test_scattering_angles_are_those_of_smalldata_tools(x: float, y: float, tx: float, ty: float) -> None:
    theta, _ = smalldata_angles((x, y), 90.0, tx, ty)
    beam = beam_from_smalldata((x, y), 90.0, 9.5, tx, ty)
    np.testing.assert_allclose(pixel_array(FLAT, beam, "two_theta"), theta, rtol=0, atol=5e-6)


@pytest.mark.parametrize("tilts", [(0, 0), (0, 5)])
def test_azimuth_is_phi_of_smalldata_tools_less_half_a_turn(tilts: tuple[float, float]) -> None:
    _, phi = smalldata_angles((350.0, -120.0), 90.0, *tilts)
    beam = beam_from_smalldata((350.0, -120.0), 90.0, 9.5, *tilts)
    turns = (pixel_array(FLAT, beam, "azimuth") - (phi - 180)) / 360
    near_the_fold = np.abs((phi + 10) % 180 - 10) < 8 if tilts != (0, 0) else np.zeros(phi.shape, bool)
    off = np.abs(turns - np.round(turns))[~near_the_fold]
    np.testing.assert_allclose(off, 0, atol=1e-6)


def test_the_default_distance_of_smalldata_tools_is_refused() -> None:
    with pytest.raises(ParameterError, match="distance"):
        beam_from_smalldata((0, 0), 100e-3, 9.5)
    with pytest.raises(ParameterError, match="photon_energy"):
        beam_from_smalldata((0, 0), 100, 9500)
    with pytest.raises(ParameterError, match="center"):
        beam_from_smalldata(0, 100, 9.5)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    st.floats(0.05, 5), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.tuples(*[st.floats(-0.5, 0.5)] * 2),
    st.floats(-1.5, 1.5),
)  # fmt: skip
def test_beam_and_poni_are_inverse(
    dist: float, poni1: float, poni2: float, rots: tuple[float, float], rot3: float
) -> None:
    pose = Poni(dist, poni1, poni2, *rots, rot3, 1e-10)
    try:
        beam = pose.beam()
    except ParameterError:  # centre far off, outside of what a beam may have
        return
    back = poni_of(beam)
    np.testing.assert_allclose(back.rotation(), pose.rotation(), atol=1e-9)
    values = [(p.dist, p.poni1, p.poni2, p.wavelength) for p in (back, pose)]
    np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-9)


def test_a_poni_file_is_read_with_its_last_values() -> None:
    pose = Poni.read(PONI + PONI.replace("0.003", "0.004"))
    assert (pose.dist, pose.poni1, pose.rot3) == (0.1, 0.004, 0.5)
    assert beam_from_poni(PONI).photon_energy == pytest.approx(12398.42, rel=1e-6)
    assert beam_from_poni(PONI.replace("Wavelength: 1e-10", "Wavelength: None")).photon_energy is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PONI.replace("Distance: 0.1\n", ""), "no dist"),
        (PONI.replace("0.003", "three"), "line 6"),
        (PONI.replace("0.003", "nan"), "line 6"),
        (PONI.replace("Rot1: 0.01", "Rot1: 1.6"), "does not meet"),
        (PONI.replace("Distance: 0.1", "Distance: 100"), "distance"),
        (PONI.replace("Wavelength: 1e-10", "Wavelength: 0"), "photon_energy"),
        (PONI.replace("Wavelength: 1e-10", "Wavelength: -1e-10"), "photon_energy"),
        (PONI.replace("Wavelength: 1e-10", "Wavelength: 1e400"), "line 11"),
    ],
)
def test_bad_poni_files_raise_one_error(text: str, says: str) -> None:
    with pytest.raises((FileFormatError, ParameterError), match=says):
        beam_from_poni(text)


@given(st.lists(st.sampled_from(PONI.splitlines()) | st.text(max_size=20), max_size=12))
def test_any_text_gives_a_beam_or_an_error_of_ours(lines: list[str]) -> None:
    try:
        beam_from_poni("\n".join([*lines, "", ""]))
    except XsmallError:
        return
