"""The beam: units that are checked, and what it makes of positions."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsmall.detector.geometry.beam import Beam
from xsmall.errors import ParameterError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"photon_energy": 9.5}, "9500"),
        ({"photon_energy": 1.5e-15}, "photon_energy"),
        ({"photon_energy": 9.5e9}, "eV"),
        ({"photon_energy": -9500}, "photon_energy"),
        ({"photon_energy": float("nan")}, "photon_energy"),
        ({"photon_energy": "hard"}, "not a number"),
        ({"photon_energy": "9500"}, "not a number"),
        ({"distance": True}, "not a number"),
        ({"distance": 92.5}, "0.0925"),
        ({"distance": 92500}, "distance"),
        ({"distance": 0}, "distance"),
        ({"center": (5000, 0)}, "center_x"),
        ({"center": (0, 46.2)}, "center_y"),
        ({"center": 0.1}, "center"),
        ({"center": (0, 1, 2)}, "center"),
        ({"tilt_y": 91}, "tilt_y"),
        ({"tilt_z": float("inf")}, "tilt_z"),
    ],
)
def test_values_in_another_unit_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        Beam(**wrong)  # type: ignore[arg-type]


def test_equal_beams_hash_alike_whatever_they_were_made_of() -> None:
    one, other = Beam(photon_energy=9500, center=(0, -0.0)), Beam(photon_energy=np.float32(9500.0), center=[0.0, 0])  # type: ignore[arg-type]
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one


def test_what_is_missing_is_named_with_what_to_type() -> None:
    with pytest.raises(ParameterError, match=r"assign_beam\(photon_energy=9500\)"):
        _ = Beam(distance=0.1).wavelength


@given(st.floats(100, 200_000))
def test_wavelength_times_energy_is_hc(energy: float) -> None:
    assert Beam(photon_energy=energy).wavelength * energy == pytest.approx(12398.419843320026)


def test_tilts_turn_about_z_first_and_x_last() -> None:
    beam = Beam(tilt_x=90, tilt_y=0, tilt_z=90)
    # x goes to y by the turn about z, and then to z by the turn about x
    np.testing.assert_allclose(beam.rotation() @ [1, 0, 0], [0, 0, 1], atol=1e-15)
