"""pyFAI and ours agree on angles, q and solid angle."""

from pathlib import Path

import numpy as np
import pytest

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats.poses import beam_from_poni, poni_of
from xsmall.detector.geometry.formats.pyfai import from_poni, to_pyfai
from xsmall.detector.geometry.geometry import Geometry, Panel, PixelAxis
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import ParameterError

pytestmark = [pytest.mark.validation, pytest.mark.filterwarnings("ignore")]
pyFAI = pytest.importorskip("pyFAI", reason="python -m pip install pyFAI")

BEAMS = {
    "straight": Beam(photon_energy=9500, distance=0.1, center=(1e-3, -2e-3)),
    "tilted": Beam(photon_energy=9500, distance=0.1, center=(1e-3, -2e-3), tilt_x=3, tilt_y=-5, tilt_z=20),
}
JOINED = Geometry.from_panels(
    [
        Panel(
            origin=(-2e-3, y, z), slow=(1e-6, -1e-4, 1e-6), fast=(1e-4, 1e-6, 2e-6), shape=(20, 30),
            columns=PixelAxis(10, 3, (3.5, 3.5), 2.25, true),
        )
        for y, z, true in ((-1e-3, 0.1, True), (3e-3, 0.1004, False))
    ]
)  # fmt: skip


@pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())
def test_q_azimuth_and_solid_angle_agree_with_pyfai(beam: Beam) -> None:
    ai = to_pyfai(JOINED, beam)
    shape = ai.detector.shape
    flat = {
        name: pixel_array(JOINED, beam, name).reshape(shape) for name in ("q", "two_theta", "azimuth", "solid_angle")
    }
    np.testing.assert_allclose(ai.qArray(shape), flat["q"] * 10, rtol=1e-6)  # pyFAI has 1/nm
    np.testing.assert_allclose(np.degrees(ai.twoThetaArray(shape)), flat["two_theta"], rtol=1e-6)
    np.testing.assert_allclose(np.degrees(ai.chiArray(shape)), flat["azimuth"], rtol=0, atol=1e-5)
    areas = JOINED.areas().reshape(shape)
    relative = flat["solid_angle"] * poni_of(beam).dist ** 2 / areas
    np.testing.assert_allclose(ai.solidAngleArray(shape), relative, rtol=1e-6)
    for factor in (1.0, -1.0, 0.3):
        ours = pixel_array(JOINED, beam, "polarization", plane=0, fraction=(1 + factor) / 2).reshape(shape)
        np.testing.assert_allclose(ai.polarization(shape, factor=factor), ours, rtol=1e-6)


@pytest.mark.parametrize("detector", ["epix10kaquad", "jungfrau1M"])
def test_real_detectors_agree_with_pyfai(shared: Path, detector: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    beam = BEAMS["straight"]
    ai = to_pyfai(geometry, beam)
    shape = ai.detector.shape
    np.testing.assert_allclose(ai.qArray(shape), pixel_array(geometry, beam, "q").reshape(shape) * 10, rtol=1e-6)
    relative = pixel_array(geometry, beam, "solid_angle") * beam.need("distance") ** 2 / geometry.areas()
    np.testing.assert_allclose(ai.solidAngleArray(shape), relative.reshape(shape), rtol=1e-6)


def test_memory_without_pixels_is_masked() -> None:
    panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 5), segment=0, column=2)
    ai = to_pyfai(Geometry.from_panels([panel], shape=(1, 4, 9)), BEAMS["straight"])
    assert ai.detector.mask.sum() == 4 * 4


def test_a_poni_file_written_by_pyfai_brings_the_beam_back(tmp_path: Path) -> None:
    path = tmp_path / "tilted.poni"
    to_pyfai(JOINED, BEAMS["tilted"]).save(str(path))
    back = beam_from_poni(path)
    for name in ("q", "two_theta", "azimuth"):
        np.testing.assert_allclose(
            pixel_array(JOINED, back, name), pixel_array(JOINED, BEAMS["tilted"], name), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_a_detector_of_pyfai_is_taken_over_with_its_pose(tmp_path: Path, orientation: int) -> None:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    detector = pyFAI.detector_factory(
        "Detector", {"pixel1": 1e-4, "pixel2": 2e-4, "max_shape": [40, 30], "orientation": orientation}
    )
    ai = AzimuthalIntegrator(0.1, 1e-3, 2e-3, 0.3, -0.2, 0.1, detector=detector, wavelength=1e-10)
    path = tmp_path / "flat.poni"
    ai.save(str(path))
    geometry, beam = from_poni(path)
    shape = (40, 30)
    np.testing.assert_allclose(pixel_array(geometry, beam, "q")[0] * 10, ai.qArray(shape), rtol=1e-6)
    np.testing.assert_allclose(
        pixel_array(geometry, beam, "azimuth")[0], np.degrees(ai.chiArray(shape)), rtol=0, atol=1e-5
    )


def test_a_beam_without_distance_is_refused() -> None:
    with pytest.raises(ParameterError, match="distance"):
        to_pyfai(JOINED, Beam(photon_energy=9500))
