"""The beam from rings: recovered from images whose beam is known, and doubts where it cannot be."""

import numpy as np
import pytest
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.beam import assign_beam
from xsmall.frames.fit_beam import calibrant_q, fit_beam
from xsmall.frames.pixels import assign_geometry

PITCH = 1e-4


def quad(depth: float = 0.0) -> Geometry:
    """Four panels with gaps around the beam, every other one at another depth."""
    corners = [(-0.0165, -0.0165), (0.0005, -0.0163), (-0.0164, 0.0006), (0.0004, 0.0005)]
    return Geometry.from_panels(
        [
            Panel(origin=(x, y, 0.2 + depth * (i % 2)), slow=(0, PITCH, 0), fast=(PITCH, 0, 0), shape=(160, 160))
            for i, (x, y) in enumerate(corners)
        ]
    )


def image(geometry: Geometry, truth: Beam, rings: np.ndarray, *, noise: int = 1, width: float = 0.012) -> xr.DataArray:
    """Poisson counts of rings on a sloping background, with hot and masked pixels."""
    rng = np.random.default_rng(noise)
    q = pixel_array(geometry, truth, "q")
    counts = 20 + 30 * np.exp(-q) + sum(200 * np.exp(-(((q - ring) / width) ** 2)) for ring in rings)
    values = rng.poisson(counts).astype(float)
    values[rng.random(values.shape) < 1e-3] = 1e6
    values[rng.random(values.shape) < 1e-2] = np.nan
    return assign_geometry(xr.DataArray(values, dims=("segment", "row", "column")), geometry)


RINGS = np.array([0.45, 0.6, 0.8])
TRUTH = Beam(photon_energy=9500, distance=0.1, center=(8e-4, -1.1e-3))


@pytest.mark.parametrize(("noise", "depth"), [(1, 0.0), (2, 1e-3), (3, 1e-3)])
def test_the_centre_is_found_without_knowing_the_rings(depth: float, noise: int) -> None:
    data = assign_beam(image(quad(depth), TRUTH, RINGS, noise=noise), distance=0.1)
    fit = fit_beam(data)
    assert fit.sure, str(fit)
    off = np.subtract(fit.beam.center, TRUTH.center)
    np.testing.assert_array_less(np.abs(off), 5 * np.array(fit.center_error))
    assert np.hypot(*off) < 0.1 * PITCH
    assert fit.distance_error is None


@pytest.mark.parametrize("start", [0.095, 0.106])
def test_centre_and_distance_are_found_with_known_rings(start: float) -> None:
    data = assign_beam(image(quad(), TRUTH, RINGS), distance=start, photon_energy=9500)
    fit = fit_beam(data, rings=list(RINGS))
    assert fit.sure, str(fit)
    assert fit.rings == tuple(RINGS)
    assert fit.distance_error is not None
    assert fit.beam.distance == pytest.approx(0.1, abs=5 * fit.distance_error)
    assert fit.beam.distance == pytest.approx(0.1, rel=5e-4)
    assert np.hypot(*np.subtract(fit.beam.center, TRUTH.center)) < 0.1 * PITCH


def test_tilts_are_kept_and_counted_in() -> None:
    truth = TRUTH.replace(tilt_x=8.0, tilt_y=-5.0)
    data = assign_beam(image(quad(), truth, RINGS), beam=truth.replace(center=(0.0, 0.0)))
    fit = fit_beam(data, rings=list(RINGS))
    assert fit.sure, str(fit)
    assert np.hypot(*np.subtract(fit.beam.center, truth.center)) < 0.15 * PITCH
    assert fit.beam.distance == pytest.approx(0.1, rel=1e-3)
    assert fit.beam.tilt_x == 8.0


