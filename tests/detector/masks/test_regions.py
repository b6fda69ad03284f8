"""Shapes in lab, image and q space as pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xsmall as xs
from xsmall.detector.geometry.grids import detector_grid
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import ParameterError
from xsmall.kernels.reference.locate import inside_polygon as slow_inside

GRID = (30, 40)  # rows and columns of psana's arrays of shapes


@pytest.fixture(scope="module")
def oracle(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "oracles" / "masks.npz") as file:
        return {name: file[name] for name in file.files if name.startswith("p2_shape")}


@pytest.fixture(scope="module")
def detector() -> xs.Geometry:
    """A panel whose picture has the rows and columns of its memory."""
    panel = xs.Panel((2e-3, 1e-3, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), GRID)
    return xs.Geometry.from_panels([panel])


BEAM = xs.Beam(photon_energy=9500, distance=0.1)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("circle", xs.Circle((20, 12.5), 8, space="image")),
        ("ring", xs.Ring((20, 12.5), 4, 9, space="image")),
        ("rect", xs.Rectangle((5, 15), (7, 13), space="image")),
        ("half", xs.HalfPlane((2, 3), (30, 20), within=(30, 0), space="image")),
        ("arc", xs.Arc((18, 12), 4, 10, start=10, stop=70, space="image")),
    ],
)
def test_shapes_drawn_on_the_image_equal_psana(
    oracle: dict[str, np.ndarray], detector: xs.Geometry, name: str, region: object
) -> None:
    np.testing.assert_array_equal(region.inside(detector)[0], oracle[f"p2_shape_{name}"] == 1)  # type: ignore[attr-defined]


def test_a_polygon_drawn_on_the_image_equals_psana_but_for_its_corners(
    oracle: dict[str, np.ndarray], detector: xs.Geometry
) -> None:
    corners = [(5, 5), (30, 8), (20, 25), (5, 5)]
    inside = xs.Polygon(corners, space="image").inside(detector)[0]
    expected = oracle["p2_shape_poly"] == 1
    for column, row in corners:  # whether a corner is inside is a matter of taste
        inside[row, column] = expected[row, column]
    np.testing.assert_array_equal(inside, expected)


@given(
    center=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    start=st.integers(-720, 720),
    width=st.integers(1, 360),
)
def test_an_arc_is_the_part_of_a_ring_between_two_azimuths(center: tuple[float, float], start: int, width: int) -> None:
    x, y = np.random.default_rng(0).uniform(-100, 100, (2, 500))
    offset = (x - center[0]) + 1j * (y - center[1])
    middle, half = np.exp(1j * np.radians(start + width / 2)), np.radians(width / 2)
    seen = np.abs(np.angle(offset * np.conj(middle))) <= half
    held = xs.Arc(center, 10, 60, start, start + width).contains(x, y)
    np.testing.assert_array_equal(held, xs.Ring(center, 10, 60).contains(x, y) & seen)


def test_the_sides_of_a_line_share_the_line_only() -> None:
    x, y = (v.ravel().astype(float) for v in np.mgrid[:30, :20])
    one, other = (xs.HalfPlane((3, 1), (9, 4), within=p).contains(x, y) for p in ((3, 2), (3, 0)))
    assert (one | other).all()
    np.testing.assert_array_equal(one & other, y - 1 == (x - 3) / 2)
    upright = xs.HalfPlane((5, 0), (5, 9), within=(0, 0)).contains(x, y)
    np.testing.assert_array_equal(upright, x <= 5)


def test_the_same_shape_in_lab_space_holds_the_same_pixels(detector: xs.Geometry) -> None:
    grid = detector_grid(detector)
    x, y = grid.image_x[20], (grid.image_y[12] + grid.image_y[13]) / 2
    in_lab = xs.Circle((x, y), 8e-4).inside(detector)
    np.testing.assert_array_equal(in_lab, xs.Circle((20, 12.5), 8, space="image").inside(detector))


@given(
    corners=st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=8),
)
def test_polygons_hold_the_points_with_an_odd_number_of_sides_to_the_right(corners: list[tuple[float, float]]) -> None:
    closed = [*corners, corners[0]]
    row, column = np.indices(GRID)
    inside = xs.Polygon(closed).contains(column.astype(float), row.astype(float))
    expected = [[slow_inside(float(c), float(r), closed) for c in range(GRID[1])] for r in range(GRID[0])]
    np.testing.assert_array_equal(inside, expected)


def test_polygons_that_share_a_side_share_no_pixel_and_leave_none_between(detector: xs.Geometry) -> None:
    left = xs.Polygon([(5, 5), (20, 5), (20, 25), (5, 25), (5, 5)], space="image").inside(detector)
    right = xs.Polygon([(20, 5), (35, 5), (35, 25), (20, 25), (20, 5)], space="image").inside(detector)
    both = xs.Polygon([(5, 5), (35, 5), (35, 25), (5, 25), (5, 5)], space="image").inside(detector)
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, both)


def test_a_band_of_q_equals_a_ring_in_q_space_and_a_cut_of_the_q_of_each_pixel(detector: xs.Geometry) -> None:
    q = pixel_array(detector, BEAM, "q")
    known = np.unique(q.round(9))
    low, high = ((known[i] + known[i + 1]) / 2 for i in (len(known) // 3, len(known) // 2))
    expected = (q >= low) & (q <= high)
    np.testing.assert_array_equal(xs.Band("q", low, high).inside(detector, BEAM), expected)
    ring = xs.Ring((0, 0), low, high, space="q")
    np.testing.assert_array_equal(ring.inside(detector, BEAM), expected)


def test_a_band_of_azimuth_may_run_through_its_end(detector: xs.Geometry) -> None:
    azimuth = pixel_array(detector, None, "azimuth")
    np.testing.assert_array_equal(xs.Band("azimuth", 170, -170).inside(detector), (azimuth >= 170) | (azimuth <= -170))
    np.testing.assert_array_equal(xs.Band("azimuth", 350, 370).inside(detector), abs(azimuth) <= 10)
    assert xs.Band("azimuth", -180, 180).inside(detector).all()


def test_regions_combine(detector: xs.Geometry) -> None:
    a, b = xs.Circle((0, 0), 1e-3), xs.Band("x", -1.0, 0.0)
    inside_a, inside_b = a.inside(detector), b.inside(detector)
    np.testing.assert_array_equal((a | b).inside(detector), inside_a | inside_b)
    np.testing.assert_array_equal((a & b).inside(detector), inside_a & inside_b)
    np.testing.assert_array_equal((~a & b).inside(detector), ~inside_a & inside_b)
    assert hash(a | b) == hash(xs.Circle((0, 0), 1e-3) | b)


def test_a_region_combines_with_regions_only() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        xs.Circle((0, 0), 1) & 3  # type: ignore[operator]


def test_q_needs_a_beam(detector: xs.Geometry) -> None:
    with pytest.raises(ParameterError, match="photon_energy"):
        xs.Band("q", 1, 2).inside(detector, xs.Beam(distance=0.1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: xs.Polygon([(0, 0), (1, 0), (0, 1)]), "three corners"),
        (lambda: xs.Polygon([(0, 0), (1, 0), (0, 1), (0, 0.1)]), "not closed"),
        (lambda: xs.Polygon([(0, 0), (1, np.nan), (0, 1), (0, 0)]), "NaN"),
        (lambda: xs.Polygon([(0, 0), (1, 0), (0, 1), (0, 0)], space="detector"), "'lab', 'image' or 'q'"),
        (lambda: xs.Circle((0, 0), -1), "radius"),
        (lambda: xs.Circle((0, 0), np.nan), "radius"),
        (lambda: xs.Circle(3, 1), "pair"),
        (lambda: xs.Circle("ab", 1), "pair"),
        (lambda: xs.Circle((0, 0), "1"), "radius"),
        (lambda: xs.Band("q", "a", 1), "out of order"),
        (lambda: xs.Polygon("abc"), "corners of a polygon"),
        (lambda: xs.Polygon([(0, 0), (1,), (2, 2), (0, 0)]), "corners of a polygon"),
        (lambda: xs.Ring((0, 0), 2, 1), r"out of order[\s\S]*do this:  \(1, 2\)"),
        (lambda: xs.Rectangle((1, 0), (0, 1)), "out of order"),
        (lambda: xs.Rectangle((0, 1), (2, 1)), r"out of order[\s\S]*do this:  \(1.0, 2.0\)"),
        (lambda: xs.Rectangle((1, 1), (2, 3)), r"do this:  xs.Rectangle\(x=\(1.0, 2.0\), y=\(1.0, 3.0\)\)"),
        (lambda: xs.Rectangle((1, 1), (2, 3), space="q"), r"do this:  xs.Rectangle\(x=.*, space='q'\)"),
        (lambda: xs.HalfPlane((0, 0), (0, 0), within=(1, 1)), "without sides"),
        (lambda: xs.HalfPlane((0, 0), (1, 1), within=(2, 2)), "without sides"),
        (lambda: xs.HalfPlane((0, 0), (1, np.nan), within=(2, 2)), "not finite"),
        (lambda: xs.Arc((0, 0), 2, 1, 0, 90), "out of order"),
        (lambda: xs.Arc((0, 0), 1, 2, 90, 90), "without width"),
        (lambda: xs.Arc((0, 0), 1, 2, 0, np.inf), "not finite"),
        (lambda: xs.Band("q", 2, 1), "out of order"),
        (lambda: xs.Band("energy", 2, 1), "no band"),
    ],
)
def test_invalid_shapes_are_refused_when_they_are_made(make, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        make()
