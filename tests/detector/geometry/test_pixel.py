"""Numbers per pixel against formulas written down independently, and the cache."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.detector.cache import CACHE, Cache
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import QUANTITIES, pixel_array
from xsmall.errors import ParameterError

PANEL = Panel(origin=(-2e-3, -3e-3, 0.3), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(60, 40))
FLAT = Geometry.from_panels([PANEL])
WIDE = Geometry.from_psana("CAM 0 EPIX10KA:V1 0 0 0 0 0 0 0 0 0 0\nIP 0 CAM 0 0 0 100000 90 0 0 0 0 0\n")
BEAM = Beam(photon_energy=8000, distance=0.2, center=(1e-3, -2e-3))


def of(name: str, beam: Beam | None = BEAM, geometry: Geometry = FLAT, **options: float) -> np.ndarray:
    return pixel_array(geometry, beam, name, **options)


def test_quantities_of_a_flat_detector_are_those_of_the_textbook() -> None:
    at = FLAT.positions()
    x, y = at[..., 0] - 1e-3, at[..., 1] + 2e-3
    radius = np.sqrt(x**2 + y**2)
    two_theta = np.arctan(radius / 0.2)
    np.testing.assert_allclose(of("radius"), radius)
    np.testing.assert_allclose(of("two_theta"), np.degrees(two_theta))
    np.testing.assert_allclose(of("q"), 4 * np.pi * 8.0 / 12.398419843320026 * np.sin(two_theta / 2))
    np.testing.assert_allclose(of("azimuth"), np.degrees(np.angle(x + 1j * y)))
    np.testing.assert_allclose(of("solid_angle"), 1e-8 / 0.2**2 * np.cos(two_theta) ** 3)
    np.testing.assert_allclose(of("area"), 1e-8)
    phi = np.arctan2(y, x)
    sin2 = np.sin(two_theta) ** 2
    along = of("polarization", plane=0, fraction=1)
    np.testing.assert_allclose(along, 1 - sin2 * np.cos(phi) ** 2)
    np.testing.assert_allclose(of("polarization", plane=90, fraction=0), along)
    np.testing.assert_allclose(of("polarization", plane=33, fraction=0.5), (1 + np.cos(two_theta) ** 2) / 2)


def test_azimuth_goes_from_x_to_y() -> None:
    cross = Panel(origin=(-1e-3, -1e-3, 0.1), slow=(0, 1e-3, 0), fast=(1e-3, 0, 0), shape=(3, 3))
    azimuth = of("azimuth", None, Geometry.from_panels([cross]))[0]
    assert azimuth[1, 2] == 0
    assert azimuth[2, 1] == 90
    assert azimuth[1, 0] == 180
    assert azimuth[0, 1] == -90


def test_areas_count_wide_pixels() -> None:
    area = of("area", None, WIDE)[0] * 1e8
    assert area[0, 0] == pytest.approx(1)
    assert area[175, 0] == pytest.approx(2.25)
    assert area[176, 191] == pytest.approx(2.25**2)
    span = (352 + 2 * 1.25) * (384 + 2 * 1.25)
    assert area.sum() == pytest.approx(span)


def test_solid_angle_of_a_small_detector_is_that_of_the_whole_sphere_cap() -> None:
    fine = Panel(origin=(-0.005 + 5e-5, -0.005 + 5e-5, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(100, 100))
    total = of("solid_angle", Beam(distance=0.1), Geometry.from_panels([fine])).sum()
    # a square of side a seen from its axis at distance d: 4 asin(a^2 / (a^2 + 4 d^2))
    assert total == pytest.approx(4 * np.arcsin(1e-4 / (1e-4 + 4e-2)), rel=1e-6)


@settings(max_examples=30)
@given(st.tuples(*[st.floats(-40, 40)] * 3), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
def test_a_tilted_beam_equals_a_turned_detector(tilts: tuple[float, float, float], x: float, y: float) -> None:
    beam = Beam(photon_energy=9000, distance=0.25, center=(x, y), tilt_x=tilts[0], tilt_y=tilts[1], tilt_z=tilts[2])
    turn, pivot = beam.rotation(), np.array([x, y, FLAT.distance])
    turned = Panel(
        origin=tuple(turn @ (np.array(PANEL.origin) - pivot) + [0, 0, 0.25]),
        slow=tuple(turn @ PANEL.slow),
        fast=tuple(turn @ PANEL.fast),
        shape=PANEL.shape,
    )
    geometry = Geometry.from_panels([turned])
    straight = Beam(photon_energy=9000, distance=geometry.distance)
    for name in ("two_theta", "q", "radius", "solid_angle"):
        np.testing.assert_allclose(of(name, beam), of(name, straight, geometry), rtol=1e-8, atol=1e-12)
    for options in ({"plane": 10.0, "fraction": 0.9},):
        np.testing.assert_allclose(
            of("polarization", beam, **options), of("polarization", straight, geometry, **options), rtol=1e-9
        )


def test_distance_replaces_the_mean_z_and_keeps_the_depth_of_panels() -> None:
    back = Panel(origin=(0, 0, 0.302), slow=PANEL.slow, fast=PANEL.fast, shape=PANEL.shape)
    both = Geometry.from_panels([PANEL, back])
    beam = Beam(distance=0.1)
    r, tth = of("radius", beam, both), of("two_theta", beam, both)
    for segment, z in enumerate((0.099, 0.101)):
        np.testing.assert_allclose(r[segment], z * np.tan(np.radians(tth[segment])), rtol=1e-9, atol=1e-15)


def test_x_y_z_stay_what_the_geometry_says() -> None:
    at = FLAT.positions()
    tilted = BEAM.replace(tilt_x=20.0)
    for i, name in enumerate("xyz"):
        np.testing.assert_array_equal(of(name, tilted), at[..., i])


@pytest.mark.parametrize("name", ["two_theta", "q", "solid_angle"])
def test_a_beam_without_distance_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="distance"):
        of(name, Beam(photon_energy=8000))
    with pytest.raises(ParameterError, match="distance"):
        of(name, None)


def test_q_needs_the_photon_energy() -> None:
    with pytest.raises(ParameterError, match="photon_energy"):
        of("q", Beam(distance=0.1))


def test_unknown_names_and_half_said_polarization_are_refused() -> None:
    with pytest.raises(ParameterError, match="solid_angle"):
        of("phi")
    with pytest.raises(ParameterError, match="fraction"):
        of("polarization", plane=0)
    with pytest.raises(ParameterError, match="plane"):
        of("q", plane=0, fraction=1)
    with pytest.raises(ParameterError, match="0 to 1"):
        of("polarization", plane=0, fraction=1.5)


def test_arrays_are_made_once_and_are_read_only() -> None:
    assert of("q") is of("q")
    assert of("radius", BEAM) is of("radius", BEAM.replace(photon_energy=9999.0, distance=1.0))
    for name in QUANTITIES:
        options = {"plane": 0.0, "fraction": 1.0} if name == "polarization" else {}
        assert not of(name, **options).flags.writeable


def test_the_cache_keeps_to_its_budget_and_gives_up_what_was_not_used_longest() -> None:
    cache = Cache(budget=3 * 800)
    for key in "abc":
        cache.get(key, lambda: np.zeros(100))
    first = cache.get("a", lambda: np.ones(100))
    cache.get("d", lambda: np.zeros(100))
    assert cache.nbytes <= cache.budget
    assert cache.get("a", lambda: np.ones(100)) is first
    assert cache.get("b", lambda: np.ones(100))[0] == 1
    large = cache.get("large", lambda: np.zeros(1000))
    assert large.nbytes == 8000
    assert cache.get("large", lambda: np.zeros(1)) is large  # dear to make, so kept until the next one comes
    assert cache.nbytes == large.nbytes
    cache.get("small", lambda: np.zeros(1))
    assert cache.nbytes <= cache.budget


def test_everything_per_pixel_shares_one_budget_also_where_distances_change_per_event(monkeypatch) -> None:
    monkeypatch.setattr(CACHE, "budget", 200_000)
    CACHE.clear()
    frames = xs.simulate(8, shape=(1, 64, 64), seed=1)
    cal = frames.run["jungfrau/raw"].sd.assign_geometry(frames.geometry).sd.calibrate(frames.constants)
    for distance in np.linspace(0.1, 0.2, 20):
        here = cal.sd.assign_beam(photon_energy=9500, distance=float(distance))
        here.sd.azint(bins=20)["intensity"].compute()
        here.sd.azint(bins=20, split="box")["intensity"].compute()
        assert any("shares" in key for key in CACHE._kept if isinstance(key, tuple))
        here.isel(event=0).sd.image().compute()
        here.sd.droplet(5.0, 3.0, mask=np.ones((1, 64, 64), bool))["n_droplets"].compute()
        largest = max(int(kept.nbytes) for kept in CACHE._kept.values())
        assert 0 < CACHE.nbytes <= max(CACHE.budget, largest)


def test_threads_make_an_array_once_and_an_error_does_not_block_the_next() -> None:
    cache, made = Cache(budget=1 << 20), []

    def make() -> np.ndarray:
        made.append(1)
        return np.zeros(10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.get("key", make), range(64)))
    assert len(made) == 1
    with pytest.raises(ZeroDivisionError):
        cache.get("bad", lambda: np.array([1 // 0]))
    assert cache.get("bad", lambda: np.ones(1))[0] == 1