@pytest.mark.parametrize("tilts", [{"tilt_x": 8.0}, {"tilt_y": -6.0}])
@pytest.mark.parametrize("known", [True, False])
def test_a_tilt_that_nobody_told_gives_a_doubt(tilts: dict[str, float], known: bool) -> None:
    data = assign_beam(image(quad(), TRUTH.replace(**tilts), RINGS), distance=0.1, photon_energy=9500)
    fit = fit_beam(data, rings=list(RINGS) if known else None)
    assert any("tilt" in doubt for doubt in fit.doubts), str(fit)


def test_an_image_without_rings_gives_doubts_and_no_numbers() -> None:
    fit = fit_beam(assign_beam(image(quad(), TRUTH, np.empty(0)), distance=0.1))
    assert not fit.sure
    assert "NOT SURE" in str(fit)
    assert np.isnan(fit.center_error).all() or "scatter" in str(fit.doubts) or "points" in str(fit.doubts)


def test_rings_on_one_side_only_give_a_doubt() -> None:
    data = image(quad(), TRUTH, RINGS).isel(segment=[3])
    fit = fit_beam(assign_beam(data, distance=0.1))
    assert any("azimuth" in doubt for doubt in fit.doubts)


def test_a_centre_beyond_the_search_gives_a_doubt() -> None:
    fit = fit_beam(assign_beam(image(quad(), TRUTH, RINGS), distance=0.1), search=5e-4)
    assert not fit.sure


def test_invalid_arguments_are_refused() -> None:
    data = image(quad(), TRUTH, RINGS)
    with pytest.raises(ParameterError, match="photon_energy"):
        fit_beam(data, rings="LaB6")
    with pytest.raises(ParameterError, match="AgBh"):
        fit_beam(assign_beam(data, photon_energy=9500), rings="salt")
    with pytest.raises(ParameterError, match="increasing"):
        fit_beam(assign_beam(data, photon_energy=9500), rings=[2.0, 1.0])
    with pytest.raises(ParameterError, match="above 0"):
        fit_beam(data, search=0)
    with pytest.raises(DataError, match="average first"):
        fit_beam(data.expand_dims("event"))
    with pytest.raises(DataError, match="finite pixel"):
        fit_beam(data * np.nan)
    with pytest.raises(GeometryError, match="no geometry"):
        fit_beam(data.drop_vars("geometry"))


def test_rings_of_calibrants_are_those_of_their_lattices() -> None:
    np.testing.assert_allclose(calibrant_q("AgBh", 0.5), 2 * np.pi / 58.38 * np.arange(1, 5))
    indices = [3, 8, 11, 16, 19, 24]  # h2 + k2 + l2 of diamond: 111, 220, 311, 400, 331, 422
    np.testing.assert_allclose(calibrant_q("Si", 6), 2 * np.pi / 5.431179 * np.sqrt(indices))
    np.testing.assert_allclose(calibrant_q("CeO2", 4), 2 * np.pi / 5.411651 * np.sqrt([3, 4, 8, 11]))


@pytest.mark.parametrize(("known", "width"), [(True, 0.008), (False, 0.016), (True, 0.03)])
def test_pulls_are_of_unit_width(known: bool, width: float) -> None:
    rng = np.random.default_rng(5)
    pulls = []
    for noise in range(3):
        center, distance = rng.uniform(-1e-3, 1e-3, 2), 0.1 * (1 + rng.uniform(-0.005, 0.005))
        truth = Beam(photon_energy=9500, distance=distance, center=(center[0], center[1]))
        start = {"distance": 0.1 if known else distance, "photon_energy": 9500}
        fit = fit_beam(
            assign_beam(image(quad(), truth, RINGS, noise=noise, width=width), **start),
            rings=list(RINGS) if known else None,
        )
        assert fit.sure, str(fit)
        pulls += list(np.subtract(fit.beam.center, truth.center) / fit.center_error)
        if known:
            pulls.append((fit.beam.distance - distance) / fit.distance_error)
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 1.8
    assert np.abs(pulls).max() < 4
