"""DIALS models: read back by a reader of this test's own, and by ours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats.dials import from_dials, to_dials
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import GeometryError, ParameterError, XsmallError

BEAM = Beam(photon_energy=9500, distance=0.15, center=(2e-3, -1e-3), tilt_x=2, tilt_y=-3, tilt_z=10)


def pixels_of(model: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pixel centres in mm in DIALS' frame by panel, from nothing but the meaning of the JSON."""
    out: dict[str, np.ndarray] = {}

    def walk(node: dict[str, Any], axes: np.ndarray, origin: np.ndarray) -> None:
        node = model["panels"][node["panel"]] if "panel" in node else node
        fast, slow = np.array(node["fast_axis"]), np.array(node["slow_axis"])
        here = origin + axes @ node["origin"]
        turned = axes @ np.array([fast, slow, np.cross(fast, slow)]).T
        for child in node.get("children", ()):
            walk(child, turned, here)
        if "image_size" in node:
            (n, m), (p, s) = node["image_size"], node["pixel_size"]
            f, t = (np.arange(n) + 0.5) * p, (np.arange(m) + 0.5) * s
            out[node["name"]] = here + f[None, :, None] * turned[:, 0] + t[:, None, None] * turned[:, 1]

    walk(model["hierarchy"], np.eye(3), np.zeros(3))
    return out


@pytest.mark.parametrize("detector", ["epix10kaquad", "cspad"])
def test_pixels_in_the_model_have_our_scattering_angles(shared: Path, detector: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    model = json.loads(to_dials(geometry, BEAM))
    assert model["beam"][0]["wavelength"] == pytest.approx(BEAM.wavelength)
    source = np.array(model["beam"][0]["direction"])
    two_theta = pixel_array(geometry, BEAM, "two_theta")
    areas = geometry.areas()
    counts: dict[int, int] = {}
    pixels = pixels_of(model["detector"][0])
    for asic in geometry.asics():
        n = counts[asic.memory[0]] = counts.get(asic.memory[0], -1) + 1
        at = pixels[f"p{asic.memory[0]}a{n}"]
        angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(at, source), axis=-1), at @ -source))
        regular = areas[asic.memory] < 1.01 * areas.min()
        np.testing.assert_allclose(angle[regular], two_theta[asic.memory][regular], rtol=0, atol=1e-9)


@pytest.mark.parametrize("detector", ["epix10kaquad", "jungfrau1M"])
def test_a_model_comes_back_as_the_same_pixels(shared: Path, detector: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    plain = Geometry.from_panels(geometry.asics(), shape=geometry.shape)
    back, beam = from_dials(to_dials(geometry, BEAM))
    assert back.shape == geometry.shape
    assert beam.photon_energy == pytest.approx(9500)
    for name in ("q", "radius", "azimuth", "solid_angle"):
        ours, read = pixel_array(plain, BEAM, name), pixel_array(back, beam, name)
        np.testing.assert_allclose(read, ours, rtol=1e-9, atol=1e-12 if name != "azimuth" else 1e-8)


def test_a_refined_beam_is_put_along_z() -> None:
    panel = Panel(origin=(-1e-3, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    model = json.loads(to_dials(Geometry.from_panels([panel]), Beam(photon_energy=9500, distance=0.1)))
    model["beam"][0]["direction"] = [0.02, -0.01, 1.0]
    pixels = pixels_of(model["detector"][0])["p0a0"]
    along = -np.array([0.02, -0.01, 1.0])
    expected = np.degrees(np.arctan2(np.linalg.norm(np.cross(pixels, along), axis=-1), pixels @ along))
    geometry, beam = from_dials(json.dumps(model, indent=1))
    np.testing.assert_allclose(pixel_array(geometry, beam, "two_theta")[0], expected, rtol=1e-9)


def test_a_flat_list_of_panels_is_read_with_a_segment_each() -> None:
    panel = {"fast_axis": [1, 0, 0], "slow_axis": [0, 1, 0], "origin": [-1, -2, -100]}
    panel |= {"image_size": [4, 3], "pixel_size": [0.1, 0.2]}
    beam = {"direction": [0, 0, 1], "wavelength": 1.0}
    geometry, _ = from_dials(json.dumps({"detector": [{"panels": [panel, panel]}], "beam": [beam]}, indent=1))
    assert geometry.shape == (2, 3, 4)
    np.testing.assert_allclose(geometry.positions()[1, 2, 3], [1e-3 - 3.5e-4, -2e-3 + 5e-4, 0.1], atol=1e-15)


def test_every_panel_is_in_one_group() -> None:
    model = json.loads(json.dumps(GOOD))
    group = model["detector"][0]["hierarchy"]["children"][0]
    for children, says in (
        ([], "no group holds"),
        ([{"panel": 0}] * 2, "held already"),
        ([{"panel": -1}], "not there"),
    ):
        group["children"] = children
        with pytest.raises(GeometryError, match=says):
            from_dials(json.dumps(model, indent=1))


def test_what_cannot_be_said_or_read_is_refused() -> None:
    panel = Panel(origin=(0, 0, 0.1), slow=(1e-5, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    geometry = Geometry.from_panels([panel])
    with pytest.raises(GeometryError, match="rectangular"):
        to_dials(geometry, BEAM)
    with pytest.raises(ParameterError, match="distance"):
        to_dials(geometry, Beam(photon_energy=9500))
    with pytest.raises(ParameterError, match="photon_energy"):
        to_dials(geometry, Beam(distance=0.1))


def test_numbers_that_are_not_finite_are_refused() -> None:
    panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    model = json.loads(to_dials(Geometry.from_panels([panel]), BEAM))
    model["detector"][0]["panels"][0]["image_size"] = [float("inf"), 4]
    with pytest.raises(XsmallError, match="OverflowError"):
        from_dials(json.dumps(model, indent=1))


GOOD = json.loads(to_dials(Geometry.from_panels([Panel((0, 0, 0.1), (0, 1e-4, 0), (1e-4, 0, 0), (4, 8))]), BEAM))
junk = st.none() | st.floats() | st.text(max_size=5) | st.lists(st.integers(-3, 3), max_size=3) | st.just({})


@given(st.sampled_from(["panels", "hierarchy", "origin", "fast_axis", "image_size", "pixel_size", "children"]), junk)
def test_any_json_gives_a_geometry_or_an_error_of_ours(key: str, value: object) -> None:
    model = json.loads(json.dumps(GOOD))
    detector = model["detector"][0]
    place = detector if key in detector else detector["hierarchy"] if key == "children" else detector["panels"][0]
    place[key] = value
    try:
        from_dials(json.dumps(model, indent=1))
    except XsmallError:
        return
