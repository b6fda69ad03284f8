"""Space to memory and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.lookup import locate_pixels, lookup_tables
from xsmall.detector.geometry.panel import PixelAxis
from xsmall.errors import DataError, GeometryError
from xsmall.kernels.reference.locate import locate as slow_locate

DETECTORS = ("cspad", "epix100a", "epix10kaquad", "jungfrau05M", "jungfrau1M", "jungfrau4M")


@pytest.mark.parametrize("wide_pixels", ["nominal", "true"])
@pytest.mark.parametrize("name", DETECTORS)
def test_every_pixel_of_every_detector_is_found_at_its_centre(shared: Path, name: str, wide_pixels: str) -> None:
    path = shared / "data" / "geometry" / f"geometry-def-{name}.data"
    geometry = Geometry.from_psana(path, wide_pixels=wide_pixels)  # type: ignore[arg-type]
    at = geometry.positions()
    for found, index in zip(locate_pixels(geometry, at[..., 0], at[..., 1]), np.indices(geometry.shape), strict=True):
        np.testing.assert_array_equal(found, index)


@pytest.mark.parametrize(
    "segment",
    [
        *("SENS2X1:V1", "EPIX100:V1", "EPIX10KA:V1", "EPIXHR2X2:V1", "EPIXHR1X4:V1", "EPIXUHR3X2:V1", "JUNGFRAU:V1"),
        *("JUNGFRAU:V2", "MTRX:300:200:54:30", "MTRX:V2:300:200:54:30", "PNCCD:V1", "EPIXMASIC:V1"),
    ],
)
def test_every_pixel_of_every_segment_type_is_found_also_on_a_tilted_and_turned_panel(segment: str) -> None:
    text = f"IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0\nCAMERA 0 {segment} 0 1000 -2000 50 37 0 0 0.5 11 -23"
    geometry = Geometry.from_psana(text)
    at = geometry.positions()
    for found, index in zip(locate_pixels(geometry, at[..., 0], at[..., 1]), np.indices(geometry.shape), strict=True):
        np.testing.assert_array_equal(found, index)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """A few panels with wide pixels, gaps, tilts and turns, side by side with some overlap."""
    number = st.floats(-0.6, 0.6)
    panels = []
    for i in range(draw(st.integers(1, 4))):
        angle, tilt = draw(st.floats(0, 2 * np.pi)), draw(number)
        slow = np.array([np.cos(angle), np.sin(angle), tilt]) * draw(st.floats(0.5e-4, 2e-4))
        fast = np.array([-np.sin(angle), np.cos(angle), draw(number)]) * draw(st.floats(0.5e-4, 2e-4))
        wide = draw(st.sampled_from([1.0, 1.5, 2.5]))
        rows = PixelAxis(draw(st.integers(1, 6)), 2, (draw(st.sampled_from([2 * wide - 1, 2 * wide + 1])),), wide)
        columns = PixelAxis(draw(st.integers(1, 9)))
        origin = (draw(st.floats(-1e-3, 1e-3)), draw(st.floats(-1e-3, 1e-3)), 0.1 + 0.01 * draw(number))
        panels.append(Panel(origin, tuple(slow), tuple(fast), (rows.size, columns.size), rows, columns, segment=i))
    return Geometry.from_panels(panels)


@settings(max_examples=60, deadline=None)
@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1))
def test_points_are_found_where_a_search_through_all_pixels_finds_them(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = geometry.positions().reshape(-1, 3)
    at = at[np.isfinite(at[:, 0])]
    points = np.concatenate([at[:, :2], rng.uniform(at.min(0)[:2] - 3e-4, at.max(0)[:2] + 3e-4, (200, 2))])
    x, y = points.T.copy()
    found, expected = np.stack(locate_pixels(geometry, x, y)), np.stack(slow_locate(geometry, x, y))
    other = (found != expected).any(axis=0)
    # on a border, or where two panels are equally near, rounding decides
    shifted = [
        np.stack(slow_locate(geometry, x[other] + dx, y[other] + dy))
        for dx in (-1e-12, 1e-12)
        for dy in (-1e-12, 1e-12)
    ]
    assert all(any((found[:, other][:, i] == s[:, i]).all() for s in shifted) for i in range(int(other.sum())))


def test_the_panel_nearest_to_the_sample_is_taken_and_the_first_of_two_at_the_same_z() -> None:
    def plate(z: float) -> Panel:
        return Panel((0, 0, z), (0, 1e-4, 0), (1e-4, 0, 0), (3, 3))

    behind = Geometry.from_panels([plate(0.2), plate(0.1), plate(0.1)])
    segment, row, column = locate_pixels(behind, [1e-4], [2e-4])
    assert (segment[0], row[0], column[0]) == (1, 2, 1)


def test_wide_pixels_reach_to_the_join_and_gaps_belong_to_nobody() -> None:
    axis = PixelAxis(2, 2, (4.0,), 2.0)  # centres 0 1 5 6; pixel 1 reaches to 2.5, pixel 2 from 3.5
    panel = Panel((0, 0, 0.1), (0, 1, 0), (1, 0, 0), (1, 4), None, axis)
    geometry = Geometry.from_panels([panel])
    _, _, column = locate_pixels(geometry, [1.4, 2.4, 2.6, 3.4, 3.6, 4.9, 6.4, 6.6, -0.4, -0.6], np.zeros(10))
    assert column.tolist() == [1, 1, -1, -1, 2, 2, 3, -1, 0, -1]


def test_points_outside_and_points_that_are_no_numbers_are_nowhere() -> None:
    geometry = Geometry.from_panels([Panel((0, 0, 0.1), (0, 1e-4, 0), (1e-4, 0, 0), (3, 3))])
    found = locate_pixels(geometry, [1.0, np.nan, np.inf, -np.inf, 0.0], [0.0, 0.0, 0.0, 0.0, 1e300])
    assert all((f == -1).all() for f in found)


def test_hexagonal_rows_are_shifted() -> None:
    axis = PixelAxis(4, stagger=0.5)
    geometry = Geometry.from_panels([Panel((0, 0, 0.1), (0, 1e-4, 0), (1e-4, 0, 0), (3, 4), None, axis)])
    at = geometry.positions()
    for found, index in zip(locate_pixels(geometry, at[..., 0], at[..., 1]), np.indices(geometry.shape), strict=True):
        np.testing.assert_array_equal(found, index)


def test_a_detector_seen_edge_on_and_points_of_other_kinds_are_refused() -> None:
    edge_on = Geometry.from_panels([Panel((0, 0, 0.1), (0, 0, 1e-4), (1e-4, 0, 0), (3, 3))])
    with pytest.raises(GeometryError, match="edge-on"):
        lookup_tables(edge_on)
    flat = Geometry.from_panels([Panel((0, 0, 0.1), (0, 1e-4, 0), (1e-4, 0, 0), (3, 3))])
    with pytest.raises(DataError, match="shape"):
        locate_pixels(flat, [0.0, 1.0], [0.0])
    with pytest.raises(DataError, match="real numbers"):
        locate_pixels(flat, ["a"], ["b"])
